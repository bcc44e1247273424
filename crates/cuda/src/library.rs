//! The CUDA driver library, loaded at run time: exactly the functions that this crate calls, each probed by name.
//!
//! Not cudarc's bindings: loaded at run time, they panic where the library or a symbol is missing, and they read
//! answers into Rust enums, which a newer driver's answer may not be a value of.
//!
//! Handles (contexts, streams, events, modules) are pointers that only the driver follows. They are `usize` here, which
//! every platform of CUDA passes like a pointer. `CUdeviceptr` is a `u64` on all of them.

use std::{
    error::Error,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
};

use libloading::Library;
use pinlane_driver::{ErrorKind, sync::OnceLock};

use crate::{
    pool::{Access, PoolProperties},
    status::Status,
};

/// The oldest driver that is used, as `cuDriverGetVersion` tells it: CUDA 12.0.
const OLDEST: c_int = 12_000;

#[cfg(not(windows))]
const NAMES: &[&str] = &["libcuda.so.1", "libcuda.so"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvcuda.dll"];

/// Why there is no CUDA in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    /// The name and number of what the driver answered, where it came to that.
    pub(crate) code: Option<(String, i32)>,
}

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        /// The driver's functions, by the symbols of `cuda.h` (those without a thread's own default stream).
        pub(crate) struct Functions {
            $(pub(crate) $field: unsafe extern "system" fn($($argument),*) -> Status,)*
        }

        impl Functions {
            /// # Safety
            ///
            /// `library` is the CUDA driver library, and stays loaded while the functions are used.
            unsafe fn find(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    // SAFETY: the types are those of `cuda.h` for this symbol; the caller keeps the library loaded.
                    $($field: *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }.map_err(|_| $symbol)?,)*
                })
            }
        }
    };
}

functions! {
    init = "cuInit" (c_uint);
    driver_version = "cuDriverGetVersion" (*mut c_int);
    error_name = "cuGetErrorName" (Status, *mut *const c_char);
    error_string = "cuGetErrorString" (Status, *mut *const c_char);
    symbol_address = "cuGetProcAddress_v2" (*const c_char, *mut *mut c_void, c_int, u64, *mut c_int);

    device_count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_memory = "cuDeviceTotalMem_v2" (*mut usize, c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    device_pci_bus_id = "cuDeviceGetPCIBusId" (*mut c_char, c_int, c_int);
    device_can_access_peer = "cuDeviceCanAccessPeer" (*mut c_int, c_int, c_int);

    primary_context_retain = "cuDevicePrimaryCtxRetain" (*mut usize, c_int);
    context_current = "cuCtxGetCurrent" (*mut usize);
    context_push = "cuCtxPushCurrent_v2" (usize);
    context_pop = "cuCtxPopCurrent_v2" (*mut usize);
    enable_peer_access = "cuCtxEnablePeerAccess" (usize, c_uint);
    exchange_capture_mode = "cuThreadExchangeStreamCaptureMode" (*mut c_int);

    memory_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut u64, usize);
    free = "cuMemFree_v2" (u64);
    pool_create = "cuMemPoolCreate" (*mut usize, *const PoolProperties);
    pool_set_access = "cuMemPoolSetAccess" (usize, *const Access, usize);
    pool_trim = "cuMemPoolTrimTo" (usize, usize);
    pool_attribute = "cuMemPoolGetAttribute" (usize, c_int, *mut u64);
    allocate_in_order = "cuMemAllocFromPoolAsync" (*mut u64, usize, usize, usize);
    free_in_order = "cuMemFreeAsync" (u64, usize);
    host_register = "cuMemHostRegister_v2" (*mut c_void, usize, c_uint);
    host_unregister = "cuMemHostUnregister" (*mut c_void);
    pointer_attributes = "cuPointerGetAttributes" (c_uint, *mut c_int, *mut *mut c_void, u64);

    stream_create = "cuStreamCreate" (*mut usize, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (usize);
    stream_synchronize = "cuStreamSynchronize" (usize);
    stream_wait_event = "cuStreamWaitEvent" (usize, usize, c_uint);
    stream_write = "cuStreamWriteValue32_v2" (usize, u64, u32, c_uint);
    stream_is_capturing = "cuStreamIsCapturing" (usize, *mut c_int);

    event_create = "cuEventCreate" (*mut usize, c_uint);
    event_destroy = "cuEventDestroy_v2" (usize);
    event_record = "cuEventRecord" (usize, usize);
    event_query = "cuEventQuery" (usize);
    event_elapsed = "cuEventElapsedTime" (*mut f32, usize, usize);

    copy_to_device = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, usize);
    copy_to_host = "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, usize);
    copy_on_device = "cuMemcpyDtoDAsync_v2" (u64, u64, usize, usize);
    copy_from_peer = "cuMemcpyPeerAsync" (u64, usize, u64, usize, usize, usize);
    memset = "cuMemsetD8Async" (u64, u8, usize, usize);

    module_load = "cuModuleLoadDataEx" (*mut usize, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    module_function = "cuModuleGetFunction" (*mut usize, usize, *const c_char);
    launch = "cuLaunchKernel" (
        usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize, *mut *mut c_void, *mut *mut c_void
    );
}

/// One end of a copy as `CUmemLocation`: a hint that matters only for managed memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Location {
    pub(crate) kind: c_uint,
    pub(crate) id: c_int,
}

