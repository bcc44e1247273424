//! The table of a scattered copy: how much room it takes.

/// How much room [`Driver::copy_scattered`](crate::Driver::copy_scattered) needs for its table, by the driver's own format.
///
/// Each copy takes one entry, and a long one another for each further piece of [`piece_bytes`](Self::piece_bytes).
///
/// ```
/// let table = pinlane_driver::ScatterTable { entry_bytes: 24, piece_bytes: 8192 };
/// assert_eq!(table.bytes(1000, 1000 * 4000), 24 * (1000 + 488));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterTable {
    /// Bytes of one entry.
    pub entry_bytes: usize,
    /// The longest piece that one entry names, in bytes; at least 1.
    pub piece_bytes: usize,
}

impl ScatterTable {
    /// A table begins at a multiple of this many bytes.
    pub const ALIGNMENT: usize = 16;

    /// The most bytes that the table of `copies` copies takes which move `bytes` bytes in all.
    #[must_use]
    pub fn bytes(&self, copies: usize, bytes: usize) -> usize {
        let further = bytes / self.piece_bytes.max(1);
        copies.saturating_add(further).saturating_mul(self.entry_bytes)
    }
}
