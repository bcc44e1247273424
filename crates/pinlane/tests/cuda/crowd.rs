//! Many threads that use one device at once.

use std::{sync::Barrier, thread};

use pinlane::{DType, Device, DeviceOptions, HostMemory, Tensor, TransferOptions, Tree};

use crate::{
    rig,
    rig::{is_over_budget, pattern},
};

const THREADS: usize = 16;
const ROUNDS: usize = 40;
/// From what is left to the driver to what all lanes share.
const SIZES: [usize; 7] = [3, 1000, 4097, 70_000, 300_001, 1 << 20, 9_000_000];

/// One thread's transfers: each tree goes there and back while those of the other threads do.
fn move_trees(device: &Device, thread: usize) {
    for round in 0..ROUNDS {
        let seed = thread * ROUNDS + round;
        // The largest size is for one round in seven.
        let sizes = (0..1 + seed % 5).map(|leaf| SIZES[(seed + leaf) % if round % 7 == 0 { 7 } else { 6 }]);
        let sent: Vec<_> = sizes.map(|bytes| pattern(bytes, seed)).collect();
        let tree: Vec<_> = sent
            .iter()
            .enumerate()
            .map(|(leaf, bytes)| {
                let pinned = HostMemory::Pinned(device).copy_of(bytes, &[bytes.len()]);
                match pinned {
                    Ok(pinned) if (seed + leaf).is_multiple_of(3) => pinned,
                    _ => Tensor::from_bytes(bytes.clone(), DType::U8, &[bytes.len()]).unwrap(),
                }
            })
            .collect();
        let there = if round % 2 == 0 {
            tree.to(device).unwrap()
        } else {
            tree.transfer(device).unwrap().wait().unwrap()
        };
        drop(tree);
        let options = TransferOptions::new();
        let pinned = there.to_with(&Device::host(), &options.clone().pinned_result());
        let back = match pinned {
            Err(error) if is_over_budget(&error) => there.to_with(&Device::host(), &options).unwrap(),
            moved => moved.unwrap(),
        };
        for (leaf, (landed, sent)) in back.iter().zip(&sent).enumerate() {
            assert!(
                landed.as_bytes().unwrap() == sent,
                "other bytes landed in leaf {leaf} of {} bytes of thread {thread}, round {round}",
                sent.len()
            );
        }
    }
}

pub(crate) fn every_byte_of_sixteen_threads_lands() {
    let rig = rig(&DeviceOptions {
        // Too little for all of them at once, so that they also wait for each other.
        pinned_budget: Some(64 << 20),
        ..DeviceOptions::default()
    });
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (device, start) = (rig.device(), &start);
            scope.spawn(move || {
                start.wait();
                move_trees(device, number);
            });
        }
    });
    rig.finish();
}
