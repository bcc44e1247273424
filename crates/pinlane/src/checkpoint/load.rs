//! Loading: from the files to a device, to several, to the host.

use std::path::Path;

use super::{Checkpoint, named::Named};
use crate::{Device, Result, TensorMap, Tree};

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
/// All fail with [`Error::Leaf`](crate::Error::Leaf), which names the tensor, around what happened: an
/// [`Error::File`](crate::Error::File) with the offset where the file can't be read or has become shorter, a driver's error
/// where the device has no room. A tensor without a name, which the format allows and a map does not, is an
/// [`Error::BadName`](crate::Error::BadName).
impl Checkpoint {
    /// Moves all tensors to a device, or to pageable memory of the host, as one transfer.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn load(&self, device: &Device) -> Result<TensorMap> {
        Named::of(self)?.to(device)?.into_map()
    }

    /// Moves all tensors to the host, into memory that `device` reaches by itself, out of its pinned budget.
    ///
    /// # Errors
    ///
    /// As for all; [`Error::PinnedBudget`](crate::Error::PinnedBudget).
    pub fn load_pinned(&self, device: &Device) -> Result<TensorMap> {
        Named::of(self)?.pin_memory(device)?.into_map()
    }

    /// Moves each tensor to the device that `place` says for its name, all devices at once.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn load_to_each(&self, mut place: impl FnMut(&str) -> Device) -> Result<TensorMap> {
        let mut devices: Vec<(Device, Vec<(String, crate::Tensor)>)> = Vec::new();
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
        Named::new(named).into_map()
    }
}
