//! Many small copies by one kernel, which reads and writes pinned host memory by itself (see `kernels/scatter.cu`).
//!
//! The kernel finds its pieces in a table that is written here, into pinned memory of the caller's. A long copy is cut
//! into several pieces, so that each is about as much work as the others. The kernel starts on the first entries while the
//! others are written.
//!
//! There is no such verb where the kernel can't be loaded, or where the device knows registered host memory by another
//! address than the host does (WSL): [`copy_batch`](pinlane_driver::Driver::copy_batch) serves there.

use std::{
    ffi::{CStr, c_uint},
    ptr::{self, NonNull},
};

use pinlane_driver::{Address, Error, ErrorKind, MemCopy, Result, ScatterTable};

use crate::{
    context::Context,
    copies::{Way, way_of},
    devices,
    kernels::Kernel,
    pinned::{PinnedRanges, known_to_cuda},
    streams,
};

/// A PTX image ends in a zero.
const IMAGE: &str = concat!(include_str!("../kernels/scatter.ptx"), "\0");
const ENTRY: &CStr = c"pinlane_scatter";

/// Threads of one block, and the warps they make. The kernel gives each piece to one warp.
const THREADS: c_uint = 256;
const WARPS: usize = THREADS as usize / 32;
/// The most blocks. A few dozen fill the link; more would only take room from whoever computes on the device meanwhile.
const MOST_BLOCKS: usize = 128;

/// How many entries the kernel is started with first; each time after with twice as many. A launch takes a few microseconds,
/// as long as so many entries take to write.
const FIRST_ENTRIES: usize = 128;

/// Two rounds of a warp's loads: long enough to be worth its entry in the table, short enough that 64 KiB occupy many warps.
const PIECE: usize = 8 << 10;

/// What the kernel reads for each piece: `Piece` in `kernels/scatter.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    dst: u64,
    src: u64,
    bytes: u64,
}

const TABLE: ScatterTable = ScatterTable {
    entry_bytes: size_of::<Entry>(),
    piece_bytes: PIECE,
};

/// Scattered copies on one device.
#[derive(Debug)]
pub(crate) struct Scattered {
    kernel: Kernel,
    /// Whether a host address of registered memory names the same memory on the device.
    same_address: bool,
}

