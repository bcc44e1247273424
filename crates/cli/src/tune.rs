//! `pinlane tune`

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use pinlane::{Measurement, Profile, ProfileStore, Progress};

use crate::{
    args::TuneArgs,
    device::{self, Accelerator},
    output::{Failure, print},
    report_file::ReportFile,
};

/// What to measure, checked: the device is open, and what is found can be written.
pub(crate) struct Config {
    accelerator: Accelerator,
    keep: Keep,
    json: Option<ReportFile>,
}

/// What becomes of the profile.
enum Keep {
    Store(ProfileStore),
    /// It was asked for.
    DryRun,
    /// The device only simulates.
    Simulated,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for an unknown device, and where the profile or the report can't be written.
    pub(crate) fn check(args: &TuneArgs) -> Result<Self, Failure> {
        let accelerator = device::open(args.device.as_deref())?;
        let keep = if accelerator.properties.simulated {
            Keep::Simulated
        } else if args.dry_run {
            Keep::DryRun
        } else {
            let store = ProfileStore::of_user().map_err(Failure::usage)?;
            store.check_writable().map_err(Failure::usage)?;
            Keep::Store(store)
        };
        let json = ReportFile::check_any(args.json.as_deref(), "profile")?;
        Ok(Self {
            accelerator,
            keep,
            json,
        })
    }

    /// Measures, shows what was found beside what was assumed, and stores it.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when measuring fails, or what was found can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let measurement = measure(&self.accelerator)?;
        // Stored whatever becomes of the terminal.
        let stored = match &self.keep {
            Keep::Store(store) => {
                let path = store
                    .save(&measurement)
                    .map_err(|error| Failure::Run(error.into()))?;
                format!(
                    "stored in {}: devices that are opened by name from now on use it",
                    path.display()
                )
            }
            Keep::DryRun => "not stored, for this was a dry run".to_owned(),
            Keep::Simulated => {
                "simulated device: shows behaviour, not hardware speed, so nothing is stored".to_owned()
            }
        };
        if let Some(file) = &self.json {
            let document = measurement
                .to_json()
                .map_err(|error| Failure::Run(error.into()))?;
            file.keep("profile", |file| writeln!(file, "{document}"))?;
        }
        let device = &self.accelerator.properties;
        let over = if device.simulated {
            String::new()
        } else {
            format!(" over {}", device.link.name)
        };
        print(&format!("{} ({}){over}\n", device.name, device.id))?;
        print(&table(&measurement))?;
        print(&format!("\n{stored}"))?;
        Ok(true)
    }
}

/// Measures; on standard error, where that is a terminal, tells how far it is.
fn measure(accelerator: &Accelerator) -> Result<Measurement, Failure> {
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} {wide_msg}");
    bar.set_style(style.expect("the template is fixed and valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let measured = Profile::measure(&accelerator.device, &mut |progress: Progress| {
        bar.set_length(progress.steps as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.doing);
    });
    bar.finish_and_clear();
    measured
        .with_context(|| format!("could not measure {}", accelerator.device))
        .map_err(Failure::Run)
}

fn table(measurement: &Measurement) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["", "assumed", "found"]);
    let (assumed, found) = (measurement.assumed.quantities(), measurement.profile.quantities());
    for (assumed, found) in assumed.iter().zip(&found) {
        table.add_row([
            found.name.to_owned(),
            assumed.amount.to_string(),
            match found {
                found if !found.measured => "not measured, as assumed".to_owned(),
                found if found.amount == assumed.amount => "measured, as assumed".to_owned(),
                found => found.amount.to_string(),
            },
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
