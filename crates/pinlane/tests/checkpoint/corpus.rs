//! Files that break a rule each, and the fault that is found in each.
//!
//! The table below makes them. They are kept in `corpus/` too, as a start for `cargo xtask fuzz` and for other readers of the
//! format; with `PINLANE_WRITE_CORPUS` set, the test writes them there.

use std::{collections::BTreeSet, env, fs, path::Path};

use pinlane::{
    DType, Error,
    checkpoint::{Checkpoint, CheckpointError, Header, HeaderFault, ShardIndex},
};

use crate::file;

fn a() -> String {
    "a".to_owned()
}

/// A file with one tensor `a` of these fields, and so many bytes of data.
fn one(fields: &str, data_bytes: usize) -> Vec<u8> {
    file(format!(r#"{{"a":{{{fields}}}}}"#).as_bytes(), data_bytes)
}

fn two(a: &str, b: &str, data_bytes: usize) -> Vec<u8> {
    file(
        format!(r#"{{"a":{{"dtype":"U8",{a}}},"b":{{"dtype":"U8",{b}}}}}"#).as_bytes(),
        data_bytes,
    )
}

/// A fault of the JSON itself. Where the parser noticed is checked, its words are not.
fn json(offset: u64) -> HeaderFault {
    HeaderFault::Json {
        tensor: None,
        offset,
        reason: String::new(),
    }
}

fn json_of_a(offset: u64) -> HeaderFault {
    HeaderFault::Json {
        tensor: Some(a()),
        offset,
        reason: String::new(),
    }
}

#[rustfmt::skip]
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>, HeaderFault)> {
    use HeaderFault as F;
    let whole = one(r#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#, 4);
    let too_large = |dtype, shape: &[usize]| F::TooLarge { tensor: a(), dtype, shape: shape.to_vec() };
    vec![
        ("empty", vec![], F::NoLength { file_bytes: 0 }),
        ("shorter-than-a-length", vec![2, 0, 0, 0, 0, 0, 0], F::NoLength { file_bytes: 7 }),
        ("length-beyond-the-end", vec![9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], F::CutOff { length: 9, file_bytes: 10 }),
        ("length-beyond-the-limit", [&100_000_001_u64.to_le_bytes()[..], b"{}"].concat(), F::TooLong { length: 100_000_001 }),
        ("length-beyond-everything", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), F::TooLong { length: u64::MAX }),
        ("no-header", file(b"", 0), F::NotAnObject { found: None }),
        ("an-array", file(b"[]", 0), F::NotAnObject { found: Some(b'[') }),
        ("space-before", file(b" {}", 0), F::NotAnObject { found: Some(b' ') }),
        ("byte-order-mark-before", file("\u{feff}{}".as_bytes(), 0), F::NotAnObject { found: Some(0xef) }),
        ("tab-after", file(b"{} \t ", 0), F::Padding { offset: 11, found: b'\t' }),
        ("newline-after", file(b"{}\n", 0), F::Padding { offset: 10, found: b'\n' }),
        ("nul-after", file(b"{}\0", 0), F::Padding { offset: 10, found: 0 }),
        ("two-objects", file(b"{}{}", 0), json(10)),
        ("brace-after", file(b"{} }", 0), json(11)),
        ("only-a-brace", file(b"{", 0), F::Padding { offset: 8, found: b'{' }),
        ("cut-off-in-the-json", file(br#"{"a":{}"#, 0), F::MissingField { tensor: a(), field: "dtype", offset: 14 }),
        ("no-utf-8-in-a-name", file(b"{\"\xff\":{}}", 0), json(10)),
        ("half-a-surrogate", file(br#"{"\ud800":{}}"#, 0), json(16)),
        ("comment", file(b"{/**/}", 0), json(9)),
        ("comma-at-the-end", one(r#""dtype":"U8","shape":[],"data_offsets":[0,1],"#, 1), json_of_a(59)),

        ("metadata-twice", file(br#"{"__metadata__":{},"__metadata__":{}}"#, 0), F::MetadataTwice { offset: 27 }),
        ("metadata-key-twice", file(br#"{"__metadata__":{"k":"1","k":"2"}}"#, 0), F::MetadataKeyTwice { key: "k".to_owned(), offset: 33 }),
        ("metadata-number", file(br#"{"__metadata__":{"k":1}}"#, 0), json(29)),
        ("metadata-nested", file(br#"{"__metadata__":{"k":{}}}"#, 0), json(29)),
        ("metadata-null", file(br#"{"__metadata__":null}"#, 0), json(24)),
        ("metadata-array", file(br#"{"__metadata__":[]}"#, 0), json(24)),

        ("tensor-twice", two(r#""shape":[1],"data_offsets":[0,1]"#, r#""shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[0],"data_offsets":[2,2]"#, 2),
            F::TensorTwice { tensor: a(), offset: 113 }),
        ("tensor-null", file(br#"{"a":null}"#, 0), json_of_a(13)),
        ("tensor-as-array", file(br#"{"a":["U8",[1],[0,1]]}"#, 1), json_of_a(13)),
        ("unknown-field", one(r#""dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]"#, 1), F::UnknownField { tensor: a(), field: "strides".to_owned(), offset: 60 }),
        ("field-twice", one(r#""dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]"#, 1), F::FieldTwice { tensor: a(), field: "shape", offset: 39 }),
        ("dtype-twice", one(r#""dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]"#, 1), F::FieldTwice { tensor: a(), field: "dtype", offset: 27 }),
        ("no-dtype", one(r#""shape":[1],"data_offsets":[0,1]"#, 1), F::MissingField { tensor: a(), field: "dtype", offset: 46 }),
        ("no-shape", one(r#""dtype":"U8","data_offsets":[0,1]"#, 1), F::MissingField { tensor: a(), field: "shape", offset: 47 }),
        ("no-offsets", one(r#""dtype":"U8","shape":[1]"#, 1), F::MissingField { tensor: a(), field: "data_offsets", offset: 38 }),
        ("unknown-dtype", one(r#""dtype":"F33","shape":[1],"data_offsets":[0,1]"#, 1), F::UnknownDType { tensor: a(), dtype: "F33".to_owned(), offset: 22 }),
        ("dtype-in-lower-case", one(r#""dtype":"u8","shape":[1],"data_offsets":[0,1]"#, 1), F::UnknownDType { tensor: a(), dtype: "u8".to_owned(), offset: 22 }),
        ("dtype-of-other-formats", one(r#""dtype":"C128","shape":[1],"data_offsets":[0,16]"#, 16), F::UnknownDType { tensor: a(), dtype: "C128".to_owned(), offset: 22 }),
        ("dtype-as-number", one(r#""dtype":8,"shape":[1],"data_offsets":[0,1]"#, 1), json_of_a(22)),
        ("negative-size", one(r#""dtype":"U8","shape":[-1],"data_offsets":[0,1]"#, 1), json_of_a(36)),
        ("broken-size", one(r#""dtype":"U8","shape":[1.0],"data_offsets":[0,1]"#, 1), json_of_a(37)),
        ("size-with-exponent", one(r#""dtype":"U8","shape":[1e0],"data_offsets":[0,1]"#, 1), json_of_a(37)),
        ("size-as-text", one(r#""dtype":"U8","shape":["1"],"data_offsets":[0,1]"#, 1), json_of_a(36)),
        ("size-beyond-64-bits", one(r#""dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]"#, 1), json_of_a(36)),
        ("shape-as-number", one(r#""dtype":"U8","shape":1,"data_offsets":[0,1]"#, 1), json_of_a(35)),
        ("one-offset", one(r#""dtype":"U8","shape":[1],"data_offsets":[0]"#, 1), json_of_a(56)),
        ("three-offsets", one(r#""dtype":"U8","shape":[1],"data_offsets":[0,1,2]"#, 1), json_of_a(58)),
        ("negative-offset", one(r#""dtype":"U8","shape":[1],"data_offsets":[-1,0]"#, 1), json_of_a(55)),

        ("too-many-elements", one(r#""dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]"#, 0), too_large(DType::U8, &[1 << 32, 1 << 32])),
        ("too-many-bytes", one(r#""dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]"#, 0), too_large(DType::F64, &[1 << 61])),
        ("too-many-elements-beside-a-zero", one(r#""dtype":"U8","shape":[0,9223372036854775808,4],"data_offsets":[0,0]"#, 0), too_large(DType::U8, &[0, 1 << 63, 4])),
        ("part-of-a-byte", one(r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#, 2), F::PartialByte { tensor: a(), dtype: DType::F4, shape: vec![3] }),
        ("part-of-a-byte-of-six-bits", one(r#""dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]"#, 2), F::PartialByte { tensor: a(), dtype: DType::F6E2M3, shape: vec![2] }),
        ("offsets-backwards", one(r#""dtype":"U8","shape":[1],"data_offsets":[1,0]"#, 1), F::Backwards { tensor: a(), start: 1, end: 0 }),
        ("smaller-than-its-data", one(r#""dtype":"U16","shape":[2],"data_offsets":[0,5]"#, 5), F::WrongSize { tensor: a(), dtype: DType::U16, shape: vec![2], bytes: 4, start: 0, end: 5 }),
        ("larger-than-its-data", one(r#""dtype":"U16","shape":[2],"data_offsets":[0,3]"#, 3), F::WrongSize { tensor: a(), dtype: DType::U16, shape: vec![2], bytes: 4, start: 0, end: 3 }),
        ("data-of-an-empty-tensor", one(r#""dtype":"U8","shape":[0],"data_offsets":[0,1]"#, 1), F::WrongSize { tensor: a(), dtype: DType::U8, shape: vec![0], bytes: 0, start: 0, end: 1 }),

        ("hole-at-the-start", one(r#""dtype":"U8","shape":[1],"data_offsets":[1,2]"#, 2), F::Hole { tensor: a(), from: 0, start: 1 }),
        ("hole-between", two(r#""shape":[1],"data_offsets":[2,3]"#, r#""shape":[1],"data_offsets":[0,1]"#, 3), F::Hole { tensor: a(), from: 1, start: 2 }),
        ("hole-before-an-empty-tensor", one(r#""dtype":"U8","shape":[0],"data_offsets":[1,1]"#, 1), F::Hole { tensor: a(), from: 0, start: 1 }),
        ("overlap", two(r#""shape":[2],"data_offsets":[0,2]"#, r#""shape":[2],"data_offsets":[1,3]"#, 3), F::Overlap { tensor: "b".to_owned(), other: a(), start: 1, end: 2 }),
        ("the-same-bytes", two(r#""shape":[2],"data_offsets":[0,2]"#, r#""shape":[2],"data_offsets":[0,2]"#, 2), F::Overlap { tensor: "b".to_owned(), other: a(), start: 0, end: 2 }),
        ("empty-tensor-inside-another", two(r#""shape":[2],"data_offsets":[0,2]"#, r#""shape":[0],"data_offsets":[1,1]"#, 2), F::Overlap { tensor: "b".to_owned(), other: a(), start: 1, end: 2 }),
        ("cut-off-in-the-data", whole[..whole.len() - 1].to_vec(), F::Truncated { tensor: a(), end: 4, data_bytes: 3 }),
        ("more-than-the-data", [&whole[..], b"x"].concat(), F::Trailing { end: 4, data_bytes: 5 }),
        ("no-tensors-and-data", file(b"{}", 1), F::Trailing { end: 0, data_bytes: 1 }),
    ]
}

/// The fault without the parser's words.
fn without_words(mut fault: HeaderFault) -> HeaderFault {
    if let HeaderFault::Json { reason, .. } = &mut fault {
        assert!(!reason.is_empty());
        reason.clear();
    }
    fault
}

#[test]
fn every_broken_rule_is_found_and_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint/corpus");
    let writes = env::var_os("PINLANE_WRITE_CORPUS").is_some();
    let mut kept = BTreeSet::new();
    for (name, bytes, expected) in files() {
        let path = folder.join(format!("{name}.safetensors"));
        if writes {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            fs::read(&path).ok().as_ref(),
            Some(&bytes),
            "{name} is kept as it is made here"
        );
        kept.insert(path.clone());

        let fault = Header::of_bytes(&bytes).expect_err(name);
        assert_eq!(without_words(fault.clone()), expected, "{name}");
        let refused = Checkpoint::open(&path).expect_err(name);
        let said = refused.to_string();
        assert!(
            said.contains(&format!("{name}.safetensors")) && said.contains(&fault.to_string()),
            "{said}"
        );
        let Error::Checkpoint(refused) = refused else {
            panic!("{name}: {refused}");
        };
        assert!(
            matches!(&*refused, CheckpointError::Header { path: found, fault: again } if *found == path && *again == fault),
            "{name}: {refused}"
        );
    }
    let there = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(
        there.collect::<BTreeSet<_>>(),
        kept,
        "the corpus has these files and no others"
    );
}

#[test]
fn what_the_format_allows_is_read() {
    let header = |json: &str, data_bytes| Header::of_bytes(&file(json.as_bytes(), data_bytes)).expect(json);
    assert!(header("{}", 0).tensors().is_empty());
    assert_eq!(header("{}      ", 0).data_start(), 16);
    assert!(header(r#"{"__metadata__":{}}"#, 0).metadata().unwrap().is_empty());
    let metadata = header(r#"{"__metadata__":{"b":"1","a":"\u00e9\n"}}"#, 0);
    let texts: Vec<_> = metadata
        .metadata()
        .unwrap()
        .iter()
        .map(|(key, text)| (&**key, &**text))
        .collect();
    assert_eq!(texts, [("b", "1"), ("a", "é\n")]);

    // White space within the object, fields in any order, no name at all, names that need escapes.
    let odd = header(
        "{\n\t\"\" : { \"data_offsets\" : [ 0 , 1 ] , \"shape\" : [] , \"dtype\" : \"BOOL\" } ,\r\n \"\\u0061\\\"\":{\"dtype\":\"F4\",\"shape\":[2,0],\"data_offsets\":[1,1]} }",
        1,
    );
    assert_eq!(odd.tensors().keys().collect::<Vec<_>>(), ["", "a\""]);
    assert_eq!(odd.tensors()[""].bytes(), 1);

    // The order of the data, not that of the text; tensors without elements on the borders.
    let order = header(
        r#"{"c":{"dtype":"U8","shape":[0],"data_offsets":[5,5]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},
            "z":{"dtype":"U8","shape":[0,3],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}}"#,
        5,
    );
    assert_eq!(order.tensors().keys().collect::<Vec<_>>(), ["z", "a", "b", "c"]);
}

#[test]
fn an_index_that_leaves_the_folder_or_contradicts_itself_is_refused() {
    for name in [
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "/a",
        "a/b",
        "./a",
        "a/",
        "a\\\\b",
        "..\\\\a",
        "a\\u0000b",
        "/etc/passwd",
    ] {
        let json = format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#);
        let fault = ShardIndex::parse(json.as_bytes()).expect_err(name).to_string();
        assert!(
            fault.contains("tensor \"w\"") && fault.contains("beside its index"),
            "{fault}"
        );
    }
    for (json, part) in [
        ("", "near byte 0: "),
        ("{}", "no `weight_map`"),
        ("[]", "near byte "),
        (
            r#"{"weight_map":{"a":"x"},"weight_map":{}}"#,
            "\"weight_map\" comes twice",
        ),
        (r#"{"weight_map":{"a":"x","a":"y"}}"#, "tensor \"a\" comes twice"),
        (r#"{"weight_map":{"a":1}}"#, "near byte 19: "),
        ("{\"weight_map\":\n{}} x", "near byte 19: "),
    ] {
        let fault = ShardIndex::parse(json.as_bytes()).expect_err(json).to_string();
        assert!(fault.contains(part), "{json}: {fault}");
    }
    let index = ShardIndex::parse(
        br#"{"metadata":{"total_size":3.5,"other":[null]},"weight_map":{"a":"..b","c":"x y"}}"#,
    )
    .unwrap();
    assert_eq!(index.files().values().collect::<Vec<_>>(), ["..b", "x y"]);
}

#[test]
fn a_file_of_another_format_is_called_what_it_is() {
    for (begin, called) in [
        (
            &b"PK\x03\x04\0\0\x08\x08"[..],
            "a zip archive, as torch.save writes",
        ),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive, as torch.save writes"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF", "a pickle"),
        (b"\x80\x04\x95\x05\0\0\0\0", "a pickle"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"version https://git-lfs", "a pointer of Git LFS"),
        (b"root:x:0:0:root", "text"),
        (b"{\n  \"a\": 1", "text"),
    ] {
        let said = Header::of_bytes(&[begin, &[0; 40]].concat())
            .unwrap_err()
            .to_string();
        assert!(said.contains(called), "{called:?} is not in {said}");
    }
    let plain = Header::of_bytes(&[&999_u64.to_le_bytes()[..], b"{}"].concat()).unwrap_err();
    assert!(!plain.to_string().contains("no safetensors file"), "{plain}");
}
