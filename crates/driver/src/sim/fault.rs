//! What goes wrong on a simulated device, and at which call: deterministic, so that a failing run can be run again.

use std::time::Duration;

/// A call of the driver, as faults and counts know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// [`Driver::memory_info`](crate::Driver::memory_info).
    MemoryInfo,
    /// [`Driver::allocate`](crate::Driver::allocate).
    Allocate,
    /// [`Driver::free`](crate::Driver::free).
    Free,
    /// [`Driver::pin`](crate::Driver::pin).
    Pin,
    /// [`Driver::unpin`](crate::Driver::unpin).
    Unpin,
    /// [`Driver::create_stream`](crate::Driver::create_stream).
    CreateStream,
    /// [`Driver::destroy_stream`](crate::Driver::destroy_stream).
    DestroyStream,
    /// [`Driver::synchronize_stream`](crate::Driver::synchronize_stream).
    SynchronizeStream,
    /// [`Driver::create_event`](crate::Driver::create_event).
    CreateEvent,
    /// [`Driver::destroy_event`](crate::Driver::destroy_event).
    DestroyEvent,
    /// [`Driver::record`](crate::Driver::record).
    Record,
    /// [`Driver::stream_wait`](crate::Driver::stream_wait).
    StreamWait,
    /// [`Driver::query`](crate::Driver::query).
    Query,
    /// [`Driver::synchronize_event`](crate::Driver::synchronize_event).
    SynchronizeEvent,
    /// [`Driver::elapsed`](crate::Driver::elapsed).
    Elapsed,
    /// [`Driver::copy`](crate::Driver::copy), and each copy of [`Driver::copy_batch`](crate::Driver::copy_batch).
    Copy,
    /// [`Driver::copy_batch`](crate::Driver::copy_batch) itself, before its first copy.
    CopyBatch,
    /// [`Driver::memset`](crate::Driver::memset).
    Memset,
    /// [`Driver::busy`](crate::Driver::busy).
    Busy,
    /// [`Driver::copy_scattered`](crate::Driver::copy_scattered), with all of its copies.
    CopyScattered,
    /// [`Driver::convert`](crate::Driver::convert).
    Convert,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 21] = [
        Self::MemoryInfo,
        Self::Allocate,
        Self::Free,
        Self::Pin,
        Self::Unpin,
        Self::CreateStream,
        Self::DestroyStream,
        Self::SynchronizeStream,
        Self::CreateEvent,
        Self::DestroyEvent,
        Self::Record,
        Self::StreamWait,
        Self::Query,
        Self::SynchronizeEvent,
        Self::Elapsed,
        Self::Copy,
        Self::CopyBatch,
        Self::Memset,
        Self::Busy,
        Self::CopyScattered,
        Self::Convert,
    ];

    /// Whether the call only gives something back. Such a call fails only with the device.
    fn gives_back(self) -> bool {
        matches!(
            self,
            Self::Free | Self::Unpin | Self::DestroyStream | Self::DestroyEvent
        )
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails with [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory).
    OutOfMemory,
    /// The call fails with [`ErrorKind::PinLimit`](crate::ErrorKind::PinLimit).
    PinLimit,
    /// The call fails with [`ErrorKind::Refused`](crate::ErrorKind::Refused), and has done nothing.
    Refused,
    /// The call succeeds, and the copy fails later with [`ErrorKind::CopyFailed`](crate::ErrorKind::CopyFailed).
    CopyFailed,
    /// The call succeeds, and the copy starts this much later than it could.
    Late(Duration),
    /// The device is lost: this call and all later ones fail with [`ErrorKind::DeviceLost`](crate::ErrorKind::DeviceLost),
    /// what was enqueued is abandoned, whoever waits for it wakes with that error.
    DeviceLost,
}

impl Fault {
    /// Every fault, with `late` for [`Fault::Late`].
    #[must_use]
    pub fn all(late: Duration) -> [Self; 6] {
        [
            Self::OutOfMemory,
            Self::PinLimit,
            Self::Refused,
            Self::CopyFailed,
            Self::Late(late),
            Self::DeviceLost,
        ]
    }

