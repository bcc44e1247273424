//! `pinlane doctor`: looks at a machine, and says what makes moving tensors on it slower than it could be.
//!
//! Three steps, apart from each other:
//!
//! 1. [`mod@probe`] reads and measures the machine, in a few seconds, into [`Facts`]: plain data, which tests make up.
//! 2. [`mod@judge`] makes [`Finding`]s of facts. A pure function: the costliest finding comes first, each with its reason, its
//!    fix, and what pinlane does about it by itself.
//! 3. [`show`] prints both for people. A [`Report`] is both for programs, as JSON.

mod cores;
mod facts;
pub mod judge;
#[cfg(test)]
mod made_up;
pub mod probe;
mod report;
pub mod show;
mod units;

pub use cores::Cores;
pub use facts::{
    Accelerator, Accelerators, Disk, Facts, Host, IoUring, LinkRates, Memory, Node, Part, Pinning, Python,
    Rates, Refusal, Surroundings, Torch,
};
pub use judge::{Cost, Finding, Severity, judge};
pub use probe::{Options, probe};
pub use report::Report;