/// `CUmemcpyAttributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopyAttributes {
    pub(crate) source_access_order: c_uint,
    pub(crate) source: Location,
    pub(crate) destination: Location,
    pub(crate) flags: c_uint,
}

/// `cuMemcpyBatchAsync` as CUDA 12.8 declares it. CUDA 13 gave the name to a function without the index of the failure,
/// so it is asked for by version.
pub(crate) type CopyBatch = unsafe extern "system" fn(
    *mut u64,
    *mut u64,
    *mut usize,
    usize,
    *mut CopyAttributes,
    *mut usize,
    usize,
    *mut usize,
    usize,
) -> Status;

const COPY_BATCH: (&CStr, c_int) = (c"cuMemcpyBatchAsync", 12_080);

/// The loaded library, with `cuInit` behind it.
pub(crate) struct Api {
    functions: Functions,
    /// `None` where the driver is older than CUDA 12.8.
    pub(crate) copy_batch: Option<CopyBatch>,
    /// Never unloaded: an [`Api`] lives as long as the process.
    _library: Library,
}

impl std::ops::Deref for Api {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("copy_batch", &self.copy_batch.is_some())
            .finish_non_exhaustive()
    }
}

/// The process's one CUDA library, loaded and initialised at the first call.
pub(crate) fn api() -> Result<&'static Api, &'static Absent> {
    static API: OnceLock<Result<Api, Absent>> = OnceLock::new();
    API.get_or_init(|| Api::load(NAMES)).as_ref()
}

impl Api {
    /// Loads the first library of `names` that there is, and initialises CUDA.
    fn load(names: &[&str]) -> Result<Self, Absent> {
        let mut refusals = Vec::new();
        let found = names.iter().find_map(|name| {
            // SAFETY: loading the CUDA driver runs its constructors, which have no preconditions.
            let loaded = unsafe { Library::new(*name) };
            loaded.map_err(|error| refusals.push(refusal(name, &error))).ok()
        });
        let library = found.ok_or_else(|| Absent {
            kind: ErrorKind::NoSuchDevice,
            message: format!(
                "the CUDA driver library can't be loaded ({}): install the NVIDIA driver, or use another device",
                refusals.join("; ")
            ),
            code: None,
        })?;
        // SAFETY: it is the CUDA driver library by its name, and is stored beside the functions.
        let functions = unsafe { Functions::find(&library) }.map_err(|symbol| Absent {
            kind: ErrorKind::Unsupported,
            message: format!("the CUDA driver library has no {symbol}: update the NVIDIA driver"),
            code: None,
        })?;
        let mut api = Self {
            functions,
            copy_batch: None,
            _library: library,
        };
        api.require_version()?;
        // SAFETY: 0 is the only value that the flags may have.
        let status = unsafe { (api.init)(0) };
        if status != Status::SUCCESS {
            return Err(api.absent(status, "initialising CUDA"));
        }
        api.copy_batch = api.find_copy_batch();
        Ok(api)
    }

    /// The version of CUDA that the driver speaks, as `cuDriverGetVersion` tells it.
    pub(crate) fn version(&self) -> Result<c_int, Absent> {
        let mut version = 0;
        // SAFETY: a valid place for the answer; the call needs no initialisation.
        let status = unsafe { (self.driver_version)(&raw mut version) };
        if status == Status::SUCCESS {
            Ok(version)
        } else {
            Err(self.absent(status, "asking for the driver's version"))
        }
    }

