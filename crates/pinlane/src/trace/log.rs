//! What each thread did, written down by itself.
//!
//! A thread has a log of its own, made at its first step in a session. Only the thread adds to it; sessions read it when they
//! end. So its lock is free, but for those moments.

use std::cell::OnceCell;

use pinlane_driver::sync::{Arc, Instant, Mutex, OnceLock, lock, thread};

use super::collected::{HostSpan, Thread};

/// The most steps of one thread that are kept: what a session that nobody ends may take.
const MOST_STEPS: usize = 1 << 20;

/// A step of a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    name: &'static str,
    begin: Instant,
    pub(super) end: Instant,
    pub(super) bytes: Option<u64>,
    pub(super) route: Option<&'static str>,
    pub(super) lane: Option<u32>,
}

impl Step {
    pub(super) fn begin(name: &'static str, bytes: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            name,
            begin: now,
            end: now,
            bytes,
            route: None,
            lane: None,
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
    written: Vec<Step>,
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

/// Adds a step that has ended to the log of this thread.
pub(super) fn write(step: Step) {
    thread_local! {
        static LOG: OnceCell<Arc<Log>> = const { OnceCell::new() };
    }
    // A thread that is about to end may have let go of its log.
    let _gone = LOG.try_with(|log| {
        let mut steps = lock(&log.get_or_init(Log::of_this_thread).steps);
        if steps.written.len() < MOST_STEPS {
            steps.written.push(step);
        } else {
            steps.dropped += 1;
        }
    });
}

/// The steps since `began`, thread by thread, and how many there was no room for.
pub(super) fn collect(began: Instant) -> (Vec<Thread>, u64) {
    let mut threads = Vec::new();
    let mut dropped = 0;
    for log in lock(logs()).iter() {
        let steps = lock(&log.steps);
        dropped += steps.dropped;
        let since = steps.written.iter().filter(|step| step.begin >= began);
        let spans: Vec<_> = since.map(|step| host_span(step, began)).collect();
        if !spans.is_empty() {
            threads.push(Thread {
                number: log.number,
                name: log.name.clone(),
                spans,
            });
        }
    }
    (threads, dropped)
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

/// Lets go of what no session wants: all steps before `earliest`, or all there are.
pub(super) fn forget_before(earliest: Option<Instant>) {
    lock(logs()).retain(|log| {
        let mut steps = lock(&log.steps);
        match earliest {
            Some(earliest) => steps.written.retain(|step| step.begin >= earliest),
            None => *steps = Steps::default(),
        }
        // Nobody else has it when its thread has ended.
        !steps.written.is_empty() || Arc::strong_count(log) > 1
    });
}
