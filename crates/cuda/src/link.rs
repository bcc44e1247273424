//! The PCIe link between host and device: its generation and width, and what that gives in practice.
//!
//! Asked of NVML, the management library that comes with the driver, and where it is missing or does not say, of
//! `/sys`. Always the *most* that the link can do: an idle GPU lowers its speed.

use std::{
    ffi::{CString, c_char, c_int, c_uint},
    fs,
    path::{Path, PathBuf},
};

use libloading::Library;
use pinlane_driver::Link;

/// Bytes per second of one lane that pinned copies reach, by generation, from the first: about 0.8 of the signalling
/// rate in the older ones (measured: 12.8 GB/s for Gen3 x16, 26 for Gen4 x16, 55.2 for Gen5 x16).
const LANE: [f64; 6] = [0.2e9, 0.4e9, 0.8e9, 1.62e9, 3.45e9, 6.9e9];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pcie {
    generation: u32,
    width: u32,
}

impl Pcie {
    /// `None` for numbers that no link has.
    fn new(generation: u32, width: u32) -> Option<Self> {
        let exists = (1..=LANE.len()).contains(&(generation as usize)) && (1..=32).contains(&width);
        exists.then_some(Self { generation, width })
    }

    fn link(self) -> Link {
        let lane = LANE[self.generation as usize - 1];
        let name = format!("PCIe Gen{} x{}", self.generation, self.width);
        Link::new(name, Some(lane * f64::from(self.width)))
    }
}

/// The link of the device in PCI slot `slot`.
pub(crate) fn of(slot: Option<&str>) -> Link {
    let pcie = slot.and_then(|slot| ask(NVML, slot, &folder(slot)));
    pcie.map_or_else(|| Link::new("PCIe", None), Pcie::link)
}

/// What the management library `nvml` says of the device in `slot`, and where it does not, the system in `folder`.
fn ask(nvml: &str, slot: &str, folder: &Path) -> Option<Pcie> {
    ask_nvml(nvml, slot).or_else(|| read(folder))
}

/// What the system tells of the device in PCI slot `slot`.
pub(crate) fn folder(slot: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(slot)
}

/// Reads `max_link_speed` (`32.0 GT/s PCIe`) and `max_link_width` (`16`).
fn read(folder: &Path) -> Option<Pcie> {
    let speed = fs::read_to_string(folder.join("max_link_speed")).ok()?;
    let width = fs::read_to_string(folder.join("max_link_width")).ok()?;
    Pcie::new(generation(&speed)?, width.trim().parse().ok()?)
}

fn generation(speed: &str) -> Option<u32> {
    match speed.split_whitespace().next()? {
        "2.5" => Some(1),
        "5.0" | "5" => Some(2),
        "8.0" | "8" => Some(3),
        "16.0" | "16" => Some(4),
        "32.0" | "32" => Some(5),
        "64.0" | "64" => Some(6),
        _ => None,
    }
}

#[cfg(not(windows))]
const NVML: &str = "libnvidia-ml.so.1";
#[cfg(windows)]
const NVML: &str = "nvml.dll";

/// `nvmlReturn_t`; 0 is success.
type Answer = c_int;
type Ask = unsafe extern "C" fn(usize, *mut c_uint) -> Answer;

fn ask_nvml(name: &str, slot: &str) -> Option<Pcie> {
    // SAFETY: loading NVML runs no code that has preconditions.
    let library = unsafe { Library::new(name) }.ok()?;
    // SAFETY: the types are those of `nvml.h` for these symbols, and the library outlives their use below.
    let (init, shutdown, device, generation, width) = unsafe {
        (
            *library
                .get::<unsafe extern "C" fn() -> Answer>(b"nvmlInit_v2\0")
                .ok()?,
            *library
                .get::<unsafe extern "C" fn() -> Answer>(b"nvmlShutdown\0")
                .ok()?,
            *library
                .get::<unsafe extern "C" fn(*const c_char, *mut usize) -> Answer>(
                    b"nvmlDeviceGetHandleByPciBusId_v2\0",
                )
                .ok()?,
            *library.get::<Ask>(b"nvmlDeviceGetMaxPcieLinkGeneration\0").ok()?,
            *library.get::<Ask>(b"nvmlDeviceGetMaxPcieLinkWidth\0").ok()?,
        )
    };
    let slot = CString::new(slot).ok()?;
    // SAFETY: it counts its calls, so other users in the process are not disturbed.
    if unsafe { init() } != 0 {
        return None;
    }
    let mut handle = 0;
    // SAFETY: a string that ends in zero, and a valid place for the answer.
    let found = unsafe { device(slot.as_ptr(), &raw mut handle) } == 0;
    let answer = |question: Ask| {
        let mut number = 0;
        // SAFETY: the handle was found, and the place for the answer is valid.
        let answered = found && unsafe { question(handle, &raw mut number) } == 0;
        answered.then_some(number)
    };
    let pcie = answer(generation).zip(answer(width));
    // SAFETY: it stands against the `init` above.
    let _answer = unsafe { shutdown() };
    let (generation, width) = pcie?;
    Pcie::new(generation, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_and_rated_by_its_generation_and_width() {
        let link = Pcie::new(5, 16).unwrap().link();
        assert_eq!(link.name, "PCIe Gen5 x16");
        assert_eq!(link.bytes_per_second, Some(55.2e9));
        let narrow = Pcie::new(4, 8).unwrap().link();
        assert_eq!(narrow.name, "PCIe Gen4 x8");
        assert!(narrow.bytes_per_second < Some(14e9));
    }

    #[test]
    fn a_link_that_no_device_has_is_not_believed() {
        assert_eq!(Pcie::new(0, 16), None);
        assert_eq!(Pcie::new(9, 16), None);
        assert_eq!(Pcie::new(5, 0), None);
        assert_eq!(Pcie::new(5, 255), None);
    }

    #[test]
    fn the_systems_spelling_of_a_speed_gives_the_generation() {
        assert_eq!(generation("2.5 GT/s PCIe\n"), Some(1));
        assert_eq!(generation("16.0 GT/s PCIe\n"), Some(4));
        assert_eq!(generation("32.0 GT/s PCIe\n"), Some(5));
        assert_eq!(generation("Unknown\n"), None);
        assert_eq!(generation(""), None);
    }

    #[test]
    fn without_the_management_library_the_system_is_asked() {
        const SLOT: &str = "0000:17:00.0";
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("max_link_speed"), "32.0 GT/s PCIe\n").unwrap();
        fs::write(folder.path().join("max_link_width"), "16\n").unwrap();
        // One that is not there, and one that is another library.
        for nvml in ["libnvidia-ml-that-is-not-there.so.1", "libc.so.6"] {
            assert_eq!(ask(nvml, SLOT, folder.path()), Pcie::new(5, 16), "{nvml}");
        }
        fs::write(folder.path().join("max_link_speed"), "Unknown\n").unwrap();
        assert_eq!(read(folder.path()), None);
        fs::remove_file(folder.path().join("max_link_speed")).unwrap();
        assert_eq!(
            ask("libnvidia-ml-that-is-not-there.so.1", SLOT, folder.path()),
            None
        );
    }

    #[test]
    fn a_slot_that_is_not_there_has_a_link_without_a_rate() {
        assert_eq!(of(Some("ffff:ff:1f.7")), Link::new("PCIe", None));
        assert_eq!(of(None), Link::new("PCIe", None));
    }
}
