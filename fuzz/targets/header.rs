//! Headers of safetensors files. An input is a whole file: the header's length, the header, data.
//!
//! Whatever it is, reading it ends and does not panic. What is accepted keeps the rules that a [`Header`] promises, and the
//! reference implementation accepts it too and reads the same. What is refused, the reference refuses too, or it breaks one of
//! the rules that `docs/checkpoints.md` lists.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pinlane::checkpoint::{Header, HeaderFault};
use safetensors::SafeTensors;

/// A file whose data is longer is not made up for the reference.
const LONGEST: u64 = 1 << 16;

fuzz_target!(|file: &[u8]| {
    match Header::of_bytes(file) {
        Ok(header) => check(&header, file),
        Err(fault) => assert!(
            is_stricter_here(&fault) || SafeTensors::deserialize(file).is_err(),
            "the reference accepts it: {fault}"
        ),
    }

    // The same text with the length that it has, before as much data as it wants.
    let json = file.get(8..).unwrap_or_default();
    let data_bytes = match Header::parse(json, 0) {
        Ok(_) => 0,
        Err(HeaderFault::Truncated { .. }) => match Header::parse(json, u64::MAX) {
            Err(HeaderFault::Trailing { end, .. }) => end,
            _ => return,
        },
        Err(_) => return,
    };
    let header = Header::parse(json, data_bytes).expect("it is as long as it says");
    if data_bytes <= LONGEST {
        let mut whole = (json.len() as u64).to_le_bytes().to_vec();
        whole.extend_from_slice(json);
        whole.resize(whole.len() + data_bytes as usize, 0);
        assert_eq!(Header::of_bytes(&whole).as_ref(), Ok(&header));
        check(&header, &whole);
    }
});

/// What is refused here and passes there.
fn is_stricter_here(fault: &HeaderFault) -> bool {
    match fault {
        HeaderFault::TensorTwice { .. }
        | HeaderFault::MetadataTwice { .. }
        | HeaderFault::MetadataKeyTwice { .. }
        | HeaderFault::FieldTwice { .. }
        | HeaderFault::UnknownField { .. }
        | HeaderFault::NotAnObject { .. }
        | HeaderFault::Padding { .. } => true,
        HeaderFault::TooLarge { shape, .. } => shape.contains(&0),
        HeaderFault::Json { reason, .. } => {
            reason.contains("an object of texts") || reason.contains("an object with dtype")
        }
        _ => false,
    }
}

fn check(header: &Header, file: &[u8]) {
    let mut end = 0;
    for info in header.tensors().values() {
        assert_eq!(info.start, end);
        end = info.end;
        let elements = info.shape.iter().product();
        assert_eq!(info.dtype.bytes_for(elements), Ok(info.bytes() as usize));
    }
    assert_eq!(header.data_start() + end, file.len() as u64);

    let theirs = SafeTensors::deserialize(file).expect("the reference accepts it");
    assert_eq!(theirs.len(), header.tensors().len());
    for (name, info) in header.tensors() {
        let view = theirs.tensor(name).expect("the reference has it");
        let dtype = serde_json::to_string(&view.dtype()).expect("a dtype is a text");
        assert_eq!(dtype, format!("{:?}", info.dtype.name()));
        assert_eq!(
            (view.shape(), view.data().len() as u64),
            (&*info.shape, info.bytes())
        );
    }
}
