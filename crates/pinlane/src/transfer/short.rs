//! The short way: one tensor in one piece, copied by the caller, who waits for it.
//!
//! No plan, no job, no lane, no event: what a small copy costs is the driver's calls. Into a tensor that exists, nothing is
//! allocated. A tensor that is moved costs its memory, of the device from the driver at each call (whether that keeps blocks
//! for the next is the driver's affair), and the handles of its result.
//!
//! The caller waits for a stream of its own, so everything borrowed is free when the call returns; where the device is lost
//! instead, what it may still use is kept for ever, as everywhere.

use pinlane_driver::{DeviceMemory, DevicePtr, ErrorKind, MemCopy, fork, sync::Arc};

use super::{
    TransferOptions,
    engine::Engine,
    into::put_out_of_reach,
    plan::{Direction, Kind, Leaf},
};
use crate::{
    Device, Error, Profile, Result, Route, Tensor,
    landing::{landing, span_bytes},
    memory::{
        buffer::Buffer,
        shared::Shared,
        slots::Reuse,
        storage::{DeviceBlock, Place, Storage},
    },
    trace::alone::{Became, Enqueuing},
};

/// The longest copy: longer ones are cut, so that others' copies get a turn between the parts.
const LONGEST: usize = 64 << 20;

/// The longest tensor that is copied out of a slot here: of longer ones, the long way copies a part while the rest lands.
const LONGEST_EMPTIED: usize = 64 << 10;

/// Up to how many bytes a tensor goes the short way whose host end is such memory.
fn longest_of_host_end(pinned: bool, profile: &Profile) -> usize {
    if pinned { LONGEST } else { profile.plain_bytes }
}

/// Up to how many bytes a tensor goes the short way that comes to new memory of the host.
fn longest_emptied(slot_bytes: usize) -> usize {
    LONGEST_EMPTIED.min(slot_bytes)
}

/// Whether a lone tensor goes the short way: to the device from such memory, or to such new memory of the host.
pub(crate) fn takes(direction: Direction, leaf: &Leaf, profile: &Profile, slot_bytes: usize) -> bool {
    let longest = match (direction, leaf.kind) {
        (Direction::ToDevice | Direction::ToHost, Kind::Pinned) => longest_of_host_end(true, profile),
        (Direction::ToDevice, Kind::Pageable) => longest_of_host_end(false, profile),
        (Direction::ToHost, Kind::Pageable) => longest_emptied(slot_bytes),
        _ => 0,
    };
    (1..=longest as u64).contains(&leaf.bytes)
}

/// The tensor on `to`, where it goes the short way; the caller is about to wait for it. `None` also in a forked child: the
/// long way says why.
pub(crate) fn move_to(tensor: &Tensor, to: &Device, options: &TransferOptions) -> Option<Result<Tensor>> {
    let left_to_us = options.route.is_none() && options.after.is_none();
    if !left_to_us || fork::is_child() || !tensor.storage().has_landed() {
        return None;
    }
    match (tensor.storage().place(), to.accelerator()) {
        (Place::Host(_), Some(accelerator)) => {
            let engine = accelerator.running.engine();
            Some(upload(tensor, &host_end(tensor, engine)?, to, engine))
        }
        (Place::Device(source), None) => {
            let engine = source.device.accelerator()?.running.engine();
            let (device, bytes) = device_end(tensor)?;
            if options.pinned_result {
                return (bytes <= LONGEST).then(|| download_pinned(tensor, device, bytes, engine));
            }
            let short = bytes <= longest_emptied(engine.slots.slot_bytes());
            short.then(|| download(tensor, device, bytes, engine))
        }
        _ => None,
    }
}

