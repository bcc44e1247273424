//! Descriptions that are read, and those that are refused.

use pinlane::HostEnd;
use proptest::{prelude::*, sample::select};

use super::*;

#[test]
fn descriptions_mean_what_they_say() {
    for (text, count, bytes, memory, direction) in [
        (
            "100x1M f32 pageable",
            100,
            400_000_000,
            HostEnd::Pageable,
            Direction::ToDevice,
        ),
        (
            "1000x1000 f32 pinned to host",
            1000,
            4_000_000,
            HostEnd::Pinned,
            Direction::ToHost,
        ),
        ("64MiB", 1, 64 << 20, HostEnd::Pageable, Direction::ToDevice),
        ("3x4KB file", 3, 12_000, HostEnd::File, Direction::ToDevice),
        (
            "2x4KiB bf16 strided to device",
            2,
            8192,
            HostEnd::Strided,
            Direction::ToDevice,
        ),
        (
            "10k F8_E4M3+2x7B",
            3,
            10_014,
            HostEnd::Pageable,
            Direction::ToDevice,
        ),
        (
            "100 x 1M f32",
            100,
            400_000_000,
            HostEnd::Pageable,
            Direction::ToDevice,
        ),
        (
            "100x 1M f32 pinned",
            100,
            400_000_000,
            HostEnd::Pinned,
            Direction::ToDevice,
        ),
        (
            "100 x1M f32 + 2 X 4KiB",
            102,
            400_008_192,
            HostEnd::Pageable,
            Direction::ToDevice,
        ),
        ("3X4KB", 3, 12_000, HostEnd::Pageable, Direction::ToDevice),
        ("3\u{d7}4KB", 3, 12_000, HostEnd::Pageable, Direction::ToDevice),
        (
            "3*4 float32 PINNED to cpu",
            3,
            48,
            HostEnd::Pinned,
            Direction::ToHost,
        ),
        ("8 bfloat16", 1, 16, HostEnd::Pageable, Direction::ToDevice),
        ("  1x0 f32  ", 1, 0, HostEnd::Pageable, Direction::ToDevice),
    ] {
        let found = parse(text).unwrap();
        assert_eq!((found.count(), found.bytes()), (count, bytes), "{text}");
        assert_eq!((found.memory(), found.direction()), (memory, direction), "{text}");
    }
}

#[test]
fn what_is_wrong_is_pointed_at() {
    for (text, part) in [
        ("", ""),
        ("100x1M", ""),
        ("100x1M pageable", "pageable"),
        ("100x1M f33 pageable", "f33"),
        ("0x1M f32", "0"),
        ("manyx1M f32", "many"),
        ("100xM f32", "M"),
        ("100x1Q f32", "1Q"),
        ("100x1MiBs", "1MiBs"),
        ("100x64MiBé", "64MiBé"),
        ("3B f32", "3B"),
        ("3 f4", "3"),
        ("1M f32 paged", "paged"),
        ("1M f32 pinned pinned", "pinned"),
        ("1M f32 to", ""),
        ("1M f32 to gpu", "gpu"),
        ("1M f32 file to host", "file"),
        ("1M f32 +", ""),
        ("100 x", ""),
        ("1.5M f32", "1.5M"),
        ("many x 1M f32", "many"),
        ("1MiB to host pinned", "pinned"),
        ("99999999999999999999 f32", "99999999999999999999"),
        ("9999999T f32", "9999999T"),
        ("4000000000x4TiB", "4000000000x4TiB"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(&text[error.part()], part, "{text:?}: {error}");
        assert!(error.to_string().ends_with('^'), "{error}");
    }
}

#[test]
fn an_error_says_what_to_write_instead() {
    for (text, said) in [
        (
            "1MiB to host pinned",
            "the memory comes before the direction: write `pinned to host`",
        ),
        ("1MiB to device file", "write `file to device`"),
        ("1.5M f32", "whole numbers"),
        ("100 x", "the size of 100 tensors is missing"),
        ("3 f4", "no whole number of bytes"),
        ("4000000000x4TiB", "more bytes than can be counted; give fewer"),
        ("1M f32 file to host", "or have it go to the device"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn an_error_shows_the_description_with_a_mark_below_the_part() {
    let error = parse("100x1M f33 pageable").unwrap_err().to_string();
    assert!(
        error.ends_with("\n  100x1M f33 pageable\n         ^^^"),
        "{error}"
    );
}

fn size() -> impl Strategy<Value = Size> {
    let elements = (0_u64..1 << 40, select(DType::ALL.to_vec())).prop_map(|(count, dtype)| Size::Elements {
        count: count / 8 * 8,
        dtype,
    });
    let round = (0_u32..4, 1_u64..2000, select(DType::ALL.to_vec())).prop_map(|(power, number, dtype)| {
        Size::Elements {
            count: number * 8 * 1000_u64.pow(power),
            dtype,
        }
    });
    let bytes = prop_oneof![
        0_u64..1 << 40,
        (0_u32..40, 1_u64..16).prop_map(|(power, number)| number << power)
    ];
    prop_oneof![elements, round, bytes.prop_map(Size::Bytes)]
}

proptest! {
    #[test]
    fn what_a_description_prints_is_read_back_as_the_same(
        groups in prop::collection::vec((1_usize..5000, size()), 1..6),
        memory in select(MEMORY.to_vec()),
        to_host: bool,
    ) {
        let groups: Vec<Group> = groups.into_iter().filter_map(|(count, size)| Group::new(count, size).ok()).collect();
        let direction = if to_host { Direction::ToHost } else { Direction::ToDevice };
        if let Ok(description) = Description::new(groups, memory.1, direction) {
            prop_assert_eq!(parse(&description.to_string()), Ok(description));
        }
    }

    #[test]
    fn no_text_is_too_odd_to_be_read_or_refused(text in ".{0,40}") {
        if let Err(error) = parse(&text) {
            prop_assert!(text.get(error.part()).is_some());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
