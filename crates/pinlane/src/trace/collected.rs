//! What a session has collected.

use std::{fmt, io};

use pinlane_driver::{
    Properties,
    sync::{Duration, Instant},
};

use super::{operations::OperationTable, write};
use crate::{Direction, Route, units};

/// A step of a thread. Times count from the beginning of the session.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HostSpan {
    /// What it is: the engine's `plan`, `allocate`, `fill`, `copy` and `wait`, or the program's own word.
    pub name: &'static str,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// The bytes that it is about, where it says.
    pub bytes: Option<u64>,
    /// The route that they go, where it says.
    pub route: Option<&'static str>,
    /// The lane that the thread drives, where it drives one. The number after the lanes' is a caller's own.
    pub lane: Option<u32>,
}

impl HostSpan {
    pub(super) fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start).as_secs_f64()
    }
}

/// The steps of one thread, in the order in which they ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Thread {
    /// The system's number of the thread.
    pub number: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What it did.
    pub spans: Vec<HostSpan>,
}

/// Which part of a device is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// The copy engine for what comes from the host.
    ToDevice,
    /// The copy engine for what goes to the host.
    ToHost,
    /// What copies within the device and between devices.
    OnDevice,
    /// The processors, where a kernel copies.
    Kernel,
}

impl EngineKind {
    pub(super) const ALL: [Self; 4] = [Self::ToDevice, Self::ToHost, Self::OnDevice, Self::Kernel];

    pub(super) fn of(direction: Direction, by_kernel: bool) -> Self {
        match direction {
            _ if by_kernel => Self::Kernel,
            Direction::ToDevice => Self::ToDevice,
            Direction::ToHost => Self::ToHost,
            Direction::OnDevice => Self::OnDevice,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ToDevice => "copy engine to the device",
            Self::ToHost => "copy engine to the host",
            Self::OnDevice => "copies on the device",
            Self::Kernel => "copy kernels",
        })
    }
}

/// Whose clock told when a copy of a device's was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimedBy {
    /// The device's, by an event behind the copy.
    Device,
    /// The host's, when its caller saw it done: an event for so short a copy would take longer than that.
    Host,
    /// Nobody's: the link can't have carried it sooner. The device was not asked, since the next copy was to follow at once, and
    /// did not.
    Link,
}

impl TimedBy {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Link => "link",
        }
    }
}

/// Copies of pinlane's, one behind the other: from when their engine began with the first to when it was done with the last.
/// While one follows another, those of a millisecond are timed together, since every look at a device's clock
/// holds its copies up. Times count from the beginning of the session. What the driver copies by itself in several parts
/// (pageable memory) counts as one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceSpan {
    /// The part of the device that was busy. Copies of one part do not overlap.
    pub engine: EngineKind,
    /// When the first began.
    pub start: Duration,
    /// When the last ended.
    pub end: Duration,
    /// How many copies, or batches of copies.
    pub copies: u32,
    /// What they copied.
    pub bytes: u64,
    /// The route of these bytes, where it is one.
    pub route: Option<Route>,
    /// The lane that enqueued them, where it is one; a caller has none where it takes the short way.
    pub lane: Option<u32>,
    /// Whose clock told its end.
    pub timed_by: TimedBy,
}

/// What one device did for pinlane.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TracedDevice {
    /// The device.
    pub properties: Properties,
    /// Its copies, in the order in which they ended.
    pub spans: Vec<DeviceSpan>,
    /// Copies whose times are not known: they failed, were still under way, or there was no room.
    pub missed: u64,
}

impl TracedDevice {
    /// When the device was busy with any copy of pinlane's: apart from each other, in order.
    #[must_use]
    pub fn busy(&self) -> Vec<(Duration, Duration)> {
        let mut spans: Vec<_> = self.spans.iter().map(|span| (span.start, span.end)).collect();
        spans.sort_unstable();
        let mut busy: Vec<(Duration, Duration)> = Vec::new();
        for (start, end) in spans {
            match busy.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => busy.push((start, end)),
            }
        }
        busy
    }

    /// How long that was in all.
    #[must_use]
    pub fn busy_time(&self) -> Duration {
        self.busy()
            .iter()
            .map(|(start, end)| end.saturating_sub(*start))
            .sum()
    }
}

/// What a [session](super::Session) has collected.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub(super) length: Duration,
    pub(super) threads: Vec<Thread>,
    pub(super) devices: Vec<TracedDevice>,
    pub(super) dropped: u64,
}

impl Trace {
    pub(super) fn new(
        began: Instant,
        ended: Instant,
        threads: Vec<Thread>,
        devices: Vec<TracedDevice>,
        dropped: u64,
    ) -> Self {
        Self {
            length: ended.saturating_duration_since(began),
            threads,
            devices,
            dropped,
        }
    }

    pub(super) fn empty(began: Instant, ended: Instant) -> Self {
        Self::new(began, ended, Vec::new(), Vec::new(), 0)
    }

