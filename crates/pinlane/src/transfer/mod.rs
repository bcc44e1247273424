//! How bytes are moved: the handle a caller holds, and what works behind it.
//!
//! - [`Transfer`]: the handle; [`options`]: what a caller may choose; [`route`]: the ways there are.
//! - [`request`] turns a tree and a destination into jobs; [`plan`] decides how each job's bytes go.
//! - [`engine`] runs jobs with [`lane`]s that claim chunks from the [`queue`]; [`job`] is what they share with the
//!   handle; a [`mark`] is a point in a stream after which the device is done with a chunk.
//! - [`reactor`] looks after what nobody blocks on; [`leaks`] counts what a lost device may still use.

pub(crate) mod engine;
pub(crate) mod file;
pub(crate) mod job;
pub(crate) mod lane;
pub(crate) mod leaks;
pub(crate) mod mark;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod queue;
pub(crate) mod reactor;
pub(crate) mod request;
pub(crate) mod route;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pinlane_driver::{Stream, sync::Arc};

use crate::{Device, Result, Tree};
use job::Job;
pub use options::TransferOptions;
pub use plan::{Direction, Plan};
use reactor::Duty;
pub use route::{Placement, Route};

/// A tree on its way. Gives the result when it has landed, and not before.
///
/// It owns what the copies need: sources can't change, and memory is not freed, while the device may use them. Drop it
/// at any moment: what is not yet under way is abandoned, and what is keeps its memory until the device is done.
///
/// A transfer is a [`Future`] too. Dropping that future, in a `select!` for instance, is the same as dropping the
/// transfer.
///
/// ```
/// use pinlane::{DType, Device, Tensor, Tree};
///
/// let device = Device::open("sim:0")?;
/// let batch = Tensor::randn(DType::F32, &[256, 256], 1)?;
/// let transfer = batch.transfer(&device)?;
/// // ... work that does not need the batch on the device ...
/// let there = transfer.wait()?;
/// assert_eq!(there.device(), device);
/// # Ok::<(), pinlane::Error>(())
/// ```
///
/// The result can't be read before it has landed, because there is nothing to read it from:
///
/// ```compile_fail
/// # use pinlane::{DType, Device, Tensor, Tree};
/// # let tensor = Tensor::zeros(DType::F32, &[4])?;
/// let transfer = tensor.transfer(&Device::open("sim:0")?)?;
/// let early = transfer.to_vec::<f32>()?; // a Transfer has no elements
/// # Ok::<(), pinlane::Error>(())
/// ```
#[must_use = "a transfer that is dropped is abandoned: wait for it, await it, or keep it"]
pub struct Transfer<T: Tree> {
    flights: Vec<Flight>,
    /// There until the result is given out. Not shown to anyone before.
    output: Option<T>,
}

/// One job of a transfer. A tree whose tensors come from several devices has several.
struct Flight {
    device: Device,
    job: Arc<Job>,
}

impl<T: Tree> Transfer<T> {
    pub(crate) fn new(jobs: Vec<(Device, Arc<Job>)>, output: T) -> Self {
        let flights = jobs
            .into_iter()
            .map(|(device, job)| Flight { device, job })
            .collect();
        Self {
            flights,
            output: Some(output),
        }
    }

    /// Blocks until the tree has landed, and gives it.
    ///
    /// # Errors
    ///
    /// The first thing that failed: a driver's error, a file's. Nothing of the result exists then, and everything that
    /// the transfer held is let go, except what a lost device may still use.
    pub fn wait(mut self) -> Result<T> {
        self.land()
    }

    /// Whether [`wait`](Self::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.flights.iter().all(|flight| flight.job.has_landed())
    }

    /// Makes work that is enqueued on `stream` from now on start only when the tree has landed. Blocks the host while
    /// slots are filled (and, for bytes to the host, emptied), not while the link works.
    ///
    /// # Errors
    ///
    /// What the driver says; the stream may then be behind some of the copies.
    pub fn fence(&self, stream: &Stream) -> Result<()> {
        self.flights
            .iter()
            .try_for_each(|flight| flight.job.fence(stream))
    }

    /// How each part of the transfer goes, and why.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.flights.iter().map(|flight| &flight.job.plan)
    }

    fn land(&mut self) -> Result<T> {
        let mut failure = None;
        for flight in std::mem::take(&mut self.flights) {
            let _span = tracing::debug_span!("wait", bytes = flight.job.plan.bytes()).entered();
            if let Err(error) = flight.job.land() {
                failure.get_or_insert(error);
            }
        }
        // `land` is called by `wait`, which consumes the handle, and by a poll that is the last.
        let output = self.output.take().expect("a transfer gives its result once");
        failure.map_or(Ok(output), Err)
    }
}

impl<T: Tree> Unpin for Transfer<T> {}

impl<T: Tree> Future for Transfer<T> {
    type Output = Result<T>;

    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut ready = true;
        for flight in &self.flights {
            if flight.job.has_landed() {
                continue;
            }
            ready = false;
            if flight.job.set_waker(context.waker()) {
                flight.device.watch(&flight.job, Duty::Wake);
            }
        }
        if ready {
            Poll::Ready(self.land())
        } else {
            Poll::Pending
        }
    }
}

impl<T: Tree> Drop for Transfer<T> {
    fn drop(&mut self) {
        for flight in self.flights.drain(..) {
            flight.job.cancel();
            flight.device.watch(&flight.job, Duty::Retire);
        }
    }
}

impl<T: Tree> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Looks after a job that nobody blocks on: at once where it has landed, else by the reactor.
    fn watch(&self, job: &Arc<Job>, duty: Duty) {
        match self.accelerator() {
            Some(accelerator) if !job.has_landed() => accelerator.running.watch(job, duty),
            _ => reactor::perform(job, duty),
        }
    }
}
