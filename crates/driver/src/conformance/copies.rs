//! Copies and fills move exactly the bytes that they name.

use super::{
    Outcome, Stop, Subject,
    bytes::{ensure_equal, ensure_pattern, pattern},
    rig::{Host, Queue},
};
use crate::{DeviceMemory, MemCopy};

/// Odd ones, powers of two, their neighbours, and more than any driver stages at once.
const SIZES: [usize; 12] = [
    1,
    2,
    3,
    7,
    255,
    256,
    4096,
    4097,
    65_535,
    65_537,
    (1 << 20) + 13,
    (9 << 20) + 1,
];

fn round_trips(subject: &Subject, host: impl Fn(usize) -> Result<Host, Stop>) -> Outcome {
    for (seed, bytes) in SIZES.into_iter().enumerate() {
        let (mut source, sink) = (host(bytes)?, host(bytes)?);
        let memory = subject.memory(bytes)?;
        let queue = subject.queue()?;
        source.fill(seed as u64);
        queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))?;
        queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))?;
        queue.synchronize()?;
        ensure_pattern(sink.read(), seed as u64, &format!("{bytes} bytes there and back"))?;
        ensure_pattern(
            source.read(),
            seed as u64,
            &format!("the source of {bytes} bytes"),
        )?;
    }
    Ok(())
}

pub(super) fn pinned_bytes_of_any_size_survive_the_round_trip(subject: &Subject) -> Outcome {
    round_trips(subject, |bytes| subject.pinned(bytes))
}

pub(super) fn pageable_bytes_of_any_size_survive_the_round_trip(subject: &Subject) -> Outcome {
    round_trips(subject, |bytes| Ok(Host::pageable(bytes)))
}

pub(super) fn copies_touch_only_their_range_at_any_offset(subject: &Subject) -> Outcome {
    const SPACE: usize = 10_000;
    for pinned in [true, false] {
        let host = || {
            if pinned {
                subject.pinned(SPACE)
            } else {
                Ok(Host::pageable(SPACE))
            }
        };
        let (mut source, mut sink) = (host()?, host()?);
        let memory = subject.memory(SPACE)?;
        let queue = subject.queue()?;
        source.fill(1);
        for (from, over, to, bytes) in [
            (0, 1, 0, 1),
            (1, 0, 3, 4097),
            (7, 255, 1, 333),
            (513, 129, 4095, 5001),
        ] {
            queue.put(memory.ptr(), &pattern(2, SPACE))?;
            sink.fill(3);
            queue.copy(MemCopy::to_device(
                memory.ptr().offset(over),
                source.at(from),
                bytes,
            ))?;
            queue.copy(MemCopy::to_host(sink.at(to), memory.ptr().offset(over), bytes))?;
            queue.synchronize()?;
            let what = format!("{bytes} bytes from {from} over {over} to {to}, pinned: {pinned}");
            let mut expected = pattern(2, SPACE);
            expected[over..over + bytes].copy_from_slice(&pattern(1, SPACE)[from..from + bytes]);
            ensure_equal(
                &queue.fetch(memory.ptr(), SPACE)?,
                &expected,
                &format!("on the device, {what}"),
            )?;
            let mut expected = pattern(3, SPACE);
            expected[to..to + bytes].copy_from_slice(&pattern(1, SPACE)[from..from + bytes]);
            ensure_equal(sink.read(), &expected, &format!("on the host, {what}"))?;
        }
    }
    Ok(())
}

pub(super) fn zero_bytes_move_nothing(subject: &Subject) -> Outcome {
    let mut pinned = subject.pinned(64)?;
    let mut pageable = Host::pageable(64);
    let (memory, other) = (subject.memory(64)?, subject.memory(64)?);
    let queue = subject.queue()?;
    pinned.fill(1);
    pageable.fill(2);
    queue.put(memory.ptr(), &pattern(3, 64))?;
    for host in [&pinned, &pageable] {
        queue.copy(MemCopy::to_device(memory.ptr(), host.ptr(), 0))?;
        queue.copy(MemCopy::to_host(host.ptr(), memory.ptr(), 0))?;
    }
    queue.copy(MemCopy::on_device(other.ptr(), memory.ptr(), 0))?;
    queue.memset(memory.ptr(), 9, 0)?;
    queue.ensure_pattern(&memory, 3, "device memory after copies of nothing")?;
    queue.synchronize()?;
    ensure_pattern(pinned.read(), 1, "pinned memory after copies of nothing")?;
    ensure_pattern(pageable.read(), 2, "pageable memory after copies of nothing")
}

