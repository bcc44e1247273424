//! What a program does with devices, in small: each operation stands for one kind of use, checks the bytes of what
//! succeeds, and gives the first error.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use pinlane::{
    Checkpoint, DType, Device, Error, HostMemory, Placement, Result, Route, Tensor, Transfer,
    TransferOptions, Tree,
    checkpoint::{LoadOptions, Names},
    driver::{Stream, Timing},
    prefetch,
};

use crate::rig::{Rig, Tensors, assert_same};

type Operation = fn(&Rig, &Tensors) -> Result<()>;

/// By name, in the order in which they run.
pub(crate) const OPERATIONS: [(&str, Operation); 15] = [
    ("pinned", pinned),
    ("mixed tree", mixed_tree),
    ("forced routes", forced_routes),
    ("separate", separate),
    ("inline", inline),
    ("alone", alone),
    ("into what exists", into_what_exists),
    ("converted", converted),
    ("between devices", between_devices),
    ("from two places", from_two_places),
    ("prefetch", prefetched),
    ("awaited", awaited),
    ("fenced", fenced),
    ("behind an event", behind_an_event),
    ("dropped", dropped),
];

/// A first use, and the proof that a device works again.
pub(crate) fn there_and_back(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let tree = [tensors.large.clone(), tensors.small.clone()];
    round_trip(&tree, &rig.devices[0], &TransferOptions::new())
}

fn round_trip<T: Tree>(tree: &T, device: &Device, options: &TransferOptions) -> Result<()> {
    let there = tree.transfer_with(device, options)?.wait()?;
    let back = there.transfer_with(&Device::host(), options)?.wait()?;
    assert_same(tree, &back);
    Ok(())
}

fn mixed_tree(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let there = tensors.mixed.to(&rig.devices[0])?;
    assert_same(&tensors.mixed, &there.to(&Device::host())?);
    let pinned = TransferOptions::new().pinned_result();
    assert_same(&tensors.mixed, &there.to_with(&Device::host(), &pinned)?);
    Ok(())
}

fn pinned(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let pinned = [&tensors.large, &tensors.small, &tensors.tiny].map(Clone::clone);
    let pinned = pinned.pin_memory(&rig.devices[0])?;
    assert!(pinned.is_pinned());
    round_trip(&pinned, &rig.devices[0], &TransferOptions::new())
}

fn forced_routes(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let tree = [tensors.large.clone(), tensors.tiny.clone()];
    for route in [Route::Staged, Route::Packed, Route::Gathered, Route::Plain] {
        round_trip(&tree, &rig.devices[0], &TransferOptions::new().route(route))?;
    }
    let pinned = tree.pin_memory(&rig.devices[0])?;
    let direct = TransferOptions::new().route(Route::Direct).pinned_result();
    round_trip(&pinned, &rig.devices[0], &direct)
}

fn separate(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let tree = vec![tensors.small.clone(); 4];
    let options = TransferOptions::new().placement(Placement::Separate);
    round_trip(&tree, &rig.devices[0], &options)
}

fn inline(rig: &Rig, tensors: &Tensors) -> Result<()> {
    for tensor in [&tensors.small, &tensors.tiny] {
        let there = tensor.to(&rig.devices[0])?;
        assert_same(tensor, &there.to(&Device::host())?);
    }
    Ok(())
}

/// One tensor in one piece, which a caller who waits copies by itself: to the device and back, new and in place.
fn alone(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let device = &rig.devices[0];
    for source in [tensors.small.pin_memory(device)?, tensors.tiny.clone()] {
        let mut there = source.to(device)?;
        copy_into(&source, &mut there)?;
        let mut back = HostMemory::Pinned(device).zeros(DType::U8, source.shape())?;
        copy_into(&there, &mut back)?;
        assert_same(&source, &back);
        let mut back = zeros(&source);
        copy_into(&there, &mut back)?;
        assert_same(&source, &back);
        assert_same(&source, &there.to(&Device::host())?);
    }
    Ok(())
}

/// A tree into tensors that exist already.
fn into_what_exists(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let [first, second] = &rig.devices;
    let tree = [&tensors.large, &tensors.small, &tensors.tiny].map(Clone::clone);
    let zeros = || [&tensors.large, &tensors.small, &tensors.tiny].map(zeros);
    let mut there = zeros().to(first)?;
    copy_into(&tree, &mut there)?;
    let mut across = zeros().to(second)?;
    copy_into(&there, &mut across)?;
    copy_into(&across, &mut there)?;
    let back = there.transfer_into(zeros(), &TransferOptions::new())?.wait()?;
    assert_same(&tree, &back);
    let mut back = zeros();
    copy_into(&there, &mut back)?;
    assert_same(&tree, &back);
    Ok(())
}

