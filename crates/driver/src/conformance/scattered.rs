//! Scattered copies: all of their pieces, and nothing else, in the call's place.

use std::ptr::NonNull;

use super::{
    Outcome, Stop, Subject,
    bytes::{ensure_equal, ensure_pattern, pattern},
    ensure, ensure_error, if_supported,
    rig::{Host, Queue},
};
use crate::{ErrorKind, MemCopy, ScatterTable};

impl Subject {
    /// Pinned memory for the table of so much, or a reason to skip the case.
    fn table(&self, copies: &[MemCopy]) -> Result<Host, Stop> {
        let table = self.driver().scatter_table().ok_or_else(|| {
            Stop::Skipped("the driver has no kernel that moves scattered pieces".to_owned())
        })?;
        let bytes = copies.iter().map(|copy| copy.bytes).sum();
        self.pinned(table.bytes(copies.len(), bytes))
    }
}

impl Queue {
    /// Enqueues scattered copies of this case's own memory, with a table that outlives the queue.
    fn scatter(&self, copies: &[MemCopy], table: &Host) -> crate::Result<()> {
        let table = NonNull::new(table.ptr()).expect("host memory has an address");
        // SAFETY: by the rule of the rig both ends and the table outlive the queue, which drains before it goes; cases
        // make pieces that do not overlap, and a table that is long enough and whole pages.
        unsafe { self.driver().copy_scattered(copies, table, self.raw()) }
    }
}

pub(super) fn the_verb_is_there_where_its_table_is(subject: &Subject) -> Outcome {
    let table = subject.pinned(ScatterTable::ALIGNMENT)?;
    let queue = subject.queue()?;
    match subject.driver().scatter_table() {
        Some(rule) => {
            ensure(rule.piece_bytes > 0, || {
                "an entry names no bytes at all".to_owned()
            })?;
            ensure(subject.driver().scatter_table() == Some(rule), || {
                "the table's rule changed".to_owned()
            })?;
            Ok(queue.scatter(&[], &table)?)
        }
        None => ensure_error(
            queue.scatter(&[], &table),
            ErrorKind::Unsupported,
            "a scattered copy on a driver without a table",
        ),
    }
}

/// Sizes of pieces: short and odd ones, words, lines, their neighbours, and one of many entries.
const SIZES: [usize; 16] = [
    1, 2, 3, 5, 15, 16, 17, 31, 33, 127, 128, 129, 1000, 4000, 4097, 300_001,
];
/// What is left between two pieces, so that a byte too many is seen.
const GAP: usize = 40;

pub(super) fn pieces_of_any_size_and_alignment_arrive_and_touch_nothing_else(subject: &Subject) -> Outcome {
    let longest: usize = SIZES.iter().map(|bytes| bytes + 2 * GAP).sum();
    let (mut source, mut sink) = (subject.pinned(longest)?, subject.pinned(longest)?);
    let memory = subject.memory(longest)?;
    for (on_device, on_host) in [(0, 0), (0, 1), (1, 1), (4, 0), (3, 12), (8, 7), (15, 16)] {
        let mut at = 0;
        let pieces = SIZES.map(|bytes| {
            let start = at;
            at = (start + bytes + GAP).next_multiple_of(16);
            (start, bytes)
        });
        let there = pieces.map(|(at, bytes)| {
            MemCopy::to_device(
                memory.ptr().offset(at + on_device),
                source.at(at + on_host),
                bytes,
            )
        });
        let back = pieces.map(|(at, bytes)| {
            MemCopy::to_host(sink.at(at + on_host), memory.ptr().offset(at + on_device), bytes)
        });
        source.fill(1);
        sink.fill(2);
        let mut on_the_device = pattern(3, longest);
        let mut on_the_host = pattern(2, longest);
        let moved = pattern(1, longest);
        for (at, bytes) in pieces {
            let from = at + on_host..at + on_host + bytes;
            on_the_device[at + on_device..at + on_device + bytes].copy_from_slice(&moved[from.clone()]);
            on_the_host[from.clone()].copy_from_slice(&moved[from]);
        }
        let tables = [subject.table(&there)?, subject.table(&back)?];
        let queue = subject.queue()?;
        queue.put(memory.ptr(), &pattern(3, longest))?;
        if_supported(queue.scatter(&there, &tables[0]))?;
        if_supported(queue.scatter(&back, &tables[1]))?;
        let what = format!("pieces {on_device} and {on_host} bytes off a multiple of 16");
        ensure_equal(
            &queue.fetch(memory.ptr(), longest)?,
            &on_the_device,
            &format!("on the device, {what}"),
        )?;
        queue.synchronize()?;
        ensure_equal(sink.read(), &on_the_host, &format!("on the host, {what}"))?;
    }
    Ok(())
}

pub(super) fn five_thousand_pieces_arrive(subject: &Subject) -> Outcome {
    const BLOCK: usize = 1111;
    const BLOCKS: usize = 5000;
    let (mut source, sink) = (subject.pinned(BLOCK * BLOCKS)?, subject.pinned(BLOCK * BLOCKS)?);
    let memory = subject.memory(BLOCK * BLOCKS)?;
    // 7 and the number of blocks share no factor.
    let place = |block: usize| memory.ptr().offset(block * 7 % BLOCKS * BLOCK);
    let there: Vec<_> = (0..BLOCKS)
        .map(|block| MemCopy::to_device(place(block), source.at(block * BLOCK), BLOCK))
        .collect();
    let back: Vec<_> = (0..BLOCKS)
        .map(|block| MemCopy::to_host(sink.at(block * BLOCK), place(block), BLOCK))
        .collect();
    source.fill(1);
    let tables = [subject.table(&there)?, subject.table(&back)?];
    let queue = subject.queue()?;
    if_supported(queue.scatter(&there, &tables[0]))?;
    if_supported(queue.scatter(&back, &tables[1]))?;
    queue.synchronize()?;
    ensure_pattern(sink.read(), 1, "five thousand pieces, scattered and gathered")
}

