//! The one place that threads, locks and clocks come from.
//!
//! Built with `--cfg shuttle`, every lock, condition variable, atomic and thread of the driver and of the engine is
//! shuttle's, so that a test decides the interleaving. Nothing else in the two crates names `std::sync` or
//! `std::thread`.

#[cfg(not(shuttle))]
pub use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak, atomic},
    thread,
};

#[cfg(shuttle)]
pub use shuttle::{
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak, atomic},
    thread,
};

/// For process-wide tables and marks, which no test contends for.
pub use std::sync::{Mutex as ProcessMutex, OnceLock, atomic::AtomicBool as ProcessFlag};
use std::sync::{MutexGuard as ProcessGuard, TryLockError};
pub use std::time::{Duration, Instant};

pub use std::thread::available_parallelism;

/// Locks `mutex`, and takes the state as it stands when another thread panicked while holding it.
///
/// Every critical section of the project leaves its state whole at each statement, so a poisoned lock carries no news
/// that the panic itself has not already told.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Locks a process-wide table, with the same view of poisoning as [`lock`].
pub fn lock_table<T>(table: &ProcessMutex<T>) -> ProcessGuard<'_, T> {
    table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Locks a process-wide table where nobody holds it, with the same view of poisoning as [`lock`].
pub fn try_lock_table<T>(table: &ProcessMutex<T>) -> Option<ProcessGuard<'_, T>> {
    match table.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The state of a mutex that is the caller's alone, with the same view of poisoning as [`lock`].
pub fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits on `condvar` with the same view of poisoning as [`lock`].
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar
        .wait(guard)
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits on `condvar` for at most `duration`, and lets go of the lock. Under shuttle, where no time passes, it only lets the other threads go on.
pub fn wait_for<T>(condvar: &Condvar, guard: MutexGuard<'_, T>, duration: Duration) {
    #[cfg(not(shuttle))]
    {
        let waited = condvar.wait_timeout(guard, duration);
        drop(waited.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
    #[cfg(shuttle)]
    {
        let _ = (condvar, duration);
        drop(guard);
        thread::yield_now();
    }
}

/// Asks again and again, for at most `patience`, until `holds`; says whether it does. Under shuttle, where no time passes,
/// asks once and lets the other threads go on.
pub fn spin(patience: Duration, holds: impl Fn() -> bool) -> bool {
    #[cfg(not(shuttle))]
    {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() >= patience {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }
    #[cfg(shuttle)]
    {
        let _ = patience;
        thread::yield_now();
        holds()
    }
}

/// Sleeps for `duration`. Under shuttle, where no time passes, it only lets the other threads go on.
pub fn sleep(duration: Duration) {
    #[cfg(not(shuttle))]
    thread::sleep(duration);
    #[cfg(shuttle)]
    {
        let _ = duration;
        thread::yield_now();
    }
}

/// Starts a thread that ends before `scope` does. An error where the system has no thread to give; nothing runs then.
pub fn spawn_scoped<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    run: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    #[cfg(not(shuttle))]
    thread::Builder::new().spawn_scoped(scope, run)?;
    #[cfg(shuttle)]
    scope.spawn(run);
    Ok(())
}
