//! The simulated device: a real asynchronous machine in threads, for tests and for hosts without an accelerator.
//!
//! What runs late on hardware runs late here. A copy from or to pinned memory is done by a copy-engine thread after
//! the call has returned: change its source too early, or read its destination too early, and you get garbage.
//! Pageable memory goes through the driver's own bounce buffers and blocks the caller, as CUDA's does: to the device
//! until the last piece is staged, from the device until all of it has arrived. A blocking copy from the device that
//! fails says so at once, and its stream stays failed until it is synchronised.
//!
//! The link and the pinning of host memory can be given a rate and a latency, the host a pin limit, and every call can
//! be made to fail ([`FaultPlan`]). What is alive is counted ([`SimDriver::alive`]), and memory that is given back while
//! enqueued work still uses it is noticed ([`SimDriver::freed_in_use`]). It shows behaviour, never hardware's speed.
//!
//! One [`Machine`] is one host with its devices, under one lock (`state`). A thread for each copy engine and one
//! for compute do the work (`engine`); streams and events decide what may start (`order`). Idle threads sleep.

mod allocations;
mod arena;
mod config;
mod convert;
mod driver;
mod engine;
mod fault;
mod machine;
mod observe;
mod order;
mod pinned;
mod route;
mod scatter;
mod staging;
mod state;
mod tickets;
mod work;

pub use allocations::POISON;
pub use config::{CopyEngines, DeviceConfig, MachineConfig};
pub use driver::SimDriver;
pub use fault::{Fault, FaultPlan, Step};
pub use machine::Machine;
pub use observe::{Alive, Stall};
