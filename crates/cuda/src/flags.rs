//! Flags: words of host memory that the device writes when a stream has come to a point.
//!
//! To see one raised is a load. It takes no call, and so no lock of the driver's, which other threads may be holding for
//! their own questions and copies; and the news is on the host sooner than by an event or by waiting for the stream.
//!
//! | a flag is | | who moves it on |
//! | --- | --- | --- |
//! | settled | its word is what was written last | whoever has it: [`Flag::raise`] |
//! | pending | a write is under way, behind the work of a stream | the device |
//!
//! A pending flag is not raised again: a write that comes late would undo a later one. Nor does a flag tell of failures: the
//! device writes nothing behind work that failed, so who waits has to ask the driver too, now and then.
//!
//! The words are on pages of their own, which stay pinned as long as the process lives, as the context does.

use std::{
    alloc::{Layout, alloc_zeroed},
    collections::VecDeque,
    ffi::c_uint,
    // The device writes the words, and no thread: there is no interleaving of threads to explore.
    sync::atomic::AtomicU32,
};

use pinlane_driver::{
    ErrorKind, Result,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
};

use crate::{
    context::Context,
    devices,
    pinned::{DEVICE_MAP, PORTABLE},
    status::Status,
};

const PAGE: usize = 4096;
/// Each has a cache line, so that the device's writes to one don't take another from who looks at it.
const LINE: usize = 64;
/// The write is behind everything that the stream did before it, as the host sees it.
const ORDERED: c_uint = 0;
/// How many of those given back are looked at for one that is settled.
const LOOKED_AT: usize = 4;

/// The flags of one device.
#[derive(Debug)]
pub(crate) struct Flags {
    unused: Mutex<VecDeque<Flag>>,
    /// Whether there can be any: host memory has the same address on the device, and streams can write to it.
    possible: AtomicBool,
}

/// A word that the device writes.
#[derive(Debug)]
pub(crate) struct Flag {
    word: &'static AtomicU32,
    /// What was written last, or will be.
    written: AtomicU32,
}

impl Flags {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            unused: Mutex::default(),
            possible: AtomicBool::new(devices::knows_host_addresses(context)),
        }
    }

    /// A settled flag, where there can be any. The context is current, beside captures.
    pub(crate) fn take(&self, context: &Context) -> Option<Flag> {
        if !self.possible.load(Ordering::Relaxed) {
            return None;
        }
        let mut unused = lock(&self.unused);
        if let Some(flag) = take_settled(&mut unused) {
            return Some(flag);
        }
        let Some(more) = a_page(context) else {
            self.give_up("no page for them can be pinned");
            return None;
        };
        unused.extend(more);
        unused.pop_back()
    }

    /// Takes a flag back, which may be pending.
    pub(crate) fn put_back(&self, flag: Flag) {
        lock(&self.unused).push_back(flag);
    }

    /// Has the device settle `flag`, which is settled, once everything enqueued on `stream` is done; says whether it will.
    /// The context is current, and the stream is not under capture.
    pub(crate) fn raise(&self, context: &Context, flag: &Flag, stream: usize) -> Result<bool> {
        if !self.possible.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let next = flag.written.load(Ordering::Relaxed).wrapping_add(1);
        let address = flag.word.as_ptr().addr() as u64;
        // SAFETY: the stream is live by the contract of the handle that names it, and the word is pinned for ever.
        let status = unsafe { (context.api.stream_write)(stream, address, next, ORDERED) };
        if status == Status::SUCCESS {
            flag.written.store(next, Ordering::Relaxed);
            return Ok(true);
        }
        if status.kind() == ErrorKind::DeviceLost {
            return Err(context.failure(
                status,
                ErrorKind::DeviceLost,
                &format!("enqueuing a flag on stream {stream:#x}"),
            ));
        }
        self.give_up("the device's streams write no words to host memory");
        Ok(false)
    }

    fn give_up(&self, reason: &str) {
        if self.possible.swap(false, Ordering::Relaxed) {
            tracing::debug!(reason, "doing without flags: CUDA is asked to wait instead");
        }
    }
}

impl Flag {
    /// Whether the device has written what was to be written last; what it did before that is visible then.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.word.load(Ordering::Acquire) == self.written.load(Ordering::Relaxed)
    }
}

/// One that is settled, of the first few.
fn take_settled(unused: &mut VecDeque<Flag>) -> Option<Flag> {
    for _ in 0..LOOKED_AT.min(unused.len()) {
        let flag = unused.pop_front()?;
        if flag.is_settled() {
            return Some(flag);
        }
        unused.push_back(flag);
    }
    None
}

/// A page of flags. The context is current, beside captures.
fn a_page(context: &Context) -> Option<impl Iterator<Item = Flag>> {
    let layout = Layout::from_size_align(PAGE, PAGE).ok()?;
    // SAFETY: the layout has a size.
    let page = unsafe { alloc_zeroed(layout) };
    if page.is_null() {
        return None;
    }
    // SAFETY: a page of this process, which is never freed: the device may write to it as long as the context lives.
    let status = unsafe { (context.api.host_register)(page.cast(), PAGE, PORTABLE | DEVICE_MAP) };
    if status != Status::SUCCESS {
        // SAFETY: made just above by this layout, and nobody has it.
        unsafe { std::alloc::dealloc(page, layout) };
        return None;
    }
    let flag = move |line: usize| Flag {
        // SAFETY: inside the page, aligned, zero, and there as long as the process; the host only reads it.
        word: unsafe { AtomicU32::from_ptr(page.add(line * LINE).cast()) },
        written: AtomicU32::new(0),
    };
    Some((0..PAGE / LINE).map(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(written: u32) -> Flag {
        Flag {
            word: Box::leak(Box::default()),
            written: AtomicU32::new(written),
        }
    }

    #[test]
    fn a_flag_is_pending_until_its_word_is_what_was_written_last() {
        let flag = flag(0);
        assert!(flag.is_settled());
        flag.written.store(1, Ordering::Relaxed);
        assert!(!flag.is_settled());
        flag.word.store(1, Ordering::Release);
        assert!(flag.is_settled());
    }

    #[test]
    fn a_pending_flag_is_given_to_nobody_and_kept_for_later() {
        let mut unused: VecDeque<Flag> = [flag(3), flag(4), flag(0)].into();
        let taken = take_settled(&mut unused).expect("the last one is settled");
        assert_eq!(taken.written.load(Ordering::Relaxed), 0);
        assert!(take_settled(&mut unused).is_none());
        unused[1].word.store(4, Ordering::Release);
        let taken = take_settled(&mut unused).expect("one was settled since");
        assert_eq!((taken.written.load(Ordering::Relaxed), unused.len()), (4, 1));
    }
}
