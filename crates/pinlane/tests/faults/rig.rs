//! Two simulated devices of one machine with small slots, and the tensors that the workload moves.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use pinlane::{
    DType, Device, DeviceOptions, Profile, Tensor, TensorMap, Tree,
    checkpoint::{SaveOptions, save},
    driver::{
        Driver, ErrorKind,
        sim::{Alive, DeviceConfig, FaultPlan, Machine, MachineConfig, SimDriver},
    },
};
use tempfile::TempDir;

use crate::strict::Strict;

pub(crate) const SLOT: usize = 4096;
/// Eight chunks, twice as many as there are slots.
const LARGE: usize = 8 * SLOT;

/// A machine with two devices. The first is the one that faults happen on.
pub(crate) struct Rig {
    pub(crate) devices: [Device; 2],
    pub(crate) sims: [Arc<SimDriver>; 2],
    stricts: [Arc<Strict>; 2],
}

impl Rig {
    pub(crate) fn new(faults: FaultPlan) -> Self {
        Self::with_pin_limit(faults, None)
    }

    /// On a host that pins no more than that many bytes in all.
    pub(crate) fn with_pin_limit(faults: FaultPlan, pin_limit: Option<u64>) -> Self {
        let device = DeviceConfig {
            memory_bytes: 16 << 20,
            bounce_bytes: 2048,
            ..DeviceConfig::default()
        };
        let machine = Machine::new(MachineConfig {
            pin_limit,
            ..MachineConfig::equal_devices(2, device)
        });
        let sims = [0, 1].map(|ordinal| machine.sim(ordinal).unwrap());
        let stricts = sims.clone().map(|sim| Arc::new(Strict::new(sim)));
        let devices = stricts.clone().map(|strict| {
            let driver: Arc<dyn Driver> = strict;
            let mut profile = Profile::assumed(driver.properties());
            profile.inline_bytes = 2 * SLOT;
            profile.plain_bytes = 512;
            let options = DeviceOptions {
                pinned_budget: Some(96 * SLOT),
                lanes: Some(2),
                slots_per_lane: Some(2),
                slot_bytes: Some(SLOT),
                profile: Some(profile),
            };
            Device::with_options(driver, &options).unwrap()
        });
        // From here on calls are counted.
        sims[0].set_faults(faults);
        Self {
            devices,
            sims,
            stricts,
        }
    }

    /// Whether both devices come to hold no more than `allocations`, or the first is lost: transfers whose handles were
    /// dropped are let go by another thread.
    pub(crate) fn settles_at(&self, allocations: usize) -> bool {
        eventually(|| self.allocations() <= allocations || self.is_lost())
    }

    pub(crate) fn allocations(&self) -> usize {
        self.sims.iter().map(|sim| sim.alive().device_allocations).sum()
    }

    /// Whether device memory that is kept, if any, comes to be counted as leaked. No tensor may be left.
    pub(crate) fn counts_what_it_keeps(&self) -> bool {
        eventually(|| self.leaked_bytes() > 0 || self.allocations() == 0)
    }

    pub(crate) fn leaked_bytes(&self) -> u64 {
        let stats = self.devices.iter().map(|device| device.stats().unwrap());
        stats.map(|stats| stats.leaked_bytes).sum()
    }

    /// Asks with a step of the driver that the engine does not use, and that is not counted among the program's.
    pub(crate) fn is_lost(&self) -> bool {
        let info = self.sims[0].memory_info();
        info.is_err_and(|error| error.kind() == ErrorKind::DeviceLost)
    }

    /// Drops the devices, and gives what is left of them on the machine.
    pub(crate) fn close(self) -> Closed {
        let lost = self.is_lost();
        let Self {
            devices,
            sims,
            stricts,
        } = self;
        drop(devices);
        let alive = || sims.clone().map(|sim| sim.alive());
        // Engines end on another thread where that let go of their last transfer. Memory outlives a lost device's.
        eventually(|| {
            let mut left = alive();
            if lost {
                left.iter_mut().for_each(forget_memory);
            }
            left == [Alive::default(); 2]
        });
        Closed {
            alive: alive(),
            freed_in_use: sims.iter().map(|sim| sim.freed_in_use()).sum(),
            breaches: stricts.iter().map(|strict| strict.breaches()).sum(),
        }
    }
}

