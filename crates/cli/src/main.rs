//! The `pinlane` command: thin glue over the libraries.
//!
//! What the user typed ([`args`]) becomes a checked configuration, and only that runs. Exit codes: 0, it ran and all is
//! well; 1, it ran and something failed; 2, it could not run as asked. A reader that closes the pipe early is no error.

mod advise;
mod args;
mod bench;
mod checkpoint;
mod device;
mod doctor;
mod guide;
mod load;
mod ls;
mod output;
mod outputs;
mod plan;
mod report_file;
mod size;
mod trace;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use output::Failure;

fn main() -> ExitCode {
    // Clap answers a wrong command line itself, with exit code 2, and `--help` with 0.
    let args = Args::parse();
    let checked = outputs::check(&args);
    let traced = match checked.and_then(|()| trace::Tracing::start(args.trace.as_deref())) {
        Ok(traced) => traced,
        Err(failure) => return told(&failure),
    };
    let result = run(args.command);
    // What was traced of a command that failed on its way tells why, so it is written too.
    let written = traced.finish(&result);
    match result.and_then(|sound| written.map(|()| sound)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => told(&failure),
    }
}

/// Does what the command says, as a step of its trace; says whether all is well.
fn run(command: Command) -> Result<bool, Failure> {
    let _span = pinlane::trace::span(command.span());
    match command {
        Command::Bench(args) => bench::Config::check(&args).and_then(|config| config.run()),
        Command::Guide(args) => guide::Config::check(&args).and_then(|config| config.run()),
        Command::Plan(args) => plan::Config::check(&args).and_then(|config| config.run()),
        Command::Tune(args) => tune::Config::check(&args).and_then(|config| config.run()),
        Command::Ls(args) => ls::Config::check(&args).and_then(|config| config.run()),
        Command::Verify(args) => verify::Config::new(&args).run(),
        Command::Load(args) => load::Config::check(&args).and_then(|config| config.run()),
        Command::Advise(args) => advise::Config::check(&args).and_then(|config| config.run()),
        Command::Doctor(args) => doctor::Config::check(&args).and_then(|config| config.run()),
    }
}

/// Tells why the command stopped, where anyone is left to hear it.
fn told(failure: &Failure) -> ExitCode {
    if failure.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    eprintln!("pinlane: {failure}");
    failure.exit_code()
}
