//! What the figures were measured on.

use std::{fs, num::NonZero, thread};

use pinlane_driver::Properties;
use serde::{Deserialize, Serialize};

/// The host and its device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The device's product name.
    pub device: String,
    /// The device's memory in bytes.
    pub device_memory: u64,
    /// Copies that the device runs at once.
    pub copy_engines: u32,
    /// The link's name.
    pub link: String,
    /// The processor's product name, where the system tells.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel's release, where the system tells.
    pub kernel: Option<String>,
    /// The version of the device's kernel driver, where there is one and the system tells.
    pub driver: Option<String>,
}

impl Machine {
    /// This host, with the device of these properties.
    #[must_use]
    pub fn this(properties: &Properties) -> Self {
        Self {
            device: properties.name.clone(),
            device_memory: properties.memory_bytes,
            copy_engines: properties.copy_engines,
            link: properties.link.name.clone(),
            processor: read("/proc/cpuinfo").as_deref().and_then(processor),
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease"),
            driver: read("/sys/module/nvidia/version").filter(|_| !properties.simulated),
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
