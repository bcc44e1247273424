//! Where the hardware of GPUs shows itself, whether a driver serves it or not.

use super::System;
use crate::Accelerators;

/// The number of NVIDIA among the vendors of PCI devices.
const VENDOR: &str = "0x10de";
/// What displays and what computes without one.
const CLASSES: [&str; 2] = ["0x0300", "0x0302"];
/// The device file that Windows' Subsystem for Linux gives for all.
const WINDOWS: &str = "dev/dxg";

pub(super) fn read(system: &System) -> Accelerators {
    const SLOTS: &str = "sys/bus/pci/devices";
    let is_gpu = |slot: &String| {
        let says = |file: &str| system.read(format!("{SLOTS}/{slot}/{file}")).unwrap_or_default();
        says("vendor") == VENDOR && CLASSES.iter().any(|class| says("class").starts_with(class))
    };
    let slots = system.names(SLOTS).into_iter().filter(is_gpu);
    // One for each device of the kernel's driver, such as `nvidia3`: a container may have any of them. `nvidiactl` is none.
    let is_device = |name: &String| {
        name.strip_prefix("nvidia")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let mut files = system.names("dev");
    files.retain(is_device);
    let files = files.into_iter().map(|name| format!("/dev/{name}"));
    let windows = system.has(WINDOWS).then(|| format!("/{WINDOWS}"));
    Accelerators {
        hardware: slots
            .map(|slot| format!("PCI slot {slot}"))
            .chain(files)
            .chain(windows)
            .collect(),
        kernel_driver: system.read("sys/module/nvidia/version"),
        ..Accelerators::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    #[test]
    fn a_gpu_is_known_by_its_vendor_and_class() {
        let slot = |name: &str, file: &str| format!("sys/bus/pci/devices/{name}/{file}");
        let files = [
            (slot("0000:17:00.0", "vendor"), "0x10de\n"),
            (slot("0000:17:00.0", "class"), "0x030200\n"),
            (slot("0000:17:00.1", "vendor"), "0x10de\n"),
            (slot("0000:17:00.1", "class"), "0x040300\n"),
            (slot("0000:00:02.0", "vendor"), "0x8086\n"),
            (slot("0000:00:02.0", "class"), "0x030000\n"),
            ("sys/module/nvidia/version".to_owned(), "580.95.05\n"),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_folder, system) = machine(&files);
        let found = read(&system);
        assert_eq!(found.hardware, ["PCI slot 0000:17:00.0"]);
        assert_eq!(found.kernel_driver.as_deref(), Some("580.95.05"));
    }

    #[test]
    fn any_device_file_of_the_kernels_driver_shows_a_gpu() {
        let (_folder, system) = machine(&[
            ("dev/nvidia3", ""),
            ("dev/nvidia12", ""),
            ("dev/nvidiactl", ""),
            ("dev/nvidia-uvm", ""),
        ]);
        let mut hardware = read(&system).hardware;
        hardware.sort();
        assert_eq!(hardware, ["/dev/nvidia12", "/dev/nvidia3"]);
    }

    #[test]
    fn windows_subsystem_has_no_slots_and_a_device_file() {
        let (_folder, system) = machine(&[("dev/dxg", "")]);
        assert_eq!(read(&system).hardware, ["/dev/dxg"]);
        let (_folder, system) = machine(&[]);
        assert!(read(&system).hardware.is_empty());
    }
}
