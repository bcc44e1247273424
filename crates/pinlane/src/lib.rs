//! Moves tensors between host memory, disk and accelerators at the speed of the link, and makes the well-known
//! mistakes of asynchronous copies impossible.
//!
//! ```
//! use pinlane::{DType, Device, Tensor, TensorMap, Tree};
//!
//! let device = Device::preferred()?;
//!
//! let mut batch = TensorMap::new();
//! batch.insert("images", Tensor::rand(DType::F32, &[32, 3, 64, 64], 1)?)?;
//! batch.insert("labels", Tensor::zeros(DType::I64, &[32])?)?;
//!
//! let on_device = batch.to(&device)?; // waits
//! let transfer = batch.transfer(&device)?; // does not: a `Transfer` can be waited for, awaited, or dropped
//! let also_on_device = transfer.wait()?;
//! # assert_eq!(on_device.get("labels").map(Tensor::device), also_on_device.get("labels").map(Tensor::device));
//! # Ok::<(), pinlane::Error>(())
//! ```
//!
//! A transfer is one pipeline: **source → pinned slot → device**, or backwards. A pure planner decides how each byte
//! goes ([`Plan`] says why); lanes fill slots and start copies so that both overlap; the [`Transfer`] owns everything
//! the copies need, and gives the result when it has landed.

pub mod checkpoint;
mod conversion;
mod device;
mod dtype;
mod element;
mod error;
mod file;
pub mod fill;
mod gather;
mod host_memory;
mod landing;
mod layout;
mod memory;
mod parts;
mod prefetch;
mod processors;
mod profile;
pub mod random;
pub mod reduce;
mod registry;
mod scalar;
mod tensor;
mod tensor_map;
pub mod trace;
mod transfer;
mod tree;
pub mod units;
mod whole_file;

pub use checkpoint::{Checkpoint, CheckpointError, load, save};
pub use device::{Device, DeviceOptions, DeviceStats};
pub use dtype::{DType, DTypeError};
pub use element::Element;
pub use error::{Error, Result};
pub use file::{FileAccess, FileSink, FileSource};
pub use fill::{Arange, FillError};
pub use gather::StridedCopy;
pub use host_memory::HostMemory;
pub use layout::{Layout, LayoutError};
pub use memory::{adopted::AdoptedPin, pool::PinnedUsage};
pub use pinlane_driver as driver;
pub use prefetch::{Fetch, Prefetch, prefetch};
pub use processors::Processors;
pub use profile::{
    Amount, Figures, KnownProfile, Measurement, MemcpyRate, Profile, ProfileElsewhere, ProfileError,
    ProfileOrigin, ProfileStore, Progress, Quantity, Trial,
};
pub use scalar::Scalar;
pub use tensor::{ForeignMemory, Tensor};
pub use tensor_map::{Node, TensorMap};
pub use transfer::{
    Alternative, Direction, Explanation, HostEnd, Pieces, Placement, Plan, Route, Transfer, TransferOptions,
    Workload,
};
pub use tree::Tree;
pub use whole_file::WholeFile;

/// Printed wherever figures of the simulated device are.
pub const SIMULATED: &str = "simulated device: shows behaviour, not hardware speed";

/// Runs the README's example with the doctests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Runs the examples of the book with the doctests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../../docs/checkpoints.md")]
    struct Checkpoints;
    #[doc = include_str!("../../../docs/recipes.md")]
    struct Recipes;
    #[doc = include_str!("../../../docs/rust.md")]
    struct Rust;
    #[doc = include_str!("../../../docs/start.md")]
    struct Start;
}
