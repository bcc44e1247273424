//! Tensors that become another dtype as they are loaded.

use std::{fs, os::unix::fs::FileExt, path::Path};

use pinlane::{
    DType, DTypeError, Device, DeviceOptions, Error, Tensor, TensorMap, Tree,
    checkpoint::{self, Checkpoint, CheckpointError, LoadOptions, Names, SaveOptions},
    driver::{
        Conversion, ErrorKind, Float,
        sim::{DeviceConfig, Fault, FaultPlan, Step},
    },
};

use crate::{
    assert_same, map,
    rig::{Rig, small_engine},
    tensor,
};

const SLOT: usize = 64 << 10;

fn rig(devices: usize) -> Rig {
    Rig::new(devices, &small_engine(2, 2, SLOT))
}

fn to(dtype: DType) -> LoadOptions {
    LoadOptions::new().dtype(dtype)
}

/// The driver's word for a dtype, where it has one: they have the same names.
fn float(dtype: DType) -> Option<Float> {
    Float::ALL
        .into_iter()
        .find(|float| float.to_string() == dtype.name())
}

/// What floating-point tensors can become.
fn targets() -> impl Iterator<Item = DType> {
    let floats = DType::ALL.into_iter().filter(|&dtype| float(dtype).is_some());
    floats.filter(|&dtype| dtype != DType::F8E8M0)
}

/// What a tensor becomes where floating-point ones become `dtype`, as the host has it.
fn converted(tensor: &Tensor, dtype: DType) -> Tensor {
    let Some(from) = float(tensor.dtype()).filter(|_| tensor.dtype() != dtype) else {
        return tensor.clone();
    };
    let conversion = Conversion::new(from, float(dtype).unwrap()).unwrap();
    let mut bytes = vec![0; dtype.bytes_for(tensor.elements()).unwrap()];
    conversion.convert(tensor.as_bytes().unwrap(), &mut bytes);
    Tensor::from_bytes(bytes, dtype, tensor.shape()).unwrap()
}

fn all_converted(tensors: &TensorMap, dtype: DType) -> TensorMap {
    map(tensors
        .flatten()
        .map(|(name, tensor)| (name, converted(tensor, dtype))))
}

/// Tensors of every dtype that has elements of whole bytes, of several shapes, whose bits nobody chose: infinities and NaNs are
/// among them.
fn model() -> TensorMap {
    let mut all = Vec::new();
    for (seed, dtype) in crate::dtypes().filter(|dtype| !dtype.is_sub_byte()).enumerate() {
        for (shape, elements) in [
            ("wide", &[37, 500][..]),
            ("one", &[]),
            ("none", &[3, 0]),
            ("odd", &[7]),
        ] {
            all.push((format!("{dtype}.{shape}"), tensor(dtype, elements, seed)));
        }
    }
    map(all)
}

/// The model in the order of its files.
fn saved(folder: &Path, options: &SaveOptions) -> (Checkpoint, TensorMap) {
    let path = folder.join("model.safetensors");
    checkpoint::save(&model(), &path, options).unwrap();
    let checkpoint = Checkpoint::open(path).unwrap();
    let model = model();
    let in_order = map(checkpoint.entries().map(|entry| {
        let name = entry.name().to_owned();
        let tensor = model.get(&name).unwrap().clone();
        (name, tensor)
    }));
    (checkpoint, in_order)
}