/// Copies `tensor` into `into`, where that goes the short way. `None` also where the two do not fit, `into` is not its
/// holder's alone, or the process is a forked child: then the long way says why.
pub(crate) fn copy_into(tensor: &Tensor, into: &mut Tensor) -> Option<Result<()>> {
    let fits = !fork::is_child()
        && tensor.dtype() == into.dtype()
        && tensor.shape() == into.shape()
        && tensor.layout().is_contiguous()
        && into.layout().is_contiguous()
        && tensor.storage().has_landed()
        && into.storage().has_landed()
        && Shared::get_mut(into.storage_mut()).is_some();
    if !fits {
        return None;
    }
    let (engine, copy, route) = match (tensor.storage().place(), into.storage().place()) {
        (Place::Host(_), Place::Device(device)) => {
            let engine = device.device.accelerator()?.running.engine();
            let (host, (device, _)) = (host_end(tensor, engine)?, device_end(into)?);
            let copy = MemCopy::to_device(device, host.ptr, host.bytes);
            (engine, copy, host.route())
        }
        (Place::Device(device), Place::Host(host)) if host.is_writable() => {
            let engine = device.device.accelerator()?.running.engine();
            let (host, (device, _)) = (host_end(into, engine)?, device_end(tensor)?);
            let copy = MemCopy::to_host(host.ptr, device, host.bytes);
            (engine, copy, host.route())
        }
        _ => return None,
    };
    // SAFETY: `tensor` is borrowed until the copy is over, and `into` exclusively, which is the only name of its bytes; where
    // the end of the copy can't be known, both are kept for ever.
    let copied = unsafe { copy_and_wait(engine, copy, route) };
    if let Err(error) = &copied {
        if error.leaves_memory_in_use() {
            engine.leaks.add(copy.bytes as u64);
            tensor.storage().leak();
            into.storage().leak();
        }
        put_out_of_reach(into);
    }
    Some(copied)
}

/// The host's end of a short copy.
struct HostPiece {
    ptr: *mut u8,
    bytes: usize,
    pinned: bool,
}

impl HostPiece {
    fn route(&self) -> Route {
        if self.pinned { Route::Direct } else { Route::Plain }
    }
}

/// One piece, pinned or so small that the driver's own way is the shortest.
fn host_end(tensor: &Tensor, engine: &Engine) -> Option<HostPiece> {
    let Place::Host(host) = tensor.storage().place() else {
        return None;
    };
    let pinned = host.pinned() == Some(engine.driver.properties().id.backend);
    let span = one_piece(tensor)?;
    let longest = longest_of_host_end(pinned, &engine.profile);
    (span.len() <= longest).then(|| HostPiece {
        // SAFETY: the layout was checked against the storage.
        ptr: unsafe { host.ptr().as_ptr().add(span.start) },
        bytes: span.len(),
        pinned,
    })
}

fn device_end(tensor: &Tensor) -> Option<(DevicePtr, usize)> {
    let Place::Device(device) = tensor.storage().place() else {
        return None;
    };
    let span = one_piece(tensor)?;
    Some((device.ptr().offset(span.start), span.len()))
}

/// Whether a tensor has bytes, and they lie in one piece.
pub(super) fn is_one_piece(tensor: &Tensor) -> bool {
    one_piece(tensor).is_some()
}

/// The bytes of a tensor, where they are some and lie in one piece.
fn one_piece(tensor: &Tensor) -> Option<std::ops::Range<usize>> {
    let layout = tensor.layout();
    let whole = layout.is_contiguous() || (layout.is_dense() && !tensor.dtype().is_sub_byte());
    let span = whole.then(|| span_bytes(tensor).ok())??;
    (!span.is_empty()).then_some(span)
}

fn upload(tensor: &Tensor, host: &HostPiece, to: &Device, engine: &Engine) -> Result<Tensor> {
    let bytes = host.bytes;
    let memory = DeviceMemory::new(&engine.driver, bytes)
        .map_err(|source| Error::driver("making room for tensors on the device", source))?;
    let block = Arc::new(DeviceBlock(memory));
    let copy = MemCopy::to_device(block.0.ptr(), host.ptr, bytes);
    // SAFETY: the tensor is borrowed and its bytes don't change while they are shared; the block is new. Both are kept for
    // ever where the end of the copy can't be known.
    if let Err(error) = unsafe { copy_and_wait(engine, copy, host.route()) } {
        if error.leaves_memory_in_use() {
            engine.leaks.add(bytes as u64);
            tensor.storage().leak();
            std::mem::forget(block);
        }
        return Err(error);
    }
    let (layout, _) = landing(tensor)?;
    Ok(Tensor::new(
        tensor.dtype(),
        layout,
        Storage::device(to.clone(), block, 0),
    ))
}

