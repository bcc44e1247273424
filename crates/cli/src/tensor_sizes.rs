//! The sizes of the tensors of a safetensors file, from its header alone.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use safetensors::tensor::Metadata;

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes of each tensor, in the file's order.
///
/// # Errors
///
/// When the file can't be read, or its header is not one.
pub(crate) fn read(path: &Path) -> Result<Vec<u64>> {
    sizes(path).with_context(|| format!("could not read {} as safetensors", path.display()))
}

fn sizes(path: &Path) -> Result<Vec<u64>> {
    let mut file = File::open(path)?;
    let whole = file.metadata()?.len();
    let mut length = [0; 8];
    if let Err(error) = file.read_exact(&mut length) {
        ensure!(
            error.kind() != ErrorKind::UnexpectedEof,
            "it is shorter than the length of a header"
        );
        return Err(error.into());
    }
    let length = u64::from_le_bytes(length);
    let data = whole.checked_sub(8).and_then(|rest| rest.checked_sub(length));
    let data = data.with_context(|| format!("its header of {length} bytes goes beyond its end"))?;
    ensure!(
        length <= LONGEST_HEADER,
        "its header of {length} bytes is longer than the format allows"
    );
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let header: Metadata = serde_json::from_slice(&header).context("its header is not that of tensors")?;
    let tensors = header.tensors();
    let sizes = header.offset_keys().into_iter().map(|name| {
        let (start, end) = tensors[&name].data_offsets;
        let (start, end) = (start as u64, end as u64);
        ensure!(
            start <= end && end <= data,
            "tensor {name} is not within the file, from byte {start} to {end} of {data}"
        );
        Ok(end - start)
    });
    sizes.collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

    use super::*;

    #[test]
    fn every_tensor_is_found_without_reading_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = [0; 24];
        let views = HashMap::from([
            ("long", TensorView::new(Dtype::BF16, vec![3, 4], &bytes).unwrap()),
            ("short", TensorView::new(Dtype::U8, vec![3], &bytes[..3]).unwrap()),
        ]);
        serialize_to_file(views, None, file.path()).unwrap();
        let mut sizes = read(file.path()).unwrap();
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 24]);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let beyond = br#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#;
        let with_length = |length: u64, header: &[u8]| [&length.to_le_bytes()[..], header].concat();
        for content in [
            b"short".to_vec(),
            with_length(u64::MAX, b"{}"),
            with_length(3, b"{}"),
            with_length(2, b"[]"),
            with_length(beyond.len() as u64, beyond),
        ] {
            fs::write(file.path(), &content).unwrap();
            let error = read(file.path()).unwrap_err();
            assert!(
                format!("{error:#}").contains(&file.path().display().to_string()),
                "{error:#}"
            );
        }
    }
}
