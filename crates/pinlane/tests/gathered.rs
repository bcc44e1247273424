//! Tensors in many pieces on the device: a kernel moves them where there is one, and what lands is the same.

#![cfg(not(shuttle))]

mod rig;

use pinlane::{
    DType, Device, DeviceOptions, Direction, Error, HostEnd, Placement, Plan, Route, Tensor, TransferOptions,
    Tree, Workload,
    driver::sim::{DeviceConfig, Step},
};
use rig::{Rig, pattern, small_engine};

const SLOT: usize = 64 << 10;
/// So many that they take several slots, of sizes that end within words.
const LEAVES: usize = 300;

fn rig_that(scatters: bool) -> Rig {
    let config = DeviceConfig {
        memory_bytes: 64 << 20,
        scatters,
        ..DeviceConfig::default()
    };
    let options = DeviceOptions {
        pinned_budget: Some(8 << 20),
        ..small_engine(2, 2, SLOT)
    };
    Rig::on(config.into(), &options)
}

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn tensors() -> Vec<Tensor> {
    (0..LEAVES)
        .map(|seed| tensor(1 + 7 * seed % 2003, seed))
        .collect()
}

fn assert_landed(found: &[Tensor]) {
    for (seed, tensor) in found.iter().enumerate() {
        assert!(
            tensor.as_bytes().unwrap() == pattern(1 + 7 * seed % 2003, seed),
            "tensor {seed}"
        );
    }
}

fn separate() -> TransferOptions {
    TransferOptions::new().placement(Placement::Separate)
}

/// The only plan of a move.
fn plan(tree: &impl Tree, to: &Device, options: &TransferOptions) -> Plan {
    let mut plans = tree.plan(to, options).unwrap();
    assert_eq!(plans.len(), 1);
    plans.remove(0)
}

#[test]
fn many_small_tensors_in_allocations_of_their_own_are_gathered_both_ways() {
    let rig = rig_that(true);
    let plan_up = plan(&tensors(), rig.device(), &separate());
    let there = tensors().to_with(rig.device(), &separate()).unwrap();
    let plan_down = plan(&there, &Device::host(), &TransferOptions::new());
    assert_eq!(rig.sim().calls(Step::CopyScattered), plan_up.chunks() as u64);
    for plan in [&plan_up, &plan_down] {
        assert!(plan.chunks() > 1, "{plan}");
        assert_eq!(plan.chunks_by(Route::Gathered), plan.chunks(), "{plan}");
        let told = format!(
            "gathered {LEAVES} tensors, {} bytes: in many pieces",
            plan.bytes()
        );
        assert!(plan.to_string().contains(&told), "{plan}");
    }
    for options in [TransferOptions::new(), TransferOptions::new().pinned_result()] {
        let back = there.to_with(&Device::host(), &options).unwrap();
        assert_landed(&back);
    }
    assert_eq!(
        (rig.sim().calls(Step::Copy), rig.sim().calls(Step::CopyBatch)),
        (0, 0)
    );
    drop(there);
    rig.finish();
}

/// Small and large in turn: the large ones are copied, and do not tear the small ones apart.
#[test]
fn small_tensors_in_pinned_memory_are_gathered_where_they_lie() {
    let rig = rig_that(true);
    let tree: Vec<_> = (0..100)
        .map(|seed| tensor(if seed % 10 == 0 { 300_000 } else { 2048 + 31 * seed }, seed))
        .collect();
    let pinned = tree.pin_memory(rig.device()).unwrap();
    for placement in [Placement::Slab, Placement::Separate] {
        let options = TransferOptions::new().placement(placement).pinned_result();
        let up = plan(&pinned, rig.device(), &options);
        let there = pinned.to_with(rig.device(), &options).unwrap();
        let down = plan(&there, &Device::host(), &options);
        for plan in [&up, &down] {
            assert_eq!(plan.chunks_by(Route::Gathered), 1, "{plan}");
            assert_eq!(plan.chunks_by(Route::Packed), 0, "{plan}");
            assert!(plan.chunks_by(Route::Direct) > 0 && plan.is_inline(), "{plan}");
            assert!(plan.to_string().contains("gathered 90 tensors"), "{plan}");
        }
        let back = there.to_with(&Device::host(), &options).unwrap();
        for (back, source) in back.iter().zip(&tree) {
            assert!(back.as_bytes().unwrap() == source.as_bytes().unwrap());
        }
    }
    drop((pinned, tree));
    rig.finish();
}

