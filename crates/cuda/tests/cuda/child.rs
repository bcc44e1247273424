//! Children of a test: the program again, with an environment variable that says what to do. The engine's tests with a GPU
//! use it too.

use std::{
    env,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a child may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs this program with `variable` set to `name`, and fails the test unless it ends by itself, and well.
pub(crate) fn ends_well(variable: &str, name: &str) {
    let mut child = Command::new(env::current_exe().unwrap())
        .env(variable, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{name}: the process hangs");
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{name}: {status}; what it says stands above");
}
