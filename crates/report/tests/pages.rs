//! The pages hold what their documents hold, in tables too, and nothing that a network would have to give.

use std::collections::BTreeSet;

use pinlane_bench::{
    cell::{Cell, Direction, Memory},
    document::{Document, SCHEMA},
    figures::{Figure, Unit},
    grid::CellReport,
    link::LinkLimit,
    machine::Machine,
    rounds::Timing,
};
use serde_json::{Value, json};

fn cell(bytes: usize, ways: &[(&str, f64)]) -> CellReport {
    let cell = Cell {
        direction: Direction::H2d,
        memory: Memory::Pageable,
        bytes,
        count: 1,
    };
    let ways: Vec<_> = ways
        .iter()
        .map(|(way, seconds)| Timing {
            way: (*way).to_owned(),
            seconds: *seconds,
            fastest: *seconds,
            runs: 3,
        })
        .collect();
    CellReport {
        id: cell.to_string(),
        cell,
        route: "staged".to_owned(),
        reason: String::new(),
        predicted: Some(0.001_25 * bytes as f64),
        repeated: ways.first().cloned(),
        ways,
        same: Vec::new(),
    }
}

fn bench(simulated: bool) -> Document {
    let ways = |factor: f64| {
        [
            ("pinlane", 0.001_5 * factor),
            ("route-staged", 0.001_7 * factor),
            ("plain", 0.004_3 * factor),
        ]
    };
    Document {
        schema: SCHEMA,
        pinlane: "0.1.0".to_owned(),
        machine: Machine {
            device: "A device & <more>".to_owned(),
            device_memory: 1 << 30,
            copy_engines: 2,
            link: "a link".to_owned(),
            processor: None,
            cores: 2,
            kernel: None,
            driver: None,
        },
        profile: "assumed".to_owned(),
        simulated,
        quick: false,
        date: "2026-01-02T03:04:05Z".to_owned(),
        commit: None,
        link: LinkLimit {
            h2d: 55.5,
            d2h: 54.4,
            both: 99.9,
            copy_bytes: 1 << 20,
        },
        cells: [4_usize, 64, 1024, 16384]
            .map(|bytes| cell(bytes, &ways(bytes as f64)))
            .to_vec(),
        foreseen: Vec::new(),
        cells_left: 3,
        figures: vec![Figure {
            id: "h2d-pageable-1gib".to_owned(),
            value: 47.25,
            unit: Unit::GigabytesPerSecond,
            limit: Some(55.5),
            peers: [("torch_to".to_owned(), 9.125)].into(),
            asked: "at least 0.95 of the limit".to_owned(),
            holds: (!simulated).then_some(false),
            detail: String::new(),
        }],
        failures: Vec::new(),
    }
}

fn guide(simulated: bool, way: &str) -> Value {
    let time = |way: &str, owner: &str, seconds: f64, predicted: Option<f64>| {
        json!({
            "group": "1 Mi floats", "way": way, "owner": owner, "landed": "right", "verified": true,
            "median_seconds": seconds, "iqr_seconds": 0.0, "first_quartile_seconds": seconds * 0.9,
            "third_quartile_seconds": seconds * 1.25, "measurements": 17, "runs_per_measurement": 3, "threads": 1,
            "predicted_seconds": predicted,
        })
    };
    json!({
        "pinlane": "0.1.0",
        "device": { "id": "cuda:0", "name": "A device", "simulated": simulated, "memory_bytes": 1u64 << 34, "copy_engines": 3,
                    "link": "PCIe", "link_bytes_per_second": 63e9, "numa_node": null },
        "quick": false,
        "workload": "made-up tensors",
        "experiments": [
            { "id": "first", "claim": "A claim.", "shows": "What is done.", "seconds": 1.5,
              "ways": [time(way, "guide", 0.002_75, None), time("to(device)", "pinlane", 0.001_125, Some(0.000_9))],
              "tables": [{ "title": "a way", "operations": [
                  { "name": "copy", "self_seconds": 0.25, "total_seconds": 0.5, "calls": 4 }] }],
              "pictures": [], "timelines": [], "memory_curves": [], "notes": ["A remark."],
              "verdict": "holds", "reason": "2.44x", "error": null },
            { "id": "second", "claim": "Another.", "shows": "This.", "seconds": 0.5,
              "ways": [{ "group": "g", "way": "w", "owner": "guide", "landed": "right", "overlap": 0.75 }],
              "tables": [], "pictures": [],
              "timelines": [{ "title": "side stream", "bars": [
                  { "name": "task", "start_seconds": 0.001, "end_seconds": 0.004 },
                  { "name": "copy to", "start_seconds": 0.002, "end_seconds": 0.005 }] }],
              "memory_curves": [{ "way": "read it", "owner": "guide", "budget_bytes": 8_388_608, "points": [
                  { "seconds": 0.01, "bytes": 1_048_576 }, { "seconds": 0.02, "bytes": 9_437_184 }] }],
              "notes": [], "verdict": null, "reason": "it broke", "error": "it broke" },
        ],
        "claims": [],
    })
}

