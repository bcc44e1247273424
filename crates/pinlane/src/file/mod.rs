//! Files that tensors lie in, or are written to.
//!
//! - [`source`]: an open file that tensors lie in; the choice between reading through the page cache and past it.
//! - [`cached`]: whether a range of a file is in the page cache.
//! - [`piece`]: what reading and writing have in common.
//! - [`read`]: reading many pieces of a file to many places with few calls.
//! - [`reading`]: collecting the pieces that tensors and views of them are.
//! - [`to_host`]: reading tensors to host memory, where no device takes part.
//! - [`sink`]: an open file that tensors are written to.
//! - [`map`]: a whole file as memory.
//! - [`mapped`]: writing to files in memory by several threads at once; [`faults`]: by filling pages.
//! - [`from_host`]: writing tensors that are on the host.
//! - [`writing`]: writing pieces of memory with few calls, past the page cache where the file is long.

pub(crate) mod cached;
mod faults;
pub(crate) mod from_host;
mod map;
pub(crate) mod mapped;
pub(crate) mod piece;
pub(crate) mod read;
pub(crate) mod reading;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod to_host;
pub(crate) mod writing;

pub use sink::FileSink;
pub use source::{FileAccess, FileSource};

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod tests;
