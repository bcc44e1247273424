//! `pinlane doctor`

use pinlane_doctor::{Options, Report, show};

use crate::{
    args::DoctorArgs,
    device,
    output::{Failure, print},
};

/// What to look at, checked: the device is there.
pub(crate) struct Config {
    options: Options,
    json: bool,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a device that is not there.
    pub(crate) fn check(args: &DoctorArgs) -> Result<Self, Failure> {
        if let Some(name) = &args.device {
            device::open(Some(name))?;
        }
        Ok(Self {
            options: Options {
                device: args.device.clone(),
            },
            json: args.json,
        })
    }

    /// Looks, and prints what was found; says whether nothing is wrong.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let report = Report::of_this_machine(&self.options);
        if self.json {
            print(&report.to_json().map_err(|error| Failure::Run(error.into()))?)?;
        } else {
            print(&show::report(&report))?;
        }
        Ok(report.is_sound())
    }
}
