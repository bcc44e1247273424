//! Reading and writing a tensor's elements where they are.

use std::ops::Range;

use super::Tensor;
use crate::{
    Element, Error, Result,
    memory::{shared::Shared, storage::Place},
};

/// # Reading and writing on the host
impl Tensor {
    /// The elements, in row-major order, in place.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnHost`]; [`Error::NotContiguous`]; [`Error::DType`] where `T` is not the tensor's dtype, or a byte
    /// is no `bool`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        Ok(T::cast(self.dtype, self.as_bytes()?)?)
    }

    /// The elements' bytes, in row-major order, in place.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnHost`]; [`Error::NotContiguous`].
    pub fn as_bytes(&self) -> Result<&[u8]> {
        let bytes = self.host_bytes("reading a tensor in place")?;
        Ok(&bytes[self.packed_range("reading a tensor in place")?])
    }

    /// A copy of the elements in row-major order, whatever the strides.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnHost`]; [`Error::DType`] as for [`as_slice`](Self::as_slice).
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let packed = self.contiguous()?;
        Ok(T::to_vec(self.dtype, packed.as_bytes()?)?)
    }

    /// The elements to write in place.
    ///
    /// # Errors
    ///
    /// [`Error::Shared`] where a clone, a view or a transfer in flight holds the same bytes, or someone else owns them;
    /// otherwise as for [`as_slice`](Self::as_slice).
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.host_bytes("writing a tensor in place")?;
        let range = self.packed_range("writing a tensor in place")?;
        let storage = Shared::get_mut(&mut self.storage).ok_or(Error::Shared)?;
        let bytes = storage.bytes_mut().ok_or(Error::Shared)?;
        Ok(T::cast_mut(self.dtype, &mut bytes[range])?)
    }

    /// The sum of the elements, accumulated in 64 bits.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnHost`]; [`Error::DType`] where the dtype has no sum here.
    pub fn sum(&self) -> Result<f64> {
        Ok(crate::reduce::sum(
            self.dtype,
            &self.layout,
            self.host_bytes("summing a tensor")?,
        )?)
    }

    /// The mean of the elements, accumulated in 64 bits; not a number where there are none.
    ///
    /// # Errors
    ///
    /// As for [`sum`](Self::sum).
    pub fn mean(&self) -> Result<f64> {
        Ok(crate::reduce::mean(
            self.dtype,
            &self.layout,
            self.host_bytes("averaging a tensor")?,
        )?)
    }

    /// Refuses the result of a transfer that has not landed.
    pub(crate) fn check_landed(&self, doing: &'static str) -> Result<()> {
        if self.storage.has_landed() {
            Ok(())
        } else {
            Err(Error::NotLanded { doing })
        }
    }

    /// All bytes of the storage, where they are on the host.
    pub(crate) fn host_bytes(&self, doing: &'static str) -> Result<&[u8]> {
        self.check_landed(doing)?;
        self.storage.bytes().ok_or_else(|| Error::NotOnHost {
            doing,
            place: match self.storage.place() {
                Place::File(file) => format!("in the file {}", file.file.path().display()),
                _ => format!("on {}", self.device()),
            },
        })
    }

    /// Which bytes of the storage the elements are, where they are packed.
    fn packed_range(&self, doing: &'static str) -> Result<Range<usize>> {
        if !self.layout.is_contiguous() {
            return Err(Error::NotContiguous { doing });
        }
        let span = self.layout.span();
        Ok(self.dtype.bytes_for(span.start)?..self.dtype.bytes_for(span.end)?)
    }
}
