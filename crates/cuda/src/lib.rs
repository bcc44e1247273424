//! NVIDIA GPUs for pinlane: the [`Driver`] trait over the CUDA driver API.
//!
//! Builds everywhere; the driver library is loaded at run time. Where it, a function of it, or a device is missing, each
//! call answers with an error that names what, and what to do. Nothing here panics for what a machine lacks.
//!
//! ```
//! match pinlane_cuda::open(0) {
//!     Ok(driver) => println!("{} over {}", driver.properties().name, driver.properties().link.name),
//!     Err(error) => println!("{error}"),
//! }
//! ```
//!
//! - The device's *primary* context is used, which torch and the runtime API share; `context` says how a call gets along
//!   with others on its thread.
//! - [`RawStream`](pinlane_driver::RawStream) and [`RawEvent`](pinlane_driver::RawEvent) are `CUstream` and `CUevent` as
//!   integers, so streams of other libraries can be adopted, the default streams (0, 1, 2) too.
//! - A stream under graph capture, a forked child, an exiting process and a lost device get an error from every call.

mod batches;
mod busy;
mod context;
mod convert;
mod copies;
mod devices;
mod driver;
mod events;
mod flags;
mod kernels;
mod library;
mod link;
mod memory;
mod pinned;
mod pool;
mod properties;
mod scattered;
mod status;
mod streams;

use pinlane_driver::{Driver, Properties, Result, sync::Arc};

/// How many CUDA devices this process can use: at least one.
///
/// # Errors
///
/// [`NoSuchDevice`](pinlane_driver::ErrorKind::NoSuchDevice) where there is no NVIDIA driver or no device,
/// [`Unsupported`](pinlane_driver::ErrorKind::Unsupported) where the driver is too old (before CUDA 12.0) or lacks a
/// function, and [`Forked`](pinlane_driver::ErrorKind::Forked) in a process forked from one that uses devices.
pub fn device_count() -> Result<u32> {
    devices::count()
}

/// What each CUDA device is. Takes no device memory.
///
/// # Errors
///
/// As for [`device_count`].
pub fn devices() -> Result<Vec<Properties>> {
    devices::list()
}

/// The driver of the device with that ordinal, as `CUDA_VISIBLE_DEVICES` leaves them. The same one each time; it lives
/// as long as the process.
///
/// # Errors
///
/// As for [`device_count`]; and [`NoSuchDevice`](pinlane_driver::ErrorKind::NoSuchDevice) where there are not so many.
pub fn open(ordinal: u32) -> Result<Arc<dyn Driver>> {
    let driver: Arc<dyn Driver> = devices::driver(ordinal)?;
    Ok(driver)
}
