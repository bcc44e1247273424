//! Tensors in words: `100x1M f32 pageable to device`.
//!
//! ```text
//! description = group { "+" group } [ memory ] [ "to" ( "device" | "host" ) ]
//! group       = [ count "x" ] size [ dtype ]
//! size        = number [ "k" | "M" | "G" | "T" ]                     elements, by thousands; wants a dtype
//!             | number ( "B" | "KiB" | "MiB" | "KB" | "MB" | ... )   bytes of each tensor
//! memory      = "pageable" | "pinned" | "strided" | "file"           on the host; pageable if not said
//! ```
//!
//! A [`Description`] is always of tensors that can be; what it prints is read back as the same.

mod error;
mod grammar;
mod json;

use std::fmt;

use pinlane::{Checkpoint, DType, Direction, HostEnd, Placement, Workload};

pub use error::{DescribeError, Impossible};

/// Tensors, the memory that they lie in on the host, and which way they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    groups: Vec<Group>,
    memory: HostEnd,
    direction: Direction,
}

/// Tensors of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    count: usize,
    size: Size,
}

/// The size of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Size {
    /// Elements of a type.
    Elements {
        /// How many.
        count: u64,
        /// Of what.
        dtype: DType,
    },
    /// Bytes.
    Bytes(u64),
}

impl Size {
    /// In bytes; `None` where no memory could hold it, or it ends within a byte.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Elements { count, dtype } => {
                let bytes = dtype.bytes_for(usize::try_from(count).ok()?).ok()?;
                u64::try_from(bytes).ok()
            }
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// Why one without a number of bytes has none.
    fn defect(self) -> Impossible {
        match self {
            Self::Elements { count, dtype }
                if !(u128::from(count) * dtype.bits() as u128).is_multiple_of(8) =>
            {
                Impossible::PartOfAByte
            }
            _ => Impossible::TooManyBytes,
        }
    }
}

impl Group {
    /// So many of a size.
    ///
    /// # Errors
    ///
    /// [`Impossible`] for no tensor, for a size that ends within a byte, and for more bytes than can be counted.
    pub fn new(count: usize, size: Size) -> Result<Self, Impossible> {
        if count == 0 {
            return Err(Impossible::NoTensor);
        }
        let bytes = size.bytes().ok_or_else(|| size.defect())?;
        bytes.checked_mul(count as u64).ok_or(Impossible::TooManyBytes)?;
        Ok(Self { count, size })
    }

    /// How many tensors.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The bytes of each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.size.bytes().expect("a group was made of a size that can be")
    }
}

impl Description {
    /// Puts groups together.
    ///
    /// # Errors
    ///
    /// [`Impossible`] without a group, for more bytes than can be counted, and for memory in which nothing lands.
    pub fn new(groups: Vec<Group>, memory: HostEnd, direction: Direction) -> Result<Self, Impossible> {
        if groups.is_empty() {
            return Err(Impossible::NoTensor);
        }
        if direction != Direction::ToDevice && !matches!(memory, HostEnd::Pageable | HostEnd::Pinned) {
            return Err(Impossible::NothingLands { memory });
        }
        let total = groups.iter().try_fold(0_u64, |total, group| {
            total.checked_add(group.bytes().checked_mul(group.count as u64)?)
        });
        total.ok_or(Impossible::TooManyBytes)?;
        Ok(Self {
            groups,
            memory,
            direction,
        })
    }

    /// The tensors of a checkpoint, in its order.
    ///
    /// # Errors
    ///
    /// [`Impossible`] for one without tensors, and as for [`new`](Self::new).
    pub fn of_checkpoint(
        checkpoint: &Checkpoint,
        memory: HostEnd,
        direction: Direction,
    ) -> Result<Self, Impossible> {
        let mut groups: Vec<Group> = Vec::new();
        for entry in checkpoint.entries() {
            match groups.last_mut() {
                Some(group) if group.bytes() == entry.bytes() => group.count += 1,
                _ => groups.push(Group::new(1, Size::Bytes(entry.bytes()))?),
            }
        }
        Self::new(groups, memory, direction)
    }