#[test]
fn pinned_tensors_are_packed_while_that_takes_less_than_a_launch_or_others_need_a_slot_anyway() {
    let rig = rig_that(true);
    let tensors = |count| (0..count).map(|seed| tensor(256, seed)).collect::<Vec<_>>();
    let pinned = |count| tensors(count).pin_memory(rig.device()).unwrap();
    let mut mixed = pinned(500);
    mixed.extend(tensors(1));
    for (tree, route) in [
        (pinned(128), Route::Packed),
        (pinned(129), Route::Gathered),
        (mixed, Route::Packed),
    ] {
        let plan = plan(&tree, rig.device(), &TransferOptions::new());
        assert_eq!(plan.chunks_by(route), plan.chunks(), "{plan}");
        let there = tree.to(rig.device()).unwrap();
        for (seed, back) in there.to(&Device::host()).unwrap().iter().enumerate().take(128) {
            assert!(back.as_bytes().unwrap() == pattern(256, seed), "tensor {seed}");
        }
    }
    // Several lanes pack sooner than one thread writes the kernel's table.
    for (count, route) in [(8191, Route::Gathered), (8192, Route::Packed)] {
        let described = Workload::new(Direction::ToDevice).tensors(count, 256, HostEnd::Pinned);
        let plan = described.unwrap().plan(rig.device(), None).unwrap();
        assert_eq!(plan.chunks_by(route), plan.chunks(), "{plan}");
    }
    rig.finish();
}

#[test]
fn the_tables_of_many_pinned_pieces_take_several_slots() {
    const SMALL_SLOT: usize = 4096;
    let options = DeviceOptions {
        pinned_budget: Some(4 << 20),
        ..small_engine(2, 2, SMALL_SLOT)
    };
    let rig = Rig::new(1, &options);
    let pinned = tensors().pin_memory(rig.device()).unwrap();
    let gathered = TransferOptions::new().route(Route::Gathered);
    let up = plan(&pinned, rig.device(), &gathered);
    // Half of a slot is for entries of 24 bytes.
    let tables = LEAVES.div_ceil(SMALL_SLOT / 2 / 24);
    assert_eq!(
        (up.chunks(), up.chunks_by(Route::Gathered)),
        (tables, tables),
        "{up}"
    );
    let there = pinned.to_with(rig.device(), &gathered).unwrap();
    assert_landed(
        &there
            .to_with(&Device::host(), &TransferOptions::new().pinned_result())
            .unwrap(),
    );
    drop((pinned, there));
    rig.finish();
}

#[test]
fn a_device_without_the_kernel_packs_them_instead() {
    let rig = rig_that(false);
    let there = tensors().to_with(rig.device(), &separate()).unwrap();
    for plan in [
        plan(&tensors(), rig.device(), &separate()),
        plan(&there, &Device::host(), &TransferOptions::new()),
    ] {
        assert_eq!(plan.chunks_by(Route::Packed), plan.chunks(), "{plan}");
    }
    assert_landed(&there.to(&Device::host()).unwrap());
    assert_eq!(rig.sim().calls(Step::CopyScattered), 0);
    drop(there);
    rig.finish();
}

