//! The bytes of tensors, wherever they are, into a file.

use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};

use super::{draft::Draft, form::Form};
use crate::{Device, Result, Tensor, checkpoint::named::Named, prefetch};

/// The most bytes that come to the host as one. A tensor without gaps is cut to pieces of that size.
const PIECE: usize = 16 << 20;

/// How many pieces are on their way while one is written.
const AHEAD: usize = 2;

/// Small tensors are gathered to writes of this size.
const BUFFER: usize = 1 << 20;

/// Writes each file of tensors: what comes first in it, and then the tensors' bytes one after the other.
pub(super) fn write(forms: &[Form], drafts: &[Draft]) -> Result<()> {
    for (form, draft) in forms.iter().zip(drafts) {
        draft.write_at(form.header(), 0)?;
        write_tensors(form, draft)?;
    }
    Ok(())
}

fn write_tensors(form: &Form, draft: &Draft) -> Result<()> {
    let start = form.header().len() as u64;
    let mut written = start;
    let mut writer = BufWriter::with_capacity(BUFFER, draft.file());
    let failed =
        |written: u64, source: io::Error| draft.failed(&format!("writing at offset {written} of"), source);
    writer
        .seek(SeekFrom::Start(start))
        .map_err(|source| failed(start, source))?;
    for landed in prefetch(pieces(form.tensors())?, &Device::host(), AHEAD) {
        for (_, tensor) in landed? {
            let packed = tensor.contiguous()?;
            let bytes = packed.as_bytes()?;
            writer
                .write_all(bytes)
                .map_err(|source| failed(written, source))?;
            written += bytes.len() as u64;
        }
    }
    writer.flush().map_err(|source| failed(written, source))
}

/// The tensors in groups of no more than a piece, in order; what is larger in parts, where it can be cut.
fn pieces(tensors: &[(String, Tensor)]) -> Result<Vec<Named>> {
    let mut pieces = Vec::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    for (name, tensor) in tensors {
        let parts = if tensor.bytes()? > PIECE && tensor.layout().is_contiguous() {
            cut(tensor)?
        } else {
            vec![tensor.clone()]
        };
        for part in parts {
            let size = part.bytes()?;
            if bytes + size > PIECE && !group.is_empty() {
                pieces.push(Named::new(std::mem::take(&mut group)));
                bytes = 0;
            }
            group.push((name.clone(), part));
            bytes += size;
        }
    }
    pieces.push(Named::new(group));
    Ok(pieces)
}

/// A tensor without gaps as pieces of its elements, each of whole bytes.
fn cut(tensor: &Tensor) -> Result<Vec<Tensor>> {
    let elements = tensor.elements();
    let flat = tensor.reshape(&[elements])?;
    let most = PIECE / tensor.dtype().bits() * 8;
    (0..elements)
        .step_by(most)
        .map(|start| flat.slice(0, start..elements.min(start + most), 1))
        .collect()
}
