//! Tensors that are only described are planned as the same tensors are when they exist.

use std::time::Duration;

use pinlane::{
    DType, Device, DeviceOptions, Direction, Error, HostEnd, HostMemory, Placement, Profile, ProfileOrigin,
    Route, Tensor, TransferOptions, Tree, Workload,
    driver::sim::{Alive, DeviceConfig, Machine, Step},
};

fn machine() -> Machine {
    Machine::new(DeviceConfig {
        memory_bytes: 64 << 20,
        ..DeviceConfig::default()
    })
}

fn device(machine: &Machine) -> Device {
    Device::with_options(machine.device(0).unwrap(), &DeviceOptions::default()).unwrap()
}

fn bytes(count: usize, bytes: usize, memory: HostMemory<'_>) -> Vec<Tensor> {
    (0..count)
        .map(|_| memory.zeros(DType::U8, &[bytes]).unwrap())
        .collect()
}

const PLACEMENTS: [Placement; 2] = [Placement::Slab, Placement::Separate];
const SIZES: [(usize, usize); 5] = [(1, 64), (1, 3_000_001), (100, 4000), (3, 700_000), (0, 1)];

#[test]
fn a_described_upload_has_the_plan_of_a_real_one() {
    let machine = machine();
    let device = device(&machine);
    for (count, size) in SIZES {
        for (end, memory) in [
            (HostEnd::Pageable, HostMemory::Pageable),
            (HostEnd::Pinned, HostMemory::Pinned(&device)),
        ] {
            for placement in PLACEMENTS {
                let workload = Workload::new(Direction::ToDevice).placement(placement);
                let described = workload.tensors(count, size as u64, end).unwrap();
                let options = TransferOptions::new().placement(placement);
                let real = bytes(count, size, memory).plan(&device, &options).unwrap();
                let planned = described.plan(&device, None).unwrap();
                match real.as_slice() {
                    [] => assert_eq!(planned.chunks(), 0),
                    real => assert_eq!(real, [planned]),
                }
            }
        }
    }
}

#[test]
fn a_described_download_has_the_plan_of_a_real_one() {
    let machine = machine();
    let device = device(&machine);
    for (count, size) in SIZES {
        for placement in PLACEMENTS {
            let there = TransferOptions::new().placement(placement);
            let there = bytes(count, size, HostMemory::Pageable).to_with(&device, &there);
            let there = there.unwrap();
            for (end, options) in [
                (HostEnd::Pageable, TransferOptions::new()),
                (HostEnd::Pinned, TransferOptions::new().pinned_result()),
            ] {
                let workload = Workload::new(Direction::ToHost).placement(placement);
                let described = workload.tensors(count, size as u64, end).unwrap();
                let planned = described.plan(&device, None).unwrap();
                match there.plan(&Device::host(), &options).unwrap().as_slice() {
                    [] => assert_eq!(planned.chunks(), 0),
                    real => assert_eq!(real, [planned]),
                }
            }
        }
    }
}

#[test]
fn a_plan_is_short_exactly_where_a_caller_who_waits_has_no_event_recorded() {
    let machine = machine();
    let device = device(&machine);
    let sim = machine.sim(0).unwrap();
    let plainly = device.profile().unwrap().plain_bytes;
    let one = |memory: HostMemory<'_>, size| bytes(1, size, memory);
    let (pageable, pinned) = (HostMemory::Pageable, HostMemory::Pinned(&device));
    let square = Tensor::zeros(DType::F32, &[16, 16]).unwrap();
    let there = |size| one(pageable, size).to(&device).unwrap();
    for (tensors, to_host, expected) in [
        (one(pageable, 1), false, true),
        (one(pageable, plainly), false, true),
        (one(pageable, plainly + 1), false, false),
        (one(pinned, 1), false, true),
        (one(pinned, 1 << 20), false, true),
        (bytes(2, 1, pageable), false, false),
        (vec![square.transpose(0, 1).unwrap()], false, true),
        (vec![square.slice(1, 0..8, 1).unwrap()], false, false),
        (there(1), true, true),
        (there(64 << 10), true, true),
        (there((64 << 10) + 1), true, false),
        (
            vec![square.to(&device).unwrap().slice(1, 0..8, 1).unwrap()],
            true,
            false,
        ),
    ] {
        let to = if to_host { Device::host() } else { device.clone() };
        let plans = tensors.plan(&to, &TransferOptions::new()).unwrap();
        let before = sim.calls(Step::Record);
        drop(tensors.to(&to).unwrap());
        let recorded = sim.calls(Step::Record) - before;
        assert_eq!(plans[0].is_short(), expected, "{}", plans[0]);
        assert_eq!(recorded == 0, expected, "{recorded} events; {}", plans[0]);
        assert_eq!(plans[0].to_string().contains("the short way"), expected);
    }
    // Where the result lies is no matter of the way; who asks for a route has a transfer made.
    let asked = TransferOptions::new;
    let (here, there, host) = (one(pageable, 1), there(1), Device::host());
    for (tensors, to, options, expected) in [
        (&here, &device, asked().placement(Placement::Separate), true),
        (&there, &host, asked().pinned_result(), true),
        (&here, &device, asked().route(Route::Plain), false),
        (&there, &host, asked().pinned_result().route(Route::Direct), false),
    ] {
        assert_eq!(
            tensors.plan(to, &options).unwrap()[0].is_short(),
            expected,
            "{options:?}"
        );
        let before = sim.calls(Step::Record);
        drop(tensors.to_with(to, &options).unwrap());
        assert_eq!(sim.calls(Step::Record) == before, expected, "{options:?}");
    }
}

