//! Results as a page: one file of HTML, with pictures, that needs no network and no other file.
//!
//! [`guide`](fn@guide) makes it of the guide's document, [`bench`](fn@bench) of a benchmark's; both are plain data, so a result that was kept can
//! be shown without the machine that it is of.
//!
//! - `page`: what a page is made of. Every picture has words that say what it shows, a table of
//!   the numbers behind it, and says so where they are a simulated device's.
//! - `chart`: the kinds of pictures, a file each. They are SVG whose places are shares of the width, so that a page grows narrow
//!   without its letters growing small.
//! - `guide` and `bench` choose what is shown of each document.
//!
//! The document itself is in the page, as JSON: what the tables show can be read by programs too.

mod bench;
mod chart;
mod error;
mod foresight;
mod guide;
mod number;
mod page;

use pinlane_bench::document::Document;
use serde::Serialize;

pub use error::{Error, Result};

/// The page of a run of the guide, from the document that `pinlane guide --json` writes.
///
/// # Errors
///
/// [`Error::Document`] for a document of another shape.
pub fn guide(document: &impl Serialize) -> Result<String> {
    let json = serde_json::to_value(document).map_err(Error::Document)?;
    guide::page(&json)?.render(&json)
}

/// The page of a run of the benchmark, with or without its cells.
///
/// # Errors
///
/// [`Error::Document`] where it can't be written as JSON.
pub fn bench(document: &Document) -> Result<String> {
    let json = serde_json::to_value(document).map_err(Error::Document)?;
    bench::page(document)?.render(&json)
}
