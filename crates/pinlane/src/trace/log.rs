//! What each thread did, written down by itself.
//!
//! A thread has a log of its own, made at its first step in a session. Only the thread adds to it; sessions read it when they
//! end. So its lock is free, but for those moments.

use std::cell::OnceCell;

use pinlane_driver::sync::{Arc, Instant, Mutex, OnceLock, lock, thread};

use super::{
    alone::Waited,
    collected::{HostSpan, Thread},
    device::LoneCopy,
};

/// The most records of one thread that are kept: what a session that nobody ends may take.
const MOST_RECORDS: usize = 1 << 20;

/// What a thread writes down.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record {
    Step(Step),
    /// A copy that it waited for.
    Copy(Waited),
}

/// A step of a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) bytes: Option<u64>,
    pub(super) route: Option<&'static str>,
    pub(super) lane: Option<u32>,
}

impl Step {
    /// One that begins, and has no length yet.
    pub(super) fn new(name: &'static str, bytes: Option<u64>, begin: Instant) -> Self {
        Self {
            name,
            begin,
            end: begin,
            bytes,
            route: None,
            lane: None,
        }
    }
}

impl Record {
    /// Whether a session that began at that time has it: a step that began since, or a device's span that ended since.
    fn is_since(&self, began: Instant) -> bool {
        match self {
            Self::Step(step) => step.begin >= began,
            Self::Copy(waited) => waited.end > began,
        }
    }
}

/// The log of one thread.
struct Log {
    /// The system's number of the thread.
    number: u32,
    name: Option<String>,
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    written: Vec<Record>,
    dropped: u64,
}

fn logs() -> &'static Mutex<Vec<Arc<Log>>> {
    static LOGS: OnceLock<Mutex<Vec<Arc<Log>>>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

impl Log {
    /// A log of this thread, known to sessions.
    fn of_this_thread() -> Arc<Self> {
        let log = Arc::new(Self {
            number: rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs(),
            name: thread::current().name().map(str::to_owned),
            steps: Mutex::default(),
        });
        lock(logs()).push(Arc::clone(&log));
        log
    }
}

/// Adds what has ended to the log of this thread.
pub(super) fn write(record: Record) {
    thread_local! {
        static LOG: OnceCell<Arc<Log>> = const { OnceCell::new() };
    }
    // A thread that is about to end may have let go of its log.
    let _gone = LOG.try_with(|log| {
        let mut steps = lock(&log.get_or_init(Log::of_this_thread).steps);
        if steps.written.len() < MOST_RECORDS {
            steps.written.push(record);
        } else {
            steps.dropped += 1;
        }
    });
}

/// What threads have written down since a session began.
#[derive(Default)]
pub(super) struct Collected {
    /// Their steps, thread by thread.
    pub(super) threads: Vec<Thread>,
    /// The copies that they waited for.
    pub(super) alone: Vec<LoneCopy>,
    /// How many records there was no room for.
    pub(super) dropped: u64,
}

/// What was written down since `began`.
pub(super) fn collect(began: Instant) -> Collected {
    let mut collected = Collected::default();
    for log in lock(logs()).iter() {
        let steps = lock(&log.steps);
        collected.dropped += steps.dropped;
        let mut spans = Vec::new();
        for record in steps.written.iter().filter(|record| record.is_since(began)) {
            match record {
                Record::Step(step) => spans.push(host_span(step, began)),
                Record::Copy(waited) => {
                    if waited.begun >= began {
                        spans.extend(waited.steps().map(|step| host_span(&step, began)));
                    }
                    collected.alone.extend(waited.on_device());
                }
            }
        }
        if !spans.is_empty() {
            collected.threads.push(Thread {
                number: log.number,
                name: log.name.clone(),
                spans,
            });
        }
    }
    collected
}

fn host_span(step: &Step, began: Instant) -> HostSpan {
    HostSpan {
        name: step.name,
        start: step.begin.saturating_duration_since(began),
        end: step.end.saturating_duration_since(began),
        bytes: step.bytes,
        route: step.route,
        lane: step.lane,
    }
}

/// Lets go of what no session wants: all before `earliest`, or all there is.
pub(super) fn forget_before(earliest: Option<Instant>) {
    lock(logs()).retain(|log| {
        let mut steps = lock(&log.steps);
        match earliest {
            Some(earliest) => steps.written.retain(|record| record.is_since(earliest)),
            None => *steps = Steps::default(),
        }
        // Nobody else has it when its thread has ended.
        !steps.written.is_empty() || Arc::strong_count(log) > 1
    });
}
