//! The Python that a command line finds, and what is installed for it: asked without importing any of it, which takes
//! seconds.

use std::{
    env,
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Python, Torch};

/// When those that have not answered are given up on.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(5);

/// Prints what is installed. The CUDA of torch stands in a file of its own that imports nothing.
const QUESTION: &str = r"
import importlib.metadata as metadata, importlib.util, json, os, platform, runpy, sys
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
cuda = None
found = importlib.util.find_spec('torch')
if found is not None and found.origin:
    path = os.path.join(os.path.dirname(found.origin), 'version.py')
    if os.path.exists(path):
        cuda = runpy.run_path(path).get('cuda')
print(json.dumps({'program': sys.executable, 'version': platform.python_version(), 'torch': version('torch'),
                  'cuda': cuda, 'pinlane': version('pinlane')}))
";

/// The active virtual environment's, else the first of the path.
pub(super) fn find() -> Option<Python> {
    let active = env::var_os("VIRTUAL_ENV").map(|folder| PathBuf::from(folder).join("bin/python"));
    let programs = active.into_iter().chain(["python3", "python"].map(PathBuf::from));
    let deadline = Instant::now() + PATIENCE;
    programs.into_iter().find_map(|program| {
        let mut asked = Command::new(program);
        asked.args(["-c", QUESTION]);
        answer(&output(asked, deadline)?)
    })
}

/// What a command prints, if it ends well and before `deadline`.
fn output(mut command: Command, deadline: Instant) -> Option<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(PAUSE),
            None => {
                // It may have ended by itself meanwhile; then there is nothing to kill.
                let _gone = child.kill();
                child.wait().ok()?;
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

/// Reads the last line: whatever a user's start-up files print stands before it.
fn answer(text: &str) -> Option<Python> {
    let told: Value = serde_json::from_str(text.trim_end().lines().last()?).ok()?;
    let word = |name: &str| told.get(name)?.as_str().map(str::to_owned);
    Some(Python {
        program: word("program")?.into(),
        version: word("version")?,
        torch: word("torch").map(|version| Torch {
            version,
            cuda: word("cuda"),
        }),
        pinlane: word("pinlane"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_tells_its_torch_and_what_that_was_built_for() {
        let told = "hello from a start-up file\n\
                    {\"program\": \"/usr/bin/python3\", \"version\": \"3.12.1\", \"torch\": \"2.11.0+cu130\", \"cuda\": \"13.0\"}\n";
        let python = answer(told).unwrap();
        assert_eq!((python.version.as_str(), python.pinlane), ("3.12.1", None));
        let torch = python.torch.unwrap();
        assert_eq!(
            (torch.version.as_str(), torch.cuda.as_deref()),
            ("2.11.0+cu130", Some("13.0"))
        );
        let without =
            answer("{\"program\": \"p\", \"version\": \"3.10.0\", \"torch\": null, \"cuda\": null}").unwrap();
        assert_eq!(without.torch, None);
        assert_eq!(answer(""), None);
        assert_eq!(answer("Python 2.7"), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_given_up_on() {
        let mut endless = Command::new("sleep");
        endless.arg("1000");
        assert_eq!(output(endless, Instant::now() + 5 * PAUSE), None);
        let later = Instant::now() + 100 * PATIENCE;
        assert_eq!(output(Command::new("a-program-that-is-not-there"), later), None);
        assert_eq!(output(Command::new("false"), later), None);
        let mut talkative = Command::new("echo");
        talkative.arg("all is well");
        assert_eq!(output(talkative, later).as_deref(), Some("all is well\n"));
    }
}
