//! Running other programs: from the root of the checkout, without a stdin, shown before they start.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program, to be run from the root of the checkout.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// Shows the command, runs it with its output passed through, and fails unless it ends with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {}{line}", variables(command));
    let status = command
        .status()
        .with_context(|| format!("`{line}` could not be started"))?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}

/// Runs the command unseen and returns what it printed to stdout.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{line}` could not be started"))?;
    ensure!(output.status.success(), "`{line}` ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{line}`"))
}

/// What the command prints to stdout, or `None` where it is not installed or fails.
pub(crate) fn probe(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// The command as one would type it at the root of the checkout.
fn line(command: &Command) -> String {
    let name = Path::new(command.get_program());
    let ours = name.starts_with(workspace::root());
    let name = name
        .file_name()
        .filter(|_| !ours)
        .unwrap_or(command.get_program());
    let words: Vec<String> = [name].into_iter().chain(command.get_args()).map(shown).collect();
    words.join(" ")
}

/// The variables that the command sets, as one would type them before it.
fn variables(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    set.map(|(name, value)| format!("{}={} ", name.display(), shown(value)))
        .collect()
}

/// A word for the shell, with paths below the root shortened.
fn shown(word: &OsStr) -> String {
    let root = format!("{}/", workspace::root().display());
    let word = word.to_string_lossy().replace(&root, "");
    if word.contains(' ') {
        format!("'{word}'")
    } else {
        word
    }
}
