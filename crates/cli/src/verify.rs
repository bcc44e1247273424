//! `pinlane verify`

use std::path::PathBuf;

use pinlane::checkpoint::verify;

use crate::{
    args::VerifyArgs,
    checkpoint::{counted, progress},
    output::{Failure, print},
};

/// What to verify, checked: there is something.
pub(crate) struct Config {
    path: PathBuf,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] where there is nothing at the path.
    pub(crate) fn check(args: &VerifyArgs) -> Result<Self, Failure> {
        let path = args.path.clone();
        match path.try_exists() {
            Ok(true) => Ok(Self { path }),
            Ok(false) => Err(Failure::Usage(anyhow::anyhow!(
                "there is nothing at {}",
                path.display()
            ))),
            Err(error) => {
                let context = format!("could not look for {}", path.display());
                Err(Failure::Usage(anyhow::Error::new(error).context(context)))
            }
        }
    }

    /// Reads everything and prints what is wrong; says whether nothing is.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let bar = progress(0);
        let found = verify(&self.path, |read, total| {
            bar.set_length(total);
            bar.set_position(read);
        });
        bar.finish_and_clear();
        for fault in &found.faults {
            print(&fault.to_string())?;
        }
        let verdict = match found.faults.len() {
            0 => "sound".to_owned(),
            count => format!("{} found", counted(count, "fault")),
        };
        print(&format!(
            "{}, {} bytes in {}: {verdict}",
            counted(found.tensors, "tensor"),
            found.bytes,
            counted(found.files, "readable file"),
        ))?;
        Ok(found.is_sound())
    }
}
