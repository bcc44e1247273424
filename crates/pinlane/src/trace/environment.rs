//! `PINLANE_TRACE=file.json`: a trace of a process that nobody has to change.
//!
//! It begins when the first device is opened, and is written when the process exits: returns from `main`, or calls `exit`. A
//! process that is killed, or leaves by `_exit`, leaves none, unless it has called [`finish_process`] before. In the name of the
//! file, `%p` stands for the number of the process: for programs that start others. A forked child writes nothing. What is in the
//! file already has to be a trace: the program knows nothing of this and may be about to read it.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use pinlane_driver::{
    fork,
    sync::{Mutex, OnceLock, lock},
};

use super::{TraceFile, write::BEGINS};
use crate::units;

/// The environment's variable that names the file of a trace of the whole process: `PINLANE_TRACE`.
pub const VARIABLE: &str = "PINLANE_TRACE";

static TRACED: OnceLock<Mutex<Option<TraceFile>>> = OnceLock::new();

/// Begins to trace the process, if its environment asks for it and it is not traced yet. To be called when the driver is
/// there: what is registered for the exit later runs earlier, and the driver must outlive the trace.
pub(crate) fn watch() {
    TRACED.get_or_init(|| {
        let named = env::var_os(VARIABLE).filter(|path| !path.is_empty());
        Mutex::new(named.and_then(|path| begin(PathBuf::from(path))))
    });
}

fn begin(path: PathBuf) -> Option<TraceFile> {
    let path = match path.to_str() {
        Some(text) => PathBuf::from(text.replace("%p", &std::process::id().to_string())),
        None => path,
    };
    match is_free(&path).and_then(|()| TraceFile::create(&path)) {
        Ok(file) => {
            // SAFETY: the handler is a function of this library, which is never unloaded, and lets no panic out. Its only error
            // is that there is no room for it: then there is no file.
            let _registered = unsafe { libc::atexit(at_exit) };
            Some(file)
        }
        Err(error) => {
            eprintln!(
                "pinlane: {VARIABLE}: the trace can't be written to {}: {error}; going on without one",
                path.display()
            );
            None
        }
    }
}

/// Refuses a file that holds something else than a trace.
fn is_free(path: &Path) -> io::Result<()> {
    let mut begins = Vec::new();
    match File::open(path) {
        // What can be opened only to write, such as a pipe, holds nothing.
        Ok(file) if file.metadata()?.is_file() => {
            file.take(BEGINS.len() as u64).read_to_end(&mut begins)?;
        }
        Ok(_) | Err(_) => return Ok(()),
    }
    if begins.is_empty() || begins == BEGINS {
        return Ok(());
    }
    let message = "there is a file that is no trace; name another, or remove it";
    Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
}

/// Writes the trace that `PINLANE_TRACE` asks for, and says so on standard error, unless that was done already: for who is about
/// to end the process in a way that runs no exit handlers, as the default action of a signal does. Nothing is traced for it from
/// then on.
pub fn finish_process() {
    // The parent's, in a forked child.
    if fork::is_child() {
        return;
    }
    let traced = TRACED.get().and_then(|traced| lock(traced).take());
    let Some(traced) = traced else { return };
    let path = traced.path().display().to_string();
    match traced.finish() {
        Ok(trace) => eprintln!(
            "pinlane: {} in {path}, for https://ui.perfetto.dev\n{}",
            units::counted(trace.len() as u64, "span is", "spans are"),
            trace.summary()
        ),
        Err(error) => eprintln!("pinlane: the trace could not be written to {path}: {error}"),
    }
}

extern "C" fn at_exit() {
    // A panic must not cross into the C library; it has told what happened.
    let _panicked = std::panic::catch_unwind(finish_process);
}
