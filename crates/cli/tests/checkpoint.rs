//! `pinlane ls`, `verify` and `load` as a user meets them: output and exit codes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pinlane::{
    DType, Device, Tensor, TensorMap,
    checkpoint::{SaveOptions, save},
};
use serde_json::Value;
use tempfile::TempDir;

fn pinlane(command: &str, path: &Path, arguments: &[&str]) -> Output {
    let mut pinlane = Command::new(env!("CARGO_BIN_EXE_pinlane"));
    pinlane.arg(command).arg(path).args(arguments);
    pinlane.stdin(Stdio::null()).output().expect("the command starts")
}

/// What a command that ends with `code` prints.
#[track_caller]
fn shown(output: Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let (said, unsaid) = if code == 2 {
        (output.stderr, output.stdout)
    } else {
        (output.stdout, output.stderr)
    };
    assert!(unsaid.is_empty(), "{}", String::from_utf8_lossy(&unsaid));
    String::from_utf8(said).unwrap()
}

/// A checkpoint in two files.
fn checkpoint() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut model = TensorMap::new();
    for (name, dtype, shape) in [
        ("layers.0.weight", DType::BF16, &[16, 8][..]),
        ("layers.0.bias", DType::F32, &[]),
        ("layers.1.weight", DType::BF16, &[16, 8]),
    ] {
        model.insert(name, Tensor::zeros(dtype, shape).unwrap()).unwrap();
    }
    let options = SaveOptions::new().max_shard_bytes(300).metadata("format", "pt");
    save(&model, folder.path(), &options).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn a_checkpoint_is_listed_for_people_and_for_programs() {
    let (_folder, path) = checkpoint();
    let listed = shown(pinlane("ls", &path, &[]), 0);
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "layers.0.bias",
            "F32",
            "[]",
            "4",
            "model-00001-of-00002.safetensors"
        ]
    );
    assert_eq!(lines[1][..5], ["layers.0.weight", "BF16", "[16,", "8]", "256"]);
    assert_eq!(listed.lines().last(), Some("3 tensors, 516 bytes in 2 files"));
    assert!(listed.contains("format: pt"), "{listed}");

    let document: Value = serde_json::from_str(&shown(pinlane("ls", &path, &["--json"]), 0)).unwrap();
    assert_eq!(document["files"].as_array().unwrap().len(), 2);
    let tensor = &document["tensors"][1];
    assert_eq!(
        (&tensor["name"], &tensor["shape"]),
        (&"layers.0.weight".into(), &serde_json::json!([16, 8]))
    );
    assert_eq!(
        tensor["file_range"][1].as_u64().unwrap() - tensor["file_range"][0].as_u64().unwrap(),
        256
    );

    let some = shown(
        pinlane("ls", &path, &["--select", "*.bias", "--select", "layers.1.*"]),
        0,
    );
    assert!(
        some.contains("2 tensors, 260 bytes") && !some.contains("layers.0.weight"),
        "{some}"
    );
    let none = shown(pinlane("ls", &path, &["--select", "head*"]), 2);
    assert!(none.contains("\"head*\""), "{none}");
    let missing = shown(pinlane("ls", &path.join("missing"), &[]), 2);
    assert!(missing.contains("missing"), "{missing}");
}

