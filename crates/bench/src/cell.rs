//! The cells of the grid: which way, what memory, how large, how many.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Host to device.
    H2d,
    /// Device to host.
    D2h,
}

/// What the host's end lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Ordinary memory. Towards the host, new results, as a program gets them that makes them again and again: pinlane keeps the
    /// memory of results that were dropped for the next ones, from 1 MiB on, where the plain way has new memory from the
    /// allocator each time.
    Pageable,
    /// Page-locked memory.
    Pinned,
    /// Every other tensor in page-locked memory.
    Mixed,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::H2d, Self::D2h];
}

impl Memory {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Pageable, Self::Pinned, Self::Mixed];

    /// Whether tensor `index` of a cell has its host end in pinned memory.
    #[must_use]
    pub fn is_pinned(self, index: usize) -> bool {
        match self {
            Self::Pageable => false,
            Self::Pinned => true,
            Self::Mixed => index % 2 == 1,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::H2d => "h2d",
            Self::D2h => "d2h",
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pageable => "pageable",
            Self::Pinned => "pinned",
            Self::Mixed => "mixed",
        })
    }
}

impl FromStr for Direction {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == word);
        known.ok_or_else(|| Error::Word {
            word: word.to_owned(),
            what: "direction",
            expected: "there are h2d and d2h",
        })
    }
}

impl FromStr for Memory {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == word);
        known.ok_or_else(|| Error::Word {
            word: word.to_owned(),
            what: "kind of memory",
            expected: "there are pageable, pinned and mixed",
        })
    }
}

/// One cell: `count` tensors of `bytes` bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Which way they go.
    pub direction: Direction,
    /// What their host ends lie in.
    pub memory: Memory,
    /// The size of each.
    pub bytes: usize,
    /// How many there are.
    pub count: usize,
}

impl Cell {
    /// The bytes of all its tensors.
    #[must_use]
    pub fn total(&self) -> usize {
        self.bytes.saturating_mul(self.count)
    }
}

impl fmt::Display for Cell {
    /// Its name: `h2d-pageable-4KiB-x1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = exact_size(self.bytes);
        f.pad(&format!(
            "{}-{}-{size}-x{}",
            self.direction, self.memory, self.count
        ))
    }
}

/// A size in the largest unit that holds it without a rest: two cells never have one name.
fn exact_size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Which cells there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// Which ways.
    pub directions: Vec<Direction>,
    /// Which kinds of host memory.
    pub memory: Vec<Memory>,
    /// Bytes of a tensor.
    pub sizes: Vec<usize>,
    /// How many tensors.
    pub counts: Vec<usize>,
    /// Cells of more bytes than this are left out.
    pub max_bytes: usize,
}

impl Axes {
    /// Both directions, all kinds of memory, powers of 4 from 4 B to 4 GiB, powers of 10 up to 100,000.
    #[must_use]
    pub fn all(max_bytes: usize) -> Self {
        Self {
            directions: Direction::ALL.to_vec(),
            memory: Memory::ALL.to_vec(),
            sizes: (1..=16).map(|power| 4_usize.pow(power)).collect(),
            counts: (0..=5).map(|power| 10_usize.pow(power)).collect(),
            max_bytes,
        }
    }

    /// Refuses a size or a count of nothing, and mixed lists alone where there is no list.
    ///
    /// # Errors
    ///
    /// [`Error::Word`].
    pub fn check(&self) -> Result<()> {
        let refuse = |word: &str, what, expected| {
            Err(Error::Word {
                word: word.to_owned(),
                what,
                expected,
            })
        };
        if self.sizes.contains(&0) {
            return refuse("0", "size of a tensor to time", "it has to have bytes: 1 or more");
        }
        if self.counts.contains(&0) {
            return refuse(
                "0",
                "number of tensors to time",
                "there have to be some: 1 or more",
            );
        }
        let only_mixed = self.memory.iter().all(|memory| *memory == Memory::Mixed);
        if only_mixed && self.counts.iter().all(|count| *count == 1) {
            return refuse(
                "1",
                "number of tensors in mixed memory",
                "there have to be 2 or more",
            );
        }
        Ok(())
    }

    /// The cells, those of the fewest bytes first: when the time is up, what is missing is the few largest. A mixed list
    /// has two tensors at least.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &bytes in &self.sizes {
            for &count in &self.counts {
                for &direction in &self.directions {
                    for &memory in &self.memory {
                        let cell = Cell {
                            direction,
                            memory,
                            bytes,
                            count,
                        };
                        let is_list = memory != Memory::Mixed || count > 1;
                        if (1..=self.max_bytes).contains(&cell.total()) && is_list {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        cells.sort_by_key(Cell::total);
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_grid_reaches_from_4_bytes_to_4_gib_and_100_000_tensors() {
        let cells = Axes::all(4 << 30).cells();
        let names: Vec<_> = cells.iter().map(Cell::to_string).collect();
        for name in [
            "h2d-pageable-4B-x1",
            "d2h-pinned-4GiB-x1",
            "h2d-mixed-16KiB-x100000",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert!(cells.iter().all(|cell| cell.total() <= 4 << 30));
        assert!(cells.is_sorted_by_key(Cell::total));
        assert!(
            !names
                .iter()
                .any(|name| name.contains("mixed") && name.ends_with("x1"))
        );
    }

    #[test]
    fn cells_that_differ_have_names_that_differ() {
        assert_eq!(exact_size(4), "4B");
        assert_eq!(exact_size(12_344), "12344B");
        assert_eq!(exact_size(256 << 10), "256KiB");
        assert_eq!(exact_size(4 << 30), "4GiB");
    }

    #[test]
    fn directions_and_memory_are_read_by_their_names() {
        assert_eq!("d2h".parse::<Direction>().unwrap(), Direction::D2h);
        assert_eq!("mixed".parse::<Memory>().unwrap(), Memory::Mixed);
        assert!("both".parse::<Direction>().is_err());
        assert!("swap".parse::<Memory>().is_err());
    }
}
