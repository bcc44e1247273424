//! The command line as typed: nothing here is checked beyond its form.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::bench::BenchArgs;

/// Moves tensors between host memory, disk and accelerators.
#[derive(Debug, Parser)]
#[command(name = "pinlane", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Guide(GuideArgs),
    Bench(Box<BenchArgs>),
}

/// Run the experiments of the guide to pinned memory and non-blocking copies, and judge its claims on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct GuideArgs {
    /// Small sizes and rough figures, in seconds instead of minutes
    #[arg(long)]
    pub(crate) quick: bool,

    /// Run this experiment only; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) only: Vec<String>,

    /// Write the report to FILE as JSON too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// The device to move to and from, such as sim:0 [default: the best there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Move the tensors of this safetensors file instead of made-up ones
    #[arg(long, value_name = "FILE")]
    pub(crate) tensors: Option<PathBuf>,

    /// List the experiments and their claims, and run nothing
    #[arg(long)]
    pub(crate) list: bool,
}