/// What a machine has to show once everything of it was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) alive: [Alive; 2],
    /// Memory that was given back while a device used it.
    pub(crate) freed_in_use: u64,
    /// Calls with handles or ranges that are not, or no longer, the driver's own.
    pub(crate) breaches: u64,
}

impl Closed {
    pub(crate) const CLEAN: Self = Self {
        alive: [Alive {
            device_allocations: 0,
            device_bytes: 0,
            pinned_ranges: 0,
            pinned_bytes: 0,
            streams: 0,
            events: 0,
        }; 2],
        freed_in_use: 0,
        breaches: 0,
    };
}

fn forget_memory(alive: &mut Alive) {
    *alive = Alive {
        streams: alive.streams,
        events: alive.events,
        ..Alive::default()
    };
}

/// Whether `condition` comes true within a time in which it surely would, if ever.
fn eventually(condition: impl Fn() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > patience {
            return false;
        }
        thread::sleep(Duration::from_micros(50));
    }
    true
}

/// Host tensors of every kind, made once.
pub(crate) struct Tensors {
    /// Pageable, strided, in a file, many small, and one large enough for many chunks.
    pub(crate) mixed: TensorMap,
    pub(crate) large: Tensor,
    pub(crate) small: Tensor,
    pub(crate) tiny: Tensor,
    /// A checkpoint of tensors that can become another dtype, and of some that stay what they are.
    pub(crate) singles: PathBuf,
    _folder: TempDir,
}

impl Tensors {
    pub(crate) fn get() -> &'static Self {
        static TENSORS: OnceLock<Tensors> = OnceLock::new();
        TENSORS.get_or_init(Self::make)
    }

    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, pattern(3 * SLOT, 7)).unwrap();
        let bytes = |bytes, seed| Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap();
        let large = bytes(LARGE, 1);
        let mut mixed = TensorMap::new();
        mixed.insert("pageable", bytes(3000, 2)).unwrap();
        let square = bytes(50 * 60, 3).reshape(&[50, 60]).unwrap();
        mixed.insert("strided", square.transpose(0, 1).unwrap()).unwrap();
        mixed
            .insert("every second", square.slice(1, 0..60, 2).unwrap())
            .unwrap();
        let file = Tensor::from_file(&path, 100, DType::U8, &[2 * SLOT]).unwrap();
        mixed.insert("file", file).unwrap();
        for index in 0..12 {
            let small = bytes(100 + index, index as u8);
            mixed.insert(format!("small {index}"), small).unwrap();
        }
        mixed.insert("large", large.clone()).unwrap();
        mixed.insert("empty", bytes(0, 0)).unwrap();
        let singles = folder.path().join("singles.safetensors");
        let mut state = TensorMap::new();
        for (name, dtype, elements) in [
            ("long", DType::F32, SLOT),
            ("odd", DType::F32, 7),
            ("steps", DType::I64, 3),
            ("none", DType::F32, 0),
        ] {
            let bytes = pattern(dtype.bytes_for(elements).unwrap(), 6);
            let tensor = Tensor::from_bytes(bytes, dtype, &[elements]).unwrap();
            state.insert(name, tensor).unwrap();
        }
        save(&state, &singles, &SaveOptions::new()).unwrap();
        Self {
            mixed,
            large,
            small: bytes(SLOT + 77, 4),
            tiny: bytes(99, 5),
            singles,
            _folder: folder,
        }
    }
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    let byte = |index: usize| (index * 31 % 251) as u8 ^ seed;
    (0..bytes).map(byte).collect()
}

/// Panics where the two trees do not hold the same bytes. Neither may be on a device.
pub(crate) fn assert_same<T: Tree>(expected: &T, found: &T) {
    let host = Device::host();
    let (expected, found) = (expected.to(&host).unwrap(), found.to(&host).unwrap());
    let mut tensors = Vec::new();
    expected.visit(&mut |tensor| tensors.push(tensor));
    let mut expected = tensors.into_iter();
    found.visit(&mut |found| {
        let expected = expected.next().expect("as many tensors as there were");
        assert_eq!(
            (expected.dtype(), expected.shape()),
            (found.dtype(), found.shape())
        );
        let [expected, found] = [expected, found].map(|tensor| tensor.contiguous().unwrap());
        assert!(
            expected.as_bytes().unwrap() == found.as_bytes().unwrap(),
            "a tensor of shape {:?} arrived with other bytes than it left with",
            found.shape()
        );
    });
    assert!(expected.next().is_none());
}
