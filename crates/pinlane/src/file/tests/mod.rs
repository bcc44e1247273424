//! Files that do as they are told, under an engine: what is read and written is what it should be, and every failure names
//! the tensor.

mod reading;
mod writing;

use pinlane_driver::{
    sim::{Alive, Machine, MachineConfig},
    sync::{Duration, thread},
};
use proptest::{prelude::*, sample::Index};

use super::{FileAccess, faulty::FaultyFile};
use crate::{DType, Device, DeviceOptions, Tensor, Tree};

pub(super) const SLOT: usize = 64 << 10;

pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|index| ((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 37) as u8)
        .collect()
}

/// A device with an engine of its own, and its simulator, to see that nothing is left behind.
pub(super) struct Rig {
    machine: Machine,
    pub(super) device: Device,
}

impl Rig {
    pub(super) fn new(slot_bytes: usize) -> Self {
        let machine = Machine::new(MachineConfig::default());
        let options = DeviceOptions {
            pinned_budget: Some(16 * slot_bytes),
            lanes: Some(2),
            slots_per_lane: Some(2),
            slot_bytes: Some(slot_bytes),
            profile: None,
        };
        let device = Device::with_options(machine.device(0).unwrap(), &options).unwrap();
        Self { machine, device }
    }

    /// What tensors hold that were moved to the device and back.
    pub(super) fn there_and_back(&self, tensors: &Vec<Tensor>) -> Vec<Vec<u8>> {
        let there = tensors.to(&self.device).unwrap();
        bytes_of(&there.to(&Device::host()).unwrap())
    }

    pub(super) fn finish(self) {
        let Self { machine, device } = self;
        assert_eq!(device.stats().unwrap().leaked_bytes, 0);
        drop(device);
        let sim = machine.sim(0).unwrap();
        for _ in 0..30_000 {
            if sim.alive() == Alive::default() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sim.alive(), Alive::default());
        assert_eq!(sim.freed_in_use(), 0);
    }
}

/// The elements of tensors on the host, in their order.
pub(super) fn bytes_of(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    tensors
        .iter()
        .map(|tensor| tensor.contiguous().unwrap().as_bytes().unwrap().to_vec())
        .collect()
}

/// A tensor in a file, as a view of a matrix of bytes.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) offset: Index,
    pub(super) rows: usize,
    pub(super) columns: usize,
    row_range: (Index, Index),
    row_step: usize,
    column_range: (Index, Index),
    column_step: usize,
    transposed: bool,
    /// Above 1: the view again and again.
    repeated: usize,
}

pub(super) fn views() -> impl Strategy<Value = View> {
    let indices = || (any::<Index>(), any::<Index>());
    let sizes = prop_oneof![
        3 => (1_usize..20, 1_usize..20),
        2 => (1_usize..5, 1_usize..40_000),
        1 => (1_usize..40_000, 1_usize..4),
    ];
    (
        any::<Index>(),
        sizes,
        indices(),
        1_usize..3,
        indices(),
        1_usize..3,
        any::<bool>(),
        1_usize..4,
    )
        .prop_map(
            |(
                offset,
                (rows, columns),
                row_range,
                row_step,
                column_range,
                column_step,
                transposed,
                repeated,
            )| View {
                offset,
                rows,
                columns,
                row_range,
                row_step,
                column_range,
                column_step,
                transposed,
                repeated,
            },
        )
}

impl View {
    /// The view, of a tensor in a file as of one in memory.
    pub(super) fn of(&self, tensor: &Tensor) -> Tensor {
        let part = |(a, b): (Index, Index), size: usize| {
            let (a, b) = (a.index(size + 1), b.index(size + 1));
            a.min(b)..a.max(b)
        };
        let tensor = tensor
            .slice(0, part(self.row_range, self.rows), self.row_step)
            .unwrap();
        let columns = part(self.column_range, self.columns);
        let tensor = tensor.slice(1, columns, self.column_step).unwrap();
        let tensor = if self.transposed {
            tensor.transpose(0, 1).unwrap()
        } else {
            tensor
        };
        if self.repeated == 1 || !tensor.layout().is_contiguous() {
            return tensor;
        }
        let [rows, columns] = *tensor.shape() else {
            unreachable!("a matrix")
        };
        let tensor = tensor.reshape(&[1, rows, columns]).unwrap();
        tensor.expand(&[self.repeated, rows, columns]).unwrap()
    }

    /// The view in a file and in memory.
    pub(super) fn both(&self, file: &FaultyFile, source: &super::FileSource) -> (Tensor, Tensor) {
        let bytes = self.rows * self.columns;
        let offset = self.offset.index(file.content.len() - bytes + 1);
        let shape = [self.rows, self.columns];
        let in_file = source.tensor(offset as u64, DType::U8, &shape).unwrap();
        let held = file.content[offset..][..bytes].to_vec();
        let in_memory = Tensor::from_bytes(held, DType::U8, &shape).unwrap();
        (self.of(&in_file), self.of(&in_memory))
    }
}

pub(super) fn accesses() -> impl Strategy<Value = FileAccess> {
    prop_oneof![
        Just(FileAccess::Auto),
        Just(FileAccess::Buffered),
        Just(FileAccess::Direct)
    ]
}
