//! Reading: any pieces, any way, any fault.

use pinlane_driver::sync::atomic::Ordering;
use proptest::{prelude::*, sample::Index};

use super::{
    super::{
        FileAccess,
        faulty::{FaultyFile, MOST, NOWHERE},
        source::PAGE,
    },
    Rig, SLOT, accesses, bytes_of, pattern, views,
};
use crate::{DType, Device, Error, Tensor, TransferOptions, Tree};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_lands_is_what_the_file_holds_however_it_is_read(
        views in prop::collection::vec(views(), 1..12),
        access in accesses(),
        most in prop_oneof![Just(MOST), 1000_usize..50_000],
        interrupted in 0_usize..5,
        cached in any::<(Index, Index)>(),
        has_direct: bool,
        refuses_direct: bool,
        wide: bool,
        into: bool,
    ) {
        let mut file = FaultyFile::new(pattern(300_000));
        let (a, b) = (cached.0.index(300_000) as u64, cached.1.index(300_000) as u64);
        file.cached = a.min(b)..a.max(b);
        file.most = most;
        file.interrupted = if interrupted == 1 { 0 } else { interrupted };
        file.has_direct = has_direct;
        file.refuses_direct = refuses_direct;
        let source = file.source(access);
        let (in_file, in_memory): (Vec<_>, Vec<_>) =
            views.iter().map(|view| view.both(&file, &source)).unzip();
        let rig = Rig::new(if wide { SLOT } else { PAGE as usize });
        let expected = bytes_of(&in_memory);
        prop_assert!(rig.there_and_back(&in_file) == expected);
        prop_assert!(bytes_of(&in_file.to(&Device::host()).unwrap()) == expected);
        if into {
            let places = in_memory.iter().map(|tensor| Tensor::zeros(DType::U8, tensor.shape()).unwrap());
            let places: Vec<_> = places.collect();
            let mut there = places.to(&rig.device).unwrap();
            in_file.copy_into(&mut there).unwrap();
            prop_assert!(bytes_of(&there.to(&Device::host()).unwrap()) == expected);
            let mut here = places;
            in_file.copy_into(&mut here).unwrap();
            prop_assert!(bytes_of(&here) == expected);
            drop(there);
        }
        rig.finish();
    }

    #[test]
    fn a_bad_byte_fails_the_tensor_it_belongs_to_and_nothing_afterwards(
        sizes in prop::collection::vec(1_usize..30_000, 1..12),
        bad in any::<Index>(),
        shrinks: bool,
        access in accesses(),
        cached: bool,
        to_host: bool,
    ) {
        let bytes: usize = sizes.iter().sum();
        let mut file = FaultyFile::new(pattern(bytes));
        if !cached {
            file.cached = 0..0;
        }
        let source = file.source(access);
        let mut offset = 0;
        let tensors: Vec<_> = sizes.iter().map(|&size| {
            let tensor = source.tensor(offset, DType::U8, &[size]).unwrap();
            offset += size as u64;
            tensor
        }).collect();
        let bad = bad.index(bytes) as u64;
        let fault = if shrinks { &file.end } else { &file.bad };
        fault.store(bad, Ordering::Relaxed);
        let rig = Rig::new(SLOT);
        let to = if to_host { Device::host() } else { rig.device.clone() };
        let failed = tensors.to(&to).unwrap_err();
        drop(to);
        let Error::Leaf { path, source } = &failed else {
            panic!("no tensor is named: {failed}");
        };
        // Past the cache, whatever shares the page is read with it.
        let index: usize = path.trim_start_matches('#').parse().unwrap();
        let start: usize = sizes[..index].iter().sum();
        let near = (start as u64).saturating_sub(PAGE)..(start + sizes[index]) as u64 + PAGE;
        prop_assert!(near.contains(&bad), "{failed}, but {bad} is bad");
        let told = source.to_string();
        prop_assert!(matches!(**source, Error::File { .. }), "{told}");
        prop_assert!(told.contains("faulty") && told.contains(&format!("at offset {start}")), "{told}");
        fault.store(bytes as u64, Ordering::Relaxed);
        file.bad.store(NOWHERE, Ordering::Relaxed);
        let expected: Vec<_> = {
            let mut rest = &file.content[..];
            sizes.iter().map(|&size| {
                let (head, tail) = rest.split_at(size);
                rest = tail;
                head.to_vec()
            }).collect()
        };
        prop_assert!(rig.there_and_back(&tensors) == expected);
        prop_assert_eq!(rig.device.stats().unwrap().pinned.leased, 8 * SLOT, "the slots, and nothing else");
        rig.finish();
    }
}

#[test]
fn many_small_neighbours_in_a_file_are_read_by_a_few_calls() {
    let (count, bytes) = (2000, 96);
    let file = FaultyFile::new(pattern(count * bytes));
    let source = file.source(FileAccess::Auto);
    // In no order of the file's.
    let tensors: Vec<_> = (0..count)
        .map(|index| (index * 7 % count * bytes) as u64)
        .map(|offset| source.tensor(offset, DType::U8, &[bytes]).unwrap())
        .collect();
    let rig = Rig::new(SLOT);
    let expected: Vec<_> = (0..count)
        .map(|index| file.content[index * 7 % count * bytes..][..bytes].to_vec())
        .collect();
    assert!(rig.there_and_back(&tensors) == expected);
    let plans = tensors.plan(&rig.device, &TransferOptions::default()).unwrap();
    let copies = plans[0].chunks.iter().map(|chunk| plans[0].runs(chunk).len());
    assert!(copies.max() == Some(1), "a chunk crosses the link in one piece");
    // A slot holds 256 of them, since each is aligned.
    assert!(file.calls() <= 2 * (count / 256 + 1), "{} calls", file.calls());
    rig.finish();
}

#[test]
fn what_is_not_in_the_page_cache_is_read_past_it_and_straight_into_the_slots() {
    let bytes = 40 * SLOT;
    let mut file = FaultyFile::new(pattern(bytes + 3000));
    file.cached = 0..0;
    let source = file.source(FileAccess::Auto);
    let tensor = source.tensor(1234, DType::U8, &[bytes]).unwrap();
    let rig = Rig::new(4 * SLOT);
    let plans = tensor.plan(&rig.device, &TransferOptions::default()).unwrap();
    assert!(rig.there_and_back(&vec![tensor]) == [&file.content[1234..][..bytes]]);
    // But for what is too short to ask about.
    assert!(file.direct_calls() + 2 >= file.calls());
    // One for each chunk, and one for each end of the tensor.
    assert!(
        file.calls() <= plans[0].chunks() + 4,
        "{} calls for {} chunks",
        file.calls(),
        plans[0].chunks()
    );
    rig.finish();
}
