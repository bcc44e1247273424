//! `pinlane bench` as typed.

use std::path::PathBuf;

use pinlane_bench::cell::{Direction, Memory};

use crate::size;

/// Measure pinlane beside the plain way and the link's own limit, by size, count, kind of memory and direction.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Fewer cells and rough figures, in about a minute
    #[arg(long)]
    pub(crate) quick: bool,

    /// Run only what WORD names: `figures`, `grid`, or part of the name of a figure or a cell; may be given several times
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,

    /// List the figures and the cells, and run nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// The device to move to and from, such as sim:0 [default: the best there is]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Write the whole result to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the result without the cells, but for what was predicted of them and what they took, to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) figures_json: Option<PathBuf>,

    /// Write the result to FILE as a page of HTML too: pictures and the numbers behind them, in one file that needs no network
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Measure nothing, and make the page of --report of the result in FILE, which --json or --figures-json has written
    #[arg(long, value_name = "FILE", requires = "report", conflicts_with_all = ["only", "json", "figures_json", "list", "compare"])]
    pub(crate) from: Option<PathBuf>,

    /// Judge by the peers' figures of this file too: {"figure": {"peer": seconds}}
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,

    /// The commit that is measured, for the result
    #[arg(long, value_name = "TEXT")]
    pub(crate) commit: Option<String>,

    /// Directions of the grid: h2d, d2h
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) directions: Vec<Direction>,

    /// Kinds of host memory of the grid: pageable, pinned, mixed
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) memory: Vec<Memory>,

    /// Sizes of a tensor in the grid, such as 4,64KiB,1GiB
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = bytes)]
    pub(crate) sizes: Vec<usize>,

    /// Numbers of tensors in the grid, such as 1,1000
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = count)]
    pub(crate) counts: Vec<usize>,

    /// Leave out cells of more bytes than SIZE [default: 4GiB; less with --quick and on a simulated device]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_bytes: Option<usize>,

    /// Begin no cell of the grid after SECONDS [default: 240; 40 with --quick]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time: Option<f64>,

    /// Move a terabyte for `pinned-peak`, as a run on hardware does without --quick
    #[arg(long)]
    pub(crate) terabyte: bool,

    /// Compare two results instead of measuring; exits with 1 where the second is slower on hardware
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with_all = ["only", "json", "figures_json", "list"])]
    pub(crate) compare: Option<Vec<PathBuf>>,

    /// The ratio that --compare still takes for noise
    #[arg(long, value_name = "RATIO", default_value_t = 1.1, requires = "compare")]
    pub(crate) tolerance: f64,
}

/// A number of tensors.
fn count(text: &str) -> Result<usize, String> {
    let number = text.parse();
    number.map_err(|_| format!("{text:?} is no number of tensors; write one, such as 1000"))
}

/// A size in memory.
fn bytes(text: &str) -> Result<usize, String> {
    usize::try_from(size::parse(text)?).map_err(|_| format!("{text:?} is more than this machine can address"))
}
