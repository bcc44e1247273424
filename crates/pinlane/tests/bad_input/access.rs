//! Reading, writing and pinning what can't be read, written or pinned.

use std::{fs, ptr::NonNull, sync::Arc};

use pinlane::{DType, Device, Error, HostMemory, Layout, Tensor, Tree, driver::Backend};
use tempfile::TempDir;

use crate::{
    of_leaf, rig,
    rig::{eventually, pattern},
    tensor, there_and_back,
};

#[test]
fn what_is_not_on_the_host_can_not_be_read_in_place() {
    let rig = rig();
    let mut there = tensor(100, 1).to(rig.device()).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [0; 8]).unwrap();
    let mut in_file = Tensor::from_file(&path, 0, DType::U8, &[8]).unwrap();
    for (tensor, place) in [(&mut there, "sim:0"), (&mut in_file, "file")] {
        for refused in [
            tensor.as_slice::<u8>().map(drop).unwrap_err(),
            tensor.as_mut_slice::<u8>().map(drop).unwrap_err(),
            tensor.to_vec::<u8>().map(drop).unwrap_err(),
            tensor.sum().map(drop).unwrap_err(),
            tensor
                .slice(0, 0..8, 2)
                .unwrap()
                .contiguous()
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(
                matches!(&refused, Error::NotOnHost { place: found, .. } if found.contains(place)),
                "{refused}"
            );
        }
    }
    drop(there);
    rig.finish();
}

#[test]
fn elements_are_read_as_what_they_are() {
    let mut tensor = Tensor::arange(DType::I32, 0, 6, 1).unwrap();
    assert!(matches!(tensor.as_slice::<f32>(), Err(Error::DType(_))));
    assert!(matches!(tensor.as_mut_slice::<u32>(), Err(Error::DType(_))));
    assert!(matches!(tensor.to_vec::<u8>(), Err(Error::DType(_))));
    let columns = tensor.reshape(&[2, 3]).unwrap().transpose(0, 1).unwrap();
    assert!(matches!(
        columns.as_slice::<i32>(),
        Err(Error::NotContiguous { .. })
    ));
    assert_eq!(columns.to_vec::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
    let not_bools = Tensor::from_bytes(vec![0, 1, 2], DType::Bool, &[3]).unwrap();
    assert!(matches!(not_bools.as_slice::<bool>(), Err(Error::DType(_))));
}

#[test]
fn a_source_can_not_be_written_while_a_transfer_reads_it() {
    let rig = rig();
    for pinned in [false, true] {
        let mut source = tensor(1000, 1);
        if pinned {
            source = source.pin_memory(rig.device()).unwrap();
        }
        let stall = rig.sim().stall();
        let transfer = source.transfer(rig.device()).unwrap();
        assert!(matches!(source.as_mut_slice::<u8>(), Err(Error::Shared)));
        drop(stall);
        transfer.wait().unwrap();
        source.as_mut_slice::<u8>().unwrap()[0] = 0;

        let stall = rig.sim().stall();
        drop(source.transfer(rig.device()).unwrap());
        assert!(matches!(source.as_mut_slice::<u8>(), Err(Error::Shared)));
        drop(stall);
        eventually("the source is its own again", || {
            source.as_mut_slice::<u8>().is_ok()
        });
    }
    rig.finish();
}

#[test]
fn bytes_that_are_shared_or_foreign_are_not_written() {
    let mut tensor = tensor(10, 1);
    let view = tensor.slice(0, 0..5, 1).unwrap();
    assert!(matches!(tensor.as_mut_slice::<u8>(), Err(Error::Shared)));
    drop(view);
    assert!(tensor.as_mut_slice::<u8>().is_ok());

    let owner = Arc::new([0_u8; 4]);
    let ptr = NonNull::from(&*owner).cast();
    let layout = Layout::contiguous(&[4]).unwrap();
    // SAFETY: four bytes that live in the owner and that nobody writes.
    let foreign = unsafe { Tensor::from_raw_parts(ptr, 4, DType::U8, layout, None, owner) };
    let mut foreign = foreign.unwrap();
    assert!(matches!(foreign.as_mut_slice::<u8>(), Err(Error::Shared)));
    assert_eq!(foreign.as_slice::<u8>().unwrap(), [0; 4]);
}

#[test]
fn only_host_memory_is_pinned_and_only_for_an_accelerator() {
    let rig = rig();
    let there = tensor(10, 1).to(rig.device()).unwrap();
    let refused = of_leaf(there.pin_memory(rig.device()).unwrap_err(), "U8 [10]");
    assert!(matches!(refused, Error::NotOnHost { .. }), "{refused}");
    let refused = of_leaf(tensor(10, 1).pin_memory(&Device::host()).unwrap_err(), "U8 [10]");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    let refused = HostMemory::Pinned(&Device::host()).zeros(DType::U8, &[1]);
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
    // What is pinned already is not pinned again.
    let pinned = tensor(10, 1).pin_memory(rig.device()).unwrap();
    let again = pinned.pin_memory(rig.device()).unwrap();
    assert_eq!(
        again.as_bytes().unwrap().as_ptr(),
        pinned.as_bytes().unwrap().as_ptr()
    );
    drop((there, pinned, again));
    rig.finish();
}

#[test]
fn memory_that_is_wrongly_said_to_be_pinned_still_lands_right() {
    let rig = rig();
    let owner = Arc::new(pattern(50_000, 1));
    let ptr = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[50_000]).unwrap();
    // SAFETY: the vector is as long and lives in the owner; that it is not pinned makes the copy slower, no more.
    let tensor = unsafe { Tensor::from_raw_parts(ptr, 50_000, DType::U8, layout, Some(Backend::Sim), owner) };
    let back = there_and_back(&tensor.unwrap(), &rig);
    assert!(back.as_bytes().unwrap() == pattern(50_000, 1));
    rig.finish();
}
