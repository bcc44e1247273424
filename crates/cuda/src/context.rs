//! The device's primary context: retained once, and current on the calling thread for the length of each call.
//!
//! - It is the *primary* context, which torch and every other user of the runtime API share. Its flags are never
//!   changed, and it is never released: what others and work in flight still use can't be known, so it lives as long as
//!   the process, as it does under the runtime API.
//! - Other libraries may change a thread's current context between two calls, and rely on theirs after ours (to the
//!   runtime API it is the current device). So each call asks which one is current (about 20 ns), and where it is
//!   another, or none, pushes ours and pops it again. On a thread that works with this device already, nothing is set.
//! - A forked child and a lost device are noticed here, before any call.

use std::{ffi::c_int, marker::PhantomData};

use pinlane_driver::{
    DeviceId, Error, ErrorKind, Result, fork,
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
};

use crate::{library::Api, pool::Pool, status::Status};

const CAPTURE_MODE_RELAXED: c_int = 2;
const NOT_CAPTURING: c_int = 0;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) api: &'static Api,
    pub(crate) id: DeviceId,
    /// The `CUdevice`.
    pub(crate) device: c_int,
    /// The `CUcontext`.
    pub(crate) handle: usize,
    /// Where its memory comes from; `None` where that is CUDA's plain allocator.
    pub(crate) pool: Option<Pool>,
    /// The error that lost the device, or zero.
    lost: AtomicI32,
    /// Peers whose memory was made, or can't be made, accessible: by ordinal.
    peers: [OnceLock<()>; MOST_PEERS],
}

/// Devices of one process that can be each other's peers; what lies beyond is staged through the host by the driver.
const MOST_PEERS: usize = 16;

impl Context {
    /// Retains the primary context of `device`.
    pub(crate) fn retain(api: &'static Api, id: DeviceId, device: c_int) -> Result<Self> {
        fork::refuse_in_child(id)?;
        let mut context = Self {
            api,
            id,
            device,
            handle: 0,
            pool: None,
            lost: AtomicI32::new(0),
            peers: Default::default(),
        };
        // SAFETY: a device of the initialised driver, and a valid place for the answer.
        let status = unsafe { (api.primary_context_retain)(&raw mut context.handle, device) };
        context.check(status, || "retaining the device's primary context".to_owned())?;
        context.pool = {
            let _current = context.enter()?;
            Pool::new(&context)
        };
        Ok(context)
    }

