//! `--trace`: what a command does, and when.

use std::{
    env,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Context as _;
use pinlane::{
    trace::{self, Trace, TraceFile},
    units,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};

use crate::output::Failure;

/// What is traced while a command runs, if anything is: until it is finished, or a signal ends the command.
pub(crate) struct Tracing(Arc<Mutex<Option<TraceFile>>>);

impl Tracing {
    /// Begins, where the trace is to go to a file. From now on a command that is interrupted leaves what was traced of it, and what
    /// `PINLANE_TRACE` asks for.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] where that can't be written.
    pub(crate) fn start(path: Option<&Path>) -> Result<Self, Failure> {
        let create = |path: &Path| {
            TraceFile::create(path)
                .with_context(|| format!("could not write the trace to {}", path.display()))
        };
        let file = path.map(create).transpose().map_err(Failure::Usage)?;
        let is_traced = file.is_some() || env::var_os(trace::VARIABLE).is_some();
        let tracing = Self(Arc::new(Mutex::new(file)));
        if is_traced {
            tracing.outlive_signals();
        }
        Ok(tracing)
    }

    /// Has a thread write the trace when a signal is about to end the process. Without the thread, the signal ends it as ever.
    fn outlive_signals(&self) {
        let traced = Arc::clone(&self.0);
        let wait = move || {
            let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
                return;
            };
            let Some(signal) = signals.forever().next() else {
                return;
            };
            if let Some(file) = take(&traced)
                && let Err(failure) = write(file, |_| String::new())
            {
                eprintln!("pinlane: {failure}");
            }
            trace::finish_process();
            // It ends the process; where the system refuses even that, as the exit code of a shell would tell.
            let _refused = low_level::emulate_default_handler(signal);
            std::process::exit(128 + signal);
        };
        let spawned = thread::Builder::new().name("signals".to_owned()).spawn(wait);
        if let Err(error) = spawned {
            eprintln!(
                "pinlane: an interrupt will leave no trace: no thread could be started to wait for it: {error}"
            );
        }
    }

    /// Writes the trace of a command that ran, and of one that did so to its end the table of operations to standard error:
    /// standard output is the command's. One that could not run as asked leaves the file as it was.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] where the file takes no more.
    pub(crate) fn finish(self, result: &Result<bool, Failure>) -> Result<(), Failure> {
        let Some(file) = take(&self.0) else { return Ok(()) };
        if matches!(result, Err(Failure::Usage(_))) {
            return Ok(());
        }
        write(file, |trace| match result {
            Ok(_) => format!("\n{}\n", trace.summary()),
            Err(_) => String::new(),
        })
    }
}

fn take(traced: &Mutex<Option<TraceFile>>) -> Option<TraceFile> {
    traced.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Writes what was traced, and says where; before that, what `summary` gives.
fn write(file: TraceFile, summary: impl FnOnce(&Trace) -> String) -> Result<(), Failure> {
    let path = file.path().to_owned();
    let trace = file
        .finish()
        .with_context(|| format!("could not write the trace to {}", path.display()))
        .map_err(Failure::Run)?;
    let path = path.display();
    if trace.is_empty() {
        eprintln!("\nnothing was traced: {path} has no spans");
        return Ok(());
    }
    let spans = units::counted(trace.len() as u64, "span is", "spans are");
    eprintln!(
        "{}{spans} in {path}, for https://ui.perfetto.dev",
        summary(&trace)
    );
    Ok(())
}