pub(super) fn pieces_move_within_a_device_beside_those_that_cross(subject: &Subject) -> Outcome {
    const BYTES: usize = 20_001;
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(4 * BYTES)?;
    source.fill(1);
    let part = |number: usize| memory.ptr().offset(number * BYTES);
    let pieces = [
        MemCopy::to_device(part(0), source.ptr(), BYTES),
        MemCopy::to_host(sink.ptr(), part(1), BYTES),
        MemCopy::on_device(part(3), part(2), BYTES),
    ];
    let table = subject.table(&pieces)?;
    let queue = subject.queue()?;
    queue.put(part(1), &pattern(2, BYTES))?;
    queue.put(part(2), &pattern(3, BYTES))?;
    if_supported(queue.scatter(&pieces, &table))?;
    ensure_pattern(&queue.fetch(part(0), BYTES)?, 1, "a piece to the device")?;
    ensure_pattern(&queue.fetch(part(3), BYTES)?, 3, "a piece within the device")?;
    queue.synchronize()?;
    ensure_pattern(sink.read(), 2, "a piece to the host")
}

pub(super) fn nothing_and_empty_pieces_are_fine(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(64)?;
    let memory = subject.memory(64)?;
    let nothing = MemCopy::to_device(memory.ptr(), source.ptr(), 0);
    let half = MemCopy::to_device(memory.ptr().offset(32), source.at(32), 32);
    let table = subject.table(&[nothing, half, nothing])?;
    let queue = subject.queue()?;
    source.fill(1);
    queue.memset(memory.ptr(), 0, 64)?;
    if_supported(queue.scatter(&[], &table))?;
    if_supported(queue.scatter(&[nothing], &table))?;
    if_supported(queue.scatter(&[nothing, half, nothing], &table))?;
    let mut expected = pattern(1, 64);
    expected[..32].fill(0);
    ensure_equal(
        &queue.fetch(memory.ptr(), 64)?,
        &expected,
        "one piece of three with bytes",
    )
}

pub(super) fn pieces_keep_their_place_in_the_stream(subject: &Subject) -> Outcome {
    const HALF: usize = 50_001;
    let (mut source, sink) = (subject.pinned(2 * HALF)?, subject.pinned(2 * HALF)?);
    let (memory, kept) = (subject.memory(2 * HALF)?, subject.memory(2 * HALF)?);
    let there = [0, HALF].map(|at| MemCopy::to_device(memory.ptr().offset(at), source.at(at), HALF));
    let back = [0, HALF].map(|at| MemCopy::to_host(sink.at(at), memory.ptr().offset(at), HALF));
    let tables = [subject.table(&there)?, subject.table(&back)?];
    let queue = subject.queue()?;
    source.fill(1);
    queue.dawdle()?;
    queue.memset(memory.ptr(), 0, 2 * HALF)?;
    if_supported(queue.scatter(&there, &tables[0]))?;
    queue.copy(MemCopy::on_device(kept.ptr(), memory.ptr(), 2 * HALF))?;
    if_supported(queue.scatter(&back, &tables[1]))?;
    queue.memset(memory.ptr(), 0, 2 * HALF)?;
    queue.synchronize()?;
    ensure_pattern(sink.read(), 1, "gathered between two fills")?;
    queue.ensure_pattern(&kept, 1, "copied behind scattered pieces")
}

pub(super) fn what_a_kernel_can_not_reach_is_refused(subject: &Subject) -> Outcome {
    const BYTES: usize = 4096;
    let (source, pageable) = (subject.pinned(2 * BYTES)?, Host::pageable(2 * BYTES));
    let memory = subject.memory(2 * BYTES)?;
    let second = memory.ptr().offset(BYTES);
    let fine = MemCopy::to_device(memory.ptr(), source.ptr(), BYTES);
    let table = subject.table(&[fine, fine])?;
    let queue = subject.queue()?;
    queue.put(memory.ptr(), &pattern(2, 2 * BYTES))?;
    for (what, refused) in [
        (
            "a pageable source",
            MemCopy::to_device(second, pageable.ptr(), BYTES),
        ),
        (
            "a pageable destination",
            MemCopy::to_host(pageable.ptr(), second, BYTES),
        ),
        (
            "a copy from host to host",
            MemCopy {
                dst: crate::Address::Host(source.at(BYTES)),
                src: crate::Address::Host(source.ptr()),
                bytes: BYTES,
            },
        ),
    ] {
        let result = queue.scatter(&[fine, refused], &table);
        ensure_error(result, ErrorKind::InvalidArgument, what)?;
    }
    ensure_error(
        queue.scatter(&[fine], &pageable),
        ErrorKind::InvalidArgument,
        "a table in pageable memory",
    )?;
    queue.ensure_pattern(&memory, 2, "written before calls that were refused")
}
