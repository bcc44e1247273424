//! A result that is looked at before it has landed, by a tree that keeps what it is rebuilt from.

use std::sync::Mutex;

use pinlane::{Device, Error, Tensor, Tree};

use crate::{
    SLOT,
    rig::{Rig, eventually, pattern, small_engine},
    tensor,
};

/// A tree of the caller's own that keeps what it is rebuilt from, and looks at it too early.
struct Spy<'a> {
    tensor: Tensor,
    seen: &'a Mutex<Vec<Tensor>>,
}

impl Tree for Spy<'_> {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        visit(&self.tensor);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        let tensor = next();
        assert!(matches!(tensor.as_bytes(), Err(Error::NotLanded { .. })));
        self.seen.lock().unwrap().push(tensor.clone());
        Self {
            tensor,
            seen: self.seen,
        }
    }
}

pub(crate) fn a_tree_that_is_rebuilt_sees_its_tensors_but_not_their_bytes_before_they_land() {
    let rig = Rig::new(1, &small_engine(1, 1, SLOT));
    let seen = Mutex::default();
    let there = tensor(10 * SLOT, 1).to(rig.device()).unwrap();
    let spy = Spy {
        tensor: there,
        seen: &seen,
    };
    let stall = rig.sims[0].stall();
    let transfer = spy.transfer(&Device::host()).unwrap();
    let mut early = seen.lock().unwrap().pop().unwrap();
    assert!(matches!(early.as_mut_slice::<u8>(), Err(Error::NotLanded { .. })));
    assert!(matches!(
        early.to(rig.device()).unwrap_err(),
        Error::Leaf { source, .. } if matches!(*source, Error::NotLanded { .. })
    ));
    drop(stall);
    let landed = transfer.wait().unwrap();
    assert!(landed.tensor.as_bytes().unwrap() == pattern(10 * SLOT, 1));
    assert!(early.as_bytes().unwrap() == pattern(10 * SLOT, 1));
    drop((landed, early, spy));
    rig.finish();
}

pub(crate) fn what_a_dropped_transfer_was_to_fill_is_never_read() {
    let rig = Rig::new(1, &small_engine(1, 1, SLOT));
    let seen = Mutex::default();
    let spy = Spy {
        tensor: tensor(10 * SLOT, 1).to(rig.device()).unwrap(),
        seen: &seen,
    };
    let stall = rig.sims[0].stall();
    drop(spy.transfer(&Device::host()).unwrap());
    drop(stall);
    let early = seen.lock().unwrap().pop().unwrap();
    drop(spy);
    eventually("the source is let go", || {
        rig.sims[0].alive().device_allocations == 0
    });
    assert!(matches!(early.as_bytes(), Err(Error::NotLanded { .. })));
    drop(early);
    rig.finish();
}
