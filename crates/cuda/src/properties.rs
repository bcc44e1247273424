//! What a device is, without making a context on it.

use std::{
    ffi::{CStr, c_char, c_int},
    fs,
    path::Path,
};

use pinlane_driver::{DeviceId, Properties, Result};

use crate::{
    devices::{attribute, check},
    library::{Api, version_name},
    link,
    status::Status,
};

const ATTRIBUTE_ASYNC_ENGINE_COUNT: c_int = 40;
const NUMA_NODES: &str = "/sys/devices/system/node";

pub(crate) fn of(api: &Api, id: DeviceId, device: c_int) -> Result<Properties> {
    let mut memory = 0;
    // SAFETY: a device of the driver, and a valid place for the answer.
    let status = unsafe { (api.device_memory)(&raw mut memory, device) };
    check(api, id.ordinal, status, || {
        "asking for the device's memory".to_owned()
    })?;
    let mut name = [0; 256];
    // SAFETY: a device of the driver, and a buffer with its length.
    let status = unsafe { (api.device_name)(name.as_mut_ptr(), name.len() as c_int, device) };
    check(api, id.ordinal, status, || {
        "asking for the device's name".to_owned()
    })?;
    let slot = pci_bus_id(api, device);
    Ok(Properties {
        id,
        // One driver library serves the whole process.
        group: 0,
        name: text(&name),
        memory_bytes: memory as u64,
        copy_engines: attribute(api, device, ATTRIBUTE_ASYNC_ENGINE_COUNT)
            .and_then(|engines| u32::try_from(engines).ok())
            .map_or(1, |engines| engines.max(1)),
        link: link::of(slot.as_deref()),
        numa_node: slot
            .as_deref()
            .and_then(|slot| numa_node(&link::folder(slot), Path::new(NUMA_NODES))),
        pci_address: slot,
        library: api
            .version()
            .ok()
            .map(|version| format!("CUDA {}", version_name(version))),
        simulated: false,
    })
}

/// Where the device sits, such as `0000:17:00.0`, in the spelling of `/sys`.
fn pci_bus_id(api: &Api, device: c_int) -> Option<String> {
    let mut slot = [0; 32];
    // SAFETY: a device of the driver, and a buffer with its length.
    let status = unsafe { (api.device_pci_bus_id)(slot.as_mut_ptr(), slot.len() as c_int, device) };
    (status == Status::SUCCESS).then(|| text(&slot).to_lowercase())
}

/// The text up to the first zero.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|unit| *unit as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(
        |_| String::from_utf8_lossy(&bytes).into_owned(),
        |text| text.to_string_lossy().into_owned(),
    )
}

/// The NUMA node that the device in `folder` hangs on, where `nodes` has several.
fn numa_node(folder: &Path, nodes: &Path) -> Option<u32> {
    let is_node = |name: &str| {
        name.strip_prefix("node")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let entries = fs::read_dir(nodes).ok()?.flatten();
    let several = entries
        .filter(|entry| is_node(&entry.file_name().to_string_lossy()))
        .nth(1)
        .is_some();
    // The system writes -1 where it does not know.
    let node = fs::read_to_string(folder.join("numa_node")).ok()?;
    several.then(|| node.trim().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_numa_node_only_where_there_are_several() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let nodes = folder.join("nodes");
        fs::create_dir_all(nodes.join("node0")).unwrap();
        fs::create_dir_all(nodes.join("power")).unwrap();
        fs::write(folder.join("numa_node"), "1\n").unwrap();
        assert_eq!(numa_node(folder, &nodes), None);
        fs::create_dir_all(nodes.join("node1")).unwrap();
        assert_eq!(numa_node(folder, &nodes), Some(1));
        fs::write(folder.join("numa_node"), "-1\n").unwrap();
        assert_eq!(numa_node(folder, &nodes), None);
        assert_eq!(numa_node(&folder.join("missing"), &nodes), None);
    }

    #[test]
    fn a_name_ends_at_its_first_zero() {
        let buffer: Vec<c_char> = b"NVIDIA H200\0\0rest"
            .iter()
            .map(|byte| *byte as c_char)
            .collect();
        assert_eq!(text(&buffer), "NVIDIA H200");
    }
}