    /// How long the session was open.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What each thread did.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// What each device did.
    #[must_use]
    pub fn devices(&self) -> &[TracedDevice] {
        &self.devices
    }

    /// How many spans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let host: usize = self.threads.iter().map(|thread| thread.spans.len()).sum();
        let device: usize = self.devices.iter().map(|device| device.spans.len()).sum();
        host + device
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Steps for which there was no room: a thread keeps a million.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Calls the thread of that number `name`, where it has no name of its own.
    pub fn name_thread(&mut self, number: u32, name: &str) {
        for thread in &mut self.threads {
            if thread.number == number && thread.name.is_none() {
                thread.name = Some(name.to_owned());
            }
        }
    }

    /// The steps of all threads, summed up by name.
    #[must_use]
    pub fn operations(&self) -> OperationTable {
        OperationTable::of(&self.threads)
    }

    /// The table of operations, and how busy each device was.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }

    /// Writes it in the Trace Event Format, which <https://ui.perfetto.dev> and `chrome://tracing` open: a row for each thread,
    /// for each engine of a device, and for when the device was busy.
    ///
    /// # Errors
    ///
    /// What `writer` says.
    pub fn write_to(&self, writer: impl io::Write) -> io::Result<()> {
        write::write(self, writer)
    }
}

/// A [`Trace`] for people; see [`Trace::summary`].
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(&'a Trace);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(trace) = self;
        write!(f, "{}", trace.operations())?;
        let traced = trace.length.as_secs_f64();
        for device in &trace.devices {
            let busy = device.busy_time().as_secs_f64();
            write!(
                f,
                "\n{} ({}): copying for {} of {} ({:.1}%)",
                device.properties.id,
                device.properties.name,
                units::time(busy),
                units::time(traced),
                if traced > 0.0 { 100.0 * busy / traced } else { 0.0 },
            )?;
            for engine in EngineKind::ALL {
                let of_engine = || device.spans.iter().filter(|span| span.engine == engine);
                let bytes: u64 = of_engine().map(|span| span.bytes).sum();
                let time: Duration = of_engine().map(|span| span.end.saturating_sub(span.start)).sum();
                let count: u64 = of_engine().map(|span| u64::from(span.copies)).sum();
                if count > 0 {
                    write!(
                        f,
                        "\n  {engine}: {}, {} in {}",
                        units::counted(count, "copy", "copies"),
                        units::bytes(bytes),
                        units::time(time.as_secs_f64())
                    )?;
                    if !time.is_zero() {
                        write!(f, ", {}", units::rate(bytes, time.as_secs_f64()))?;
                    }
                }
            }
            if device.missed > 0 {
                let missed = units::counted(device.missed, "copy", "copies");
                write!(f, "\n  the times of {missed} are not known")?;
            }
            if device.properties.simulated {
                write!(f, "\n  {}", crate::SIMULATED)?;
            }
        }
        if trace.dropped > 0 {
            let dropped = units::counted(trace.dropped, "step was", "steps were");
            write!(f, "\n{dropped} left out for want of room")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn span(engine: EngineKind, start: u64, end: u64) -> DeviceSpan {
        DeviceSpan {
            engine,
            start: millis(start),
            end: millis(end),
            copies: 1,
            bytes: 1,
            route: Some(Route::Direct),
            lane: None,
            timed_by: TimedBy::Device,
        }
    }

    fn traced(spans: Vec<DeviceSpan>) -> TracedDevice {
        let device = Machine::new(DeviceConfig::default()).device(0).unwrap();
        TracedDevice {
            properties: device.properties().clone(),
            spans,
            missed: 0,
        }
    }

    #[test]
    fn a_device_is_busy_while_any_of_its_engines_is() {
        let traced = traced(vec![
            span(EngineKind::ToDevice, 1, 3),
            span(EngineKind::ToHost, 2, 5),
            span(EngineKind::ToDevice, 7, 8),
        ]);
        assert_eq!(traced.busy(), [(millis(1), millis(5)), (millis(7), millis(8))]);
        assert_eq!(traced.busy_time(), millis(5));
    }

    #[test]
    fn a_summary_has_the_right_word_for_one_and_for_several() {
        let of = |spans, missed, dropped| {
            let device = TracedDevice {
                missed,
                ..traced(spans)
            };
            let now = Instant::now();
            Trace::new(now, now, Vec::new(), vec![device], dropped)
                .summary()
                .to_string()
        };
        let one = of(vec![span(EngineKind::ToHost, 1, 2)], 1, 1);
        for expected in [": 1 copy, ", "times of 1 copy are not", "\n1 step was left out"] {
            assert!(one.contains(expected), "{expected} is missing in\n{one}");
        }
        let two = vec![span(EngineKind::ToHost, 1, 2), span(EngineKind::ToHost, 2, 3)];
        let two = of(two, 2, 2);
        for expected in [
            ": 2 copies, ",
            "times of 2 copies are not",
            "\n2 steps were left out",
        ] {
            assert!(two.contains(expected), "{expected} is missing in\n{two}");
        }
    }
}
