//! Loading: from the files to a device, to several, to the host.

use std::path::Path;

use super::{
    Checkpoint, LoadOptions,
    converting::{Converting, at},
    named::Named,
};
use crate::{Device, Error, HostMemory, Placement, Result, Tensor, TensorMap, Tree};

/// Loads the checkpoint at `path`, which is what [`Checkpoint::open`] takes, to a device or the host.
///
/// The map is flat: a name is that in the file, dots and all. The order is that of [`Checkpoint::entries`].
///
/// ```
/// use pinlane::{DType, Device, Tensor, TensorMap, Tree, checkpoint};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let mut model = TensorMap::new();
/// model.insert("encoder.weight", Tensor::randn(DType::F32, &[8, 8], 1)?)?;
/// checkpoint::save(&model, &path, &checkpoint::SaveOptions::default())?;
///
/// let there = pinlane::load(&path, &Device::open("sim:0")?)?;
/// let back = there.to(&Device::host())?;
/// let [saved, loaded] = [&model, &back].map(|map| map.get("encoder.weight").expect("saved above"));
/// assert_eq!(saved.as_bytes()?, loaded.as_bytes()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`Checkpoint::open`] and [`Checkpoint::load`].
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<TensorMap> {
    Checkpoint::open(path)?.load(device)
}

/// # Loading
///
/// All fail with [`Error::Leaf`], which names the tensor, around what happened: an
/// [`Error::File`] with the offset where the file can't be read or has become shorter, a driver's error
/// where the device has no room. A tensor without a name, which the format allows and a map does not, is an
/// [`Error::BadName`].
impl Checkpoint {
    /// Moves all tensors to a device, or to pageable memory of the host, as one transfer.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn load(&self, device: &Device) -> Result<TensorMap> {
        Ok(Loading::of(self)?.to(device)?.landed())
    }

    /// Moves all tensors to the host, into memory that `device` reaches by itself, out of its pinned budget.
    ///
    /// # Errors
    ///
    /// As for all; [`Error::PinnedBudget`].
    pub fn load_pinned(&self, device: &Device) -> Result<TensorMap> {
        Ok(Loading::of(self)?.pin_memory(device)?.landed())
    }

    /// Moves each tensor to the device that `place` says for its name, all devices at once.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn load_to_each(&self, mut place: impl FnMut(&str) -> Device) -> Result<TensorMap> {
        self.check_names()?;
        let mut devices: Vec<(Device, Vec<(String, Tensor)>)> = Vec::new();
        let mut places = Vec::with_capacity(self.len());
        for entry in self.entries() {
            let device = place(entry.name());
            let known = devices.iter().position(|(known, _)| *known == device);
            let index = known.unwrap_or_else(|| {
                devices.push((device, Vec::new()));
                devices.len() - 1
            });
            devices[index].1.push((entry.name().to_owned(), entry.tensor()?));
            places.push(index);
        }
        let transfers = devices
            .into_iter()
            .map(|(device, named)| Named::new(named).transfer(&device))
            .collect::<Result<Vec<_>>>()?;
        let mut landed = transfers
            .into_iter()
            .map(|transfer| Ok(transfer.wait()?.into_iter()))
            .collect::<Result<Vec<_>>>()?;
        let named = places.into_iter().filter_map(|index| landed[index].next());
        Ok(TensorMap::of_unique(named))
    }

    /// As [`load`](Self::load), with what `options` say.
    ///
    /// # Errors
    ///
    /// As for all; where tensors are to become another dtype, [`Error::DType`] for one that can't be had, and a driver's error
    /// of kind [`Unsupported`](crate::driver::ErrorKind::Unsupported) where it can't convert.
    pub fn load_with(&self, device: &Device, options: &LoadOptions) -> Result<TensorMap> {
        self.check_names()?;
        match self.converts(options)? {
            false => self.load(device),
            true => self.convert_to_each(|_| device.clone(), options),
        }
    }

    /// As [`load_pinned`](Self::load_pinned), with what `options` say.
    ///
    /// # Errors
    ///
    /// As for all; [`Error::PinnedBudget`]; [`Error::DType`] for a dtype that can't be had.
    pub fn load_pinned_with(&self, device: &Device, options: &LoadOptions) -> Result<TensorMap> {
        self.check_names()?;
        if !self.converts(options)? {
            return self.load_pinned(device);
        }
        let all = Named::of(self.entries())?;
        let read = all.read_to_host(options, HostMemory::Pinned(device), Placement::Separate)?;
        Ok(TensorMap::of_unique(read))
    }

    /// As [`load_to_each`](Self::load_to_each), with what `options` say.
    ///
    /// # Errors
    ///
    /// As for [`load_with`](Self::load_with).
    pub fn load_to_each_with(
        &self,
        place: impl FnMut(&str) -> Device,
        options: &LoadOptions,
    ) -> Result<TensorMap> {
        self.check_names()?;
        match self.converts(options)? {
            false => self.load_to_each(place),
            true => self.convert_to_each(place, options),
        }
    }

    /// Whether any tensor becomes something else. Refuses what can't be.
    pub(super) fn converts(&self, options: &LoadOptions) -> Result<bool> {
        options.check()?;
        let mut any = false;
        for entry in self.entries() {
            let becomes = options.becomes(entry.dtype());
            any |= becomes.map_err(|error| at(entry.name(), error))?.is_some();
        }
        Ok(any)
    }

    fn convert_to_each(
        &self,
        mut place: impl FnMut(&str) -> Device,
        options: &LoadOptions,
    ) -> Result<TensorMap> {
        let entries: Vec<_> = self.entries().collect();
        let mut devices: Vec<(Device, Vec<usize>)> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let device = place(entry.name());
            match devices.iter_mut().find(|(known, _)| *known == device) {
                Some((_, indices)) => indices.push(index),
                None => devices.push((device, vec![index])),
            }
        }
        let mut converting = Vec::new();
        for (device, indices) in devices.iter().filter(|(device, _)| !device.is_host()) {
            let chosen = indices.iter().map(|&index| (entries[index], None));
            let mut on_device = Converting::new(chosen, device, options)?;
            on_device.start();
            converting.push((on_device, indices));
        }
        let mut loaded: Vec<Option<Tensor>> = vec![None; entries.len()];
        // While the devices' own are on their way.
        for (_, indices) in devices.iter().filter(|(device, _)| device.is_host()) {
            let chosen = Named::of(indices.iter().map(|&index| entries[index]))?;
            let read = chosen.read_to_host(options, HostMemory::Pageable, Placement::Slab)?;
            for (&index, (_, tensor)) in indices.iter().zip(read) {
                loaded[index] = Some(tensor);
            }
        }
        // In turn, so that none waits for the end of another.
        while !converting.is_empty() {
            let mut going_on = Vec::with_capacity(converting.len());
            for (mut on_device, indices) in converting {
                let Some(group) = on_device.next_group() else {
                    continue;
                };
                for (number, tensor) in group? {
                    loaded[indices[number]] = Some(tensor);
                }
                going_on.push((on_device, indices));
            }
            converting = going_on;
        }
        let named = entries.iter().map(|entry| entry.name().to_owned()).zip(loaded);
        Ok(TensorMap::of_unique(
            named.filter_map(|(name, tensor)| Some((name, tensor?))),
        ))
    }

    /// Refuses a name that no map can have.
    pub(super) fn check_names(&self) -> Result<()> {
        match self.get("") {
            None => Ok(()),
            Some(entry) => Err(Error::BadName {
                name: entry.name().to_owned(),
                reason: "a name must not be empty, though the format allows it; choose the other tensors",
            }),
        }
    }
}