#[test]
fn every_dtype_becomes_every_other_bit_by_bit_on_devices_and_the_host() {
    let roomy = DeviceOptions {
        pinned_budget: Some(8 << 20),
        ..small_engine(2, 2, SLOT)
    };
    let (rig, folder) = (Rig::new(1, &roomy), tempfile::tempdir().unwrap());
    let shards = SaveOptions::new().max_shard_bytes(200_000);
    let (checkpoint, model) = saved(folder.path(), &shards);
    assert!(checkpoint.shards().len() > 3);
    for dtype in targets() {
        let expected = all_converted(&model, dtype);
        for device in [rig.device(), &Device::host()] {
            let loaded = checkpoint.load_with(device, &to(dtype)).unwrap();
            assert!(loaded.flatten().all(|(_, tensor)| tensor.device() == *device));
            assert_same(&loaded.to(&Device::host()).unwrap(), &expected);
            let landed = checkpoint.stream_with(device, &to(dtype)).unwrap();
            let landed = landed.map(|landed| {
                let (name, tensor) = landed.unwrap();
                assert_eq!(tensor.device(), *device);
                (name, tensor.to(&Device::host()).unwrap())
            });
            assert_same(&map(landed), &expected);
        }
        let pinned = checkpoint.load_pinned_with(rig.device(), &to(dtype)).unwrap();
        assert!(pinned.is_pinned());
        assert_same(&pinned, &expected);
    }
    rig.finish();
}

#[test]
fn what_has_nothing_to_convert_is_loaded_as_it_is() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let (checkpoint, model) = saved(folder.path(), &SaveOptions::new());
    let none = LoadOptions::new();
    for (part, options) in [
        (&checkpoint, &none),
        (&checkpoint.matching("*I64*").unwrap(), &to(DType::F16)),
    ] {
        let loaded = part.load_with(rig.device(), options).unwrap();
        let back = loaded.to(&Device::host()).unwrap();
        let expected = model.flatten().filter(|(name, _)| part.get(name).is_some());
        assert_same(&back, &map(expected.map(|(name, tensor)| (name, tensor.clone()))));
    }
    assert_eq!(rig.sim().calls(Step::Convert), 0);
    let nothing = checkpoint.filter(|_| false);
    assert!(
        nothing
            .load_with(rig.device(), &to(DType::F16))
            .unwrap()
            .is_empty()
    );
    rig.finish();
}

#[test]
fn tensors_that_a_file_does_not_align_are_converted_whole() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let path = folder.path().join("model.safetensors");
    let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[70000],"data_offsets":[1,560001]},
        "c":{"dtype":"F16","shape":[2],"data_offsets":[560001,560005]}}"#;
    crate::write(&path, json, 560_005);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let expected = all_converted(&checkpoint.load(&Device::host()).unwrap(), DType::BF16);
    for device in [rig.device(), &Device::host()] {
        let loaded = checkpoint.load_with(device, &to(DType::BF16)).unwrap();
        assert_same(&loaded.to(&Device::host()).unwrap(), &expected);
    }
    rig.finish();
}

/// A file of a long tensor of F64, one after it and one before, whose elements are zeros, which take no room on the disk, but
/// for those at `ones` of the long one.
fn long_file(path: &Path, elements: usize, ones: &[usize]) -> Checkpoint {
    let long = 8 * elements;
    let json = format!(
        r#"{{"first":{{"dtype":"F64","shape":[1],"data_offsets":[0,8]}},"long":{{"dtype":"F64","shape":[{elements}],
            "data_offsets":[8,{}]}},"last":{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}}}"#,
        long + 8,
        long + 8,
        long + 16
    );
    let header = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    fs::write(path, &header).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len((header.len() + long + 16) as u64).unwrap();
    for one in ones {
        let at = header.len() + 8 + 8 * one;
        file.write_all_at(&1.0_f64.to_le_bytes(), at as u64).unwrap();
    }
    Checkpoint::open(path).unwrap()
}

const MIB: usize = 1 << 20;

