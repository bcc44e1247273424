//! The ways' times beside what was found and what the table says.

use super::*;
use crate::profiles;

fn predicted(text: &str) -> Vec<(Plain, f64)> {
    let description = Description::parse(text).unwrap();
    let profile = profiles::named("h200").unwrap();
    Plain::of(&description, profile.cores)
        .into_iter()
        .map(|way| {
            (
                way,
                way.predict(&description, &profile.profile, profile.cores)
                    .predicted_seconds,
            )
        })
        .collect()
}

fn of(predicted: &[(Plain, f64)], way: Plain) -> f64 {
    predicted.iter().find(|(found, _)| *found == way).unwrap().1
}

#[test]
fn what_the_guide_found_is_what_is_predicted() {
    for text in ["1000x1000 f32", "100x1M f32", "1x100k f32"] {
        let times = predicted(text);
        let to = of(&times, Plain::To);
        assert!(of(&times, Plain::ToNonBlocking) <= to, "{text}");
        assert!(of(&times, Plain::PinnedTo) < to, "{text}");
        assert!(
            of(&times, Plain::PinnedToNonBlocking) <= of(&times, Plain::PinnedTo),
            "{text}"
        );
        assert!(
            of(&times, Plain::PinThenTo) > of(&times, Plain::PinnedTo),
            "{text}"
        );
    }
    let one = predicted("1x1000 f32");
    assert!(
        of(&one, Plain::PinThenTo) > 0.9 * of(&one, Plain::To),
        "pinning by hand gains nothing"
    );
    let tree = predicted("100x1M f32");
    assert!(of(&tree, Plain::PinInThreads(8)) < 0.5 * of(&tree, Plain::To));
}

#[test]
fn one_tensor_is_pinned_by_threads_as_it_is_without_them() {
    for text in ["1x1000 f32", "1x1M f32", "1GiB"] {
        let times = predicted(text);
        let alone = of(&times, Plain::PinThenToNonBlocking);
        let by_threads = of(&times, Plain::PinInThreads(8));
        assert!(
            (by_threads / alone - 1.0).abs() < 1e-12,
            "{text}: {by_threads} and {alone}"
        );
    }
}

#[test]
fn pinning_by_torch_is_foreseen_as_an_h200_has_measured_it() {
    // `torch_pin_memory` of bench/results/h200.json, in bytes per second. Two H200s were a third apart in the first.
    for (text, bytes, measured) in [
        ("100x1M f32", 400e6, 33.4e9),
        ("1GiB", 1073741824.0, 22.3e9),
        ("16MiB", 16777216.0, 21.3e9),
    ] {
        let rate = bytes / of(&predicted(text), Plain::PinThenToNonBlocking);
        assert!(
            (0.75..1.35).contains(&(rate / measured)),
            "{text}: {rate:.3e} beside {measured:.3e}"
        );
    }
}

#[test]
fn filling_and_the_link_go_on_beside_each_other_but_for_the_last_copy() {
    let times = predicted("100x1M f32");
    let profile = profiles::named("h200").unwrap().profile;
    let fill = 4e8 / profile.staged_bytes_per_second;
    let ramp = profile.ramp(Direction::ToDevice, 400_000_000);
    let expected = fill + 4e6 / profile.link_bytes_per_second + (ramp + profile.short_copy).as_secs_f64();
    assert!((of(&times, Plain::PinInThreads(8)) / expected - 1.0).abs() < 1e-12);
}

#[test]
fn rates_and_latencies_add_up_as_the_table_says() {
    let times = predicted("1000x1000 f32");
    let profile = profiles::named("h200").unwrap().profile;
    let expected = 1000.0 * profile.short_copy.as_secs_f64() + 4e6 / profile.small_plain_bytes_per_second;
    assert!((of(&times, Plain::To) / expected - 1.0).abs() < 1e-12);
    let calls = 999.0 * profile.copy_call.as_secs_f64() + profile.short_copy.as_secs_f64();
    assert!((of(&times, Plain::PinnedToNonBlocking) / calls - 1.0).abs() < 1e-12);
    let long = predicted("2x64MiB");
    let expected =
        2.0 * profile.short_copy.as_secs_f64() + 128.0 * 1048576.0 / profile.plain_bytes_per_second;
    assert!((of(&long, Plain::To) / expected - 1.0).abs() < 1e-12);
}

#[test]
fn the_guide_has_no_way_for_strided_memory_and_reads_files_first() {
    let of = |text: &str| Plain::of(&Description::parse(text).unwrap(), 8);
    assert_eq!(of("1MiB strided"), []);
    assert_eq!(of("1MiB file"), [Plain::ReadThenPin]);
    let (file, pageable) = (predicted("100x1M f32 file"), predicted("100x1M f32"));
    assert!(file[0].1 > self::of(&pageable, Plain::PinThenToNonBlocking));
}

#[test]
fn tensors_without_bytes_take_no_time_and_have_no_rate() {
    let profile = profiles::named("h200").unwrap();
    let ways = |text: &str| -> Vec<Way> {
        let description = Description::parse(text).unwrap();
        let ways = Plain::of(&description, profile.cores).into_iter();
        ways.map(|way| way.predict(&description, &profile.profile, profile.cores))
            .collect()
    };
    for text in [
        "100x0 f32",
        "2x0 f32 pinned",
        "1x0 f32 to host",
        "3x0 f32 pinned to host",
        "0B file",
    ] {
        for way in ways(text) {
            assert_eq!(way.predicted_seconds, 0.0, "{text}: {way:?}");
            assert!(!way.at_least && !way.reason.contains("/s"), "{text}: {way:?}");
        }
    }
    // Among others they are no calls and no waits either.
    for (text, alone) in [
        ("10x1000 f32 + 100x0 f32", "10x1000 f32"),
        ("100x0 f32 + 3x1M f32 pinned to host", "3x1M f32 pinned to host"),
    ] {
        for (way, alone) in ways(text).into_iter().zip(ways(alone)) {
            assert_eq!(way.predicted_seconds, alone.predicted_seconds, "{text}: {way:?}");
            assert_eq!(
                way.reason,
                format!("{}; 100 without bytes take no copy", alone.reason)
            );
        }
    }
}