/// The tensors of a checkpoint and what becomes of them. The map is made while they move.
enum Loading<'a> {
    /// As they lie in the files, one for each entry.
    Files {
        checkpoint: &'a Checkpoint,
        tensors: Vec<Tensor>,
    },
    /// Where they should be.
    Landed(TensorMap),
}

impl<'a> Loading<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        checkpoint.check_names()?;
        let tensors = checkpoint.entries().map(|entry| entry.tensor());
        Ok(Self::Files {
            checkpoint,
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    fn landed(self) -> TensorMap {
        match self {
            Self::Files { .. } => unreachable!("what has moved was rebuilt"),
            Self::Landed(map) => map,
        }
    }
}

impl Tree for Loading<'_> {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        match self {
            Self::Files { tensors, .. } => tensors.iter().for_each(visit),
            Self::Landed(map) => map.visit(visit),
        }
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        Self::Landed(match self {
            Self::Files { checkpoint, .. } => {
                let names = checkpoint.entries().map(|entry| entry.name().to_owned());
                TensorMap::of_unique(names.map(|name| (name, next())))
            }
            Self::Landed(map) => map.rebuild(next),
        })
    }

    fn has_names(&self) -> bool {
        true
    }

    fn path(&self, index: usize) -> String {
        match self {
            Self::Files { checkpoint, .. } => checkpoint
                .name(index)
                .map_or_else(|| format!("#{index}"), str::to_owned),
            Self::Landed(map) => map.path(index),
        }
    }
}