#[test]
fn a_device_holds_a_model_once_and_a_bounded_number_of_bytes_of_it_as_it_lies_in_files() {
    // A tensor of 480 MiB becomes one of 120, on a device that has no room for the longer one beside it, nor for it alone.
    const ELEMENTS: usize = 60 * MIB;
    let device = DeviceConfig {
        memory_bytes: (120 + 4 * 64 + 1) << 20,
        poison: false,
        ..DeviceConfig::default()
    };
    let (rig, folder) = (
        Rig::on(device.into(), &small_engine(2, 2, MIB)),
        tempfile::tempdir().unwrap(),
    );
    // Around each place where it is cut.
    let cuts = [32, 96, 160, 224].map(|mib: usize| mib * MIB / 8);
    let mut ones: Vec<_> = cuts.iter().flat_map(|cut| [cut - 1, *cut]).collect();
    ones.extend([0, 12_345_678, ELEMENTS - 1]);
    let checkpoint = long_file(&folder.path().join("long.safetensors"), ELEMENTS, &ones);
    let loaded = checkpoint.load_with(rig.device(), &to(DType::BF16)).unwrap();
    let back = loaded.to(&Device::host()).unwrap();
    assert_eq!(back.get("long").unwrap().shape(), [ELEMENTS]);
    let halves = back.get("long").unwrap().as_bytes().unwrap();
    ones.sort_unstable();
    let found = halves.chunks(2).enumerate().filter(|(_, half)| **half != [0, 0]);
    let found: Vec<_> = found.map(|(element, half)| (element, half.to_vec())).collect();
    let one = vec![0x80, 0x3f];
    let expected: Vec<_> = ones.into_iter().map(|element| (element, one.clone())).collect();
    assert!(found == expected, "{found:?}");
    drop((loaded, back));
    rig.finish();
}

#[test]
fn an_error_stands_for_what_has_a_part_in_its_group_and_the_groups_after_it_still_come() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    // What is longer than a group begins in a new one, so it is in two, of 32 and 28 MiB; the tensor behind it is in the second.
    let checkpoint = long_file(&folder.path().join("long.safetensors"), 60 * MIB / 8, &[]);
    // The first call asks whether the device can at all, and the second is for the tensor in front.
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Convert, 2, Fault::Refused));
    let stream = checkpoint.stream_with(rig.device(), &to(DType::F16)).unwrap();
    let told: Vec<_> = stream
        .map(|landed| landed.map(|(name, _)| name).map_err(|error| error.driver_kind()))
        .collect();
    assert_eq!(
        told,
        [
            Ok("first".to_owned()),
            Err(Some(ErrorKind::Refused)),
            Ok("last".to_owned())
        ]
    );
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Convert, 2, Fault::CopyFailed));
    let failed = checkpoint.load_with(rig.device(), &to(DType::F16)).unwrap_err();
    assert_eq!(failed.driver_kind(), Some(ErrorKind::CopyFailed), "{failed}");
    // One that is dropped early leaves nothing behind.
    let mut stream = checkpoint.stream_with(rig.device(), &to(DType::F16)).unwrap();
    assert_eq!(stream.next().unwrap().unwrap().0, "first");
    drop(stream);
    rig.finish();
}

#[test]
fn a_slice_becomes_what_is_asked_where_it_is() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let (checkpoint, model) = saved(folder.path(), &SaveOptions::new());
    let rows = checkpoint.slice("F64.wide", &[3..20, 10..12]).unwrap();
    let whole = model.get("F64.wide").unwrap();
    let expected = whole.slice(0, 3..20, 1).unwrap().slice(1, 10..12, 1).unwrap();
    let expected = converted(&expected.contiguous().unwrap(), DType::F16);
    for there in [rows.to(rig.device()).unwrap(), rows] {
        let halves = there.to_dtype(DType::F16).unwrap();
        assert_eq!(halves.device(), there.device());
        let back = halves.to(&Device::host()).unwrap();
        assert!(back.contiguous().unwrap().as_bytes().unwrap() == expected.as_bytes().unwrap());
    }
    rig.finish();
}

#[test]
fn each_tensor_becomes_what_is_asked_on_the_device_that_its_name_says() {
    let (rig, folder) = (rig(2), tempfile::tempdir().unwrap());
    let (checkpoint, model) = saved(folder.path(), &SaveOptions::new());
    let place = |name: &str| match name.len() % 3 {
        0 => rig.devices[0].clone(),
        1 => rig.devices[1].clone(),
        _ => Device::host(),
    };
    let loaded = checkpoint.load_to_each_with(place, &to(DType::F16)).unwrap();
    for (name, tensor) in loaded.flatten() {
        assert_eq!(tensor.device(), place(&name), "{name}");
    }
    assert_same(
        &loaded.to(&Device::host()).unwrap(),
        &all_converted(&model, DType::F16),
    );
    drop(loaded);
    rig.finish();
}