/// What tables show as numbers.
fn shown(page: &str) -> BTreeSet<String> {
    let parts = page.split("data-value=\"").skip(1);
    parts
        .filter_map(|part| Some(part.split_once('"')?.0.to_owned()))
        .collect()
}

fn assert_shows(page: &str, numbers: &[f64]) {
    let shown = shown(page);
    for number in numbers {
        assert!(
            shown.contains(&number.to_string()),
            "{number} is in no table: {shown:?}"
        );
    }
}

fn assert_stands_alone(page: &str) {
    let (before, rest) = page.split_once("<script type=\"application/json\"").unwrap();
    let (_, after) = rest.split_once("</script>").unwrap();
    for part in [before, after] {
        for forbidden in [
            "http:", "https:", "//cdn", "@import", "url(", " src=", "<iframe", "<object", "fetch(",
        ] {
            assert!(!part.contains(forbidden), "the page has {forbidden}");
        }
        for link in part.split("href=\"").skip(1) {
            assert!(
                link.starts_with('#') || link.starts_with("data:,"),
                "{}",
                &link[..30]
            );
        }
    }
}

fn assert_pictures_are_told_in_words_and_numbers(page: &str, at_least: usize) {
    let figures: Vec<_> = page.split("<figure").skip(1).collect();
    assert!(figures.len() >= at_least, "{} pictures", figures.len());
    for figure in figures {
        let figure = figure.split("</figure>").next().unwrap();
        let words = figure
            .split("<svg class=\"chart")
            .nth(1)
            .unwrap()
            .split("aria-label=\"")
            .nth(1)
            .unwrap();
        assert!(words.find('"').unwrap() > 20, "{figure}");
        assert!(figure.contains("<details>") && figure.contains("<td"), "{figure}");
    }
}

#[test]
fn a_page_of_a_benchmark_shows_every_number_of_its_figures_and_cells() {
    let document = bench(false);
    let page = pinlane_report::bench(&document).unwrap();
    assert_shows(&page, &[47.25, 55.5, 9.125]);
    for cell in &document.cells {
        assert_shows(&page, &[cell.cell.bytes as f64, cell.predicted.unwrap()]);
        assert_shows(
            &page,
            &cell.ways.iter().map(|way| way.seconds).collect::<Vec<_>>(),
        );
    }
    assert_stands_alone(&page);
    assert_pictures_are_told_in_words_and_numbers(&page, 3);
    assert!(page.contains("3 cells were not measured"));
}

