//! Tensors that are their files, as the system maps those to memory.

use std::{any::Any, ptr::NonNull};

use pinlane_driver::sync::Arc;

use super::Checkpoint;
use crate::{Layout, Result, Tensor, TensorMap};

impl Checkpoint {
    /// The tensors over the memory that their files are mapped to, on the host: nothing is copied, and a page is read when
    /// somebody looks at it. The page cache is shared with whoever else has the files open.
    ///
    /// Elements are where the file has them, which need not be where a slice of them may begin: see
    /// [`Tensor::as_slice`]. Moving them and reading their bytes does not mind.
    ///
    /// ```
    /// use pinlane::{DType, Tensor, TensorMap, checkpoint::{self, Checkpoint, SaveOptions}};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.safetensors");
    /// let mut model = TensorMap::new();
    /// model.insert("weight", Tensor::from_vec(vec![1.0_f32, 2.0], &[2])?)?;
    /// checkpoint::save(&model, &path, &SaveOptions::default())?;
    ///
    /// // SAFETY: nobody changes the file while the tensors are there.
    /// let mapped = unsafe { Checkpoint::open(&path)?.map() }?;
    /// assert_eq!(mapped.get("weight").expect("saved above").as_slice::<f32>()?, [1.0, 2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    ///
    /// While a tensor of it lives nobody makes a file shorter, which ends a process that looks at bytes that are no longer
    /// there (`SIGBUS`), nor changes one in place, which changes tensors that are taken to be immutable. Replacing a file by
    /// renaming another to its name, as [`save`](super::save) does, or removing it, does neither: the tensors stay what they are.
    ///
    /// # Errors
    ///
    /// [`Error::File`](crate::Error::File) where the system refuses to map a file, or it has become shorter since it was opened.
    pub unsafe fn map(&self) -> Result<TensorMap> {
        self.check_names()?;
        let mut wholes: Vec<Option<(Tensor, Arc<dyn Any + Send + Sync>)>> = vec![None; self.shards().len()];
        let mut mapped = Vec::with_capacity(self.len());
        for (entry, &place) in self.entries().zip(self.places()) {
            let (whole, owner) = match &mut wholes[place] {
                Some(whole) => whole,
                none => {
                    // SAFETY: the caller's promise.
                    let whole = unsafe { entry.shard().map() }?;
                    none.insert((whole.clone(), Arc::new(whole)))
                }
            };
            let range = entry.file_range();
            let bytes = &whole.as_bytes()?[range.start as usize..range.end as usize];
            let layout = Layout::contiguous(entry.shape())?;
            // SAFETY: bytes of a tensor that the owner keeps, and that nobody writes.
            let tensor = unsafe {
                Tensor::from_raw_parts(
                    NonNull::from(bytes).cast(),
                    bytes.len(),
                    entry.dtype(),
                    layout,
                    None,
                    Arc::clone(owner),
                )
            };
            mapped.push((entry.name().to_owned(), tensor?));
        }
        Ok(TensorMap::of_unique(mapped))
    }
}