fn download(tensor: &Tensor, device: DevicePtr, bytes: usize, engine: &Engine) -> Result<Tensor> {
    let result = Buffer::uninit(bytes)?;
    let slot = loop {
        if let Some(slot) = engine.slots.acquire(None, true, Reuse::WHEN_EMPTY)? {
            break slot;
        }
    };
    let copy = MemCopy::to_host(slot.ptr(), device, bytes);
    // SAFETY: the slot is this call's, and is longer; the tensor is borrowed. Both are kept for ever where the end of the
    // copy can't be known.
    match unsafe { copy_and_wait(engine, copy, Route::Direct) } {
        Ok(()) => {
            // SAFETY: the bytes have landed in the slot; the result is as long, and new.
            unsafe { std::ptr::copy_nonoverlapping(slot.ptr(), result.ptr().as_ptr(), bytes) };
            engine.slots.put_back(slot);
        }
        Err(error) if error.leaves_memory_in_use() => {
            engine.leaks.add(bytes as u64);
            tensor.storage().leak();
            engine.slots.lose(slot);
            return Err(error);
        }
        Err(error) => {
            engine.slots.put_back(slot);
            return Err(error);
        }
    }
    // SAFETY: the buffer is initialised by the copy, and lives in the storage.
    let storage = unsafe { Storage::host(result.ptr(), bytes, None, true, Arc::new(result)) };
    Ok(Tensor::new(tensor.dtype(), tensor.layout().at_start(), storage))
}

/// Into new pinned memory, where the device writes it and it stays.
fn download_pinned(tensor: &Tensor, device: DevicePtr, bytes: usize, engine: &Engine) -> Result<Tensor> {
    let result = engine.pool.lease(bytes)?;
    let copy = MemCopy::to_host(result.ptr().as_ptr(), device, bytes);
    // SAFETY: the lease is as long, and this call's alone; the tensor is borrowed. Both are kept for ever where the end of the
    // copy can't be known.
    if let Err(error) = unsafe { copy_and_wait(engine, copy, Route::Direct) } {
        if error.leaves_memory_in_use() {
            engine.leaks.add(bytes as u64);
            tensor.storage().leak();
            std::mem::forget(result);
        }
        return Err(error);
    }
    let backend = engine.driver.properties().id.backend;
    // SAFETY: the copy has written every byte of the lease that the storage has, and lives as long.
    let storage = unsafe { Storage::host(result.ptr(), bytes, Some(backend), true, Arc::new(result)) };
    Ok(Tensor::new(tensor.dtype(), tensor.layout().at_start(), storage))
}

/// Copies, and returns when nothing of the copy is in flight any more, unless the error says that memory is left in use. The
/// route is for its trace.
///
/// # Safety
///
/// Both ends are valid for the copy until this returns, and for ever where its error leaves memory in use; nobody else
/// writes the source or touches the destination.
unsafe fn copy_and_wait(engine: &Engine, copy: MemCopy, route: Route) -> Result<()> {
    let stream = engine.take_quiet_stream()?;
    let doing = || format!("copying {} bytes", copy.bytes);
    let told = Enqueuing::begin(copy.bytes);
    // SAFETY: the caller's promise, kept until the wait below is over.
    let enqueued = unsafe { stream.stream().copy(copy) };
    let told = told.wait();
    let ended = stream.finish();
    let became = match ended {
        Ok(()) => Became::Landed(route),
        Err(_) => Became::Failed,
    };
    told.end(&engine.driver, &copy, enqueued.is_ok().then_some(became));
    match (enqueued, ended) {
        (_, Err(error)) if error.kind() != ErrorKind::CopyFailed => Err(Error::waiting(doing(), error)),
        (Err(error), _) | (Ok(()), Err(error)) => {
            engine.put_quiet_stream(stream);
            Err(Error::driver(doing(), error))
        }
        (Ok(()), Ok(())) => {
            engine.put_quiet_stream(stream);
            Ok(())
        }
    }
}
