//! Another user of CUDA in this process, such as torch: it retains the device's primary context on its own, and makes it
//! current on its thread. The engine's tests with a GPU use it too.

#![allow(dead_code, reason = "each target of tests uses its own part")]

use std::ffi::{c_int, c_uint, c_void};

use libloading::Library;

type Status = c_int;

pub(crate) struct OtherLibrary {
    library: Library,
    device: c_int,
}

/// Calls a function of the driver library, and fails the test unless it succeeds.
macro_rules! call {
    ($other:expr, $symbol:literal ($($argument:expr => $type:ty),*)) => {{
        // SAFETY: the types are those of `cuda.h`; the arguments are valid by what each caller says.
        let status = unsafe {
            let function = $other
                .library
                .get::<unsafe extern "system" fn($($type),*) -> Status>(concat!($symbol, "\0").as_bytes())
                .expect($symbol);
            function($($argument),*)
        };
        assert_eq!(status, 0, $symbol);
    }};
}

impl OtherLibrary {
    /// On device 0.
    pub(crate) fn new() -> Self {
        Self::on(0)
    }

    /// Retains the primary context of a device and makes it current on this thread.
    pub(crate) fn on(ordinal: c_int) -> Self {
        // SAFETY: the CUDA driver library's constructors have no preconditions.
        let library = unsafe { Library::new("libcuda.so.1").or_else(|_| Library::new("nvcuda.dll")) };
        let mut other = Self {
            library: library.unwrap(),
            device: 0,
        };
        let mut context = 0;
        call!(other, "cuInit"(0 => c_uint));
        call!(other, "cuDeviceGet"(&raw mut other.device => *mut c_int, ordinal => c_int));
        call!(other, "cuDevicePrimaryCtxRetain"(&raw mut context => *mut usize, other.device => c_int));
        call!(other, "cuCtxSetCurrent"(context => usize));
        other
    }

    /// The context that is current on this thread, or 0.
    pub(crate) fn current_context(&self) -> usize {
        let mut context = 0;
        call!(self, "cuCtxGetCurrent"(&raw mut context => *mut usize));
        context
    }

    /// Makes `context`, or none (0), current on this thread.
    pub(crate) fn set_current_context(&self, context: usize) {
        call!(self, "cuCtxSetCurrent"(context => usize));
    }

    /// A stream that the legacy default stream waits for, as plain `cudaStreamCreate` makes them.
    pub(crate) fn make_blocking_stream(&self) -> usize {
        let mut stream = 0;
        call!(self, "cuStreamCreate"(&raw mut stream => *mut usize, 0 => c_uint));
        stream
    }

    pub(crate) fn destroy_stream(&self, stream: usize) {
        call!(self, "cuStreamDestroy_v2"(stream => usize));
    }

    /// Begins a graph capture in the global mode, which torch uses.
    pub(crate) fn begin_capture(&self, stream: usize) {
        call!(self, "cuStreamBeginCapture_v2"(stream => usize, 0 => c_int));
    }

    /// Ends the capture, which must still be valid.
    pub(crate) fn end_capture(&self, stream: usize) {
        let mut graph = 0;
        call!(self, "cuStreamEndCapture"(stream => usize, &raw mut graph => *mut usize));
        assert_ne!(graph, 0);
        call!(self, "cuGraphDestroy"(graph => usize));
    }

    /// The version of CUDA that the driver speaks: 12080 is 12.8.
    pub(crate) fn driver_version(&self) -> c_int {
        let mut version = 0;
        call!(self, "cuDriverGetVersion"(&raw mut version => *mut c_int));
        version
    }

    /// One of the device's `CU_DEVICE_ATTRIBUTE_*`.
    pub(crate) fn attribute(&self, attribute: c_int) -> c_int {
        let mut value = 0;
        call!(self, "cuDeviceGetAttribute"(&raw mut value => *mut c_int, attribute => c_int, self.device => c_int));
        value
    }

    /// What the driver says is free, in bytes.
    pub(crate) fn free_memory(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        call!(self, "cuMemGetInfo_v2"(&raw mut free => *mut usize, &raw mut total => *mut usize));
        free
    }

    pub(crate) fn allocate(&self, bytes: usize) -> u64 {
        let mut memory = 0;
        call!(self, "cuMemAlloc_v2"(&raw mut memory => *mut u64, bytes => usize));
        memory
    }

    /// Memory that host and device both use in place, wherever it lies; [`free`](Self::free) frees it too.
    pub(crate) fn allocate_managed(&self, bytes: usize) -> u64 {
        const ATTACH_GLOBAL: c_uint = 1;
        let mut memory = 0;
        call!(self, "cuMemAllocManaged"(&raw mut memory => *mut u64, bytes => usize, ATTACH_GLOBAL => c_uint));
        memory
    }

    pub(crate) fn free(&self, memory: u64) {
        call!(self, "cuMemFree_v2"(memory => u64));
    }

    pub(crate) fn fill(&self, memory: u64, value: u8, bytes: usize, stream: usize) {
        call!(self, "cuMemsetD8Async"(memory => u64, value => u8, bytes => usize, stream => usize));
    }

    /// Copies to the host, and waits for it.
    pub(crate) fn read(&self, memory: u64, sink: &mut [u8], stream: usize) {
        let (ptr, bytes) = (sink.as_mut_ptr().cast::<c_void>(), sink.len());
        call!(self, "cuMemcpyDtoHAsync_v2"(ptr => *mut c_void, memory => u64, bytes => usize, stream => usize));
        call!(self, "cuStreamSynchronize"(stream => usize));
    }

    pub(crate) fn allocate_pinned(&self, bytes: usize) -> *mut u8 {
        let mut memory = std::ptr::null_mut::<c_void>();
        call!(self, "cuMemHostAlloc"(&raw mut memory => *mut *mut c_void, bytes => usize, 0 => c_uint));
        memory.cast()
    }

    pub(crate) fn free_pinned(&self, memory: *mut u8) {
        call!(self, "cuMemFreeHost"(memory.cast() => *mut c_void));
    }
}

impl Drop for OtherLibrary {
    fn drop(&mut self) {
        call!(self, "cuCtxSetCurrent"(0 => usize));
        call!(self, "cuDevicePrimaryCtxRelease_v2"(self.device => c_int));
    }
}
