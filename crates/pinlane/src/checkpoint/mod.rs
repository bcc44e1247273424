//! Checkpoints: trees of named tensors in [safetensors](https://huggingface.co/docs/safetensors) files.
//!
//! - [`load`] moves what is in files to a device, [`save`] what is on a device to files.
//! - [`Checkpoint`] is the catalogue: what there is, without reading data; choosing by name, pattern or predicate; slices;
//!   loading whole, tensor by tensor ([`Checkpoint::stream`]) or into tensors that exist ([`Checkpoint::load_into`]).
//! - [`LoadOptions`] says what tensors of floating-point numbers become on their way, such as BF16.
//! - [`verify`] reads everything and tells all that is wrong.
//! - [`Header`] and [`ShardIndex`] are the two formats, read by the letter: what is a rule of the format is checked before
//!   anything else is done with a file, and before anything is allocated that a file's claims decide.
//!
//! A tensor of a catalogue is a [`Tensor`](crate::Tensor) whose bytes are still in the file. The tensors of one file share
//! it open, so a checkpoint that was opened stays whole while files are replaced; bytes are read when a tensor is moved,
//! straight into pinned slots.

mod catalogue;
mod converting;
mod error;
mod fault;
mod header;
mod index;
mod json;
mod load;
mod load_into;
mod map;
mod named;
mod options;
mod save;
mod shard;
mod source;
mod stream;
mod verify;

pub use catalogue::{Checkpoint, Entry};
pub use error::{CheckpointError, Difference};
pub use fault::{HeaderFault, IndexFault};
pub use header::{Header, TensorInfo};
pub use index::ShardIndex;
pub use load::load;
pub use load_into::{LeftOut, Names};
pub use options::LoadOptions;
pub use save::{SaveOptions, Saved, save, save_file};
pub use shard::Shard;
pub use stream::Stream;
pub use verify::{Verification, verify};
