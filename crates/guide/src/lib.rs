//! The guide to pinned memory and non-blocking copies, as a program.
//!
//! Every claim of the guide is an [experiment]: it does the work in the guide's own ways, which are
//! [torch's](plain), and in pinlane's, side by side; checks every byte that lands; and [judges](verdict) the claim by
//! what was measured on this machine. [`run`] runs them; [`report`] and [`json`] tell people and programs.
//!
//! - [`timer`] measures the time of a way, and [`pinlane::trace`] the operations in it.
//! - [`workload`] makes the tensors up, or takes those of a checkpoint.
//! - [`device`] opens the device; a [simulated] one is throttled, so that there is something to see.

pub mod context;
pub mod device;
pub mod error;
pub mod experiment;
pub mod experiments;
pub mod host;
pub mod json;
mod memory;
pub mod outcome;
pub mod plain;
pub mod report;
pub mod run;
pub mod simulated;
pub mod timeline;
pub mod timer;
pub mod verdict;
pub mod workload;

pub use error::{Error, Result};
pub use pinlane::units;