impl Scattered {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            kernel: Kernel::new(IMAGE, ENTRY),
            same_address: devices::knows_host_addresses(context),
        }
    }

    /// Loads the kernel, all the way to the device. CUDA loads only when the device has nothing else to do, so a transfer that
    /// was not to wait would wait for all that is on the device. Where it can't be had, the first use says so once more.
    pub(crate) fn load(&self, context: &Context) {
        let loaded = self.function(context).and_then(|function| {
            let stream = streams::create(context)?;
            // What CUDA has put off until a kernel's first launch is done now: one that finds no pieces.
            let started = context.enter_stream(stream).and_then(|current| {
                let _current = current.beside_captures()?;
                // SAFETY: no entries.
                unsafe {
                    start(
                        context,
                        function,
                        NonNull::slice_from_raw_parts(NonNull::dangling(), 0),
                        stream,
                    )
                }
            });
            // SAFETY: made above, and used for that alone.
            started.and(unsafe { streams::destroy(context, stream) })
        });
        if let Err(error) = loaded {
            tracing::debug!(%error, "the kernel for scattered pieces was not loaded");
        }
    }

    /// The table's rule, where the verb can be had.
    pub(crate) fn table(&self, context: &Context) -> Option<ScatterTable> {
        self.function(context).is_ok().then_some(TABLE)
    }

    /// The kernel, or [`ErrorKind::Unsupported`] with the reason why there never is one, or another error.
    fn function(&self, context: &Context) -> Result<usize> {
        let unsupported = |why: &str| {
            let message = format!("scattered copies need a kernel, and {why}; use copy_batch");
            Error::new(ErrorKind::Unsupported, context.id, message)
        };
        if !self.same_address {
            return Err(unsupported(
                "this device does not know registered host memory by the host's addresses",
            ));
        }
        self.kernel.load(context).map_err(|error| match error.kind() {
            ErrorKind::Unsupported => unsupported(&format!("it can't be loaded ({error})")),
            _ => error,
        })
    }

    /// Enqueues all of `copies`; see [`Driver::copy_scattered`](pinlane_driver::Driver::copy_scattered).
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn copy(
        &self,
        context: &Context,
        pinned: &PinnedRanges,
        copies: &[MemCopy],
        table: NonNull<u8>,
        stream: usize,
    ) -> Result<()> {
        let function = self.function(context)?;
        let _current = context.enter_stream(stream)?;
        let refuse = |why: String| Err(Error::new(ErrorKind::InvalidArgument, context.id, why));
        let (ends, bytes) = Span::of_host_ends(copies);
        let is_pinned = |start: *const u8, bytes: usize| {
            pinned.cover(start, bytes) || known_to_cuda(context, start, bytes)
        };
        // The host's ends are parts of one pinned range mostly: one look then serves for all.
        let all_pinned = ends.is_none_or(|ends| pinned.cover(ends.start, ends.bytes));
        let room = TABLE.bytes(copies.len(), bytes);
        if !table.addr().get().is_multiple_of(ScatterTable::ALIGNMENT) || !is_pinned(table.as_ptr(), room) {
            return refuse(format!(
                "the table of {} scattered copies needs {room} bytes of pinned memory, aligned to {}; at {table:p} are none",
                copies.len(),
                ScatterTable::ALIGNMENT
            ));
        }
        let mut pieces = Pieces::new(table);
        let mut started = 0;
        for copy in copies {
            let way = way_of(context, copy)?;
            let (host, dst, src) = match way {
                // Unified addressing: a host address names its memory to the device too.
                Way::ToDevice { dst, src } => (Some(src), dst, src.addr() as u64),
                Way::ToHost { dst, src } => (Some(dst.cast_const()), dst.addr() as u64, src),
                Way::OnDevice { dst, src } => (None, dst, src),
                Way::FromPeer { .. } | Way::ToPeer { .. } => {
                    return refuse(format!(
                        "{} bytes were to be scattered to or from a peer; copy them",
                        copy.bytes
                    ));
                }
            };
            if !all_pinned && copy.bytes > 0 && host.is_some_and(|host| !is_pinned(host, copy.bytes)) {
                return refuse(format!(
                    "{} bytes of pageable host memory were to be scattered or gathered; pin them, or copy them",
                    copy.bytes
                ));
            }
            // SAFETY: the table has room for the copies' pieces and is the caller's to write, by its promise.
            unsafe { pieces.push(dst, src, copy.bytes) };
            if pieces.count >= 2 * started + FIRST_ENTRIES {
                // SAFETY: the entries are written, and what they name is as the caller promises.
                unsafe { start(context, function, pieces.entries(started), stream) }?;
                started = pieces.count;
            }
        }
        if pieces.count == started {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { start(context, function, pieces.entries(started), stream) }
    }
}

/// Starts the kernel on some entries of a table.
///
/// # Safety
///
/// What the entries name is valid memory that the device reaches, until the copies are done; so is the table.
unsafe fn start(context: &Context, function: usize, entries: NonNull<[Entry]>, stream: usize) -> Result<()> {
    let (mut address, mut count) = (entries.addr().get() as u64, entries.len() as u64);
    let arguments = [
        ptr::from_mut(&mut address).cast(),
        ptr::from_mut(&mut count).cast(),
    ];
    let blocks = entries.len().div_ceil(WARPS).clamp(1, MOST_BLOCKS) as c_uint;
    // SAFETY: the kernel takes the entries' address and number, and touches what they name; by the caller's promise.
    let status = unsafe { context.launch(function, [blocks, THREADS], arguments, stream) };
    context.check(status, || {
        format!(
            "starting the kernel that moves {} scattered pieces",
            entries.len()
        )
    })
}

/// A range of host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: *const u8,
    bytes: usize,
}