pub(super) fn bytes_move_within_a_device(subject: &Subject) -> Outcome {
    for (seed, bytes) in SIZES.into_iter().enumerate() {
        let (from, to) = (subject.memory(bytes)?, subject.memory(bytes)?);
        let queue = subject.queue()?;
        queue.put(from.ptr(), &pattern(seed as u64, bytes))?;
        queue.copy(MemCopy::on_device(to.ptr(), from.ptr(), bytes))?;
        queue.ensure_pattern(&to, seed as u64, &format!("{bytes} bytes within the device"))?;
    }
    // Between two parts of one allocation, at odd offsets.
    let memory = subject.memory(1000)?;
    let queue = subject.queue()?;
    queue.put(memory.ptr(), &pattern(1, 1000))?;
    queue.copy(MemCopy::on_device(
        memory.ptr().offset(501),
        memory.ptr().offset(3),
        333,
    ))?;
    let mut expected = pattern(1, 1000);
    expected.copy_within(3..336, 501);
    ensure_equal(
        &queue.fetch(memory.ptr(), 1000)?,
        &expected,
        "within one allocation",
    )
}

pub(super) fn bytes_move_between_devices(subject: &Subject) -> Outcome {
    let (driver, peer) = (subject.driver(), subject.peer()?);
    for (seed, bytes) in SIZES.into_iter().enumerate() {
        let (here, there) = (subject.memory(bytes)?, DeviceMemory::new(peer, bytes)?);
        let back = subject.memory(bytes)?;
        let (home, away) = (subject.queue()?, Queue::new(peer)?);
        home.put(here.ptr(), &pattern(seed as u64, bytes))?;
        home.synchronize()?;
        away.copy_from_peer(there.ptr(), driver.properties().id, here.ptr(), bytes)?;
        away.ensure_pattern(
            &there,
            seed as u64,
            &format!("{bytes} bytes fetched by the other device"),
        )?;
        home.copy_from_peer(back.ptr(), peer.properties().id, there.ptr(), bytes)?;
        home.ensure_pattern(&back, seed as u64, &format!("{bytes} bytes fetched back"))?;
    }
    Ok(())
}

pub(super) fn memset_fills_its_range_and_nothing_else(subject: &Subject) -> Outcome {
    const SPACE: usize = 10_000;
    let memory = subject.memory(SPACE)?;
    let queue = subject.queue()?;
    for (offset, bytes) in [
        (0, 1),
        (1, 1),
        (3, 255),
        (256, 256),
        (1, 4097),
        (0, SPACE),
        (SPACE - 1, 1),
    ] {
        queue.put(memory.ptr(), &pattern(1, SPACE))?;
        queue.memset(memory.ptr().offset(offset), 0xC3, bytes)?;
        let mut expected = pattern(1, SPACE);
        expected[offset..offset + bytes].fill(0xC3);
        let what = format!("a fill of {bytes} bytes at {offset}");
        ensure_equal(&queue.fetch(memory.ptr(), SPACE)?, &expected, &what)?;
    }
    Ok(())
}

pub(super) fn both_directions_at_once_do_not_mix(subject: &Subject) -> Outcome {
    const BYTES: usize = (1 << 20) + 1;
    let (mut up, down) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let (target, origin) = (subject.memory(BYTES)?, subject.memory(BYTES)?);
    let (upward, downward) = (subject.queue()?, subject.queue()?);
    up.fill(1);
    downward.put(origin.ptr(), &pattern(2, BYTES))?;
    for _ in 0..8 {
        upward.copy(MemCopy::to_device(target.ptr(), up.ptr(), BYTES))?;
        downward.copy(MemCopy::to_host(down.ptr(), origin.ptr(), BYTES))?;
    }
    downward.synchronize()?;
    ensure_pattern(down.read(), 2, "from the device")?;
    upward.ensure_pattern(&target, 1, "to the device")
}
