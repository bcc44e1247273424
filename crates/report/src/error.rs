//! What can go wrong.

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The document is not one of those that pages are made of.
    #[error("making a report: the result is not of a shape that this version knows; measure again: {0}")]
    Document(#[source] serde_json::Error),
    /// A template could not be filled in.
    #[error("making a report: a part of the page could not be written: {0}")]
    Template(#[from] askama::Error),
}

/// What may be no page.
pub type Result<T, E = Error> = std::result::Result<T, E>;
