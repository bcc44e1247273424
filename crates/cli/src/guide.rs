//! `pinlane guide`

use std::{
    cell::RefCell,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use pinlane_guide::{
    device::Accelerator,
    experiment::Experiment,
    experiments,
    json::Document,
    report,
    run::{ExperimentReport, Guide, Observer},
    workload::Workload,
};

use crate::{
    args::GuideArgs,
    output::{Failure, print},
    report_file::ReportFile,
};

/// What to do, checked: files exist, names are known, the device is open.
pub(crate) enum Config {
    /// Tell what there is.
    List(Vec<&'static Experiment>),
    /// Run it.
    Run {
        guide: Box<Guide>,
        json: Option<ReportFile>,
        page: Option<ReportFile>,
    },
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for an unknown experiment or device, and for a file that can't be read or written.
    pub(crate) fn check(args: &GuideArgs) -> Result<Self, Failure> {
        let experiments = experiments::named(&args.only).map_err(Failure::usage)?;
        if args.list {
            return Ok(Self::List(experiments));
        }
        let workload = match &args.tensors {
            Some(path) => Workload::of_checkpoint(path).map_err(Failure::usage)?,
            None => Workload::MadeUp { quick: args.quick },
        };
        let accelerator = Accelerator::open(args.device.as_deref()).map_err(Failure::usage)?;
        let json = ReportFile::check_any(args.json.as_deref(), "report")?;
        let page = ReportFile::check_any(args.report.as_deref(), "report")?;
        let guide = Guide {
            experiments,
            accelerator,
            workload,
            quick: args.quick,
        };
        Ok(Self::Run {
            guide: Box::new(guide),
            json,
            page,
        })
    }

    /// Does it. `false` when an experiment failed.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        match self {
            Self::List(experiments) => {
                for experiment in experiments {
                    print(&format!("{:<14} {}", experiment.id, experiment.claim))?;
                }
                Ok(true)
            }
            Self::Run { guide, json, page } => run(&guide, json, page),
        }
    }
}

fn run(guide: &Guide, json: Option<ReportFile>, page: Option<ReportFile>) -> Result<bool, Failure> {
    let terminal = Terminal::new(guide);
    terminal.show(&report::heading(guide));
    let report = guide.run(&terminal);
    terminal.bar.finish_and_clear();
    terminal.show(&report::claims(&report));
    // Files are written whatever became of the terminal: they may be all that is wanted.
    let document = Document::of(&report);
    if let Some(file) = json {
        file.keep("report", |file| {
            serde_json::to_writer_pretty(&mut *file, &document)?;
            writeln!(file)
        })?;
    }
    if let Some(file) = page {
        let page = pinlane_report::guide(&document).map_err(|error| Failure::Run(error.into()))?;
        file.keep("report", |file| file.write_all(page.as_bytes()))?;
    }
    terminal.result()?;
    Ok(report.is_sound())
}

/// Results on standard output as they come; on standard error, where that is a terminal, how far it is.
struct Terminal<'a> {
    guide: &'a Guide,
    bar: ProgressBar,
    /// The first error of standard output, after which nothing more is written to it.
    result: RefCell<Result<(), Failure>>,
}

impl<'a> Terminal<'a> {
    fn new(guide: &'a Guide) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(guide.experiments.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {prefix} {wide_msg}");
        bar.set_style(style.expect("the template is fixed and valid"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            guide,
            bar,
            result: RefCell::new(Ok(())),
        }
    }

    fn show(&self, text: &str) {
        let mut result = self.result.borrow_mut();
        if result.is_ok() {
            *result = self.bar.suspend(|| print(text));
        }
    }

    fn result(self) -> Result<(), Failure> {
        self.result.into_inner()
    }
}

impl Observer for Terminal<'_> {
    fn started(&self, experiment: &'static Experiment, done: usize) {
        self.bar.set_position(done as u64);
        self.bar.set_prefix(experiment.id);
        self.bar.set_message("");
    }

    fn way(&self, way: &str) {
        self.bar.set_message(way.to_owned());
    }

    fn finished(&self, report: &ExperimentReport) {
        self.show(&report::experiment(
            report,
            self.guide.accelerator.driver.properties(),
        ));
    }
}