    /// Reads a description in words, or, where it begins with a brace, as JSON:
    /// `{"tensors": [{"count": 100, "elements": 1000000, "dtype": "f32"}, {"bytes": 4096}], "memory": "pinned", "to": "host"}`.
    ///
    /// # Errors
    ///
    /// [`DescribeError`], which points at the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, DescribeError> {
        if text.trim_start().starts_with('{') {
            json::parse(text)
        } else {
            grammar::parse(text)
        }
    }

    /// The tensors.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How many tensors there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// The bytes of all tensors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.groups
            .iter()
            .map(|group| group.bytes() * group.count as u64)
            .sum()
    }

    /// The memory on the host.
    #[must_use]
    pub fn memory(&self) -> HostEnd {
        self.memory
    }

    /// Which way they go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The same for the planner. Tensors that come from a device lie in allocations of their own, as those of torch's users do.
    ///
    /// # Errors
    ///
    /// [`pinlane::Error::Unsupported`] for more tensors than can be planned at once.
    pub fn workload(&self) -> pinlane::Result<Workload> {
        let placement = match self.direction {
            Direction::ToHost => Placement::Separate,
            _ => Placement::Slab,
        };
        let none = Workload::new(self.direction).placement(placement);
        self.groups.iter().try_fold(none, |workload, group| {
            workload.tensors(group.count, group.bytes(), self.memory)
        })
    }
}

/// Each memory by its name.
const MEMORY: [(&str, HostEnd); 4] = [
    ("pageable", HostEnd::Pageable),
    ("pinned", HostEnd::Pinned),
    ("strided", HostEnd::Strided),
    ("file", HostEnd::File),
];

/// Each direction by its name, and by torch's.
const DIRECTIONS: [(&str, Direction); 4] = [
    ("device", Direction::ToDevice),
    ("host", Direction::ToHost),
    ("cuda", Direction::ToDevice),
    ("cpu", Direction::ToHost),
];

fn named<T: Copy>(names: &[(&'static str, T)], word: &str) -> Option<T> {
    names
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|(_, value)| *value)
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, named)| *named == value);
    found.map_or("", |(name, _)| name)
}

/// What torch calls dtypes whose names in files are others.
const OF_TORCH: [(&str, DType); 16] = [
    ("uint8", DType::U8),
    ("int8", DType::I8),
    ("int16", DType::I16),
    ("uint16", DType::U16),
    ("int32", DType::I32),
    ("uint32", DType::U32),
    ("int64", DType::I64),
    ("uint64", DType::U64),
    ("float16", DType::F16),
    ("bfloat16", DType::BF16),
    ("float32", DType::F32),
    ("float", DType::F32),
    ("float64", DType::F64),
    ("complex64", DType::C64),
    ("float8_e4m3fn", DType::F8E4M3),
    ("float8_e5m2", DType::F8E5M2),
];

/// A dtype by its name in files or torch's, in small letters or large ones.
fn dtype(word: &str) -> Option<DType> {
    named(&OF_TORCH, word).or_else(|| word.to_ascii_uppercase().parse().ok())
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, base, units) = match self {
            Self::Elements { count, .. } => (*count, 1000, ["", "k", "M", "G", "T"]),
            Self::Bytes(bytes) => (*bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]),
        };
        let (mut number, mut power) = (number, 0);
        while number > 0 && number.is_multiple_of(base) && power + 1 < units.len() {
            number /= base;
            power += 1;
        }
        write!(f, "{number}{}", units[power])?;
        match self {
            Self::Elements { dtype, .. } => write!(f, " {}", dtype.name().to_ascii_lowercase()),
            Self::Bytes(_) => Ok(()),
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plus = "";
        for Group { count, size } in &self.groups {
            write!(f, "{plus}{count}x{size}")?;
            plus = " + ";
        }
        let (memory, direction) = (
            name_of(&MEMORY, self.memory),
            name_of(&DIRECTIONS, self.direction),
        );
        write!(f, " {memory} to {direction}")
    }
}
