//! Drivers that are made of another: every verb is passed on, but for those that are overridden.

use std::{fmt, ptr::NonNull, time::Duration};

use crate::{
    Conversion, DevicePtr, Driver, LinkState, MemCopy, MemoryInfo, Properties, RawEvent, RawStream, Result,
    ScatterTable, Timing,
};

/// Declares [`Wrapper`] and what makes a [`Driver`] of it.
macro_rules! verbs {
    (
        told { $( fn $told:ident(&self $(, $told_name:ident: $told_type:ty)*) -> $answer:ty; )* }
        done { $( fn $done:ident(&self $(, $done_name:ident: $done_type:ty)*) -> Result<$done_result:ty>; )* }
        promised { $( unsafe fn $promised:ident(&self $(, $name:ident: $type:ty)*) -> Result<$result:ty>; )* }
    ) => {
        /// A driver that is made of another one, to watch it or to change what it does: a test's flaw, a count of calls.
        ///
        /// Whoever implements this is a [`Driver`]. Each verb is passed on unless it is overridden; what is to happen at
        /// all that can fail goes into [`call`](Self::call). Both traits have all verbs: call those of a wrapper as a
        /// [`Driver`]'s, behind `dyn Driver`, or name the trait.
        ///
        /// ```
        /// use std::sync::atomic::{AtomicUsize, Ordering};
        ///
        /// use pinlane_driver::{
        ///     Driver, Result, Wrapper,
        ///     sim::{DeviceConfig, Machine, SimDriver},
        ///     sync::Arc,
        /// };
        ///
        /// /// Counts the calls.
        /// #[derive(Debug)]
        /// struct Counted(Arc<SimDriver>, AtomicUsize);
        ///
        /// // SAFETY: everything is the simulated device's answer.
        /// unsafe impl Wrapper for Counted {
        ///     type Inner = SimDriver;
        ///
        ///     fn inner(&self) -> &SimDriver {
        ///         &self.0
        ///     }
        ///
        ///     fn call<T>(&self, call: impl FnOnce(&SimDriver) -> Result<T>) -> Result<T> {
        ///         self.1.fetch_add(1, Ordering::Relaxed);
        ///         call(&self.0)
        ///     }
        /// }
        ///
        /// let machine = Machine::new(DeviceConfig::default());
        /// let counted = Arc::new(Counted(machine.sim(0)?, AtomicUsize::new(0)));
        /// let driver: Arc<dyn Driver> = Arc::clone(&counted) as _;
        /// driver.memory_info()?;
        /// assert_eq!(counted.1.load(Ordering::Relaxed), 1);
        /// # Ok::<(), pinlane_driver::Error>(())
        /// ```
        ///
        /// # Safety
        ///
        /// [`inner`](Self::inner) is always the same driver, and [`call`](Self::call) makes the call on that one before it returns,
        /// or not at all. What is overridden keeps the contract of [`Driver`]; where it breaks that on purpose, as a test's flaw
        /// does, whoever uses the wrapper knows what follows.
        pub unsafe trait Wrapper: fmt::Debug + Send + Sync + 'static {
            /// The driver within.
            type Inner: Driver + ?Sized;

            /// The driver within.
            fn inner(&self) -> &Self::Inner;

            /// Makes a call to the driver within: every verb that gives a [`Result`] and is not overridden goes through here.
            fn call<T>(&self, call: impl FnOnce(&Self::Inner) -> Result<T>) -> Result<T> {
                call(self.inner())
            }

            $(
                #[doc = concat!("As [`Driver::", stringify!($told), "`].")]
                fn $told(&self $(, $told_name: $told_type)*) -> $answer {
                    self.inner().$told($($told_name),*)
                }
            )*

            $(
                #[doc = concat!("As [`Driver::", stringify!($done), "`].")]
                fn $done(&self $(, $done_name: $done_type)*) -> Result<$done_result> {
                    self.call(|inner| inner.$done($($done_name),*))
                }
            )*

            $(
                #[doc = concat!("As [`Driver::", stringify!($promised), "`].\n\n# Safety\n\nAs there.")]
                unsafe fn $promised(&self $(, $name: $type)*) -> Result<$result> {
                    // SAFETY: the caller's promise, passed on.
                    self.call(|inner| unsafe { inner.$promised($($name),*) })
                }
            )*
        }

        // SAFETY: the wrapper's promise.
        unsafe impl<W: Wrapper> Driver for W {
            $(
                fn $told(&self $(, $told_name: $told_type)*) -> $answer {
                    Wrapper::$told(self $(, $told_name)*)
                }
            )*

            $(
                fn $done(&self $(, $done_name: $done_type)*) -> Result<$done_result> {
                    Wrapper::$done(self $(, $done_name)*)
                }
            )*

            $(
                unsafe fn $promised(&self $(, $name: $type)*) -> Result<$result> {
                    // SAFETY: the caller's promise, passed on.
                    unsafe { Wrapper::$promised(self $(, $name)*) }
                }
            )*
        }
    };
}

verbs! {
    told {
        fn properties(&self) -> &Properties;
        fn link_state(&self) -> Option<LinkState>;
        fn idle_bytes(&self) -> u64;
        fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool;
        fn scatter_table(&self) -> Option<ScatterTable>;
    }
    done {
        fn memory_info(&self) -> Result<MemoryInfo>;
        fn allocate(&self, bytes: usize) -> Result<DevicePtr>;
        fn trim(&self) -> Result<u64>;
        fn attach_thread(&self) -> Result<()>;
        fn create_stream(&self) -> Result<RawStream>;
        fn synchronize_stream(&self, stream: RawStream) -> Result<()>;
        fn create_event(&self, timing: Timing) -> Result<RawEvent>;
        fn record(&self, event: RawEvent, stream: RawStream) -> Result<()>;
        fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()>;
        fn query(&self, event: RawEvent) -> Result<bool>;
        fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()>;
        fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration>;
        fn busy(&self, duration: Duration, stream: RawStream) -> Result<()>;
    }
    promised {
        unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()>;
        unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()>;
        unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()>;
        unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()>;
        unsafe fn destroy_event(&self, event: RawEvent) -> Result<()>;
        unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()>;
        unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()>;
        unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()>;
        unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()>;
        unsafe fn convert(&self, conversion: Conversion, dst: DevicePtr, src: DevicePtr, elements: usize, stream: RawStream) -> Result<()>;
    }
}