    /// Makes the context current on this thread until the answer is dropped.
    #[inline]
    pub(crate) fn enter(&self) -> Result<Current<'_>> {
        self.refuse_if_unusable()?;
        let mut current = 0;
        // SAFETY: a valid place for the answer.
        let status = unsafe { (self.api.context_current)(&raw mut current) };
        self.check(status, || "asking for the thread's CUDA context".to_owned())?;
        let pushed = current != self.handle;
        if pushed {
            let doing = "making the device's context current";
            // SAFETY: the handle was retained and is never released.
            let status = unsafe { (self.api.context_push)(self.handle) };
            if status == Status::INVALID_CONTEXT {
                // Only a reset of the device, by someone else, makes a retained context invalid.
                return Err(self.failure(status, ErrorKind::DeviceLost, doing));
            }
            self.check(status, || doing.to_owned())?;
        }
        Ok(Current {
            context: self,
            pushed,
            thread_bound: PhantomData,
        })
    }

    /// The same, for enqueuing on `stream`, which must not be under capture: what a graph replays later would use
    /// memory that is someone else's by then.
    #[inline]
    pub(crate) fn enter_stream(&self, stream: usize) -> Result<Current<'_>> {
        let current = self.enter()?;
        let mut capture = NOT_CAPTURING;
        // SAFETY: the stream is live by the contract of the handle that names it.
        let status = unsafe { (self.api.stream_is_capturing)(stream, &raw mut capture) };
        self.check(status, || {
            format!("asking whether stream {stream:#x} is under graph capture")
        })?;
        if capture != NOT_CAPTURING {
            return Err(Error::new(
                ErrorKind::Refused,
                self.id,
                format!(
                    "work was to be enqueued on stream {stream:#x}, which is under graph capture, and copies can't \
                     become part of a CUDA graph: call before or after the capture, or on another stream"
                ),
            ));
        }
        Ok(current)
    }

    /// An error unless `status` is success. Notices a lost device.
    #[inline]
    pub(crate) fn check(&self, status: Status, doing: impl FnOnce() -> String) -> Result<()> {
        if status == Status::SUCCESS {
            return Ok(());
        }
        Err(self.failure(status, status.kind(), &doing()))
    }

    /// The error of a call that was answered with `status`. Notices a lost device.
    #[cold]
    pub(crate) fn failure(&self, status: Status, kind: ErrorKind, doing: &str) -> Error {
        if kind == ErrorKind::DeviceLost {
            self.lost.store(status.0, Ordering::Relaxed);
        }
        Error::new(kind, self.id, self.api.explain(status, doing))
            .with_code(self.api.name_of(status), status.0.into())
    }

    /// An error in a forked child, and where the device is lost.
    #[inline]
    pub(crate) fn refuse_if_unusable(&self) -> Result<()> {
        fork::refuse_in_child(self.id)?;
        self.refuse_if_lost()
    }

    #[inline]
    fn refuse_if_lost(&self) -> Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(self.failure(Status(number), ErrorKind::DeviceLost, "an earlier call")),
        }
    }

    /// Lets this device reach the memory of `peer` directly, where the machine can. Tried once for each peer: where it
    /// can't, the driver carries copies over the host.
    pub(crate) fn reach(&self, peer: &Self) {
        let Some(tried) = self.peers.get(peer.id.ordinal as usize) else {
            return;
        };
        tried.get_or_init(|| match self.enable_peer_access(peer) {
            Ok(()) => {
                tracing::debug!(device = %self.id, peer = %peer.id, "the peer's memory is reached directly")
            }
            // Whatever the reason (another library did so before, there are too many peers), copies work; they only differ
            // in speed.
            Err(error) => {
                tracing::debug!(%error, peer = %peer.id, "copies to and from the peer go the driver's way")
            }
        });
    }

    fn enable_peer_access(&self, peer: &Self) -> Result<()> {
        let _current = self.enter()?.beside_captures()?;
        let mut reachable = 0;
        // SAFETY: two devices of the driver, and a valid place for the answer.
        let status =
            unsafe { (self.api.device_can_access_peer)(&raw mut reachable, self.device, peer.device) };
        self.check(status, || format!("asking whether {} can be reached", peer.id))?;
        if reachable == 0 {
            let message = format!("nothing connects the device with {} directly", peer.id);
            return Err(Error::new(ErrorKind::Unsupported, self.id, message));
        }
        // SAFETY: the peer's context is retained for ever; the flags must be 0.
        let mut status = unsafe { (self.api.enable_peer_access)(peer.handle, 0) };
        if let Status::SUCCESS | Status::PEER_ACCESS_ALREADY_ENABLED = status
            && let Some(pool) = peer.pool
        {
            status = pool.open_to(self.api, self.device);
        }
        self.check(status, || {
            format!("enabling direct access to the memory of {}", peer.id)
        })
    }
}

/// While it lives, the context is current on this thread.
#[derive(Debug)]
pub(crate) struct Current<'a> {
    context: &'a Context,
    pushed: bool,
    thread_bound: PhantomData<*const ()>,
}

impl<'a> Current<'a> {
    /// Adds what calls need that CUDA forbids while anybody in the process captures a graph in the global mode (torch's
    /// default): allocating, pinning, asking an event, pageable copies. None of ours is to be part of a graph, so they
    /// go ahead, and leave the capture alone.
    #[inline]
    pub(crate) fn beside_captures(self) -> Result<BesideCaptures<'a>> {
        let mut mode = CAPTURE_MODE_RELAXED;
        // SAFETY: a valid mode, and a valid place for the thread's own, which the guard puts back.
        let status = unsafe { (self.context.api.exchange_capture_mode)(&raw mut mode) };
        self.context
            .check(status, || "relaxing the thread's capture mode".to_owned())?;
        Ok(BesideCaptures { current: self, mode })
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = 0;
            // SAFETY: what `enter` pushed on this thread, which this type can't leave, is on top. An error means that
            // the driver is going away, and then there is no stack of contexts to keep in order.
            let _answer = unsafe { (self.context.api.context_pop)(&raw mut popped) };
        }
    }
}

/// While it lives, the context is current and the thread's calls are no part of anyone's graph capture.
#[derive(Debug)]
pub(crate) struct BesideCaptures<'a> {
    current: Current<'a>,
    /// The thread's own mode.
    mode: c_int,
}

impl Drop for BesideCaptures<'_> {
    fn drop(&mut self) {
        // SAFETY: the mode that the driver gave for this thread. Its error means that the driver is going away.
        let _answer = unsafe { (self.current.context.api.exchange_capture_mode)(&raw mut self.mode) };
    }
}
