//! Programs whose results stay in the slots that they land in.

use pinlane::{DType, Device, Tensor, TransferOptions, Tree};

use crate::{
    explore,
    rig::{assert_nothing_left, assert_same, at_once, open_with_slots_to_lend, pick, tensor, there_and_back},
};

/// As many tensors, of as many bytes, as it takes for their result to stay in a slot.
fn many() -> Vec<Tensor> {
    let bytes = |seed: u8| Tensor::from_bytes(vec![seed; 64], DType::U8, &[64]).unwrap();
    (0..8).map(bytes).collect()
}

fn assert_all_same(expected: &[Tensor], found: &[Tensor]) {
    for (expected, found) in expected.iter().zip(found) {
        assert_same(expected, found);
    }
}

#[test]
fn a_slot_with_a_result_is_nobody_elses_and_whoever_needs_slots_goes_on() {
    explore(|| {
        let (device, sim) = open_with_slots_to_lend();
        let sent = many();
        let there = sent.to(&device).unwrap();
        let plans = there.plan(&Device::host(), &TransferOptions::new()).unwrap();
        assert!(plans[0].to_string().contains("the result stays"));
        let kept = there.to(&Device::host()).unwrap();
        at_once(vec![
            {
                let device = device.clone();
                Box::new(move || there_and_back(&device, &tensor(1)).unwrap())
            },
            {
                let sent = sent.clone();
                Box::new(move || {
                    let also = there.to(&Device::host()).unwrap();
                    assert_all_same(&sent, &also);
                    drop(also);
                    drop(there.transfer(&Device::host()).unwrap());
                })
            },
        ]);
        assert_all_same(&sent, &kept);
        match pick(2) {
            0 => drop((device, kept)),
            _ => drop((kept, device)),
        }
        assert_nothing_left(&sim);
    });
}

#[test]
fn slots_that_are_lent_come_back_whoever_drops_the_result() {
    explore(|| {
        let (device, sim) = open_with_slots_to_lend();
        let there = many().to(&device).unwrap();
        let [first, second] = [(); 2].map(|()| there.transfer(&Device::host()).unwrap());
        drop(there);
        at_once(vec![
            Box::new(move || drop(first)),
            Box::new(move || assert_all_same(&many(), &second.wait().unwrap())),
            Box::new(move || {
                there_and_back(&device, &tensor(2)).unwrap();
                drop(device);
            }),
        ]);
        assert_nothing_left(&sim);
    });
}
