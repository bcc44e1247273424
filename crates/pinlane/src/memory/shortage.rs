//! What there is too little of when memory can't be pinned: less of it may be had then, and after any other error not.

use pinlane_driver::ErrorKind;

use crate::Error;

/// Something that the host, or the budget, has less of than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The memory that the system lets this process lock.
    LockedMemory,
    /// Room in the pinned budget.
    Budget,
    /// Memory of any kind.
    HostMemory,
}

impl Shortage {
    /// The shortage that made pinning fail, if it was one.
    pub(crate) fn behind(error: &Error) -> Option<Self> {
        match error {
            Error::PinnedBudget { .. } => Some(Self::Budget),
            Error::HostMemory { .. } => Some(Self::HostMemory),
            error if error.driver_kind() == Some(ErrorKind::PinLimit) => Some(Self::LockedMemory),
            _ => None,
        }
    }

    /// What to do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::LockedMemory => {
                "raise this host's limit of locked memory (`ulimit -l`, or the container's)"
            }
            Self::Budget => "set a larger pinned budget",
            Self::HostMemory => "leave more of the host's memory free",
        }
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::{Backend, DeviceId};

    use super::*;

    #[test]
    fn only_what_less_would_mend_is_a_shortage() {
        let driver = |kind| {
            let id = DeviceId {
                backend: Backend::Sim,
                ordinal: 0,
            };
            Error::driver("pinning", pinlane_driver::Error::new(kind, id, "pinning failed"))
        };
        let over_budget = Error::PinnedBudget {
            asked: 2,
            leased: 0,
            reserved: 0,
            budget: 1,
        };
        for (error, shortage) in [
            (driver(ErrorKind::PinLimit), Some(Shortage::LockedMemory)),
            (over_budget, Some(Shortage::Budget)),
            (Error::HostMemory { bytes: 1 }, Some(Shortage::HostMemory)),
            (driver(ErrorKind::Refused), None),
            (driver(ErrorKind::DeviceLost), None),
            (driver(ErrorKind::OutOfMemory), None),
        ] {
            assert_eq!(Shortage::behind(&error), shortage, "{error}");
        }
    }
}
