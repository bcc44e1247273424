//! The files that a command reads and those that it writes, as typed: none may be both.

use std::{fs, path::Path};

use anyhow::anyhow;
use pinlane_advise::profiles;

use crate::{
    args::{Args, Command},
    output::Failure,
};

/// What the names of a checkpoint's files end with.
const CHECKPOINT: [&str; 2] = [".safetensors", ".safetensors.index.json"];

/// The files of a command, each with what names it on the command line.
#[derive(Default)]
struct Files<'a> {
    read: Vec<(&'a str, &'a Path)>,
    written: Vec<(&'a str, &'a Path)>,
}

impl<'a> Files<'a> {
    fn of(args: &'a Args) -> Self {
        let mut files = Self::default();
        let mut read = |name, path: Option<&'a std::path::PathBuf>| {
            files.read.extend(path.map(|path| (name, path.as_path())));
        };
        let mut written: Vec<(&str, Option<&Path>)> = vec![("--trace", args.trace.as_deref())];
        match &args.command {
            Command::Guide(args) => {
                read("--tensors", args.tensors.as_ref());
                written.push(("--json", args.json.as_deref()));
                written.push(("--report", args.report.as_deref()));
            }
            Command::Bench(args) => {
                read("--from", args.from.as_ref());
                read("--peers", args.peers.as_ref());
                for path in args.compare.iter().flatten() {
                    read("--compare", Some(path));
                }
                written.push(("--json", args.json.as_deref()));
                written.push(("--figures-json", args.figures_json.as_deref()));
                written.push(("--report", args.report.as_deref()));
            }
            Command::Tune(args) => written.push(("--json", args.json.as_deref())),
            Command::Advise(args) => {
                read("--tensors", args.tensors.as_ref());
                // One that comes with pinlane is no file, whatever is called so.
                if let Some(name) = args
                    .profile
                    .as_ref()
                    .filter(|name| !profiles::names().any(|known| known == **name))
                {
                    files.read.push(("--profile", Path::new(name)));
                }
            }
            Command::Plan(args) => read("--tensors", args.tensors.as_ref()),
            Command::Ls(args) => read("PATH", Some(&args.checkpoint.path)),
            Command::Load(args) => read("PATH", Some(&args.checkpoint.path)),
            Command::Verify(args) => read("PATH", Some(&args.path)),
            Command::Doctor(_) => {}
        }
        let written = written.into_iter();
        files.written = written.filter_map(|(name, path)| Some((name, path?))).collect();
        files
    }
}

/// Refuses to write to a file that is read, to a file of a checkpoint, and twice to one file.
///
/// # Errors
///
/// [`Failure::Usage`] with the two that are the same.
pub(crate) fn check(args: &Args) -> Result<(), Failure> {
    let files = Files::of(args);
    for (place, (option, path)) in files.written.iter().enumerate() {
        let shown = path.display();
        if let Some((read, _)) = files.read.iter().find(|(_, read)| same(read, path)) {
            return Err(Failure::Usage(anyhow!(
                "{option} {shown} would replace what {read} reads: name another file to write to"
            )));
        }
        let is_checkpoint = |name: &str| CHECKPOINT.iter().any(|ending| name.ends_with(ending));
        if path.is_file() && path.to_str().is_some_and(is_checkpoint) {
            return Err(Failure::Usage(anyhow!(
                "{option} {shown} would replace a file of a checkpoint: name another file to write to"
            )));
        }
        if let Some((other, _)) = files.written[..place].iter().find(|(_, other)| same(other, path)) {
            return Err(Failure::Usage(anyhow!(
                "{other} and {option} would both be written to {shown}: name another file for one of them"
            )));
        }
    }
    Ok(())
}

/// Whether both are one regular file, or will be. What is no regular file, such as `/dev/null`, takes all that is written.
fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one.is_file() && (one == other || linked(&one, &other)),
        (Err(_), Err(_)) => one == other,
        _ => false,
    }
}

/// Whether both are names of the same file.
#[cfg(unix)]
fn linked(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = |path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(not(unix))]
fn linked(_: &Path, _: &Path) -> bool {
    false
}
