//! Loading into tensors that exist already.

use std::collections::HashSet;

use super::{
    Checkpoint, CheckpointError, Difference, LoadOptions,
    converting::{Converting, at},
    named::Named,
};
use crate::{
    DType, Device, Error, Result, Tensor, Tree,
    landing::span_bytes,
    memory::storage::{DeviceBytes, Place},
    transfer::into::{Destinations, Seized},
};

/// Whether a checkpoint has to have exactly the names of what it is loaded into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// It has to: a name that either side lacks is an error.
    #[default]
    All,
    /// Names that one side lacks are left out.
    Common,
}

/// What [`Checkpoint::load_into`] left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Names that the checkpoint lacks; those tensors are as they were.
    pub missing: Vec<String>,
    /// Names that only the checkpoint has.
    pub unexpected: Vec<String>,
}

impl Checkpoint {
    /// Moves the tensors into those of `tree` that have the same names, and waits until they are there. Nothing is allocated
    /// on a device. The tree's tensors may be on several; each has to be contiguous and nobody else's.
    ///
    /// Names, dtypes and shapes are compared before anything moves.
    ///
    /// ```
    /// use pinlane::{DType, Device, Tensor, TensorMap, Tree};
    /// use pinlane::checkpoint::{self, Checkpoint, Names, SaveOptions};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.safetensors");
    /// let mut saved = TensorMap::new();
    /// saved.insert("weight", Tensor::ones(DType::F32, &[4])?)?;
    /// saved.insert("old", Tensor::ones(DType::F32, &[4])?)?;
    /// checkpoint::save(&saved, &path, &SaveOptions::default())?;
    ///
    /// let mut model = TensorMap::new();
    /// model.insert("weight", Tensor::zeros(DType::F32, &[4])?)?;
    /// let mut model = model.to(&Device::open("sim:0")?)?;
    /// let checkpoint = Checkpoint::open(&path)?;
    /// assert!(checkpoint.load_into(&mut model, Names::All).is_err());
    /// let left_out = checkpoint.load_into(&mut model, Names::Common)?;
    /// assert_eq!(left_out.unexpected, ["old"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CheckpointError::DoesNotFit`] lists all that does not; [`Error::Leaf`] names a tensor that can't be written, or that
    /// could not be read. What was to be written holds neither the old bytes nor the new after an error while bytes move, and
    /// can't be read.
    pub fn load_into<T: Tree>(&self, tree: &mut T, names: Names) -> Result<LeftOut> {
        self.load_into_with(tree, names, &LoadOptions::new())
    }

    /// As [`load_into`](Self::load_into), with what `options` say: the tensors of `tree` are compared with what those of the
    /// checkpoint become.
    ///
    /// ```
    /// use pinlane::{DType, Device, Tensor, TensorMap, Tree};
    /// use pinlane::checkpoint::{self, Checkpoint, LoadOptions, Names, SaveOptions};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.safetensors");
    /// let mut saved = TensorMap::new();
    /// saved.insert("weight", Tensor::ones(DType::F32, &[4])?)?;
    /// checkpoint::save(&saved, &path, &SaveOptions::default())?;
    ///
    /// let mut model = TensorMap::new();
    /// model.insert("weight", Tensor::zeros(DType::F16, &[4])?)?;
    /// let mut model = model.to(&Device::open("sim:0")?)?;
    /// let halves = LoadOptions::new().dtype(DType::F16);
    /// Checkpoint::open(&path)?.load_into_with(&mut model, Names::All, &halves)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`load_into`](Self::load_into) and [`load_with`](Self::load_with).
    pub fn load_into_with<T: Tree>(
        &self,
        tree: &mut T,
        names: Names,
        options: &LoadOptions,
    ) -> Result<LeftOut> {
        options.check()?;
        let (paths, left_out) = self.compare(tree, names, options)?;
        let mut tensors = take(tree)?;
        let filled = self.fill(&mut tensors, &paths, options);
        put_back(tree, tensors);
        filled.map(|()| left_out)
    }

    /// The tree's names where everything that has to fit does, and what does not have to.
    fn compare<T: Tree>(
        &self,
        tree: &T,
        names: Names,
        options: &LoadOptions,
    ) -> Result<(Vec<String>, LeftOut)> {
        let mut tensors = Vec::new();
        tree.visit(&mut |tensor| tensors.push(tensor));
        if !tree.has_names() && !tensors.is_empty() {
            return Err(Error::Unsupported {
                doing: "loading into existing tensors",
                reason:
                    "this kind of tree has no names to find its tensors by; use a TensorMap, or implement \
                         `Tree::has_names` and `Tree::path`"
                        .to_owned(),
            });
        }
        let paths: Vec<String> = (0..tensors.len()).map(|index| tree.path(index)).collect();
        let mut left_out = LeftOut::default();
        let mut different = Vec::new();
        let mut known = HashSet::with_capacity(paths.len());
        for (path, tensor) in paths.iter().zip(tensors) {
            if !known.insert(path.as_str()) {
                return Err(Error::DuplicateName { path: path.clone() });
            }
            let Some(entry) = self.get(path) else {
                left_out.missing.push(path.clone());
                continue;
            };
            let becomes = options.becomes(entry.dtype()).map_err(|error| at(path, error))?;
            let dtype = becomes.map_or(entry.dtype(), |becomes| becomes.dtype);
            if (dtype, entry.shape()) != (tensor.dtype(), tensor.shape()) {
                different.push(Difference {
                    tensor: path.clone(),
                    found: (dtype, entry.shape().to_vec()),
                    expected: (tensor.dtype(), tensor.shape().to_vec()),
                });
            }
        }
        let unexpected = self.entries().filter(|entry| !known.contains(entry.name()));
        left_out.unexpected = unexpected.map(|entry| entry.name().to_owned()).collect();
        let incomplete = !left_out.missing.is_empty() || !left_out.unexpected.is_empty();
        if !different.is_empty() || names == Names::All && incomplete {
            let LeftOut { missing, unexpected } = if names == Names::All {
                left_out
            } else {
                LeftOut::default()
            };
            return Err(CheckpointError::DoesNotFit {
                missing,
                unexpected,
                different,
            }
            .into());
        }
        Ok((paths, left_out))
    }