impl Span {
    /// The least range that holds every host end of `copies`, if there is any, and the bytes of all copies.
    fn of_host_ends(copies: &[MemCopy]) -> (Option<Self>, usize) {
        let (mut first, mut end, mut bytes) = (ptr::null::<u8>(), 0, 0_usize);
        for copy in copies.iter().filter(|copy| copy.bytes > 0) {
            bytes = bytes.saturating_add(copy.bytes);
            for address in [copy.dst, copy.src] {
                let Address::Host(host) = address else { continue };
                if end == 0 || host.cast_const() < first {
                    first = host;
                }
                end = end.max(host.addr().saturating_add(copy.bytes));
            }
        }
        let span = (end > 0).then(|| Self {
            start: first,
            bytes: end - first.addr(),
        });
        (span, bytes)
    }
}

/// A table that is being written.
struct Pieces {
    table: NonNull<Entry>,
    count: usize,
}

impl Pieces {
    fn new(table: NonNull<u8>) -> Self {
        Self {
            table: table.cast(),
            count: 0,
        }
    }

    /// The entries from number `first` on.
    fn entries(&self, first: usize) -> NonNull<[Entry]> {
        // SAFETY: within the table: there are more entries than `first`.
        NonNull::slice_from_raw_parts(unsafe { self.table.add(first) }, self.count - first)
    }

    /// Adds a copy, cut into as many pieces as it takes.
    ///
    /// # Safety
    ///
    /// The table is aligned, and has room for the pieces of all copies that are added; nobody else uses it.
    unsafe fn push(&mut self, dst: u64, src: u64, bytes: usize) {
        for offset in (0..bytes).step_by(PIECE) {
            let entry = Entry {
                dst: dst + offset as u64,
                src: src + offset as u64,
                bytes: PIECE.min(bytes - offset) as u64,
            };
            // SAFETY: within the table, by the caller's promise.
            unsafe { self.table.add(self.count).write(entry) };
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::DevicePtr;

    use super::*;
    use crate::kernels::assert_matches;

    #[test]
    fn the_image_is_of_the_source() {
        let source = include_str!("../kernels/scatter.cu");
        assert_matches(IMAGE, source, ENTRY, 2);
        assert!(source.contains("struct Piece {\n    unsigned long long dst, src, bytes;\n};"));
        assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (24, 8));
    }

    #[test]
    fn a_table_cuts_long_copies_and_has_the_room_that_its_rule_says() {
        let copies = [1, PIECE - 1, PIECE, PIECE + 1, 0, 3 * PIECE + 5];
        let room = TABLE.bytes(copies.len(), copies.iter().sum());
        let mut memory = vec![0_u128; room.div_ceil(16)];
        let table = NonNull::from(memory.as_mut_slice()).cast();
        let mut pieces = Pieces::new(table);
        for (index, bytes) in copies.into_iter().enumerate() {
            let (dst, src) = (0x10_0000 * (index as u64 + 1), 0x1000_0000 * (index as u64 + 1));
            // SAFETY: as long as the rule says, aligned, and this test's own.
            unsafe { pieces.push(dst, src, bytes) };
        }
        assert!(pieces.count * size_of::<Entry>() <= room);
        // SAFETY: so many entries were written.
        let entries = unsafe { std::slice::from_raw_parts(table.cast::<Entry>().as_ptr(), pieces.count) };
        let piece = PIECE as u64;
        let sizes: Vec<_> = entries.iter().map(|entry| entry.bytes).collect();
        assert_eq!(sizes, [1, piece - 1, piece, piece, 1, piece, piece, piece, 5]);
        assert_eq!(
            entries[7],
            Entry {
                dst: 0x60_0000 + 2 * piece,
                src: 0x6000_0000 + 2 * piece,
                bytes: piece
            }
        );
    }

    #[test]
    fn the_span_of_the_hosts_ends_holds_them_all() {
        let host = ptr::without_provenance_mut::<u8>;
        let device = DevicePtr(0x10);
        let copies = [
            MemCopy::to_device(device, host(0x3000), 0x10),
            MemCopy::to_host(host(0x1000), device, 0x20),
            MemCopy::on_device(device, device, 0x40),
            MemCopy::to_device(device, host(0x9000), 0),
        ];
        let span = Span {
            start: host(0x1000),
            bytes: 0x2010,
        };
        assert_eq!(Span::of_host_ends(&copies), (Some(span), 0x70));
        assert_eq!(Span::of_host_ends(&copies[2..3]), (None, 0x40));
    }
}
