//! The jobs behind one transfer's handle, and their end: landed by the handle, or retired when it is dropped. Those that
//! borrow their sources, for `'a`, are landed whatever happens: they are waited for where they would be retired.
//!
//! In a forked child both end in nothing: the threads that settle the jobs are not there, their locks may be held for ever,
//! and what they keep is the parent's. So jobs are not looked at there, nor let go.

use std::{marker::PhantomData, mem, task::Context};

use pinlane_driver::{Stream, fork, sync::Arc};

use super::{
    job::Job,
    plan::Plan,
    reactor::{Duty, retire},
};
use crate::{
    Device, Error, Result, Tensor, error::Failure, memory::storage::Landing, trace::span::engine_span,
};

/// Jobs on their way. A tree whose tensors come from several devices has several.
#[derive(Debug)]
pub(crate) struct Flights<'a> {
    jobs: Vec<Flight>,
    /// Whether a job may have its sources no longer than `'a`.
    borrow: bool,
    sources: PhantomData<&'a Tensor>,
    /// What went wrong beside the jobs.
    failed: Option<Failure>,
    /// Of tensors that existed before: to be set when everything has landed.
    landing: Option<Arc<Landing>>,
}

#[derive(Debug)]
struct Flight {
    device: Device,
    job: Arc<Job>,
}

impl Flights<'_> {
    /// None yet; with `borrow`, of jobs that have their sources for `'a` and no longer.
    pub(crate) fn new(borrow: bool) -> Self {
        Self {
            jobs: Vec::new(),
            borrow,
            sources: PhantomData,
            failed: None,
            landing: None,
        }
    }

    /// Adds a job that is about to be started.
    pub(crate) fn push(&mut self, device: &Device, job: &Arc<Job>) {
        self.jobs.push(Flight {
            device: device.clone(),
            job: Arc::clone(job),
        });
    }

    /// Records an error of what is done beside the jobs; [`land`](Self::land) tells it.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failed.get_or_insert(failure);
    }

    /// Has `landing` set when everything has landed.
    pub(crate) fn then_set(&mut self, landing: &Arc<Landing>) {
        self.landing = Some(Arc::clone(landing));
    }

    /// Has the caller, who is about to wait, work on the jobs too.
    pub(crate) fn help(&self) {
        if fork::is_child() {
            return;
        }
        for flight in &self.jobs {
            if let Some(accelerator) = flight.device.accelerator() {
                accelerator.running.help(&flight.job);
            }
        }
    }

    /// Whether [`land`](Self::land) would not block.
    pub(crate) fn have_landed(&self) -> bool {
        fork::is_child() || self.jobs.iter().all(|flight| flight.job.has_landed())
    }

    /// An error in a forked child, if there are jobs.
    fn refuse_in_child(&self, doing: &str) -> Result<()> {
        self.jobs.iter().try_for_each(|Flight { device, .. }| {
            device
                .id()
                .map_or(Ok(()), fork::refuse_in_child)
                .map_err(|source| Error::driver(doing, source))
        })
    }

    /// Blocks until every job has landed, and tells the first error.
    pub(crate) fn land(&mut self) -> Result<(), Failure> {
        self.refuse_in_child("waiting for a transfer")?;
        let mut landed = self.failed.take().map_or(Ok(()), Err);
        for Flight { job, .. } in &self.jobs {
            let _span = engine_span!("wait", job.plan.bytes());
            landed = landed.and(job.land());
        }
        self.jobs.clear();
        if let (Ok(()), Some(landing)) = (&landed, self.landing.take()) {
            landing.set();
        }
        landed
    }

    /// Whether every job has landed; if not, the task is woken when that may have changed.
    pub(crate) fn poll_landed(&self, context: &Context<'_>) -> bool {
        if fork::is_child() {
            return true;
        }
        let mut all = true;
        for flight in &self.jobs {
            if flight.job.has_landed() {
                continue;
            }
            all = false;
            if flight.job.set_waker(context.waker()) {
                watch(&flight.device, &flight.job, Duty::Wake);
            }
        }
        all
    }

    /// Blocks until every job has filled its slots; says whether none has failed by then.
    pub(crate) fn wait_settled(&self) -> bool {
        if fork::is_child() {
            return self.jobs.is_empty() && self.failed.is_none();
        }
        self.jobs.iter().for_each(|flight| flight.job.wait_settled());
        self.failed.is_none() && !self.jobs.iter().any(|flight| flight.job.is_cancelled())
    }

    /// Makes `stream` wait for every job.
    pub(crate) fn fence(&self, stream: &Stream) -> Result<()> {
        self.refuse_in_child("fencing a stream behind a transfer")?;
        self.jobs.iter().try_for_each(|flight| flight.job.fence(stream))
    }

    /// How each job goes.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.jobs.iter().map(|flight| &flight.job.plan)
    }
}

impl Drop for Flights<'_> {
    /// Abandons what is not under way, and leaves the rest to the reactor, or waits for it.
    fn drop(&mut self) {
        if fork::is_child() {
            return mem::forget(mem::take(&mut self.jobs));
        }
        for flight in self.jobs.drain(..) {
            flight.job.cancel();
            if self.borrow {
                retire(&flight.job);
            } else {
                watch(&flight.device, &flight.job, Duty::Retire);
            }
        }
    }
}

/// Has the reactor of the job's device do a duty.
fn watch(device: &Device, job: &Arc<Job>, duty: Duty) {
    if let Some(accelerator) = device.accelerator() {
        accelerator.running.watch(job, duty, Arc::clone(accelerator) as _);
    }
}
