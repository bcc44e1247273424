//! The project's own chores: `cargo xtask --help`.
//!
//! One file for each chore. To add one, write its file and give it a line in [`CHORES`]; if it also checks the project,
//! give it a line in [`test::STEPS`].

mod asan;
mod book;
mod bundle;
mod command;
mod deny;
mod figures;
mod fuzz;
mod guide;
mod lint;
mod model;
mod msrv;
mod python;
mod report;
mod shuttle;
mod step;
mod suite;
mod sync_module;
mod test;
mod tool;
mod venv;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, ensure};

/// What `cargo xtask NAME` runs.
struct Chore {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const CHORES: &[Chore] = &[
    Chore {
        name: "test",
        arguments: "[STEP...]",
        about: "everything that checks the project, or the named steps",
        run: test::run,
    },
    Chore {
        name: "gpu-bundle",
        arguments: "[--out DIR]",
        about: "a folder that checks and measures the project on a machine with a GPU and without Rust",
        run: bundle::run,
    },
    Chore {
        name: "figures",
        arguments: "[--check]",
        about: "writes the figures in the documents from bench/results, or checks that they are those",
        run: figures::run,
    },
    Chore {
        name: "asan",
        arguments: "",
        about: "the driver's and the engine's tests under AddressSanitizer",
        run: |arguments| alone(arguments, asan::check),
    },
    Chore {
        name: "fuzz",
        arguments: "[OPTION...]",
        about: "random headers and indexes for a minute each: --seconds N, --runs N; --keep what is found in fuzz/corpus",
        run: fuzz::run,
    },
    Chore {
        name: "model",
        arguments: "",
        about: "fetches the checkpoint that the tests move, and prints its path",
        run: |arguments| alone(arguments, model::print),
    },
    Chore {
        name: "advisories",
        arguments: "",
        about: "looks the dependencies up in the RustSec advisory database (wants github.com)",
        run: |arguments| alone(arguments, deny::advisories),
    },
];

/// Exit codes: 0 when the chore is done, 1 when it failed, 2 when there is no such chore.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if ["--help", "-h", "help"].contains(&name.as_str()) {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(chore) = CHORES.iter().find(|chore| chore.name == name) else {
        eprintln!("error: `{name}` is no chore of this project\n\n{}", help());
        return ExitCode::from(2);
    };
    match (chore.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a chore that takes no arguments, and says what it did.
fn alone(arguments: &[String], chore: fn() -> Result<String>) -> Result<()> {
    ensure!(
        arguments.is_empty(),
        "this chore takes no arguments, and was given `{}`",
        arguments.join(" ")
    );
    let done = chore()?;
    println!("{done}");
    Ok(())
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask CHORE\n\nChores:\n");
    for chore in CHORES {
        let usage = format!("{} {}", chore.name, chore.arguments);
        text += &format!("  {usage:<24} {}\n", chore.about);
    }
    text += "\nSteps of `test`, in their order:\n";
    for step in test::STEPS {
        text += &format!("  {:<24} {}\n", step.name, step.about);
    }
    text
}
