//! Device memory: apart, aligned, accounted for, and finite.

use super::{Outcome, Subject, bytes::pattern, ensure, ensure_error};
use crate::{DeviceMemory, ErrorKind};

pub(super) fn allocations_are_aligned_and_apart(subject: &Subject) -> Outcome {
    let sizes = |number: usize| 1 + number * 37 % 3000;
    let memories: Vec<DeviceMemory> = (0..200)
        .map(|number| subject.memory(sizes(number)))
        .collect::<Result<_, _>>()?;
    let queue = subject.queue()?;
    for (number, memory) in memories.iter().enumerate() {
        let address = memory.ptr().0;
        ensure(address.is_multiple_of(256), || {
            format!("an allocation starts at {address:#x}")
        })?;
        queue.put(memory.ptr(), &pattern(number as u64, memory.bytes()))?;
    }
    for (number, memory) in memories.iter().enumerate() {
        queue.ensure_pattern(memory, number as u64, &format!("allocation {number} of 200"))?;
    }
    Ok(())
}

pub(super) fn memory_info_follows_an_allocation(subject: &Subject) -> Outcome {
    const BYTES: usize = 64 << 20;
    let driver = subject.driver();
    let before = driver.memory_info()?;
    ensure(before.free <= before.total && before.total > 0, || {
        format!("{} of {} bytes are free", before.free, before.total)
    })?;
    let memory = subject.memory(BYTES)?;
    let during = driver.memory_info()?;
    drop(memory);
    let after = driver.memory_info()?;
    // Half, because drivers hand out memory in pieces of their own.
    ensure(
        during.total == before.total && during.free + BYTES as u64 / 2 <= before.free,
        || {
            format!(
                "{BYTES} bytes were allocated, and free memory went from {} to {}",
                before.free, during.free
            )
        },
    )?;
    ensure(after.free >= during.free + BYTES as u64 / 2, || {
        format!(
            "{BYTES} bytes were freed, and free memory went from {} to {}",
            during.free, after.free
        )
    })
}

pub(super) fn trimming_gives_idle_memory_back_and_leaves_the_rest(subject: &Subject) -> Outcome {
    const BYTES: usize = 8 << 20;
    let driver = subject.driver();
    let (kept, dropped) = (subject.memory(BYTES)?, subject.memory(BYTES)?);
    let queue = subject.queue()?;
    queue.put(kept.ptr(), &pattern(1, BYTES))?;
    drop(dropped);
    let (idle, free) = (driver.idle_bytes(), driver.memory_info()?.free);
    let trimmed = driver.trim()?;
    ensure(trimmed == idle && driver.idle_bytes() == 0, || {
        format!(
            "{idle} bytes were idle, {trimmed} were given back, and {} are idle",
            driver.idle_bytes()
        )
    })?;
    let after = driver.memory_info()?.free;
    // Half, because drivers take memory in pieces of their own.
    ensure(after + BYTES as u64 / 2 >= free, || {
        format!("free memory went from {free} to {after}")
    })?;
    queue.ensure_pattern(&kept, 1, "in use while idle memory went back")?;
    let again = subject.memory(BYTES)?;
    queue.put(again.ptr(), &pattern(2, BYTES))?;
    queue.ensure_pattern(&again, 2, "allocated after idle memory went back")
}

pub(super) fn an_empty_allocation_can_be_freed(subject: &Subject) -> Outcome {
    let (one, other) = (subject.memory(0)?, subject.memory(0)?);
    let full = subject.memory(16)?;
    let queue = subject.queue()?;
    queue.put(full.ptr(), &pattern(1, 16))?;
    queue.put(one.ptr(), &[])?;
    drop((one, other));
    queue.ensure_pattern(&full, 1, "next to empty allocations")
}

pub(super) fn too_much_memory_is_a_typed_error_and_the_driver_goes_on(subject: &Subject) -> Outcome {
    let memory = subject.memory(4096)?;
    let queue = subject.queue()?;
    queue.put(memory.ptr(), &pattern(1, 4096))?;
    let total = subject.driver().memory_info()?.total as usize;
    for _ in 0..3 {
        let result = subject.driver().allocate(total * 2);
        ensure_error(
            result,
            ErrorKind::OutOfMemory,
            "allocating twice the device's memory",
        )?;
    }
    queue.ensure_pattern(&memory, 1, "after running out of memory")?;
    let next = subject.memory(4096)?;
    let queue = subject.queue()?;
    queue.put(next.ptr(), &pattern(2, 4096))?;
    queue.ensure_pattern(&next, 2, "allocated after running out of memory")
}
