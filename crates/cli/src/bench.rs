//! `pinlane bench`

mod args;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use pinlane_bench::{
    compare::Comparison,
    document::Document,
    figures,
    peers::Peers,
    run::{AxesOptions, Bench, Observer, Options},
    table,
};
use pinlane_guide::device::Accelerator;

use crate::{
    output::{Failure, print},
    report_file::ReportFile,
};
pub(crate) use args::BenchArgs;

/// The bytes of `--terabyte`.
const TERABYTE: u64 = 1_000_000_000_000;

/// What to do, checked: files exist, names are known, the device is open.
pub(crate) enum Config {
    /// Set two results side by side.
    Compare(Comparison),
    /// Show a result that was kept.
    Show(Box<Document>, ReportFile),
    /// Tell what there is.
    List(Bench),
    /// Run it, and write the result, whole and without its cells.
    Run {
        bench: Bench,
        whole: Option<ReportFile>,
        figures: Option<ReportFile>,
        page: Option<ReportFile>,
    },
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for an unknown device or name, and for a file that can't be read or written.
    pub(crate) fn check(args: &BenchArgs) -> Result<Self, Failure> {
        if let Some([before, after]) = args.compare.as_deref() {
            return compare(before, after, args.tolerance).map(Self::Compare);
        }
        let page = ReportFile::check_any(args.report.as_deref(), "report")?;
        if let (Some(from), Some(page)) = (&args.from, &page) {
            let document = Document::read(from).map_err(Failure::usage)?;
            return Ok(Self::Show(Box::new(document), page.clone()));
        }
        let peers = match &args.peers {
            Some(path) => Peers::read(path).map_err(Failure::usage)?,
            None => Peers::default(),
        };
        let grid_time = args
            .time
            .map(|seconds| {
                let time = Duration::try_from_secs_f64(seconds);
                time.map_err(|_| anyhow!("--time {seconds}: a number of seconds, such as 60"))
            })
            .transpose()
            .map_err(Failure::Usage)?;
        let options = Options {
            quick: args.quick,
            only: args.only.clone(),
            axes: AxesOptions {
                directions: args.directions.clone(),
                memory: args.memory.clone(),
                sizes: args.sizes.clone(),
                counts: args.counts.clone(),
                max_bytes: args.max_bytes,
            },
            grid_time,
            peak_bytes: args.terabyte.then_some(TERABYTE),
            peers,
            commit: args.commit.clone(),
            scale: None,
        };
        let accelerator = Accelerator::open(args.device.as_deref()).map_err(Failure::usage)?;
        let bench = Bench::new(accelerator, options).map_err(Failure::usage)?;
        if args.list {
            return Ok(Self::List(bench));
        }
        Ok(Self::Run {
            bench,
            whole: ReportFile::check_any(args.json.as_deref(), "result")?,
            figures: ReportFile::check_any(args.figures_json.as_deref(), "result")?,
            page,
        })
    }

    /// Does it. `false` when something could not be measured or landed wrong bytes, and when a comparison shows something
    /// slower on hardware.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when nothing can be measured, or the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        match self {
            Self::Compare(comparison) => {
                print(&table::comparison(&comparison))?;
                Ok(comparison.is_sound())
            }
            Self::Show(document, page) => {
                show(&page, &document)?;
                Ok(true)
            }
            Self::List(bench) => {
                let selection = bench.selection();
                for spec in figures::ALL.iter().filter(|spec| selection.has(spec)) {
                    print(&format!("{:<20} {}", spec.id, spec.about))?;
                }
                for cell in &selection.cells {
                    print(&cell.to_string())?;
                }
                Ok(true)
            }
            Self::Run {
                bench,
                whole,
                figures,
                page,
            } => {
                let terminal = Terminal::new();
                let document = bench.run(&terminal).map_err(|error| Failure::Run(error.into()))?;
                terminal.bar.finish_and_clear();
                // Files are written whatever becomes of the terminal: they may be all that is wanted.
                write(whole.as_ref(), &document)?;
                write(figures.as_ref(), &document.without_cells())?;
                if let Some(page) = page {
                    show(&page, &document)?;
                }
                print(&table::document(&document))?;
                Ok(document.is_sound())
            }
        }
    }
}

fn compare(before: &Path, after: &Path, tolerance: f64) -> Result<Comparison, Failure> {
    if tolerance.is_nan() || tolerance < 1.0 {
        return Err(Failure::Usage(anyhow!(
            "--tolerance {tolerance}: a ratio of 1 or more, such as 1.1"
        )));
    }
    Comparison::of_files(before, after, tolerance).map_err(Failure::usage)
}

fn write(file: Option<&ReportFile>, document: &Document) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    file.keep("result", |file| {
        serde_json::to_writer_pretty(&mut *file, document)?;
        writeln!(file)
    })
}

/// Writes the page of a result.
fn show(page: &ReportFile, document: &Document) -> Result<(), Failure> {
    let html = pinlane_report::bench(document).map_err(|error| Failure::Run(error.into()))?;
    page.keep("report", |file| file.write_all(html.as_bytes()))
}

/// On standard error, where that is a terminal, how far it is.
struct Terminal {
    bar: ProgressBar,
}

impl Terminal {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {wide_msg}");
        bar.set_style(style.expect("the template is fixed and valid"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }
}

impl Observer for Terminal {
    fn started(&self, id: &str, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(id.to_owned());
    }
}
