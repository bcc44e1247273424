//! The command line as typed: nothing here is checked beyond its form.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use pinlane::{Direction, HostEnd};

use crate::{bench::BenchArgs, size};

/// Moves tensors between host memory, disk and accelerators.
#[derive(Debug, Parser)]
#[command(name = "pinlane", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Write what every thread and the device do, and when, to FILE, for https://ui.perfetto.dev, and print the operations
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) trace: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Guide(GuideArgs),
    Bench(Box<BenchArgs>),
    Plan(PlanArgs),
    Tune(TuneArgs),
    Ls(LsArgs),
    Verify(VerifyArgs),
    Load(LoadArgs),
    Doctor(DoctorArgs),
    Advise(AdviseArgs),
}

/// Look at this machine for a few seconds, and tell what makes moving tensors on it slower than it could be. Exit code 1 if
/// something is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Look at this device only, such as cuda:1 or sim:0 [default: every GPU there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Command {
    /// What its step of a trace is called: with `pinlane` before its name, since the engine has steps of its own, such as `plan`.
    pub(crate) fn span(&self) -> &'static str {
        match self {
            Self::Guide(_) => "pinlane guide",
            Self::Bench(_) => "pinlane bench",
            Self::Plan(_) => "pinlane plan",
            Self::Tune(_) => "pinlane tune",
            Self::Ls(_) => "pinlane ls",
            Self::Verify(_) => "pinlane verify",
            Self::Load(_) => "pinlane load",
            Self::Doctor(_) => "pinlane doctor",
            Self::Advise(_) => "pinlane advise",
        }
    }
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

    /// Write the report to FILE as a page of HTML too: pictures and the numbers behind them, in one file that needs no network
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

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

/// Tell how tensors would be moved, and why. Nothing is moved, and none of the tensors is made.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The device to move to or from, such as cuda:0 [default: the best there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Which way
    #[arg(long, value_enum, default_value_t = DirectionArg::H2d)]
    pub(crate) direction: DirectionArg,

    /// How many tensors
    #[arg(long, default_value_t = 1)]
    pub(crate) count: usize,

    /// Bytes of each tensor: 4096, 4KiB and 1M (powers of 1024), 2GB (of 1000)
    #[arg(long, value_name = "BYTES", value_parser = size::parse, default_value = "1MiB")]
    pub(crate) size: u64,

    /// The memory that the tensors are in on the host, or get to
    #[arg(long, value_enum, default_value_t = MemoryArg::Pageable)]
    pub(crate) memory: MemoryArg,

    /// Tensors of the sizes in this safetensors file, folder of them or index
    #[arg(long, value_name = "PATH", conflicts_with_all = ["count", "size"])]
    pub(crate) tensors: Option<PathBuf>,

    /// Where the tensors lie on the device, or land there
    #[arg(long, value_enum, default_value_t = PlacementArg::Slab)]
    pub(crate) placement: PlacementArg,

    /// Show every route's predicted time too, and the profile that it comes from
    #[arg(long)]
    pub(crate) explain: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A direction.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DirectionArg {
    /// From the host to the device
    H2d,
    /// From the device to the host
    D2h,
}

/// Memory of the host.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MemoryArg {
    /// Ordinary memory
    Pageable,
    /// Page-locked memory
    Pinned,
    /// Ordinary memory, with elements that do not lie one after the other (h2d only)
    Strided,
    /// A file (h2d only)
    File,
}

impl DirectionArg {
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::H2d => Direction::ToDevice,
            Self::D2h => Direction::ToHost,
        }
    }
}

impl MemoryArg {
    pub(crate) fn host_end(self) -> HostEnd {
        match self {
            Self::Pageable => HostEnd::Pageable,
            Self::Pinned => HostEnd::Pinned,
            Self::Strided => HostEnd::Strided,
            Self::File => HostEnd::File,
        }
    }
}

/// A placement.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PlacementArg {
    /// All in one allocation
    Slab,
    /// Each in an allocation of its own
    Separate,
}

/// Tell how long moving described tensors should take, by every way of the guide and by pinlane's plan, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct AdviseArgs {
    /// The tensors, such as '100x1M f32 pageable', '1000x1000 f32 pinned to host', '64MiB + 3x4KiB', or JSON such as
    /// '{"tensors": [{"count": 100, "elements": 1000000, "dtype": "f32"}], "memory": "pinned", "to": "device"}'
    #[arg(long, value_name = "TENSORS", allow_hyphen_values = true)]
    pub(crate) describe: Option<String>,

    /// Tensors of the sizes in this safetensors file, folder of them or index
    #[arg(long, value_name = "PATH", conflicts_with = "describe")]
    pub(crate) tensors: Option<PathBuf>,

    /// The memory on the host, for --tensors
    #[arg(long, value_enum, default_value_t = MemoryArg::Pageable, conflicts_with = "describe")]
    pub(crate) memory: MemoryArg,

    /// Which way, for --tensors
    #[arg(long, value_enum, default_value_t = DirectionArg::H2d, conflicts_with = "describe")]
    pub(crate) direction: DirectionArg,

    /// The device to move to or from, such as cuda:0 [default: the best there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Plan for a machine that is not this one: h200, h100, or a file that `pinlane tune --json` has written on one with a GPU
    #[arg(long, value_name = "NAME", conflicts_with_all = ["device", "measure"])]
    pub(crate) profile: Option<String>,

    /// Do it all too, which takes seconds for each way, and show predicted beside measured
    #[arg(long)]
    pub(crate) measure: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure what this machine can do, in a quarter of a minute, and store it: devices that are opened from then on use it.
#[derive(Debug, clap::Args)]
pub(crate) struct TuneArgs {
    /// The device to measure, such as cuda:0 [default: the best there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Show what is found, and store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Write what is found to FILE as JSON too, for `pinlane advise --profile` elsewhere (not of a simulated device)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// List the tensors of a checkpoint, from its headers alone.
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointArgs,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check a checkpoint: every rule of the format, every byte of its files. Exit code 1 if something is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// A safetensors file, a folder of them, or an index
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// Load a checkpoint to a device, tell how fast that went, and drop it.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointArgs,

    /// Where to, such as cuda:0 or host [default: the best device there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// What tensors of floating-point numbers become where they are loaded to, such as bf16, f16 or f8_e4m3; others stay what
    /// they are [default: what they are in the files]
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,

    /// How the files are read
    #[arg(long, value_enum, default_value_t = AccessArg::Auto)]
    pub(crate) access: AccessArg,
}

/// A way to read files.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AccessArg {
    /// What is in the page cache from there, the rest past it
    Auto,
    /// Through the page cache
    Buffered,
    /// Past the page cache
    Direct,
}

/// A checkpoint, or a part of one.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointArgs {
    /// A safetensors file, a folder of them, or an index
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// Only tensors whose names match, such as 'layers.0.*'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_step_of_a_command_is_called_as_the_command_is_typed() {
        let typed = |name: &str| {
            // As much as one or the other wants.
            [&[][..], &["PATH"], &["--describe", "1MiB"]]
                .into_iter()
                .find_map(|more| Args::try_parse_from(["pinlane", name].iter().chain(more)).ok())
                .unwrap_or_else(|| panic!("{name} wants something else"))
        };
        for command in Args::command().get_subcommands() {
            let name = command.get_name();
            assert_eq!(typed(name).command.span(), format!("pinlane {name}"));
        }
    }
}
