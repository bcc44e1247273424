//! A watchdog: a case that hangs ends the process with its name, instead of the test run with a timeout.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Far longer than any case takes, even on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(500);

/// Aborts the process when nobody has [fed](Watchdog::feed) it for [`PATIENCE`].
pub(crate) struct Watchdog(Arc<Shared>);

struct Shared {
    meals: AtomicU64,
    case: Mutex<String>,
    over: AtomicBool,
}

impl Watchdog {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            meals: AtomicU64::new(0),
            case: Mutex::new(String::new()),
            over: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        thread::spawn(move || watched.watch());
        Self(shared)
    }

    /// A new case begins.
    pub(crate) fn feed(&self, case: &str) {
        case.clone_into(&mut self.0.case.lock().unwrap());
        self.0.meals.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn watch(&self) {
        let (mut seen, mut hungry) = (0, Duration::ZERO);
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let meals = self.meals.load(Ordering::Relaxed);
            hungry = if meals == seen {
                hungry + TICK
            } else {
                Duration::ZERO
            };
            seen = meals;
            if hungry > PATIENCE {
                eprintln!("this case hangs: {}", self.case.lock().unwrap());
                std::process::abort();
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
