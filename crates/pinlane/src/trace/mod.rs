//! What a program does with its bytes, and when: for a trace to look at and a table of operations.
//!
//! A [`Session`] collects, from [`start`] to [`finish`](Session::finish), what every thread of the process does: the
//! engine's steps (plan, allocate, fill, copy, wait) and what the program [names](span()) itself. Beside that it has the
//! devices tell when they were busy with pinlane's copies. The [`Trace`] that comes of it prints the
//! [table of operations](OperationTable) and writes a file that <https://ui.perfetto.dev> and `chrome://tracing` open.
//!
//! Sessions may overlap: each gets what happened while it was open. While there is none, a step costs one relaxed load, and
//! nothing is allocated.
//!
//! - `span` is a step of a thread; each thread writes its own down (`log`), so that they do not wait for each other.
//! - `alone` is a small copy, which is a step and a device's span in one.
//! - `device` asks the devices, by events that tell the time where copies end. They are looked at when they have fired: no
//!   copy waits for its trace.
//! - [`operations`] sums the steps up; [`collected`] is what a session has collected, `write` its file.
//! - `environment`: with `PINLANE_TRACE=file.json` set, a process is traced from its first device to its exit.
//!
//! ```
//! use pinlane::{DType, Device, Tensor, Tree, trace};
//!
//! let device = Device::open("sim:0")?;
//! let session = trace::start();
//! {
//!     let _span = trace::span("my step");
//!     Tensor::zeros(DType::F32, &[1 << 20])?.to(&device)?;
//! }
//! let trace = session.finish();
//! println!("{}", trace.summary());
//! trace.write_to(Vec::new()).expect("a vector takes what is written");
//! # Ok::<(), pinlane::Error>(())
//! ```

pub(crate) mod alone;
pub mod collected;
pub(crate) mod device;
pub(crate) mod environment;
mod file;
mod log;
pub mod operations;
pub(crate) mod span;
mod write;

use pinlane_driver::{
    fork,
    sync::{
        Duration, Instant, Mutex, OnceLock, ProcessFlag,
        atomic::Ordering::{Relaxed, SeqCst},
        lock,
    },
};

use self::device::Asking;
pub use collected::{DeviceSpan, EngineKind, HostSpan, Summary, TimedBy, Trace, TracedDevice};
pub use environment::{VARIABLE, finish_process};
pub use file::TraceFile;
pub use operations::{Operation, OperationTable};
pub use span::{Span, span};

/// Whether any session is open.
static STEPS: ProcessFlag = ProcessFlag::new(false);
/// Whether any of them asks the devices.
static DEVICES: ProcessFlag = ProcessFlag::new(false);

/// Whether steps are written down.
#[inline]
fn steps_are_wanted() -> bool {
    STEPS.load(Relaxed)
}

/// Whether devices are asked.
#[inline]
fn devices_are_wanted() -> bool {
    DEVICES.load(Relaxed)
}

/// The sessions that are open.
#[derive(Default)]
struct Sessions {
    open: Vec<Open>,
    last: u64,
}

#[derive(Clone, Copy)]
struct Open {
    number: u64,
    began: Instant,
    asks_devices: bool,
}

fn sessions() -> &'static Mutex<Sessions> {
    static SESSIONS: OnceLock<Mutex<Sessions>> = OnceLock::new();
    SESSIONS.get_or_init(Mutex::default)
}

impl Sessions {
    fn tell(&self) {
        STEPS.store(!self.open.is_empty(), SeqCst);
        DEVICES.store(self.open.iter().any(|open| open.asks_devices), SeqCst);
    }
}

/// Begins to collect. Devices that are open are asked for the time once, which takes up to a few milliseconds where they are
/// busy, and stay open until no session asks any more.
pub fn start() -> Session {
    Session::start(true)
}

/// Runs `work`, and gives what it returned with the table of the operations in it, of all threads. Devices are not asked.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, OperationTable) {
    let session = Session::start(false);
    let result = work();
    (result, session.finish().operations())
}

/// Collects, from when it is made until it is finished or dropped.
#[must_use = "a session collects until it is finished or dropped"]
#[derive(Debug)]
pub struct Session {
    number: u64,
    began: Instant,
    /// Where it asks the devices.
    asking: Option<Asking>,
}

impl Session {
    fn start(asks_devices: bool) -> Self {
        if fork::is_child() {
            // The locks are the parent's.
            return Self {
                number: 0,
                began: Instant::now(),
                asking: None,
            };
        }
        let asking = asks_devices.then(Asking::begin);
        let mut sessions = lock(sessions());
        sessions.last += 1;
        let number = sessions.last;
        let began = Instant::now();
        sessions.open.push(Open {
            number,
            began,
            asks_devices,
        });
        sessions.tell();
        drop(sessions);
        let session = Self {
            number,
            began,
            asking,
        };
        if let Some(asking) = &session.asking {
            // Devices that were opened meanwhile.
            asking.prepare();
        }
        session
    }

    /// How long it has been collecting: now, as its spans count the time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends collecting. Copies that are under way are waited for, for two seconds at most.
    #[must_use]
    pub fn finish(self) -> Trace {
        let ended = Instant::now();
        if fork::is_child() {
            // The session, and its locks, are the parent's.
            return Trace::empty(self.began, ended);
        }
        let told = log::collect(self.began);
        let devices = match &self.asking {
            Some(_) => device::collect(self.began, told.alone),
            None => Vec::new(),
        };
        Trace::new(self.began, ended, told.threads, devices, told.dropped)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        let mut sessions = lock(sessions());
        sessions.open.retain(|open| open.number != self.number);
        sessions.tell();
        log::forget_before(sessions.open.iter().map(|open| open.began).min());
        if self.asking.is_some() {
            let asking = sessions.open.iter().filter(|open| open.asks_devices);
            device::forget_before(asking.map(|open| open.began).min());
        }
        drop(sessions);
        // Outside the lock: the last handle of a simulated machine waits for its threads.
        drop(self.asking.take());
    }
}
