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
mod plan;
mod report_file;
mod size;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};

fn main() -> ExitCode {
    // Clap answers a wrong command line itself, with exit code 2, and `--help` with 0.
    let args = Args::parse();
    let result = match args.command {
        Command::Bench(args) => bench::Config::check(&args).and_then(|config| config.run()),
        Command::Guide(args) => guide::Config::check(&args).and_then(|config| config.run()),
        Command::Plan(args) => plan::Config::check(&args).and_then(|config| config.run()),
        Command::Tune(args) => tune::Config::check(&args).and_then(|config| config.run()),
        Command::Ls(args) => ls::Config::check(&args).and_then(|config| config.run()),
        Command::Verify(args) => verify::Config::check(&args).and_then(|config| config.run()),
        Command::Load(args) => load::Config::check(&args).and_then(|config| config.run()),
        Command::Advise(args) => advise::Config::check(&args).and_then(|config| config.run()),
        Command::Doctor(args) => doctor::Config::check(&args).and_then(|config| config.run()),
    };
    let failure = match result {
        Ok(sound) => {
            return if sound {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            };
        }
        Err(failure) => failure,
    };
    if failure.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    eprintln!("pinlane: {failure}");
    failure.exit_code()
}