    fn require_version(&self) -> Result<(), Absent> {
        let version = self.version()?;
        if version < OLDEST {
            let (name, oldest) = (version_name(version), version_name(OLDEST));
            return Err(Absent {
                kind: ErrorKind::Unsupported,
                message: format!(
                    "the NVIDIA driver speaks CUDA {name}, and {oldest} is the oldest that works: update the driver"
                ),
                code: None,
            });
        }
        Ok(())
    }

    fn find_copy_batch(&self) -> Option<CopyBatch> {
        let (symbol, version) = COPY_BATCH;
        let (mut address, mut found) = (std::ptr::null_mut(), 0);
        // SAFETY: valid places for the answers, and a string that ends in zero. Flags 0 mean the default.
        let status =
            unsafe { (self.symbol_address)(symbol.as_ptr(), &raw mut address, version, 0, &raw mut found) };
        if status != Status::SUCCESS || address.is_null() {
            return None;
        }
        // SAFETY: the driver answers with the function as the named version declares it, which is `CopyBatch`.
        Some(unsafe { std::mem::transmute::<*mut c_void, CopyBatch>(address) })
    }

    fn absent(&self, status: Status, doing: &str) -> Absent {
        Absent {
            kind: status.kind(),
            message: self.explain(status, doing),
            code: Some((self.name_of(status), status.0)),
        }
    }

    /// The name of `cuda.h` for a status.
    pub(crate) fn name_of(&self, status: Status) -> String {
        self.text(status, self.error_name)
            .unwrap_or_else(|| "an error without a name".to_owned())
    }

    /// The driver's own words for a status.
    pub(crate) fn words_for(&self, status: Status) -> String {
        self.text(status, self.error_string)
            .unwrap_or_else(|| format!("error {}", status.0))
    }

    /// What was being done, what happened, and what to do about it.
    pub(crate) fn explain(&self, status: Status, doing: &str) -> String {
        let happened = self.words_for(status);
        match status.advice() {
            Some(advice) => format!("{doing} failed: {happened}; {advice}"),
            None => format!("{doing} failed: {happened}"),
        }
    }

    fn text(
        &self,
        status: Status,
        lookup: unsafe extern "system" fn(Status, *mut *const c_char) -> Status,
    ) -> Option<String> {
        let mut text = std::ptr::null();
        // SAFETY: a valid place for the answer; both functions take any number.
        let known = unsafe { lookup(status, &raw mut text) };
        if known != Status::SUCCESS || text.is_null() {
            return None;
        }
        // SAFETY: on success the driver answers with a string of its own that ends in zero and lives for ever.
        let text = unsafe { CStr::from_ptr(text) };
        Some(text.to_string_lossy().into_owned())
    }
}

/// Why the library did not load. The loader's own words stand in the error's source.
fn refusal(name: &str, error: &libloading::Error) -> String {
    error
        .source()
        .map_or_else(|| format!("{name}: {error}"), ToString::to_string)
}

/// `12.8` for 12080.
pub(crate) fn version_name(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let absent = Api::load(&["libcuda-that-is-not-there.so.1"]).err().unwrap();
        assert_eq!(absent.kind, ErrorKind::NoSuchDevice);
        assert!(
            absent.message.contains("libcuda-that-is-not-there.so.1"),
            "{}",
            absent.message
        );
        assert!(
            absent.message.contains("install the NVIDIA driver"),
            "{}",
            absent.message
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_missing_symbol_is_an_error_that_names_it() {
        // Any library that is not CUDA's.
        let absent = Api::load(&["libc.so.6"]).err().unwrap();
        assert_eq!(absent.kind, ErrorKind::Unsupported);
        assert!(absent.message.contains("cuInit"), "{}", absent.message);
    }

    #[test]
    fn versions_are_told_as_people_write_them() {
        assert_eq!(version_name(12_080), "12.8");
        assert_eq!(version_name(OLDEST), "12.0");
    }

    #[test]
    fn the_attributes_of_a_batch_are_laid_out_as_in_the_header() {
        assert_eq!(std::mem::size_of::<CopyAttributes>(), 24);
        assert_eq!(std::mem::offset_of!(CopyAttributes, destination), 12);
    }
}
