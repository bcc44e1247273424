//! The native half of the Python package: between Python objects and the engine, and nothing else.
//!
//! - [`tree`] takes a nesting of containers apart into leaves, and puts one with other leaves together.
//! - [`exchange`] reads what a tensor is, through the C table that torch offers; [`form`] is what leaves of one kind share.
//! - [`memory`] is host memory, and a simulated device's, as something that torch and numpy can look at.
//! - [`alone`] moves a tensor that is a tree by itself.
//! - [`kept`] are Python objects that the engine keeps alive while it uses their memory.
//! - [`moving`] starts the engine's transfers of a tree's leaves; a [`flight`] is those on their way, and
//!   [`waiting`] are the event loops that are told of it.
//! - [`checkpoint`] is the catalogue of a checkpoint, loading its tensors into memory of Python's, and saving.
//! - [`slabs`] are memory that worker processes fill and the process that started them reads; a [`slab_file`] is where.
//! - [`profiling`] shows a session of the engine's tracing to Python.
//! - [`devices`] opens devices and tells of them; [`process`] refuses to use them in a forked child; [`errors`] are the
//!   engine's, as Python exceptions.

mod alone;
mod checkpoint;
mod devices;
mod errors;
mod exchange;
mod flight;
mod form;
mod kept;
mod memory;
mod moving;
mod pinning;
mod process;
mod profiling;
mod simulated;
mod slab_file;
mod slabs;
mod tree;
mod waiting;

/// The module `pinlane._native`.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::{
        alone::{Way, front, know_torch},
        checkpoint::{Checkpoint, arrival::Arrival, saving::save_checkpoint},
        devices::{
            device_names, device_stats, kept_bytes, open_device, set_kept_limit, set_pinned_budget,
            simulated_device_of, trim,
        },
        flight::Flight,
        memory::{Memory, drain, make_memory},
        moving::start,
        pinning::{is_pinned, pinned_memory},
        profiling::{Profile, finish_process},
        simulated::{SimulatedStream, Stalled, lose, simulate},
        slabs::Slabs,
        tree::Tree,
    };
}
