//! What is moved into tensors that exist is never seen by anyone else, whatever the tree that holds them does.

#![cfg(not(shuttle))]

use std::{fs, sync::Arc};

use pinlane::{DType, Error, Tensor, TensorMap, Tree};

fn filled(byte: u8, bytes: usize) -> Tensor {
    Tensor::from_bytes(vec![byte; bytes], DType::U8, &[bytes]).unwrap()
}

/// A tree that shares its tensor with whoever made it.
struct Shared(Arc<Tensor>);

impl Tree for Shared {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        visit(&self.0);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        Self(Arc::new(next()))
    }
}

#[test]
fn a_tree_that_shares_its_tensor_is_refused() {
    let shared = Arc::new(filled(0, 64));
    let bytes: &[u8] = shared.as_bytes().unwrap();
    let mut tree = Shared(Arc::clone(&shared));
    let error = Shared(Arc::new(filled(7, 64))).copy_into(&mut tree).unwrap_err();
    assert!(error.to_string().contains("visit_mut"), "{error}");
    assert_eq!(bytes, [0; 64]);
}

/// A tree that shows one tensor twice.
struct Doubled(Tensor);

impl Tree for Doubled {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        visit(&self.0);
        visit(&self.0);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        next();
        Self(next())
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        visit(&mut self.0);
        visit(&mut self.0);
        true
    }
}

#[test]
fn a_tensor_that_is_shown_twice_is_refused_and_given_back() {
    let mut tree = Doubled(filled(0, 64));
    let error = Doubled(filled(7, 64)).copy_into(&mut tree).unwrap_err();
    assert!(
        matches!(&error, Error::Leaf { source, .. } if matches!(**source, Error::NotLanded { .. })),
        "{error}"
    );
    assert_eq!(tree.0.as_bytes().unwrap(), [0; 64]);
}

#[test]
fn maps_with_other_names_in_the_places_are_refused() {
    let map = |names: [&str; 2], byte| {
        let mut map = TensorMap::new();
        for name in names {
            map.insert(name, filled(byte, 8)).unwrap();
        }
        map
    };
    let mut into = map(["k", "q"], 0);
    let error = map(["q", "k"], 1).copy_into(&mut into).unwrap_err();
    assert!(error.to_string().contains("same names"), "{error}");
    assert_eq!(
        into.get("q").unwrap().as_bytes().unwrap(),
        [0; 8],
        "nothing has moved"
    );
    map(["k", "q"], 1).copy_into(&mut into).unwrap();
    assert_eq!(into.get("q").unwrap().as_bytes().unwrap(), [1; 8]);
}

#[test]
fn a_file_that_ends_early_leaves_nothing_half_new_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes");
    fs::write(&path, vec![7u8; 8192]).unwrap();
    let half = |offset| Tensor::from_file(&path, offset, DType::U8, &[4096]).unwrap();
    let source = vec![half(0), half(4096)];
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(6000)
        .unwrap();
    let mut into = vec![filled(0, 4096), filled(0, 4096)];
    source.copy_into(&mut into).unwrap_err();
    for tensor in &into {
        assert!(matches!(tensor.as_bytes(), Err(Error::NotLanded { .. })));
    }
}