    /// Whether this can go wrong at `step`: loss anywhere, a refusal at all but what only gives something back, the
    /// others where they make sense.
    #[must_use]
    pub fn applies_to(self, step: Step) -> bool {
        match self {
            Self::OutOfMemory => matches!(step, Step::Allocate | Step::CreateStream | Step::CreateEvent),
            Self::PinLimit => step == Step::Pin,
            Self::Refused => !step.gives_back(),
            Self::CopyFailed | Self::Late(_) => {
                matches!(
                    step,
                    Step::Copy | Step::CopyScattered | Step::Memset | Step::Convert
                )
            }
            Self::DeviceLost => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    step: Step,
    first: u64,
    times: u64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Chance {
    seed: u64,
    probability: f64,
}

/// Which calls of a device go wrong, and how. A call is named by its [`Step`] and its number among the calls of that
/// step, counted from 0 since the plan was put in place.
///
/// ```
/// use pinlane_driver::sim::{DeviceConfig, Fault, FaultPlan, Machine, Step};
/// use pinlane_driver::ErrorKind;
///
/// let faults = FaultPlan::new().at(Step::Allocate, 1, Fault::OutOfMemory);
/// let device = Machine::new(DeviceConfig { faults, ..DeviceConfig::default() }).device(0)?;
/// let first = device.allocate(4096)?;
/// assert_eq!(device.allocate(4096).unwrap_err().kind(), ErrorKind::OutOfMemory);
/// # unsafe { device.free(first, 4096)? };
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    rules: Vec<Rule>,
    chance: Option<Chance>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Each call fails with `probability`, with a fault that [applies](Fault::applies_to) to it and that the device
    /// survives. Which calls and faults depends only on `seed` and on the call's step and number.
    #[must_use]
    pub fn seeded(seed: u64, probability: f64) -> Self {
        Self {
            rules: Vec::new(),
            chance: Some(Chance { seed, probability }),
        }
    }

    /// Adds: the `nth` call of `step` meets `fault`.
    ///
    /// # Panics
    ///
    /// When the fault does not [apply](Fault::applies_to) to the step.
    #[must_use]
    pub fn at(self, step: Step, nth: u64, fault: Fault) -> Self {
        self.repeated(step, nth, 1, fault)
    }

    /// Adds: the `nth` call of `step` and those after it, `times` in all, meet `fault`. `u64::MAX` for all from there.
    ///
    /// # Panics
    ///
    /// When the fault does not [apply](Fault::applies_to) to the step.
    #[must_use]
    pub fn repeated(mut self, step: Step, nth: u64, times: u64, fault: Fault) -> Self {
        assert!(fault.applies_to(step), "{fault:?} can't happen at {step:?}");
        self.rules.push(Rule {
            step,
            first: nth,
            times,
            fault,
        });
        self
    }

    /// What the call of `step` with this number meets. The first rule that matches wins; chance comes after the rules.
    fn fault(&self, step: Step, nth: u64) -> Option<Fault> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.step == step && nth >= rule.first && nth - rule.first < rule.times);
        rule.map(|rule| rule.fault)
            .or_else(|| self.chance.and_then(|chance| chance.fault(step, nth)))
    }
}

impl Chance {
    fn fault(self, step: Step, nth: u64) -> Option<Fault> {
        let dice = splitmix(splitmix(self.seed ^ splitmix(step as u64)) ^ nth);
        // The upper 53 bits as a number from 0 up to 1.
        if (dice >> 11) as f64 / (1_u64 << 53) as f64 >= self.probability {
            return None;
        }
        let dice = splitmix(dice);
        let survivable: Vec<Fault> = Fault::all(Duration::from_micros(dice % 500))
            .into_iter()
            .filter(|fault| *fault != Fault::DeviceLost && fault.applies_to(step))
            .collect();
        let choice = (dice >> 32) as usize % survivable.len().max(1);
        survivable.get(choice).copied()
    }
}

/// One step of the splitmix64 generator: the state, moved on and mixed.
fn splitmix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A plan at work: how often each step was called since it was put in place.
#[derive(Debug)]
pub(super) struct Faults {
    plan: FaultPlan,
    calls: [u64; Step::ALL.len()],
}

impl Faults {
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self {
            plan,
            calls: [0; Step::ALL.len()],
        }
    }

    /// Counts a call and says what it meets.
    pub(super) fn call(&mut self, step: Step) -> Option<Fault> {
        let nth = self.calls[step as usize];
        self.calls[step as usize] += 1;
        self.plan.fault(step, nth)
    }

    pub(super) fn calls(&self, step: Step) -> u64 {
        self.calls[step as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_listed_in_the_order_of_their_numbers() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
        }
    }

    #[test]
    fn a_rule_meets_only_its_calls() {
        let mut faults = Faults::new(FaultPlan::new().repeated(Step::Copy, 1, 2, Fault::CopyFailed));
        let met: Vec<_> = (0..4).map(|_| faults.call(Step::Copy).is_some()).collect();
        assert_eq!(met, [false, true, true, false]);
        assert_eq!(faults.call(Step::Pin), None);
        assert_eq!((faults.calls(Step::Copy), faults.calls(Step::Pin)), (4, 1));
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed_and_never_loses_the_device() {
        let draw = |seed| {
            let mut faults = Faults::new(FaultPlan::seeded(seed, 0.3));
            Step::ALL
                .into_iter()
                .flat_map(|step| (0..50).map(move |_| step))
                .map(|step| faults.call(step).inspect(|fault| assert!(fault.applies_to(step))))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(!draw(7).contains(&Some(Fault::DeviceLost)));
        let hits = draw(7).iter().flatten().count();
        assert!(
            (100..400).contains(&hits),
            "{hits} of 950 calls at a probability of 0.3"
        );
    }
}
