//! A copy that its caller waits for: two steps of the thread, which are the device's span as well.
//!
//! Small copies take six microseconds. So one is written down at once, with three looks at the clock; a session makes of it what
//! it has to tell.

use pinlane_driver::{
    Address, Driver, MemCopy, fork,
    sync::{Arc, Instant},
};
use tracing::span::EnteredSpan;

use super::{
    device::{Identity, LoneCopy, Work},
    log::{self, Record, Step},
};
use crate::{Direction, Route};

/// A copy that is being enqueued; told to sessions and to `tracing`.
pub(crate) struct Enqueuing {
    bytes: u64,
    /// While a session is open.
    begun: Option<Instant>,
    entered: EnteredSpan,
}

/// The same while it is waited for.
pub(crate) struct Waiting {
    bytes: u64,
    /// When it began, and when it was enqueued.
    since: Option<(Instant, Instant)>,
    _entered: EnteredSpan,
}

/// A copy that was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    pub(super) begun: Instant,
    enqueued: Instant,
    pub(super) end: Instant,
    bytes: u64,
    /// What was copied where, and what became of it; where it was enqueued, and a session asks devices. A record keeps no device
    /// open.
    on_device: Option<(Identity, Direction, Became)>,
}

/// What became of a copy that was enqueued.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Became {
    Landed(Route),
    Failed,
}

impl Enqueuing {
    /// So many bytes are about to be handed to the driver.
    #[inline]
    pub(crate) fn begin(bytes: usize) -> Self {
        let bytes = bytes as u64;
        let is_wanted = super::steps_are_wanted() && !fork::is_child();
        Self {
            bytes,
            begun: is_wanted.then(Instant::now),
            entered: tracing::debug_span!("copy", bytes).entered(),
        }
    }

    /// The driver has taken them, or refused.
    #[inline]
    pub(crate) fn wait(self) -> Waiting {
        let Self {
            bytes,
            begun,
            entered,
        } = self;
        drop(entered);
        Waiting {
            bytes,
            since: begun.map(|begun| (begun, Instant::now())),
            _entered: tracing::debug_span!("wait", bytes).entered(),
        }
    }
}

impl Waiting {
    /// They have been waited for; `became` says how that went, where they were enqueued.
    #[inline]
    pub(crate) fn end(self, driver: &Arc<dyn Driver>, copy: &MemCopy, became: Option<Became>) {
        if let Some((begun, enqueued)) = self.since {
            let asked = became.filter(|_| super::devices_are_wanted());
            log::write(Record::Copy(Waited {
                begun,
                enqueued,
                end: Instant::now(),
                bytes: self.bytes,
                on_device: asked.map(|became| (Identity::of(driver.properties()), direction(copy), became)),
            }));
        }
    }
}

fn direction(copy: &MemCopy) -> Direction {
    match (copy.src, copy.dst) {
        (Address::Host(_), _) => Direction::ToDevice,
        (_, Address::Host(_)) => Direction::ToHost,
        _ => Direction::OnDevice,
    }
}

impl Waited {
    /// The steps of its thread.
    pub(super) fn steps(&self) -> [Step; 2] {
        let step = |name, begin, end| Step {
            end,
            ..Step::new(name, Some(self.bytes), begin)
        };
        [
            step("copy", self.begun, self.enqueued),
            step("wait", self.enqueued, self.end),
        ]
    }

    /// What its device has of it.
    pub(super) fn on_device(&self) -> Option<LoneCopy> {
        let (device, direction, became) = self.on_device?;
        let route = match became {
            Became::Landed(route) => Some(route),
            Became::Failed => None,
        };
        Some(LoneCopy {
            device,
            work: route.map(|route| Work {
                direction,
                bytes: self.bytes,
                route,
                lane: None,
                by_kernel: false,
            }),
            begun: self.begun,
            end: self.end,
        })
    }
}