#[test]
fn a_device_without_the_kernel_refuses_the_route_and_names_the_tensor() {
    let rig = rig_that(false);
    let there = tensors().to(rig.device()).unwrap();
    let options = TransferOptions::new().route(Route::Gathered);
    for error in [
        tensors().to_with(rig.device(), &options).unwrap_err(),
        there.to_with(&Device::host(), &options).unwrap_err(),
    ] {
        let Error::Leaf { source, .. } = &error else {
            panic!("no tensor is named: {error}");
        };
        assert!(
            matches!(
                **source,
                Error::Route {
                    route: Route::Gathered,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("no kernel"), "{error}");
    }
    drop(there);
    rig.finish();
}

#[test]
fn what_lies_in_one_piece_in_few_or_in_long_ones_is_not_gathered() {
    let rig = rig_that(true);
    let few = vec![tensor(100, 1); 7];
    let long = vec![tensor(70 << 10, 1); 20];
    for (what, plan) in [
        ("a slab", plan(&tensors(), rig.device(), &TransferOptions::new())),
        ("seven pieces", plan(&few, rig.device(), &separate())),
        ("long pieces", plan(&long, rig.device(), &separate())),
    ] {
        assert_eq!(plan.chunks_by(Route::Gathered), 0, "{what}: {plan}");
    }
    let slab = tensors().to(rig.device()).unwrap();
    let down = plan(&slab, &Device::host(), &TransferOptions::new());
    assert_eq!(down.chunks_by(Route::Gathered), 0, "{down}");
    drop(slab);
    rig.finish();
}

#[test]
fn the_route_carries_anything_that_it_is_forced_on() {
    let rig = rig_that(true);
    let options = TransferOptions::new().route(Route::Gathered);
    let large = tensor(5 * SLOT + 3, 1);
    let strided = tensor(3000, 2).slice(0, 0..3000, 3).unwrap();
    let tree = vec![large, strided, tensor(0, 3), tensor(1, 4)];
    let up = plan(&tree, rig.device(), &options);
    assert_eq!(up.chunks_by(Route::Gathered), up.chunks(), "{up}");
    let there = tree.to_with(rig.device(), &options).unwrap();
    let back = there.to_with(&Device::host(), &options).unwrap();
    assert!(back[0].as_bytes().unwrap() == pattern(5 * SLOT + 3, 1));
    let every_third: Vec<_> = pattern(3000, 2).into_iter().step_by(3).collect();
    assert!(back[1].as_bytes().unwrap() == every_third);
    assert!(back[3].as_bytes().unwrap() == pattern(1, 4));
    assert_eq!(rig.sim().calls(Step::Copy), 0);
    drop((tree, there, back));
    rig.finish();
}

#[test]
fn views_that_begin_anywhere_land_as_they_are() {
    let rig = rig_that(true);
    let whole = tensor(40_000, 1).to(rig.device()).unwrap();
    let views: Vec<_> = (0..100)
        .map(|view| {
            let start = view * 397 + view % 5;
            whole.slice(0, start..start + 1 + view, 1).unwrap()
        })
        .collect();
    let down = plan(&views, &Device::host(), &TransferOptions::new());
    assert!(down.chunks_by(Route::Gathered) > 0, "{down}");
    let back = views.to(&Device::host()).unwrap();
    for (view, tensor) in back.iter().enumerate() {
        let start = view * 397 + view % 5;
        assert!(tensor.as_bytes().unwrap() == &pattern(40_000, 1)[start..start + 1 + view]);
    }
    drop((whole, views, back));
    rig.finish();
}

#[test]
fn tiny_pinned_tensors_for_the_device_are_packed_and_come_back_by_the_kernel() {
    let rig = rig_that(true);
    let tree: Vec<_> = (0..100).map(|seed| tensor(1 + seed, seed)).collect();
    let pinned = tree.pin_memory(rig.device()).unwrap();
    let options = TransferOptions::new().pinned_result();
    let up = plan(&pinned, rig.device(), &options);
    assert_eq!((up.chunks_by(Route::Packed), up.chunks()), (1, 1), "{up}");
    let there = pinned.to(rig.device()).unwrap();
    let down = plan(&there, &Device::host(), &options);
    assert_eq!((down.chunks_by(Route::Gathered), down.chunks()), (1, 1), "{down}");
    let back = there.to_with(&Device::host(), &options).unwrap();
    for (back, source) in back.iter().zip(&tree) {
        assert!(back.as_bytes().unwrap() == source.as_bytes().unwrap());
    }
    drop((pinned, there, back));
    rig.finish();
}
