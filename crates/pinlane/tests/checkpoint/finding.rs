//! What a path stands for, and what is found there without reading data.

use std::{collections::BTreeSet, fs, path::Path};

use pinlane::{
    DType, Error,
    checkpoint::{Checkpoint, CheckpointError, IndexFault},
};

use crate::write;

/// A file with tensors of these names, one byte each.
fn of_bytes(path: &Path, names: &[&str]) {
    let entries = names.iter().enumerate().map(|(start, name)| {
        let end = start + 1;
        format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{start},{end}]}}"#)
    });
    let json = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    write(path, &json, names.len());
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.entries().map(|entry| entry.name()).collect()
}

#[track_caller]
fn refused(path: &Path) -> CheckpointError {
    match Checkpoint::open(path).unwrap_err() {
        Error::Checkpoint(error) => *error,
        error => panic!("{error}"),
    }
}

#[track_caller]
fn index_fault(path: &Path) -> IndexFault {
    match refused(path) {
        CheckpointError::Index { fault, .. } => fault,
        error => panic!("{error}"),
    }
}

#[test]
fn a_file_a_folder_a_list_and_an_index_are_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    of_bytes(&at("b.safetensors"), &["b1", "b0"]);
    of_bytes(&at("a.safetensors"), &["a"]);
    fs::write(at("readme.txt"), "no tensors").unwrap();
    fs::write(at(".a.safetensors.x.tmp"), "a save that was killed").unwrap();
    fs::write(at(".hidden.safetensors"), "nothing for us").unwrap();

    assert_eq!(
        names(&Checkpoint::open(at("b.safetensors")).unwrap()),
        ["b1", "b0"]
    );
    assert_eq!(
        names(&Checkpoint::open(folder.path()).unwrap()),
        ["a", "b1", "b0"]
    );
    let list = Checkpoint::open_files([at("b.safetensors"), at("a.safetensors")]).unwrap();
    assert_eq!(names(&list), ["b1", "b0", "a"]);

    let index = at("b.safetensors.index.json");
    fs::write(
        &index,
        r#"{"metadata":{},"weight_map":{"b0":"b.safetensors","b1":"b.safetensors"}}"#,
    )
    .unwrap();
    for path in [index.as_path(), folder.path()] {
        assert_eq!(names(&Checkpoint::open(path).unwrap()), ["b1", "b0"]);
    }
    fs::write(at("c.safetensors.index.json"), r#"{"weight_map":{}}"#).unwrap();
    let said = refused(folder.path()).to_string();
    assert!(
        said.contains("b.safetensors.index.json, c.safetensors.index.json"),
        "{said}"
    );
    assert!(
        Checkpoint::open(at("c.safetensors.index.json"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_is_no_checkpoint_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(
        refused(folder.path())
            .to_string()
            .contains("no *.safetensors file")
    );
    let missing = Checkpoint::open(at("none.safetensors")).unwrap_err();
    assert!(
        matches!(&missing, Error::File { path, .. } if *path == at("none.safetensors")),
        "{missing}"
    );
    // Opening a device could block, and reading one never ends.
    assert!(
        refused(Path::new("/dev/zero"))
            .to_string()
            .contains("no regular file")
    );

    of_bytes(&at("m-00001-of-00003.safetensors"), &["a"]);
    of_bytes(&at("m-00003-of-00003.safetensors"), &["c"]);
    let said = refused(folder.path()).to_string();
    assert!(said.contains("m-00002-of-00003.safetensors is missing"), "{said}");
    of_bytes(&at("m-00002-of-00003.safetensors"), &["a"]);
    let twice = refused(folder.path());
    assert!(
        matches!(&twice, CheckpointError::InTwoFiles { tensor, first, second }
            if tensor == "a" && *first == at("m-00001-of-00003.safetensors") && *second == at("m-00002-of-00003.safetensors")),
        "{twice}"
    );
    of_bytes(&at("m-00002-of-00003.safetensors"), &["b"]);
    assert_eq!(names(&Checkpoint::open(folder.path()).unwrap()), ["a", "b", "c"]);
}

#[test]
fn an_index_and_its_files_have_to_agree() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let index = at("m.safetensors.index.json");
    let says = |map: &str| fs::write(&index, format!(r#"{{"weight_map":{{{map}}}}}"#)).unwrap();
    let text = |text: &str| text.to_owned();
    of_bytes(&at("x.safetensors"), &["a", "b"]);
    of_bytes(&at("y.safetensors"), &["c"]);
    of_bytes(&at("stray.safetensors"), &["a"]);

    says(r#""a":"x.safetensors","b":"x.safetensors","c":"y.safetensors""#);
    assert_eq!(names(&Checkpoint::open(&index).unwrap()), ["a", "b", "c"]);
    says(r#""a":"x.safetensors","c":"y.safetensors""#);
    let fault = index_fault(&index);
    assert_eq!(
        fault,
        IndexFault::NotInIndex {
            tensor: text("b"),
            file: text("x.safetensors")
        }
    );
    says(r#""a":"x.safetensors","b":"y.safetensors","c":"y.safetensors""#);
    let fault = index_fault(&index);
    assert_eq!(
        fault,
        IndexFault::NotInShard {
            tensor: text("b"),
            file: text("y.safetensors")
        }
    );
    says(r#""a":"x.safetensors","b":"x.safetensors","d":"z.safetensors""#);
    let fault = index_fault(folder.path());
    assert_eq!(
        fault,
        IndexFault::MissingShard {
            tensor: text("d"),
            file: text("z.safetensors")
        }
    );
    says(r#""a":"../x.safetensors""#);
    let fault = index_fault(&index);
    assert_eq!(
        fault,
        IndexFault::Escape {
            tensor: text("a"),
            file: text("../x.safetensors")
        }
    );
}

#[test]
fn a_catalogue_tells_all_and_narrows_by_name_pattern_and_predicate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let json = r#"{"__metadata__":{"format":"pt"},
        "layers.0.weight":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
        "layers.0.bias":{"dtype":"F32","shape":[],"data_offsets":[12,16]},
        "layers.1.weight":{"dtype":"F4","shape":[4],"data_offsets":[16,18]},
        "head":{"dtype":"U8","shape":[0],"data_offsets":[18,18]}}"#;
    write(&path, json, 18);
    let all = Checkpoint::open(&path).unwrap();
    assert_eq!((all.len(), all.bytes(), all.shards().len()), (4, 18, 1));
    assert_eq!(all.metadata().into_iter().collect::<Vec<_>>(), [("format", "pt")]);
    let bias = all.get("layers.0.bias").unwrap();
    let start = 8 + json.len() as u64 + 12;
    assert_eq!(
        (bias.dtype(), bias.shape(), bias.bytes()),
        (DType::F32, &[][..], 4)
    );
    assert_eq!(
        (bias.file_range(), bias.shard().path()),
        (start..start + 4, path.as_path())
    );
    assert!(all.get("layers").is_none());

    assert_eq!(
        names(&all.matching("layers.*.weight").unwrap()),
        ["layers.0.weight", "layers.1.weight"]
    );
    assert_eq!(
        names(&all.matching("layers.[!0].*").unwrap()),
        ["layers.1.weight"]
    );
    assert!(all.matching("nothing*").unwrap().is_empty());
    let said = all.matching("layers.[").unwrap_err().to_string();
    assert!(said.contains("\"layers.[\""), "{said}");
    assert_eq!(
        names(&all.filter(|entry| entry.bytes() < 4)),
        ["layers.1.weight", "head"]
    );
    let two = all.only(["head", "layers.0.bias"]).unwrap();
    assert_eq!(names(&two), ["layers.0.bias", "head"]);
    assert_eq!((two.bytes(), two.shards().len()), (4, 1));
    let said = two.only(["layers.1.weight"]).unwrap_err().to_string();
    assert!(said.contains("\"layers.1.weight\""), "{said}");
    assert!(two.tensor("layers.1.weight").is_err());
}

#[test]
fn a_file_of_a_hundred_thousand_tensors_is_a_file_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let names: Vec<_> = (0..100_000)
        .map(|index| format!("layers.{index}.weight"))
        .collect();
    of_bytes(&path, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let opened = Checkpoint::open(&path).unwrap();
    assert_eq!(opened.len(), 100_000);
    let found: BTreeSet<_> = opened.entries().map(|entry| entry.name()).collect();
    assert_eq!(found, names.iter().map(String::as_str).collect());
    let some = opened.matching("layers.9999?.weight").unwrap();
    let loaded = some.load(&pinlane::Device::host()).unwrap();
    assert_eq!(loaded.len(), 10);
    let bytes = crate::rig::pattern(100_000, 1);
    assert_eq!(
        loaded.get("layers.99999.weight").unwrap().as_bytes().unwrap(),
        &bytes[99_999..]
    );
}
