//! The logs of all devices, and the sessions that they are kept for.

use pinlane_driver::{
    Driver, fork,
    sync::{self, Arc, Duration, Mutex, OnceLock, ProcessMutex, Weak, lock, lock_table, thread},
};

use super::{Identity, log::Log};

/// How often it is looked whether events have fired.
const READ_EVERY: Duration = Duration::from_millis(2);

/// The devices that were opened, for sessions that begin later.
fn opened() -> &'static ProcessMutex<Vec<Weak<dyn Driver>>> {
    static OPENED: OnceLock<ProcessMutex<Vec<Weak<dyn Driver>>>> = OnceLock::new();
    OPENED.get_or_init(ProcessMutex::default)
}

/// Notes that the device behind `driver` may be asked.
pub(super) fn note_opened(driver: &Arc<dyn Driver>) {
    let mut opened = lock_table(opened());
    opened.retain(|known| known.strong_count() > 0);
    let driver = Arc::downgrade(driver);
    if !opened.iter().any(|known| known.ptr_eq(&driver)) {
        opened.push(driver);
    }
}

/// The logs of all devices, which are kept for the sessions that ask them.
#[derive(Default)]
struct Logs {
    /// How many sessions ask, or are about to. While there is none, there is no log: it would keep its device open.
    sessions: usize,
    known: Vec<Arc<Log>>,
}

fn logs() -> &'static Mutex<Logs> {
    static LOGS: OnceLock<Mutex<Logs>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

impl Logs {
    fn of(&self, driver: &Arc<dyn Driver>) -> Option<Arc<Log>> {
        let is_its = |log: &&Arc<Log>| Identity::of(log.properties()) == Identity::of(driver.properties());
        self.known.iter().find(is_its).map(Arc::clone)
    }
}

/// Those that there are.
pub(super) fn all() -> Vec<Arc<Log>> {
    lock(logs()).known.clone()
}

/// A session that asks the devices, or is about to: logs are kept for it. Not to be dropped while a lock is held, since it may
/// have the last handle of a driver.
#[derive(Debug)]
pub(in crate::trace) struct Asking(());

impl Asking {
    /// From now on, until it is dropped.
    pub(in crate::trace) fn begin() -> Self {
        lock(logs()).sessions += 1;
        let asking = Self(());
        asking.prepare();
        asking
    }

    /// Has the logs of the open devices ready: a session's first copies should take no longer than the others.
    pub(in crate::trace) fn prepare(&self) {
        let drivers: Vec<_> = lock_table(opened()).iter().filter_map(Weak::upgrade).collect();
        for log in drivers.iter().filter_map(of) {
            log.prepare();
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if fork::is_child() {
            // The lock is the parent's.
            return;
        }
        let mut logs = lock(logs());
        logs.sessions -= 1;
        let unwanted = match logs.sessions {
            0 => std::mem::take(&mut logs.known),
            _ => Vec::new(),
        };
        drop(logs);
        drop(unwanted);
    }
}

/// The log of the device behind `driver`, of which there may be several; `None` where it refuses, or where the session
/// that asked has ended meanwhile.
pub(super) fn of(driver: &Arc<dyn Driver>) -> Option<Arc<Log>> {
    {
        let logs = lock(logs());
        if let Some(known) = logs.of(driver) {
            return Some(known);
        }
        if logs.sessions == 0 {
            return None;
        }
    }
    // Not under the lock: streams take a while, and others' copies go on.
    let log = Arc::new(Log::new(driver)?);
    let mut logs = lock(logs());
    if let Some(known) = logs.of(driver) {
        return Some(known);
    }
    if logs.sessions == 0 {
        return None;
    }
    let reader = Arc::downgrade(&log);
    let spawned = thread::Builder::new().name("trace".to_owned());
    if let Err(error) = spawned.spawn(move || serve(|| reader.upgrade())) {
        tracing::debug!(%error, "events are looked at when the session ends");
    }
    logs.known.push(Arc::clone(&log));
    Some(log)
}

/// What a log's thread does until there is none.
fn serve(log: impl Fn() -> Option<Arc<Log>>) {
    while let Some(log) = log() {
        log.read_fired(u64::MAX);
        drop(log);
        sync::sleep(READ_EVERY);
    }
}
