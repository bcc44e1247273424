//! What the figures were measured on.

use pinlane_driver::Properties;
use pinlane_guide::host::Host;
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
        let host = Host::this(properties.simulated);
        Self {
            device: properties.name.clone(),
            device_memory: properties.memory_bytes,
            copy_engines: properties.copy_engines,
            link: properties.link.name.clone(),
            processor: host.processor,
            cores: host.cores,
            kernel: host.kernel,
            driver: host.driver,
        }
    }
}
