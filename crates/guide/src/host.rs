//! What a host is, for documents of what was measured on it.

use std::{fs, num::NonZero, thread};

use serde::Serialize;

/// A host, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The processor's product name.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The version of the GPUs' kernel driver; none where the device only simulates.
    pub driver: Option<String>,
}

impl Host {
    /// This host, of a device that only simulates or does not.
    #[must_use]
    pub fn this(simulated: bool) -> Self {
        Self {
            processor: read("/proc/cpuinfo").as_deref().and_then(processor),
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease"),
            driver: read("/sys/module/nvidia/version").filter(|_| !simulated),
        }
    }
}

/// What a file of the kernel says; `None` where there is no such file.
fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_names_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some Chip 9000\nmodel name\t: Other\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("Some Chip 9000"));
        assert_eq!(processor("processor\t: 0\n"), None);
    }
}
