//! Files as a source of tensors: what is open, what of it is in the page cache, and how pieces of it are read.
//!
//! - [`source`]: an open file that tensors lie in; the choice between reading through the page cache and past it.
//! - [`cached`]: whether a range of a file is in the page cache.
//! - [`read`]: reading many pieces of a file to many places with few calls.
//! - [`reading`]: collecting the pieces that tensors and views of them are.
//! - [`to_host`]: reading tensors to host memory, where no device takes part.

pub(crate) mod cached;
pub(crate) mod read;
pub(crate) mod reading;
pub(crate) mod source;
pub(crate) mod to_host;

pub use source::{FileAccess, FileSource};

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod tests;
