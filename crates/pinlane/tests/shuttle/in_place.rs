//! Programs that move into tensors that exist already.

use pinlane::{DType, Tensor, TransferOptions, Tree, driver::sim::FaultPlan};

use crate::{
    explore,
    rig::{BUDGET, assert_nothing_left, assert_same, at_once, open, pick, tensor, there_and_back},
};

fn zeros(like: &Tensor) -> Tensor {
    Tensor::zeros(DType::U8, like.shape()).unwrap()
}

#[test]
fn tensors_that_are_moved_into_by_several_threads_have_the_new_bytes() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let sent = tensor(seed);
                        let there = zeros(&sent).to(&device).unwrap();
                        let transfer = sent.transfer_into(there, &TransferOptions::new()).unwrap();
                        let there = transfer.wait().unwrap();
                        let mut back = zeros(&sent);
                        there.copy_into(&mut back).unwrap();
                        assert_same(&sent, &back);
                    })
                })
                .collect(),
        );
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn a_destination_whose_transfer_is_dropped_at_any_moment_is_let_go() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let sent = tensor(seed);
                        let there = zeros(&sent).to(&device).unwrap();
                        let options = TransferOptions::new();
                        let transfer = match pick(2) {
                            0 => sent.transfer_into(there, &options).unwrap(),
                            _ => there.transfer_into(zeros(&sent), &options).unwrap(),
                        };
                        if pick(2) == 0 {
                            let _done = transfer.is_done();
                        }
                        drop(transfer);
                    })
                })
                .collect(),
        );
        there_and_back(&device, &tensor(9)).unwrap();
        drop(device);
        assert_nothing_left(&sim);
    });
}
