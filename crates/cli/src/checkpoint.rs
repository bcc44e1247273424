//! The checkpoint that a command is about, and how sizes and progress are shown.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use pinlane::{Checkpoint, FileAccess, units};

use crate::{args::CheckpointArgs, output::Failure};

/// Opens what was typed. Tensors that match one of several patterns are there.
///
/// # Errors
///
/// [`Failure::Usage`] for what is no checkpoint, and for a pattern that is none or that nothing matches.
pub(crate) fn open(args: &CheckpointArgs, access: FileAccess) -> Result<Checkpoint, Failure> {
    let all = Checkpoint::open_with(&args.path, access).map_err(Failure::usage)?;
    if args.select.is_empty() {
        return Ok(all);
    }
    let mut names = Vec::new();
    for pattern in &args.select {
        let matching = all.matching(pattern).map_err(Failure::usage)?;
        if matching.is_empty() {
            let reason = anyhow::anyhow!("no tensor of {} matches {pattern:?}", args.path.display());
            return Err(Failure::Usage(reason));
        }
        names.extend(matching.entries().map(|entry| entry.name().to_owned()));
    }
    all.only(names).map_err(Failure::usage)
}

/// A bar on standard error for so many bytes; hidden where that is no terminal.
pub(crate) fn progress(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let template = "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed and valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// `1 tensor`, `2 tensors`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    units::counted(count as u64, what, &format!("{what}s"))
}