#[test]
fn a_page_of_the_guide_shows_every_number_of_its_ways_and_curves() {
    let page = pinlane_report::guide(&guide(false, "to(device), pinned")).unwrap();
    assert_shows(
        &page,
        &[
            0.002_75,
            0.001_125,
            0.000_9,
            0.002_75 * 0.9,
            0.75,
            0.001,
            0.005,
            1_048_576.0,
            0.02,
            17.0,
            0.25,
        ],
    );
    assert_stands_alone(&page);
    assert_pictures_are_told_in_words_and_numbers(&page, 5);
    for expected in [
        "Predicted against measured time of 1 ways of pinlane: 0 are off by 10% or less of what was measured, 1 by 25% or less.",
        "A claim.",
        "2.44x",
        "it broke",
        "\u{2713}</span> holds",
        "failed",
        "A remark.",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
}

#[test]
fn a_document_of_the_guide_that_predicts_nothing_is_shown_without_predictions() {
    let mut document = guide(false, "way");
    for way in document["experiments"][0]["ways"].as_array_mut().unwrap() {
        way.as_object_mut().unwrap().remove("predicted_seconds").unwrap();
    }
    let page = pinlane_report::guide(&document).unwrap();
    assert!(page.contains("A claim.") && !page.contains("picture-foresight"));
}

#[test]
fn the_headline_is_pinlane_beside_the_fastest_of_the_guides_ways_in_any_experiment() {
    let mut document = guide(false, "to(device)");
    // The same work in another experiment, where a way of the guide's is faster, and one that moves nothing to the device.
    let mut faster = document["experiments"][0].clone();
    faster["id"] = json!("third");
    let ways = faster["ways"].as_array_mut().unwrap();
    ways[0]["way"] = json!("pinned.to(device)");
    ways[0]["median_seconds"] = json!(0.001_35);
    ways[1] = ways[0].clone();
    ways[1]["way"] = json!("pin_memory() alone");
    ways[1]["median_seconds"] = json!(0.000_1);
    let before = pinlane_report::guide(&document).unwrap();
    assert!(before.contains("2.44\u{d7}"), "the experiment's own");
    document["experiments"].as_array_mut().unwrap().push(faster);
    let page = pinlane_report::guide(&document).unwrap();
    assert!(page.contains("1.20\u{d7}"), "1.35 ms beside 1.125");
}

#[test]
fn the_host_is_in_the_guides_table_of_the_machine_where_the_document_has_it() {
    let mut document = guide(false, "way");
    assert!(!pinlane_report::guide(&document).unwrap().contains("6.8.0-some"));
    document["host"] =
        json!({ "processor": "Some Chip", "cores": 16, "kernel": "6.8.0-some", "driver": null });
    let page = pinlane_report::guide(&document).unwrap();
    let (_, table) = page.split_once("The machine").unwrap();
    for expected in ["Some Chip", "6.8.0-some", "not known"] {
        assert!(table.contains(expected), "{expected} is missing");
    }
}

#[test]
fn a_picture_of_less_work_than_its_title_says_tells_how_much_less() {
    let mut document = bench(true);
    assert!(!pinlane_report::bench(&document).unwrap().contains("1/1024"));
    document.figures[0].detail = "simulated device, 1/1024 of the size; another remark".to_owned();
    let page = pinlane_report::bench(&document).unwrap();
    let captions = page.split("<figcaption").skip(1);
    let of_figure = captions
        .map(|rest| rest.split("</figcaption>").next().unwrap())
        .find(|caption| caption.contains("1 GiB"));
    assert!(of_figure.unwrap().contains("1/1024 of the size"), "{of_figure:?}");
}

#[test]
fn a_simulated_device_is_named_so_at_the_top_in_every_part_and_on_every_picture() {
    for (simulated, page) in [
        (true, pinlane_report::guide(&guide(true, "way")).unwrap()),
        (true, pinlane_report::bench(&bench(true)).unwrap()),
        (false, pinlane_report::bench(&bench(false)).unwrap()),
    ] {
        let (head, _) = page.split_once("<main").unwrap();
        assert_eq!(head.contains(pinlane::SIMULATED), simulated);
        for section in page
            .split("<section")
            .skip(1)
            .filter(|section| section.contains("<figure"))
        {
            let intro = section.split("<figure").next().unwrap();
            assert_eq!(intro.contains(pinlane::SIMULATED), simulated);
        }
        for figure in page.split("<figure").skip(1) {
            let caption = figure.split("</figcaption>").next().unwrap();
            assert_eq!(caption.contains("simulated"), simulated, "{caption}");
        }
    }
}

#[test]
fn what_a_document_says_never_becomes_a_part_of_the_page() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'";
    let page = pinlane_report::guide(&guide(false, hostile)).unwrap();
    assert!(
        !page.contains("<script>alert") && !page.contains("<img"),
        "it is not escaped"
    );
    let (_, document) = page.split_once("id=\"document\">").unwrap();
    let (document, _) = document.split_once("</script>").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["experiments"][0]["ways"][0]["way"], hostile);
}

#[test]
fn a_result_without_cells_is_shown_with_what_was_predicted_of_them_and_says_so() {
    let whole = bench(false);
    let mut kept = whole.without_cells();
    let page = pinlane_report::bench(&kept).unwrap();
    assert!(page.contains("kept without the cells") && page.contains("but for what was predicted"));
    assert!(!page.contains("id=\"grid\"") && page.contains("id=\"foresight\""));
    assert_shows(&page, &[47.25]);
    for cell in &whole.cells {
        assert_shows(
            &page,
            &[
                cell.predicted.unwrap(),
                cell.repeated.as_ref().unwrap().seconds,
                cell.prediction_error().unwrap(),
            ],
        );
    }
    kept.foreseen.clear();
    let page = pinlane_report::bench(&kept).unwrap();
    assert!(page.contains("kept without the cells") && !page.contains("but for what was predicted"));
    assert!(!page.contains("id=\"foresight\""));
}

#[test]
fn a_document_of_another_shape_is_refused() {
    let error = pinlane_report::guide(&json!({ "pinlane": "0.1.0" })).unwrap_err();
    assert!(error.to_string().contains("measure again"), "{error}");
}