#[test]
fn a_sound_checkpoint_is_verified_and_every_fault_of_another_is_told() {
    let (_folder, path) = checkpoint();
    let sound = shown(pinlane("verify", &path, &[]), 0);
    assert_eq!(sound, "3 tensors, 516 bytes in 2 readable files: sound\n");
    for name in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        let file = fs::File::options().write(true).open(path.join(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }
    let broken = shown(pinlane("verify", &path, &[]), 1);
    assert!(
        broken.ends_with("no file could be read: 2 faults found\n"),
        "{broken}"
    );
    for part in [
        "00001-of-00002.safetensors: the data of tensor",
        "\"layers.1.weight\"",
    ] {
        assert!(broken.contains(part), "{part:?} is not in {broken}");
    }
    assert!(shown(pinlane("verify", &path.join("missing"), &[]), 2).contains("nothing at"));
}

#[test]
fn what_is_listed_is_verified_too_by_the_same_name() {
    let (_folder, path) = checkpoint();
    let name = path.join("model.safetensors");
    assert!(!name.exists(), "it is saved as several");
    assert!(shown(pinlane("ls", &name, &[]), 0).contains("3 tensors"));
    assert!(shown(pinlane("verify", &name, &[]), 0).contains("sound"));
}

#[test]
fn what_would_do_something_to_a_terminal_is_listed_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = TensorMap::new();
    model
        .insert("evil\u{1b}[2J\nname é", Tensor::zeros(DType::U8, &[1]).unwrap())
        .unwrap();
    let options = SaveOptions::new().metadata("key\u{7}", "one\r\ntwo");
    save(&model, &path, &options).unwrap();
    let listed = shown(pinlane("ls", &path, &[]), 0);
    assert!(listed.contains(r"evil\u{1b}[2J\nname é"), "{listed}");
    assert!(listed.contains(r"key\u{7}: one\r\ntwo"), "{listed}");
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[test]
fn booleans_that_are_none_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags.safetensors");
    let header = br#"{"flags":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    fs::write(
        &path,
        [&(header.len() as u64).to_le_bytes()[..], header, &[1, 0, 2]].concat(),
    )
    .unwrap();
    let found = shown(pinlane("verify", &path, &[]), 1);
    let offset = 8 + header.len() + 2;
    assert!(found.contains(&format!("\"flags\": byte {offset} of")), "{found}");
}

#[test]
fn a_checkpoint_is_loaded_with_its_rate() {
    let (_folder, path) = checkpoint();
    for device in ["sim:0", "host"] {
        let loaded = shown(
            pinlane("load", &path, &["--device", device, "--access", "direct"]),
            0,
        );
        assert!(
            loaded.starts_with(&format!("3 tensors, 516 bytes to {device} in ")),
            "{loaded}"
        );
        assert!(
            loaded.contains("B/s") && !loaded.contains(": 0.00") && loaded.contains("the first after"),
            "{loaded}"
        );
        assert_eq!(loaded.contains("simulated"), device == "sim:0", "{loaded}");
    }
    let part = shown(
        pinlane("load", &path, &["--device", "sim:0", "--select", "*.bias"]),
        0,
    );
    assert!(part.starts_with("1 tensor, 4 bytes to"), "{part}");
    let unknown = shown(pinlane("load", &path, &["--device", "nowhere"]), 2);
    assert!(unknown.contains("nowhere"), "{unknown}");
}

#[test]
fn a_checkpoint_is_loaded_as_what_its_tensors_are_to_become() {
    let (_folder, path) = checkpoint();
    let mut state = pinlane::load(&path, &Device::host()).unwrap();
    state
        .insert("ids", Tensor::zeros(DType::I64, &[2]).unwrap())
        .unwrap();
    save(&state, &path, &SaveOptions::new()).unwrap();
    for device in ["sim:0", "host"] {
        let loaded = shown(pinlane("load", &path, &["--device", device, "--dtype", "f16"]), 0);
        assert!(
            loaded.starts_with(&format!("4 tensors (3 as F16), 530 bytes to {device} in ")),
            "{loaded}"
        );
        for (dtype, told) in [("f33", "no dtype is called \"f33\""), ("i8", "were to become I8")] {
            let refused = shown(pinlane("load", &path, &["--device", device, "--dtype", dtype]), 2);
            assert!(refused.contains(told), "{refused}");
        }
    }
}

#[test]
fn what_no_tensor_can_become_is_told_with_its_file_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    let mut model = TensorMap::new();
    model
        .insert("packed", Tensor::zeros(DType::F4, &[4]).unwrap())
        .unwrap();
    save(&model, &path, &SaveOptions::new()).unwrap();
    for device in ["sim:0", "host"] {
        let output = pinlane("load", &path, &["--device", device, "--dtype", "bf16"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for part in ["packed.safetensors", "tensor packed", "--select", "BF16"] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }
}
