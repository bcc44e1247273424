//! The engine of one device: what its lanes share.

use pinlane_driver::{
    Driver, Stream,
    sync::{Arc, Mutex, lock},
};

use super::{
    ahead::Ahead,
    leaks::Leaks,
    mark::{Events, LaneStream},
    queue::Queues,
    reactor::Reactor,
};
use crate::{
    Error, Profile, Result,
    memory::{pool::PinnedPool, slots::Slots},
};

/// What lanes share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) pool: Arc<PinnedPool>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) queues: Queues,
    pub(crate) profile: Profile,
    pub(crate) leaks: Arc<Leaks>,
    pub(crate) reactor: Reactor,
    /// Slots of transfers that come after an event.
    pub(crate) ahead: Arc<Ahead>,
    events: Arc<Events>,
    /// Streams for callers who do their own small work.
    spare: Mutex<Vec<Arc<LaneStream>>>,
    /// Streams with nothing in flight, for callers who wait for the whole stream.
    quiet: Mutex<Vec<Arc<LaneStream>>>,
}

impl Engine {
    /// An engine with `slots` slots of the profile's size, out of a pinned budget.
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        profile: Profile,
        pool: Arc<PinnedPool>,
        slots: usize,
    ) -> Self {
        Self {
            slots: Arc::new(Slots::new(&pool, profile.slot_bytes, slots)),
            driver,
            pool,
            queues: Queues::default(),
            profile,
            leaks: Arc::default(),
            reactor: Reactor::default(),
            ahead: Arc::default(),
            events: Arc::default(),
            spare: Mutex::default(),
            quiet: Mutex::default(),
        }
    }

    /// A stream of its own for a lane.
    pub(crate) fn new_stream(&self) -> Result<Arc<LaneStream>> {
        let stream =
            Stream::new(&self.driver).map_err(|source| Error::driver("making a lane's stream", source))?;
        Ok(LaneStream::new(stream, Arc::clone(&self.events)))
    }

    /// A stream for a caller who does a job on its own thread.
    pub(crate) fn take_spare_stream(&self) -> Result<Arc<LaneStream>> {
        let known = lock(&self.spare).pop();
        known.map_or_else(|| self.new_stream(), Ok)
    }

    /// Takes a spare stream back.
    pub(crate) fn put_spare_stream(&self, stream: Arc<LaneStream>) {
        lock(&self.spare).push(stream);
    }

    /// A stream with nothing in flight.
    pub(crate) fn take_quiet_stream(&self) -> Result<Arc<LaneStream>> {
        let known = lock(&self.quiet).pop();
        known.map_or_else(|| self.new_stream(), Ok)
    }

    /// Takes a quiet stream back, once everything on it is done.
    pub(crate) fn put_quiet_stream(&self, stream: Arc<LaneStream>) {
        lock(&self.quiet).push(stream);
    }
}