/// Copies in place. What a failed copy has left half written is not there to be read.
fn copy_into<T: Tree>(source: &T, into: &mut T) -> Result<()> {
    let result = source.copy_into(into);
    if let Err(error) = &result {
        into.visit(&mut |tensor| {
            let read = tensor
                .to(&Device::host())
                .and_then(|tensor| tensor.to_vec::<u8>());
            assert!(read.is_err(), "read after {error}");
        });
    }
    result
}

fn zeros(like: &Tensor) -> Tensor {
    Tensor::zeros(DType::U8, like.shape()).expect("a small tensor of the host")
}

/// From files, as another dtype: to new tensors and to some that exist.
fn converted(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let narrow = LoadOptions::new().dtype(DType::F16);
    let checkpoint = Checkpoint::open(&tensors.singles)?;
    let expected = checkpoint.load_with(&Device::host(), &narrow)?;
    let mut there = checkpoint.load_with(&rig.devices[0], &narrow)?;
    assert_same(&expected, &there.to(&Device::host())?);
    checkpoint.load_into_with(&mut there, Names::All, &narrow)?;
    assert_same(&expected, &there.to(&Device::host())?);
    let wide = there.get("odd").expect("it was loaded").to_dtype(DType::F64)?;
    let expected = expected.get("odd").expect("it was loaded").to_dtype(DType::F64)?;
    assert_same(&expected, &wide.to(&Device::host())?);
    Ok(())
}

fn between_devices(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let [first, second] = &rig.devices;
    let tree = [tensors.large.clone(), tensors.small.clone()];
    let there = tree.to(first)?.to(second)?.to(first)?;
    assert_same(&tree, &there.to(&Device::host())?);
    Ok(())
}

/// One tree, two jobs: what the first has taken is let go if the second can't be made.
fn from_two_places(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let [first, second] = &rig.devices;
    let tree = (tensors.large.clone(), tensors.small.to(second)?);
    let there = tree.to(first)?;
    let back = there.to(&Device::host())?;
    assert_same(&tensors.large, &back.0);
    assert_same(&tensors.small, &back.1);
    Ok(())
}

fn prefetched(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let batches = vec![tensors.large.clone(); 4];
    let landed: Vec<_> = prefetch(batches, &rig.devices[0], 2).collect();
    assert_eq!(
        landed.len(),
        4,
        "each batch has its result, or its error, in its place"
    );
    for batch in landed {
        assert_same(&tensors.large, &batch?.to(&Device::host())?);
    }
    Ok(())
}

fn awaited(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let there = block_on(tensors.mixed.transfer(&rig.devices[0])?)?;
    let back = block_on(there.transfer(&Device::host())?)?;
    assert_same(&tensors.mixed, &back);
    Ok(())
}

fn fenced(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let stream = stream(&rig.devices[0])?;
    let transfer = tensors.large.transfer(&rig.devices[0])?;
    transfer.fence(&stream)?;
    let behind = stream.record(Timing::Disabled).map_err(driver)?;
    let back = TransferOptions::new().after(Arc::new(behind));
    let there = transfer.wait()?;
    assert_same(&tensors.large, &there.to_with(&Device::host(), &back)?);
    Ok(())
}

fn behind_an_event(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let stream = stream(&rig.devices[0])?;
    let event = Arc::new(stream.record(Timing::Disabled).map_err(driver)?);
    round_trip(
        &tensors.large,
        &rig.devices[0],
        &TransferOptions::new().after(event),
    )
}

/// Transfers that nobody wants any more: fresh, and awaited a little. Returns when they were let go.
fn dropped(rig: &Rig, tensors: &Tensors) -> Result<()> {
    let before = rig.allocations();
    let there = tensors.large.to(&rig.devices[0])?;
    drop(tensors.mixed.transfer(&rig.devices[0])?);
    drop(there.transfer(&Device::host())?);
    drop(there.transfer(&rig.devices[1])?);
    let mut polled = tensors.mixed.transfer(&rig.devices[0])?;
    let pending = Pin::new(&mut polled)
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending();
    drop(there);
    drop(polled);
    assert!(
        rig.settles_at(before),
        "a dropped transfer (pending: {pending}) is kept"
    );
    Ok(())
}

fn stream(device: &Device) -> Result<Stream> {
    Stream::new(device.driver().expect("an accelerator")).map_err(driver)
}

fn driver(source: pinlane::driver::Error) -> Error {
    Error::Driver {
        doing: "using a stream of the caller's own".to_owned(),
        source,
    }
}

/// Runs one future on this thread, which sleeps until it is woken.
fn block_on<T: Tree>(transfer: Transfer<T>) -> Result<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut transfer = pin!(transfer);
    loop {
        match transfer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}
