//! `pinlane verify`

use std::{io::ErrorKind, path::PathBuf};

use pinlane::{Error, checkpoint::verify};

use crate::{
    args::VerifyArgs,
    checkpoint::{counted, progress},
    output::{Failure, print},
};

/// What to verify.
pub(crate) struct Config {
    path: PathBuf,
}

impl Config {
    /// What was typed. Whether anything is there is found as it is opened: it may be several files under another name.
    pub(crate) fn new(args: &VerifyArgs) -> Self {
        Self {
            path: args.path.clone(),
        }
    }

    /// Reads everything and prints what is wrong; says whether nothing is.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] where there is nothing at the path; [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let bar = progress(0);
        let found = verify(&self.path, |read, total| {
            bar.set_length(total);
            bar.set_position(read);
        });
        bar.finish_and_clear();
        if let [Error::File { path, source, .. }] = &found.faults[..]
            && *path == self.path
            && source.kind() == ErrorKind::NotFound
        {
            return Err(Failure::Usage(anyhow::anyhow!(
                "there is nothing at {}",
                path.display()
            )));
        }
        for fault in &found.faults {
            print(&fault.to_string())?;
        }
        let verdict = match found.faults.len() {
            0 => "sound".to_owned(),
            count => format!("{} found", counted(count, "fault")),
        };
        print(&match found.files {
            0 => format!("no file could be read: {verdict}"),
            files => format!(
                "{}, {} bytes in {}: {verdict}",
                counted(found.tensors, "tensor"),
                found.bytes,
                counted(files, "readable file"),
            ),
        })?;
        Ok(found.is_sound())
    }
}
