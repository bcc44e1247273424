//! The PCIe link between host and device: its generation and width, at most and at this moment.
//!
//! Asked of NVML, the management library that comes with the driver, and where it is missing or does not say, of
//! `/sys`. A [`Link`] is always the *most* that the device reaches in its slot: an idle GPU lowers its speed.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint},
    fs,
    path::{Path, PathBuf},
};

use libloading::Library;
use pinlane_driver::{Link, LinkState, PcieLink};

/// The link of the device in PCI slot `slot`.
pub(crate) fn of(slot: Option<&str>) -> Link {
    let pcie = slot.and_then(|slot| most(NVML, slot, &folder(slot)));
    pcie.map_or_else(
        || Link::new("PCIe", None),
        |pcie| Link::new(pcie.to_string(), Some(pcie.bytes_per_second())),
    )
}

/// How the link of the device in `slot` runs at this moment.
pub(crate) fn state(slot: &str) -> Option<LinkState> {
    state_of(NVML, slot, &folder(slot))
}

/// What the management library `nvml` says of the device in `slot`, and where it does not, the system in `folder`.
fn most(nvml: &str, slot: &str, folder: &Path) -> Option<PcieLink> {
    let asked = ask(
        nvml,
        slot,
        [
            c"nvmlDeviceGetMaxPcieLinkGeneration",
            c"nvmlDeviceGetMaxPcieLinkWidth",
        ],
    );
    asked
        .and_then(|[generation, width]| PcieLink::new(generation?, width?))
        .or_else(|| read(folder, "max"))
}

fn state_of(nvml: &str, slot: &str, folder: &Path) -> Option<LinkState> {
    let asked = ask(
        nvml,
        slot,
        [
            c"nvmlDeviceGetCurrPcieLinkGeneration",
            c"nvmlDeviceGetCurrPcieLinkWidth",
            c"nvmlDeviceGetMaxPcieLinkGeneration",
            c"nvmlDeviceGetMaxPcieLinkWidth",
            c"nvmlDeviceGetGpuMaxPcieLinkGeneration",
        ],
    );
    // The system knows what the device can do, not what its slot adds to that.
    let by_itself = read(folder, "max");
    let told = asked.and_then(
        |[generation, width, in_slot, lanes_in_slot, by_itself_generation]| {
            let now = PcieLink::new(generation?, width?)?;
            let in_slot = in_slot
                .zip(lanes_in_slot)
                .and_then(|(generation, width)| PcieLink::new(generation, width));
            // NVML has no question for the lanes of the device alone.
            let lanes = by_itself.or(in_slot).map(PcieLink::width);
            let by_itself = by_itself_generation
                .zip(lanes)
                .and_then(|(generation, width)| PcieLink::new(generation, width))
                .or(by_itself);
            Some(LinkState::new(now).in_slot(in_slot).by_itself(by_itself))
        },
    );
    told.or_else(|| Some(LinkState::new(read(folder, "current")?).by_itself(by_itself)))
}

/// What the system tells of the device in PCI slot `slot`.
pub(crate) fn folder(slot: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(slot)
}

/// Reads `max_link_speed` (`32.0 GT/s PCIe`) and `max_link_width` (`16`), or the same of `current`.
fn read(folder: &Path, which: &str) -> Option<PcieLink> {
    let speed = fs::read_to_string(folder.join(format!("{which}_link_speed"))).ok()?;
    let width = fs::read_to_string(folder.join(format!("{which}_link_width"))).ok()?;
    PcieLink::new(generation(&speed)?, width.trim().parse().ok()?)
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
type Question = unsafe extern "C" fn(usize, *mut c_uint) -> Answer;

/// Asks the management library `name` of the device in `slot`. `questions` are functions of `nvml.h` that answer with a
/// number; one that this library does not know, or does not answer, is `None`.
fn ask<const N: usize>(name: &str, slot: &str, questions: [&CStr; N]) -> Option<[Option<u32>; N]> {
    // SAFETY: loading NVML runs no code that has preconditions.
    let library = unsafe { Library::new(name) }.ok()?;
    // SAFETY: the types are those of `nvml.h` for these symbols, and the library outlives their use below.
    let (init, shutdown, device) = unsafe {
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
    let answers = questions.map(|question| {
        // SAFETY: the callers name functions of this type, and the library outlives the call below.
        let question = unsafe { library.get::<Question>(question.to_bytes_with_nul()) }.ok()?;
        let mut number = 0;
        // SAFETY: the handle was found, and the place for the answer is valid.
        let answered = found && unsafe { question(handle, &raw mut number) } == 0;
        answered.then_some(number)
    });
    // SAFETY: it stands against the `init` above.
    let _answer = unsafe { shutdown() };
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: &str = "0000:17:00.0";
    /// One that is not there, and one that is another library.
    const NO_NVML: [&str; 2] = ["libnvidia-ml-that-is-not-there.so.1", "libc.so.6"];

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
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("max_link_speed"), "32.0 GT/s PCIe\n").unwrap();
        fs::write(folder.path().join("max_link_width"), "16\n").unwrap();
        for nvml in NO_NVML {
            assert_eq!(most(nvml, SLOT, folder.path()), PcieLink::new(5, 16), "{nvml}");
        }
        fs::write(folder.path().join("max_link_speed"), "Unknown\n").unwrap();
        assert_eq!(read(folder.path(), "max"), None);
        fs::remove_file(folder.path().join("max_link_speed")).unwrap();
        assert_eq!(most(NO_NVML[0], SLOT, folder.path()), None);
    }

    #[test]
    fn the_system_tells_how_a_link_runs_now_beside_what_its_device_can_do() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(state_of(NO_NVML[0], SLOT, folder.path()), None);
        write("current_link_speed", "8.0 GT/s PCIe\n");
        write("current_link_width", "8\n");
        let now = PcieLink::new(3, 8).unwrap();
        assert_eq!(
            state_of(NO_NVML[0], SLOT, folder.path()),
            Some(LinkState::new(now))
        );
        write("max_link_speed", "32.0 GT/s PCIe\n");
        write("max_link_width", "16\n");
        for nvml in NO_NVML {
            let state = state_of(nvml, SLOT, folder.path()).unwrap();
            assert_eq!((state.now, state.in_slot), (now, None));
            assert_eq!(state.by_itself, PcieLink::new(5, 16));
        }
    }

    #[test]
    fn a_slot_that_is_not_there_has_a_link_without_a_rate() {
        assert_eq!(of(Some("ffff:ff:1f.7")), Link::new("PCIe", None));
        assert_eq!(of(None), Link::new("PCIe", None));
        assert_eq!(state("ffff:ff:1f.7"), None);
    }
}