#[test]
fn tensors_that_exist_take_what_others_become() {
    let (rig, folder) = (rig(2), tempfile::tempdir().unwrap());
    let (checkpoint, model) = saved(folder.path(), &SaveOptions::new());
    let places = [Device::host(), rig.devices[0].clone(), rig.devices[1].clone()];
    for dtype in [DType::F32, DType::F8E5M2] {
        let expected = all_converted(&model, dtype);
        let zeros = expected.flatten().enumerate().map(|(index, (name, tensor))| {
            let zeros = Tensor::from_bytes(vec![0; tensor.bytes().unwrap()], tensor.dtype(), tensor.shape());
            (name, zeros.unwrap().to(&places[index % 3]).unwrap())
        });
        let mut tree = map(zeros);
        let pointers = |tree: &TensorMap| {
            tree.flatten()
                .map(|(_, tensor)| tensor.device_ptr())
                .collect::<Vec<_>>()
        };
        let before = pointers(&tree);
        checkpoint
            .load_into_with(&mut tree, Names::All, &to(dtype))
            .unwrap();
        assert_eq!(pointers(&tree), before, "the tensors are where they were");
        assert_same(&tree.to(&Device::host()).unwrap(), &expected);
        // They are compared with what the others become, and not with what these are.
        let error = checkpoint
            .load_into_with(&mut tree, Names::All, &to(DType::F64))
            .unwrap_err();
        let Error::Checkpoint(error) = error else {
            panic!("{error}")
        };
        let CheckpointError::DoesNotFit { different, .. } = *error else {
            panic!("{error}")
        };
        assert!(
            different
                .iter()
                .all(|one| (one.found.0, one.expected.0) == (DType::F64, dtype))
        );
        assert!(checkpoint.load_into(&mut tree, Names::All).is_err());
        assert_same(&tree.to(&Device::host()).unwrap(), &expected);
    }
    drop(places);
    rig.finish();
}

#[test]
fn after_an_error_what_was_to_be_loaded_into_can_not_be_read_and_before_it_stays() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let (checkpoint, _) = saved(folder.path(), &SaveOptions::new());
    let checkpoint = checkpoint.only(["F32.odd"]).unwrap();
    let ones = || {
        map([("F32.odd".to_owned(), Tensor::ones(DType::F16, &[7]).unwrap())])
            .to(rig.device())
            .unwrap()
    };
    let mut tree = ones();
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Convert, 0, Fault::Refused));
    checkpoint
        .load_into_with(&mut tree, Names::All, &to(DType::F16))
        .unwrap_err();
    assert_same(
        &tree.to(&Device::host()).unwrap(),
        &ones().to(&Device::host()).unwrap(),
    );
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Convert, 1, Fault::CopyFailed));
    checkpoint
        .load_into_with(&mut tree, Names::All, &to(DType::F16))
        .unwrap_err();
    assert!(tree.to(&Device::host()).is_err());
    rig.sim().set_faults(FaultPlan::new());
    tree = ones();
    let kept = tree.get("F32.odd").unwrap().clone();
    let refused = checkpoint
        .load_into_with(&mut tree, Names::All, &to(DType::F16))
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Leaf { path, source } if path == "F32.odd" && matches!(**source, Error::Shared)),
        "{refused}"
    );
    drop((tree, kept));
    rig.finish();
}