#[test]
fn describing_takes_nothing_of_the_device() {
    let machine = machine();
    let device = device(&machine);
    let workload = Workload::new(Direction::ToHost).tensors(1, 60 << 20, HostEnd::Pinned);
    workload.unwrap().explain(&device).unwrap();
    assert_eq!(machine.sim(0).unwrap().alive(), Alive::default());
}

#[test]
fn a_plan_that_takes_as_long_as_can_be_is_explained() {
    let driver = machine().device(0).unwrap();
    let mut profile = Profile::assumed(driver.properties());
    (profile.short_copy, profile.latency) = (Duration::MAX, Duration::MAX);
    let options = DeviceOptions {
        profile: Some(profile),
        ..DeviceOptions::default()
    };
    let device = Device::with_options(driver, &options).unwrap();
    let workload = Workload::new(Direction::ToDevice).tensors(10, 4000, HostEnd::Pageable);
    let explanation = workload.unwrap().explain(&device).unwrap();
    assert_eq!(explanation.plan.predicted(), Duration::MAX);
    assert!(explanation.routes.iter().all(|other| other.passed_over.is_none()));
}

#[test]
fn an_explanation_names_every_route_with_its_time_or_why_it_can_not_be() {
    let machine = machine();
    let device = device(&machine);
    let workload = Workload::new(Direction::ToDevice).tensors(10, 4000, HostEnd::Pageable);
    let explanation = workload.unwrap().explain(&device).unwrap();
    assert_eq!(explanation.origin, ProfileOrigin::Assumed);
    let routes: Vec<_> = explanation.routes.iter().map(|other| other.route).collect();
    assert_eq!(routes, Route::ALL);
    for other in &explanation.routes {
        assert_eq!(other.chosen, other.route == Route::Packed);
        assert_eq!(other.predicted.is_err(), other.route == Route::Direct);
        if other.chosen {
            assert_eq!(
                *other.predicted.as_ref().unwrap(),
                explanation.plan.predicted(),
                "all goes by it"
            );
        }
    }
    let shown = explanation.to_string();
    for part in [
        "direct   not possible: ",
        "packed   about ",
        "(chosen)",
        "assumed, as all of a simulated device is",
        "GB/s",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn what_can_not_be_is_refused_before_anything_is_planned() {
    let machine = machine();
    let device = device(&machine);
    let to_host = Workload::new(Direction::ToHost);
    for end in [HostEnd::Strided, HostEnd::File] {
        let refused = to_host.clone().tensors(1, 8, end);
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
    let many = to_host.clone().tensors(usize::MAX, 0, HostEnd::Pageable);
    assert!(matches!(many, Err(Error::Unsupported { .. })));
    for (count, bytes) in [(1, 65 << 20), (2, u64::MAX)] {
        let large = to_host.clone().tensors(count, bytes, HostEnd::Pageable).unwrap();
        assert!(matches!(large.plan(&device, None), Err(Error::Driver { .. })));
    }
    let one = to_host.tensors(1, 8, HostEnd::Pageable).unwrap();
    assert!(matches!(
        one.plan(&Device::host(), None),
        Err(Error::Unsupported { .. })
    ));
    let refused = one.plan(&device, Some(Route::Direct));
    assert!(matches!(refused, Err(Error::Leaf { .. })), "{refused:?}");
}

#[test]
fn a_device_knows_where_its_profile_comes_from() {
    let machine = machine();
    assert_eq!(device(&machine).profile_origin(), Some(&ProfileOrigin::Assumed));
    let options = DeviceOptions {
        profile: device(&machine).profile().cloned(),
        ..DeviceOptions::default()
    };
    let given = Device::with_options(machine.device(0).unwrap(), &options).unwrap();
    assert_eq!(given.profile_origin(), Some(&ProfileOrigin::Given));
    assert_eq!(Device::host().profile_origin(), None);
}
