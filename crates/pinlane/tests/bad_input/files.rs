//! Files that are missing, too short, cut off, or asked for piecemeal.

use std::fs;

use pinlane::{DType, Device, Error, Tensor, Tree};
use tempfile::TempDir;

use crate::{
    SLOT, rig,
    rig::{Rig, pattern, small_engine},
    there_and_back,
};

#[test]
fn files_that_are_missing_short_or_no_files_are_refused_with_their_path() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, [0; 100]).unwrap();
    let missing = folder.path().join("missing");
    for (path, offset, elements) in [
        (missing.as_path(), 0, 1),
        (folder.path(), 0, 0),
        (folder.path(), 0, 1),
        (&file, 0, 26),
        (&file, 1, 25),
        (&file, 101, 0),
        (&file, u64::MAX, 1),
        (&file, 0, 1 << 40),
    ] {
        let refused = Tensor::from_file(path, offset, DType::F32, &[elements]).unwrap_err();
        assert!(
            matches!(&refused, Error::File { path: found, .. } if found == path),
            "{refused}"
        );
    }
    assert!(Tensor::from_file(&file, 100, DType::F32, &[0]).is_ok());
}

#[test]
fn a_file_that_is_cut_off_after_opening_fails_the_transfer_and_nothing_else() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, pattern(20 * SLOT, 1)).unwrap();
    let tensor = Tensor::from_file(&path, 0, DType::U8, &[20 * SLOT]).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10 * SLOT as u64 + 1)
        .unwrap();
    for to in [rig.device(), &Device::host()] {
        let refused = tensor.to(to).unwrap_err();
        assert!(refused.to_string().contains("file"), "{refused}");
        let source = match refused {
            Error::Leaf { source, .. } => *source,
            error => error,
        };
        assert!(
            matches!(&source, Error::File { path: found, .. } if *found == path),
            "{source}"
        );
    }
    let start = tensor.slice(0, 0..10 * SLOT, 1).unwrap();
    let back = there_and_back(&start, &rig);
    assert!(back.as_bytes().unwrap() == &pattern(20 * SLOT, 1)[..10 * SLOT]);
    rig.finish();
}

#[test]
fn of_a_view_with_gaps_its_elements_are_read() {
    let rig = rig();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, pattern(100, 1)).unwrap();
    let tensor = Tensor::from_file(&path, 0, DType::U8, &[10, 10]).unwrap();
    let held = Tensor::from_bytes(pattern(100, 1), DType::U8, &[10, 10]).unwrap();
    for view in [
        |tensor: &Tensor| tensor.slice(1, 0..5, 1).unwrap(),
        |tensor: &Tensor| tensor.slice(0, 0..10, 2).unwrap(),
        |tensor: &Tensor| tensor.reshape(&[1, 100]).unwrap().expand(&[3, 100]).unwrap(),
    ] {
        let expected = view(&held).to_vec::<u8>().unwrap();
        let view = view(&tensor);
        assert_eq!(there_and_back(&view, &rig).to_vec::<u8>().unwrap(), expected);
        assert_eq!(
            view.to(&Device::host()).unwrap().to_vec::<u8>().unwrap(),
            expected
        );
        let pinned = view.pin_memory(rig.device()).unwrap();
        assert!(pinned.is_pinned());
        assert_eq!(pinned.to_vec::<u8>().unwrap(), expected);
    }
    assert!(tensor.pin_memory(rig.device()).unwrap().as_bytes().unwrap() == pattern(100, 1));
    rig.finish();
}
