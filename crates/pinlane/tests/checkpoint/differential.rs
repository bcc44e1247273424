//! Side by side with the reference implementation, on random files and headers.

use std::collections::HashMap;

use pinlane::{
    DType, Device, Tree as _,
    checkpoint::{self, Checkpoint, Header, HeaderFault, SaveOptions},
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::{assert_same, corpus, dtypes, map, rig, tensor};

/// The reference's name for a dtype.
fn reference(dtype: DType) -> Dtype {
    serde_json::from_str(&format!("{:?}", dtype.name())).unwrap()
}

/// A tensor of at most a few hundred bytes, whole ones.
fn shapes() -> impl Strategy<Value = (DType, Vec<usize>)> {
    let dtype = proptest::sample::select(dtypes().collect::<Vec<_>>());
    let shape = proptest::collection::vec(0_usize..5, 0..4);
    (dtype, shape).prop_map(|(dtype, mut shape)| {
        if dtype.is_sub_byte() {
            shape.push(8);
        }
        (dtype, shape)
    })
}

fn models() -> impl Strategy<Value = HashMap<String, (DType, Vec<usize>)>> {
    proptest::collection::hash_map("[a-c.\"\\\\é\n]{1,4}", shapes(), 0..12)
}

/// Headers that are almost right.
fn headers() -> impl Strategy<Value = String> {
    let dtype = proptest::sample::select(vec!["U8", "F32", "F4", "F6_E3M2", "C128", "u8"]);
    let shape = proptest::collection::vec(prop_oneof![0_u64..4, Just(1 << 40), Just(u64::MAX)], 0..3);
    let tensor = (dtype, shape, 0_u64..6, 0_u64..6).prop_map(|(dtype, shape, start, end)| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    });
    let entry = ("[a-b]", tensor).prop_map(|(name, tensor)| format!("\"{name}\":{tensor}"));
    let padding = proptest::sample::select(vec!["", " ", "  ", "\n", "x"]);
    (proptest::collection::vec(entry, 0..3), padding)
        .prop_map(|(entries, padding)| format!("{{{}}}{padding}", entries.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_the_reference_writes_is_read_and_what_is_saved_is_what_it_writes(model in models(), note in proptest::option::of(".{0,8}")) {
        let model: Vec<_> = model.into_iter().enumerate()
            .map(|(seed, (name, (dtype, shape)))| (name, tensor(dtype, &shape, seed)))
            .collect();
        let views = model.iter().map(|(name, tensor)| {
            let view = TensorView::new(reference(tensor.dtype()), tensor.shape().to_vec(), tensor.as_bytes().unwrap());
            (name.as_str(), view.unwrap())
        });
        let metadata = note.as_ref().map(|note| HashMap::from([("note".to_owned(), note.clone())]));
        let theirs = serialize(views, metadata).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let options = note.as_ref().map_or_else(SaveOptions::new, |note| SaveOptions::new().metadata("note", note));
        checkpoint::save(&map(model.clone()), &path, &options).unwrap();
        prop_assert!(std::fs::read(&path).unwrap() == theirs);

        let opened = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(opened.metadata().get("note").copied(), note.as_deref());
        let loaded = opened.load(&Device::host()).unwrap();
        let sorted = opened.entries().map(|entry| {
            let (name, tensor) = model.iter().find(|(name, _)| name == entry.name()).unwrap();
            (name.clone(), tensor.clone())
        });
        assert_same(&loaded, &map(sorted));
    }

    #[test]
    fn a_header_that_is_accepted_is_accepted_by_the_reference_and_means_the_same(json in headers(), data_bytes in 0_usize..8) {
        let bytes = crate::file(json.as_bytes(), data_bytes);
        let theirs = SafeTensors::deserialize(&bytes);
        match Header::of_bytes(&bytes) {
            Ok(ours) => {
                let theirs = theirs.unwrap();
                prop_assert_eq!(ours.tensors().len(), theirs.len());
                for (name, info) in ours.tensors() {
                    let view = theirs.tensor(name).unwrap();
                    prop_assert_eq!((reference(info.dtype), &*info.shape), (view.dtype(), view.shape()));
                    prop_assert_eq!(info.bytes(), view.data().len() as u64);
                }
            }
            // The reference lets these pass.
            Err(checkpoint::HeaderFault::TensorTwice { .. } | checkpoint::HeaderFault::Padding { .. }) => {}
            Err(checkpoint::HeaderFault::TooLarge { shape, .. }) => prop_assert!(theirs.is_err() || shape.contains(&0)),
            // Of tensors of one name the reference keeps the last, whatever the others are.
            Err(fault) => {
                let is_twice = ["\"a\":", "\"b\":"].iter().any(|name| json.matches(name).count() > 1);
                prop_assert!(theirs.is_err() || is_twice, "only we refuse it: {}", fault);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,64}") {
        let _ = Header::of_bytes(&bytes);
        let _ = Header::parse(&bytes, 8);
        let _ = Header::parse(text.as_bytes(), 8);
        let _ = checkpoint::ShardIndex::parse(text.as_bytes());
    }
}

/// What is refused here and passes there, by the rules that `docs/checkpoints.md` lists.
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

#[test]
fn what_is_refused_here_alone_breaks_one_of_the_rules_that_are_listed() {
    let passing: Vec<_> = corpus::files()
        .into_iter()
        .filter(|(_, bytes, _)| SafeTensors::deserialize(bytes).is_ok())
        .map(|(name, bytes, _)| (name, Header::of_bytes(&bytes).unwrap_err()))
        .collect();
    for (name, fault) in &passing {
        assert!(
            is_stricter_here(fault),
            "{name}: the reference accepts it, and here it is {fault}"
        );
    }
    for name in ["metadata-null", "tensor-as-array", "tab-after"] {
        assert!(
            passing.iter().any(|(passes, _)| *passes == name),
            "{name}: the reference refuses it too"
        );
    }
}

#[test]
fn every_dtype_gets_to_a_device_and_back_to_a_file() {
    let rig = rig::Rig::new(1, &rig::small_engine(2, 2, 64 << 10));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // An odd byte first in the file puts most of what follows where its elements are not aligned.
    let model = map(dtypes().enumerate().flat_map(|(seed, dtype)| {
        let name = |kind: &str| format!("{dtype}.{kind}");
        [
            (name("matrix"), tensor(dtype, &[3, 8], seed)),
            (name("nothing"), tensor(dtype, &[2, 0], seed)),
            (
                name("one"),
                tensor(dtype, if dtype.is_sub_byte() { &[8] } else { &[] }, seed),
            ),
        ]
    }));
    let there = model.to(rig.device()).unwrap();
    checkpoint::save(&there, &path, &SaveOptions::new()).unwrap();
    let loaded = pinlane::load(&path, rig.device()).unwrap();
    let back = loaded.to(&Device::host()).unwrap();
    assert_eq!(back.len(), 66);
    for (name, tensor) in model.flatten() {
        assert!(
            back.get(&name).unwrap().as_bytes().unwrap() == tensor.as_bytes().unwrap(),
            "{name}"
        );
    }
    drop((there, loaded, back));
    rig.finish();
}
