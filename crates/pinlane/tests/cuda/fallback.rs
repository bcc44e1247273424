//! A device whose driver can't load the kernel for scattered pieces: batches of copies, and slots, do its work.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pinlane::{
    DType, Device, DeviceOptions, Placement, Route, Tensor, TransferOptions, Tree,
    driver::{Driver, MemCopy, RawStream, Result, ScatterTable, Wrapper},
};

use crate::{rig, rig::pattern};

/// Passes every call on but that for the kernel, and counts the batches of several copies.
#[derive(Debug)]
struct WithoutKernel {
    inner: Arc<dyn Driver>,
    batches: AtomicUsize,
}

pub(crate) fn without_a_kernel_batches_move_the_right_bytes() {
    const COUNT: usize = 1000;
    let with_kernel = rig(&DeviceOptions::default());
    let driver = Arc::new(WithoutKernel {
        inner: Arc::clone(with_kernel.device().driver().unwrap()),
        batches: AtomicUsize::new(0),
    });
    let device = Device::with_options(Arc::clone(&driver) as _, &DeviceOptions::default()).unwrap();
    let bytes = |index: usize| pattern(4000 + 4 * (index % 7), index);
    let tensor = |index| {
        let bytes = bytes(index);
        let shape = [bytes.len()];
        Tensor::from_bytes(bytes, DType::U8, &shape).unwrap()
    };
    let sent: Vec<Tensor> = (0..COUNT).map(tensor).collect();
    let pinned = sent.pin_memory(&device).unwrap();
    let apart = TransferOptions::new().placement(Placement::Separate);
    for tree in [&sent, &pinned] {
        for options in [&apart, &TransferOptions::new()] {
            let there = tree.to_with(&device, options).unwrap();
            for options in [TransferOptions::new(), TransferOptions::new().pinned_result()] {
                let back = there.to_with(&Device::host(), &options).unwrap();
                for (index, tensor) in back.iter().enumerate() {
                    assert_eq!(tensor.as_bytes().unwrap(), bytes(index), "tensor {index}");
                }
            }
        }
    }
    assert!(
        driver.batches.load(Ordering::Relaxed) > 0,
        "no batch was enqueued"
    );
    let gathered = TransferOptions::new().route(Route::Gathered);
    assert!(sent.to_with(&device, &gathered).is_err(), "there is no kernel");
    drop((sent, pinned));
    assert_eq!(device.stats().unwrap().leaked_bytes, 0);
    drop(device);
    with_kernel.finish();
}

// SAFETY: passes every call on to a driver that keeps the contract.
unsafe impl Wrapper for WithoutKernel {
    type Inner = dyn Driver;

    fn inner(&self) -> &dyn Driver {
        &*self.inner
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        self.batches
            .fetch_add(usize::from(copies.len() > 1), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy_batch(copies, stream) }
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        None
    }
}