#[test]
fn what_can_not_become_something_else_is_refused_by_name_before_anything_moves() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let (checkpoint, _) = saved(folder.path(), &SaveOptions::new());
    for dtype in [DType::I8, DType::Bool, DType::C64, DType::F8E8M0, DType::F4] {
        let mut tree = TensorMap::new();
        for refused in [
            checkpoint.load_with(rig.device(), &to(dtype)).unwrap_err(),
            checkpoint.load_with(&Device::host(), &to(dtype)).unwrap_err(),
            checkpoint.load_pinned_with(rig.device(), &to(dtype)).unwrap_err(),
            checkpoint.stream_with(rig.device(), &to(dtype)).unwrap_err(),
            checkpoint
                .load_to_each_with(|_| rig.device().clone(), &to(dtype))
                .unwrap_err(),
            checkpoint
                .load_into_with(&mut tree, Names::Common, &to(dtype))
                .unwrap_err(),
        ] {
            assert!(
                matches!(refused, Error::DType(DTypeError::NoTarget { dtype: named }) if named == dtype),
                "{refused}"
            );
            assert!(refused.to_string().contains("BF16"), "{refused}");
        }
    }
    let path = folder.path().join("narrow.safetensors");
    let narrow = map([("blocks.weight".to_owned(), tensor(DType::F4, &[8], 1))]);
    checkpoint::save(&narrow, &path, &SaveOptions::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    for refused in [
        checkpoint.load_with(rig.device(), &to(DType::F16)).unwrap_err(),
        checkpoint
            .stream_with(&Device::host(), &to(DType::F16))
            .unwrap_err(),
    ] {
        let Error::Leaf { path, source } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(path, "blocks.weight");
        assert!(matches!(
            **source,
            Error::DType(DTypeError::NoConversion {
                from: DType::F4,
                to: DType::F16
            })
        ));
    }
    assert_eq!(
        (rig.sim().calls(Step::Copy), rig.sim().calls(Step::Allocate)),
        (0, 0)
    );
    rig.finish();
}

#[test]
fn a_driver_without_the_kernel_says_so_before_anything_moves_and_the_host_needs_none() {
    let device = DeviceConfig {
        converts: false,
        ..DeviceConfig::default()
    };
    let (rig, folder) = (
        Rig::on(device.into(), &small_engine(2, 2, SLOT)),
        tempfile::tempdir().unwrap(),
    );
    let (checkpoint, model) = saved(folder.path(), &SaveOptions::new());
    for refused in [
        checkpoint.load_with(rig.device(), &to(DType::F16)).unwrap_err(),
        checkpoint.stream_with(rig.device(), &to(DType::F16)).unwrap_err(),
    ] {
        assert_eq!(refused.driver_kind(), Some(ErrorKind::Unsupported));
        let said = refused.to_string();
        assert!(said.contains("sim:0") && said.contains("on the host"), "{said}");
    }
    assert_eq!(rig.sim().calls(Step::Copy), 0);
    let on_host = checkpoint.load_with(&Device::host(), &to(DType::F16)).unwrap();
    let there = on_host.to(rig.device()).unwrap();
    assert_same(
        &there.to(&Device::host()).unwrap(),
        &all_converted(&model, DType::F16),
    );
    drop(there);
    rig.finish();
}

#[test]
fn a_file_that_shrinks_is_an_error_with_tensor_file_and_offset() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let (checkpoint, _) = saved(folder.path(), &SaveOptions::new());
    let path = checkpoint.shards()[0].path().to_owned();
    let wide = checkpoint.get("F32.wide").unwrap().file_range();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(wide.end - 1).unwrap();
    let alone = checkpoint.only(["F32.wide"]).unwrap();
    let mut into = map([(
        "F32.wide".to_owned(),
        Tensor::zeros(DType::F16, &[37, 500]).unwrap(),
    )]);
    for error in [
        alone.load_with(rig.device(), &to(DType::F16)).unwrap_err(),
        alone.load_with(&Device::host(), &to(DType::F16)).unwrap_err(),
        alone.load_pinned_with(rig.device(), &to(DType::F16)).unwrap_err(),
        alone
            .load_into_with(&mut into, Names::All, &to(DType::F16))
            .unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(
            said.contains("F32.wide") && said.contains("model.safetensors"),
            "{said}"
        );
        assert!(said.contains("offset"), "{said}");
    }
    rig.finish();
}
