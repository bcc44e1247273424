//! The pinned budget, however much is moved.

use pinlane::{DType, Device, DeviceOptions, Tensor, TransferOptions, Tree};

use crate::{
    rig,
    rig::{is_over_budget, pattern},
};

pub(crate) fn a_hundred_times_the_budget_moves_within_the_budget() {
    const BUDGET: usize = 24 << 20;
    const SIZES: [usize; 4] = [40 << 20, 7_000_001, 30_000, 5];
    let rig = rig(&DeviceOptions {
        pinned_budget: Some(BUDGET),
        ..DeviceOptions::default()
    });
    let mut sent: Vec<_> = SIZES.iter().map(|&bytes| pattern(bytes, bytes)).collect();
    let mut moved = 0;
    for round in 0_u8.. {
        if moved >= 100 * BUDGET {
            break;
        }
        // What landed in an earlier round can't pass for this one's.
        for bytes in &mut sent {
            bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= round);
        }
        let tree = sent
            .iter()
            .map(|bytes| Tensor::from_bytes(bytes.clone(), DType::U8, &[bytes.len()]).unwrap());
        let there = tree.collect::<Vec<_>>().to(rig.device()).unwrap();
        // Some results are pinned, as far as the budget goes.
        let pinned = TransferOptions::new().pinned_result();
        let (big, small) = there.split_at(1);
        for part in [big.to_vec(), small.to_vec()] {
            let back = match part.to_with(&Device::host(), &pinned) {
                Err(error) if is_over_budget(&error) => part.to(&Device::host()).unwrap(),
                moved => moved.unwrap(),
            };
            for tensor in &back {
                let found = tensor.as_bytes().unwrap();
                let bytes = sent.iter().find(|bytes| bytes.len() == found.len());
                assert!(bytes.is_some_and(|bytes| found == bytes), "round {round}");
            }
        }
        moved += 2 * SIZES.iter().sum::<usize>();
    }
    let usage = rig.device().stats().unwrap().pinned;
    assert!(usage.peak > 0 && usage.peak <= BUDGET, "{usage:?}");
    rig.finish();
}
