//! The verbs of one accelerator, and nothing else: memory, streams, events and asynchronous copies.
//!
//! - [`Driver`] is the trait that an accelerator's crate implements: small, object-safe, enqueue-only. Its handles are
//!   plain integers ([`RawStream`], [`RawEvent`], [`DevicePtr`]).
//! - [`Stream`], [`Event`], [`DeviceMemory`] and [`PinnedRange`] wrap those integers and give them back on drop.
//! - [`Conversion`] says what becomes of floating-point elements that get another format ([`Float`]), bit by bit.
//! - [`sim`] is the simulated device: a real asynchronous machine in threads, with faults on demand.
//! - [`Wrapper`] makes a driver of another one, to watch it or to change what it does.
//! - [`fork`] knows a child of a process that uses devices, where all of this is refused.
//! - [`conformance`] is the suite that every driver must pass.
//!
//! Nothing here knows of tensors, pools or plans: that is the engine's, one floor up.

pub mod conformance;
mod driver;
mod error;
mod event;
mod float;
pub mod fork;
mod memory;
mod pcie;
mod pinned;
mod properties;
mod raw;
mod scatter;
pub mod sim;
mod stream;
pub mod sync;
mod wrapper;

pub use driver::Driver;
pub use error::{Code, Error, ErrorKind, Result};
pub use event::{Event, Timing};
pub use float::{Conversion, Float};
pub use memory::DeviceMemory;
pub use pcie::{LinkState, PcieLink};
pub use pinned::PinnedRange;
pub use properties::{Backend, DeviceId, Link, MemoryInfo, Properties};
pub use raw::{Address, DevicePtr, MemCopy, RawEvent, RawStream};
pub use scatter::ScatterTable;
pub use stream::Stream;
pub use wrapper::Wrapper;
