//! `pinlane advise`: how long moving tensors should take that are only described, by every way of the guide to pinned
//! memory and by pinlane's plan, each with the reason; and, where that is asked for, how long it takes.
//!
//! - [`describe`] reads descriptions: `100x1M f32 pageable to device`, JSON, the sizes in a checkpoint.
//! - [`profiles`] knows the machines that come with pinlane, and reads those in files.
//! - [`ways`] predicts the guide's ways by a profile; pinlane's prediction is its planner's.
//! - [`measure`] does them, and checks every byte that lands.
//! - [`Advice`] is all of that for one description, for people and as JSON.

mod advice;
pub mod describe;
mod error;
pub mod measure;
pub mod profiles;
pub mod ways;

pub use advice::{Advice, On};
pub use describe::{DescribeError, Description, Group, Impossible, Size};
pub use error::{Error, Result};
pub use ways::{Owner, Way};
