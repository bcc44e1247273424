//! `pinlane advise`

use anyhow::anyhow;
use pinlane::Checkpoint;
use pinlane_advise::{Advice, Description, Error, Impossible, On, profiles};
use pinlane_guide::timer::Budget;

use crate::{
    args::AdviseArgs,
    output::{Failure, print},
};

/// What to give advice on, checked: the tensors are described, the device or the profile is there.
pub(crate) struct Config {
    description: Description,
    on: On,
    measure: bool,
    json: bool,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a description that is none, a file that is no checkpoint, an unknown device or profile.
    pub(crate) fn check(args: &AdviseArgs) -> Result<Self, Failure> {
        let description = match (&args.describe, &args.tensors) {
            (Some(text), _) => Description::parse(text).map_err(Failure::usage)?,
            (None, Some(path)) => {
                let checkpoint = Checkpoint::open(path).map_err(Failure::usage)?;
                let (memory, direction) = (args.memory.host_end(), args.direction.direction());
                Description::of_checkpoint(&checkpoint, memory, direction).map_err(|impossible| {
                    let path = path.display();
                    Failure::Usage(match impossible {
                        Impossible::NoTensor => {
                            anyhow!("{path} has no tensors; name a checkpoint with some, or --describe them")
                        }
                        Impossible::NothingLands { .. } => anyhow!(
                            "--memory and --direction don't go together: {impossible} (--memory pageable, --direction h2d)"
                        ),
                        other => anyhow!("describing the tensors of {path}: {other}"),
                    })
                })?
            }
            (None, None) => {
                return Err(Failure::Usage(anyhow!(
                    "nothing is described: give --describe or --tensors"
                )));
            }
        };
        let on = match &args.profile {
            Some(name) => On::elsewhere(profiles::named(name).map_err(Failure::usage)?),
            None => On::here(args.device.as_deref()),
        };
        Ok(Self {
            description,
            on: on.map_err(Failure::usage)?,
            measure: args.measure,
            json: args.json,
        })
    }

    /// Predicts, and where that was asked for measures, and prints.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for tensors that the device could not hold or that are not measured, [`Failure::Run`] for a way that
    /// fails, and when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let advice = if self.measure {
            Advice::measured(&self.description, &self.on, Budget::FULL)
        } else {
            Advice::new(&self.description, &self.on).map(Some)
        };
        let advice = advice.map_err(|error| match error {
            Error::WrongBytes { .. } | Error::Guide(_) => Failure::Run(error.into()),
            other => Failure::usage(other),
        })?;
        let Some(advice) = advice else {
            return Err(Failure::Usage(anyhow!(
                "only a device that is here can be measured: leave --profile out"
            )));
        };
        if self.json {
            let json = serde_json::to_string_pretty(&advice).map_err(|error| Failure::Run(error.into()))?;
            print(&json)?;
        } else {
            print(&advice.to_string())?;
        }
        Ok(true)
    }
}
