//! How bytes are moved: the handle a caller holds, and what works behind it.
//!
//! - [`Transfer`]: the handle; [`options`]: what a caller may choose; [`route`]: the ways there are.
//! - [`request`] turns a tree and a destination into jobs. Its tensors are [`sorted`] by the way they go. [`sources`] knows where
//!   they come from; [`results`] is memory for where they go, or [`into`] says what of them exists. [`plan`] decides how each
//!   job's bytes go, by the [`means`] of the engine. [`outputs`] are the results in the order of the tree.
//! - [`on_host`] copies within the host's memory, for [`into`] and [`pin`].
//! - [`pieces`] are memory of others, moved by its addresses.
//! - [`write`] turns tensors and places in files into jobs that write.
//! - [`short`] is the way of one small tensor, without all that.
//! - [`engine`] is what [`lane`]s share, [`running`] the threads: lanes claim chunks of [`job`]s from the [`queue`]; a
//!   [`mark`] is a point in a stream after which the device is done with a chunk. [`kept`] are a job's sources.
//! - [`flights`] are the jobs behind one handle; [`ahead`] are the slots of those that wait for an event.
//! - [`reactor`] looks after what nobody blocks on; [`leaks`] counts what a lost device may still use.

mod ahead;
pub(crate) mod convert;
pub(crate) mod engine;
pub(crate) mod flights;
pub(crate) mod into;
pub(crate) mod job;
mod kept;
pub(crate) mod lane;
pub(crate) mod leaks;
pub(crate) mod mark;
mod means;
mod on_host;
pub(crate) mod options;
pub(crate) mod outputs;
pub(crate) mod pieces;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod queue;
pub(crate) mod reactor;
pub(crate) mod request;
pub(crate) mod results;
pub(crate) mod route;
pub(crate) mod running;
pub(crate) mod short;
mod sorted;
pub(crate) mod sources;
pub(crate) mod write;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pinlane_driver::Stream;

use crate::{Result, Tree};
use flights::Flights;
pub use options::TransferOptions;
pub use pieces::Pieces;
pub use plan::{Alternative, Direction, Explanation, HostEnd, Plan, Workload};
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
pub struct Transfer<T> {
    flights: Flights<'static>,
    /// What the result calls a tensor, in errors.
    name: fn(&T, usize) -> String,
    /// There until the result is given out. Not shown to anyone before.
    output: Option<T>,
}

impl<T> Transfer<T> {
    /// The transfer whose jobs fill what `output` shows.
    pub(crate) fn new(flights: Flights<'static>, output: T) -> Self
    where
        T: Tree,
    {
        Self {
            flights,
            name: T::path,
            output: Some(output),
        }
    }

    /// Blocks until the tree has landed, and gives it.
    ///
    /// # Errors
    ///
    /// The first thing that failed: a driver's error, a file's. Nothing of the result exists then, and everything that
    /// the transfer held is let go, except what a lost device may still use. In a process forked from the one that started
    /// the transfer, an error of kind [`Forked`](pinlane_driver::ErrorKind::Forked): the bytes move in the other alone.
    pub fn wait(mut self) -> Result<T> {
        self.land()
    }

    /// Whether [`wait`](Self::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.flights.have_landed()
    }

    /// Makes work that is enqueued on `stream` from now on start only when the tree has landed. Blocks the host while
    /// slots are filled (and, for bytes to the host, emptied), not while the link works.
    ///
    /// # Errors
    ///
    /// What the driver says; the stream may then be behind some of the copies.
    pub fn fence(&self, stream: &Stream) -> Result<()> {
        self.flights.fence(stream)
    }

    /// Blocks until every source that goes through a slot has been read: pageable memory, strided memory, files. Sources that
    /// the device reads by itself (pinned memory, memory of a device) are read when the transfer has landed, not before.
    ///
    /// Says whether all has gone well so far. If not, [`wait`](Self::wait) returns soon, with the error.
    #[must_use = "after a failure the sources may be unread, and the results will not come"]
    pub fn wait_staged(&self) -> bool {
        self.flights.wait_settled()
    }

    /// Has the caller, who is about to wait, take a lane's part in what no lane has begun.
    pub fn help(&self) {
        self.flights.help();
    }

    /// How each part of the transfer goes, and why.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.flights.plans()
    }

    fn land(&mut self) -> Result<T> {
        let landed = self.flights.land();
        // Called by `wait`, which consumes the handle, and by the poll that is the last.
        let output = self.output.take().expect("a transfer gives its result once");
        match landed {
            Ok(()) => Ok(output),
            Err(failure) => Err(failure.named(|leaf| (self.name)(&output, leaf))),
        }
    }
}

impl<T> Unpin for Transfer<T> {}

impl<T> Future for Transfer<T> {
    type Output = Result<T>;

    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.flights.poll_landed(context) {
            Poll::Ready(self.land())
        } else {
            Poll::Pending
        }
    }
}

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}
