//! Tensors as they land, so that work on the first can begin before the last is read.

use std::{iter::FusedIterator, vec};

use super::{Checkpoint, named::Named};
use crate::{Device, Prefetch, Result, Tensor, prefetch};

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
        Ok(Stream {
            groups: prefetch(self.groups()?, device, AHEAD),
            landed: Vec::new().into_iter().zip(Vec::new()),
        })
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
#[derive(Debug)]
pub struct Stream {
    groups: Prefetch<vec::IntoIter<Named>>,
    landed: std::iter::Zip<vec::IntoIter<String>, vec::IntoIter<Tensor>>,
}

impl Iterator for Stream {
    type Item = Result<(String, Tensor)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(named) = self.landed.next() {
                return Some(Ok(named));
            }
            match self.groups.next()? {
                Ok(group) => self.landed = group.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Stream {}
