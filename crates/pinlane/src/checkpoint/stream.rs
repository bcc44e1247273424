//! Tensors as they land, so that work on the first can begin before the last is read.

use std::{collections::VecDeque, fmt, iter::FusedIterator, vec};

use super::{Checkpoint, LoadOptions, converting::Converting, named::Named};
use crate::{Device, HostMemory, Placement, Prefetch, Result, Tensor, prefetch};

/// The bytes of the first group. It is small, so that the first tensors are there soon.
const FIRST_GROUP: u64 = 16 << 20;

/// The bytes of a later group, each twice as many as of the one before up to this: enough for all lanes.
const LATER_GROUP: u64 = 128 << 20;

/// How many groups are on their way while one is handed out.
const AHEAD: usize = 3;

impl Checkpoint {
    /// Moves all tensors to a device and hands each out when it has landed: file by file, in the order of their data.
    ///
    /// They move in groups, one allocation on the device each: of 16 MiB at first, then larger ones up to 128 MiB (or of one
    /// tensor where that is larger). Three groups are on their way while one is handed out; nothing more is read before the
    /// consumer asks. An error stands for a whole group; the groups after it still come.
    ///
    /// ```
    /// use pinlane::{DType, Device, Tensor, TensorMap, checkpoint::{self, Checkpoint, SaveOptions}};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.safetensors");
    /// # let mut model = TensorMap::new();
    /// # model.insert("weight", Tensor::ones(DType::F32, &[4])?)?;
    /// # checkpoint::save(&model, &path, &SaveOptions::default())?;
    /// let device = Device::open("sim:0")?;
    /// for landed in Checkpoint::open(&path)?.stream(&device)? {
    ///     let (name, tensor) = landed?;
    ///     assert_eq!((name.as_str(), tensor.device()), ("weight", device.clone()));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// None that a header leaves possible. Those of the iterator's items are those of [`load`](Self::load).
    pub fn stream(&self, device: &Device) -> Result<Stream> {
        let groups = prefetch(self.groups()?, device, AHEAD);
        Ok(Stream::of(Groups::AsTheyAre(groups)))
    }

    /// As [`stream`](Self::stream), with what `options` say. Where tensors become another dtype, a device's groups are of up to
    /// 64 MiB, and a tensor that is larger comes in several; to the host nothing is read ahead.
    ///
    /// # Errors
    ///
    /// As for [`load_with`](Self::load_with), as far as nothing has to be read to find it out.
    pub fn stream_with(&self, device: &Device, options: &LoadOptions) -> Result<Stream> {
        if !self.converts(options)? {
            return self.stream(device);
        }
        let groups = if device.is_host() {
            Groups::OnHost(self.groups()?.into_iter(), options.clone())
        } else {
            let entries = self.entries().map(|entry| (entry, None));
            Groups::OnDevice(Converting::new(entries, device, options)?)
        };
        Ok(Stream::of(groups))
    }

    /// The tensors in groups that move as one.
    fn groups(&self) -> Result<Vec<Named>> {
        let mut groups = Vec::new();
        let (mut group, mut bytes, mut limit) = (Vec::new(), 0, FIRST_GROUP);
        for entry in self.entries() {
            if bytes > 0 && bytes + entry.bytes() > limit {
                groups.push(Named::new(std::mem::take(&mut group)));
                limit = (limit * 2).min(LATER_GROUP);
                bytes = 0;
            }
            group.push((entry.name().to_owned(), entry.tensor()?));
            bytes += entry.bytes();
        }
        if !group.is_empty() {
            groups.push(Named::new(group));
        }
        Ok(groups)
    }
}

/// The iterator that [`Checkpoint::stream`] makes.
pub struct Stream {
    groups: Groups,
    landed: VecDeque<(String, Tensor)>,
}

/// Where groups come from.
enum Groups {
    /// From files, as they lie there.
    AsTheyAre(Prefetch<vec::IntoIter<Named>>),
    /// As what they become on a device.
    OnDevice(Converting),
    /// As what they become on the host.
    OnHost(vec::IntoIter<Named>, LoadOptions),
}

impl Groups {
    fn next(&mut self) -> Option<Result<VecDeque<(String, Tensor)>>> {
        Some(match self {
            Self::AsTheyAre(groups) => groups.next()?.map(|group| group.into_iter().collect()),
            Self::OnDevice(converting) => {
                let group = converting.next_group()?;
                let named = |(number, tensor)| (converting.name(number).to_owned(), tensor);
                group.map(|group| group.into_iter().map(named).collect())
            }
            Self::OnHost(groups, options) => {
                let group = groups.next()?;
                let read = group.read_to_host(options, HostMemory::Pageable, Placement::Slab);
                read.map(|group| group.into_iter().collect())
            }
        })
    }
}

impl Stream {
    fn of(groups: Groups) -> Self {
        Self {
            groups,
            landed: VecDeque::new(),
        }
    }
}

impl Iterator for Stream {
    type Item = Result<(String, Tensor)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(named) = self.landed.pop_front() {
                return Some(Ok(named));
            }
            match self.groups.next()? {
                Ok(group) => self.landed = group,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Stream {}

impl fmt::Debug for Stream {
    /// What has landed: the names of all that is to come would bury what else is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let landed = self.landed.iter().map(|(name, _)| name);
        f.debug_struct("Stream")
            .field("landed", &landed.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
