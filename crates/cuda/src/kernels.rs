//! Kernels: PTX in this crate, which the driver compiles at the first use, or before where that must not wait for the device.
//!
//! A kernel that this driver can't load at all is not asked for again. One that it has just refused, for lack of memory say,
//! is: the next use may find it better disposed.

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    ptr,
};

use pinlane_driver::{
    ErrorKind, Result,
    sync::{Mutex, OnceLock, lock},
};

use crate::{context::Context, status::Status};

const JIT_ERROR_LOG: c_int = 5;
const JIT_ERROR_LOG_BYTES: c_int = 6;

/// One kernel of one device.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// PTX that ends in a zero.
    image: &'static str,
    entry: &'static CStr,
    /// The `CUfunction`, or why there never is one.
    known: OnceLock<Result<usize>>,
    /// Held while it is loaded: once for all who wait for it.
    loading: Mutex<Loading>,
}

#[derive(Debug, Default)]
struct Loading {
    /// A failure was told; those after it are not.
    warned: bool,
}

impl Kernel {
    pub(crate) fn new(image: &'static str, entry: &'static CStr) -> Self {
        Self {
            image,
            entry,
            known: OnceLock::new(),
            loading: Mutex::default(),
        }
    }

    /// The `CUfunction`, compiled and loaded at the first call that can, or why there is none.
    #[inline]
    pub(crate) fn load(&self, context: &Context) -> Result<usize> {
        match self.known.get() {
            Some(known) => known.clone(),
            None => self.load_by(|| self.compile(context)),
        }
    }

    /// What is known, or what `compile` gives.
    fn load_by(&self, compile: impl FnOnce() -> Result<usize>) -> Result<usize> {
        let mut loading = lock(&self.loading);
        if let Some(known) = self.known.get() {
            return known.clone();
        }
        let loaded = compile();
        if let Err(error) = &loaded
            && !std::mem::replace(&mut loading.warned, true)
        {
            tracing::warn!(%error, kernel = ?self.entry, "doing without a kernel");
        }
        if loaded.as_ref().err().is_none_or(|error| is_lasting(error.kind())) {
            self.known.get_or_init(|| loaded.clone());
        }
        loaded
    }

    /// Compiles and loads the kernel. It stays loaded as long as the context, which is as long as the process.
    fn compile(&self, context: &Context) -> Result<usize> {
        let _current = context.enter()?.beside_captures()?;
        let mut log = [0_u8; 1024];
        let mut options: [c_int; 2] = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
        // The second value is a number in a pointer's place.
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
        let mut module = 0;
        // SAFETY: an image that ends in zero, and two options with a buffer and its size.
        let status = unsafe {
            (context.api.module_load)(
                &raw mut module,
                self.image.as_ptr().cast(),
                options.len() as c_uint,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        context.check(status, || {
            let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let log = String::from_utf8_lossy(log);
            format!("loading the kernel {:?} {}", self.entry, log.trim())
        })?;
        let mut function = 0;
        // SAFETY: the module that was just loaded, and a name that ends in zero.
        let status = unsafe { (context.api.module_function)(&raw mut function, module, self.entry.as_ptr()) };
        context.check(status, || format!("finding {:?} in its module", self.entry))?;
        Ok(function)
    }
}

/// Whether the driver would say the same again, whenever it is asked.
fn is_lasting(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unsupported | ErrorKind::DeviceLost)
}

impl Context {
    /// Enqueues `blocks` blocks of `threads` threads of a kernel. The context is current.
    ///
    /// # Safety
    ///
    /// `function` is what [`Kernel::load`] gave for this context. `arguments` point to the kernel's parameters, in their
    /// order and of their types; what it does with them is right until it is done.
    pub(crate) unsafe fn launch<const PARAMETERS: usize>(
        &self,
        function: usize,
        [blocks, threads]: [c_uint; 2],
        mut arguments: [*mut c_void; PARAMETERS],
        stream: usize,
    ) -> Status {
        // SAFETY: the caller's promise; the driver reads the parameters before the call returns.
        unsafe {
            (self.api.launch)(
                function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        }
    }
}

/// The image was compiled from the source as it is, and is one that the driver can read.
#[cfg(test)]
pub(crate) fn assert_matches(image: &str, source: &str, entry: &CStr, parameters: usize) {
    assert_eq!(image.find('\0'), Some(image.len() - 1));
    let digest = <sha2::Sha256 as sha2::Digest>::digest(source);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let heading = image.lines().next().unwrap();
    assert!(
        heading.contains(&digest),
        "the source of this kernel has changed: run crates/cuda/kernels/build.sh\n{heading}"
    );
    let entry = entry.to_str().unwrap();
    assert!(source.contains(&format!("extern \"C\" __global__ void {entry}(")));
    let (_, rest) = image
        .split_once(&format!(".visible .entry {entry}("))
        .expect("the image has the kernel");
    let (declared, _) = rest.split_once(')').unwrap();
    assert_eq!(declared.matches(".param .u64").count(), parameters);
    assert_eq!(declared.matches(".param").count(), parameters);
    // Of CUDA 12.0, the oldest driver that is used.
    assert!(image.contains("\n.version 8.0\n.target sm_50\n"));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pinlane_driver::Error;

    use super::*;
    use crate::devices;

    fn refusal(kind: ErrorKind) -> Result<usize> {
        Err(Error::new(kind, devices::id(0), "no kernel"))
    }

    /// A kernel that fails once with an error of `kind`, and how often it is compiled in three calls.
    fn loads_after(kind: ErrorKind) -> (usize, Result<usize>) {
        let kernel = Kernel::new("", c"kernel");
        let compiled = Cell::new(0);
        let load = || {
            kernel.load_by(|| {
                compiled.set(compiled.get() + 1);
                if compiled.get() == 1 { refusal(kind) } else { Ok(7) }
            })
        };
        assert_eq!(load(), refusal(kind));
        let _second = load();
        (compiled.get(), load())
    }

    #[test]
    fn a_kernel_that_could_not_be_loaded_for_the_moment_is_loaded_later_and_once() {
        for kind in [ErrorKind::OutOfMemory, ErrorKind::Refused] {
            assert_eq!(loads_after(kind), (2, Ok(7)), "{kind:?}");
        }
    }

    #[test]
    fn a_kernel_that_the_driver_can_not_load_at_all_is_not_asked_for_again() {
        for kind in [ErrorKind::Unsupported, ErrorKind::DeviceLost] {
            assert_eq!(loads_after(kind), (1, refusal(kind)), "{kind:?}");
        }
    }
}
