//! `pinlane bench`: pinlane beside the plain way and beside the link's own limit, in one run, with verified bytes.
//!
//! - [`link`] measures the limit: what the copy engines reach when nothing else is in the way.
//! - [`grid`] measures [cells](cell): a direction, a kind of host memory, a size and a count. In each cell the
//!   [ways] race: pinlane's own choice, every route that can be forced, and the plain way, which is torch's.
//!   They take turns, so that noise hits all alike, and every way's bytes are [checked](landed) against their source.
//! - [`figures`] are the numbers that pinlane is held to, each with its limit, its peers and what is asked.
//! - [`document`] is the outcome as JSON, [`compare`] sets two of them side by side, [`table`] shows them to people.
//!
//! [`run`] puts it together. What comes from a simulated device says so, everywhere.

mod arena;
pub mod cell;
pub mod compare;
pub mod document;
mod error;
pub mod figures;
pub mod grid;
pub mod landed;
mod lent;
pub mod link;
pub mod machine;
mod parallel;
pub mod peers;
mod processor;
mod readback;
pub mod rig;
pub mod rounds;
pub mod run;
pub mod select;
pub mod table;
pub mod ways;

pub use error::{Error, Result};