    /// Moves into those of `tensors` that the checkpoint has, device by device; what becomes something else by itself.
    fn fill(&self, tensors: &mut [Tensor], paths: &[String], options: &LoadOptions) -> Result<()> {
        let mut groups: Vec<(Device, bool, Vec<usize>)> = Vec::new();
        for (index, (tensor, path)) in tensors.iter().zip(paths).enumerate() {
            let Some(entry) = self.get(path) else { continue };
            let (device, converts) = (tensor.device(), entry.dtype() != tensor.dtype());
            let known = groups
                .iter_mut()
                .find(|(known, also, _)| *known == device && *also == converts);
            match known {
                Some((.., indices)) => indices.push(index),
                None => groups.push((device, converts, vec![index])),
            }
        }
        let stand_in = stand_in()?;
        for (device, converts, indices) in groups {
            let names = || indices.iter().map(|&index| paths[index].clone());
            let from = indices.iter().map(|&index| self.tensor(&paths[index]));
            let from = Named::new(names().zip(from.collect::<Result<Vec<_>>>()?));
            let taken = indices
                .iter()
                .map(|&index| std::mem::replace(&mut tensors[index], stand_in.clone()));
            let mut into = Named::new(names().zip(taken.collect::<Vec<_>>()));
            let copied = if converts {
                self.convert_into(&from, &mut into, &device, options)
            } else {
                from.copy_into(&mut into)
            };
            for (&index, (_, tensor)) in indices.iter().zip(into) {
                tensors[index] = tensor;
            }
            copied?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Converts tensors into others that have the same names, on one device or the host.
    fn convert_into(
        &self,
        from: &Named,
        into: &mut Named,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<()> {
        let mut sources = Vec::new();
        from.visit(&mut |tensor| sources.push(tensor));
        let seized = Seized::of(into, sources.len())?;
        if device.is_host() {
            let numbered: Vec<_> = sources.iter().copied().enumerate().collect();
            let filled = Destinations::new(&sources, seized.places(), None)?.fill_on_host(&numbered);
            filled.map_err(|failure| failure.named(|index| from.path(index)))?;
            seized.landing().set();
            return Ok(());
        }
        let places = seized
            .places()
            .iter()
            .map(device_bytes)
            .collect::<Result<Vec<_>>>();
        let names = (0..sources.len()).map(|index| from.path(index));
        let entries = names.filter_map(|name| self.get(&name));
        let started = places.and_then(|places| {
            let entries = entries.zip(places.into_iter().map(Some));
            Converting::new(entries, device, options)
        });
        let mut converting = match started {
            Ok(converting) => converting,
            Err(error) => {
                seized.give_back(into);
                return Err(error);
            }
        };
        while let Some(group) = converting.next_group() {
            group?;
        }
        seized.landing().set();
        Ok(())
    }
}

/// Where a contiguous tensor of a device lies.
fn device_bytes(tensor: &Tensor) -> Result<DeviceBytes> {
    let Place::Device(place) = tensor.storage().place() else {
        unreachable!("grouped as on a device")
    };
    Ok(DeviceBytes {
        offset: place.offset + span_bytes(tensor)?.start,
        ..place.clone()
    })
}

/// Takes the tensors out of a tree, which gets others until they are put back: a tree of any kind lends them in this way only.
fn take<T: Tree>(tree: &mut T) -> Result<Vec<Tensor>> {
    let stand_in = stand_in()?;
    let mut taken = Vec::new();
    let gives = tree.visit_mut(&mut |tensor| taken.push(std::mem::replace(tensor, stand_in.clone())));
    if gives {
        return Ok(taken);
    }
    put_back(tree, taken);
    Err(Error::Unsupported {
        doing: "loading into existing tensors",
        reason: "this kind of tree does not give its tensors to be changed; implement `Tree::visit_mut`"
            .to_owned(),
    })
}

fn put_back<T: Tree>(tree: &mut T, taken: Vec<Tensor>) {
    let mut taken = taken.into_iter();
    tree.visit_mut(&mut |tensor| {
        if let Some(own) = taken.next() {
            *tensor = own;
        }
    });
}

fn stand_in() -> Result<Tensor> {
    Tensor::zeros(DType::U8, &[0])
}
