//! Two results side by side, by made-up numbers.

use std::{collections::BTreeMap, fs, path::Path};

use pinlane_bench::{
    cell::{Cell, Direction, Memory},
    compare::Comparison,
    document::{Document, SCHEMA},
    figures::{Figure, Unit},
    grid::CellReport,
    link::LinkLimit,
    machine::Machine,
    rounds::Timing,
    table,
};

fn cell(bytes: usize, seconds: f64) -> CellReport {
    let cell = Cell {
        direction: Direction::D2h,
        memory: Memory::Mixed,
        bytes,
        count: 2,
    };
    CellReport {
        id: cell.to_string(),
        cell,
        route: "packed".to_owned(),
        predicted: None,
        reason: String::new(),
        ways: vec![Timing {
            way: "pinlane".to_owned(),
            seconds,
            fastest: seconds,
            runs: 3,
        }],
        repeated: None,
        same: Vec::new(),
    }
}

fn figure(id: &str, value: f64, unit: Unit) -> Figure {
    Figure {
        id: id.to_owned(),
        value,
        unit,
        limit: None,
        peers: BTreeMap::new(),
        asked: String::new(),
        holds: Some(true),
        detail: String::new(),
    }
}

fn document(cells: Vec<CellReport>, figures: Vec<Figure>) -> Document {
    Document {
        schema: SCHEMA,
        pinlane: "0".to_owned(),
        machine: Machine {
            device: "made up".to_owned(),
            device_memory: 0,
            copy_engines: 1,
            link: "none".to_owned(),
            processor: None,
            cores: 1,
            kernel: None,
            driver: None,
        },
        profile: "assumed".to_owned(),
        simulated: false,
        quick: false,
        date: String::new(),
        commit: None,
        link: LinkLimit {
            h2d: 1.0,
            d2h: 1.0,
            both: 2.0,
            copy_bytes: 1,
        },
        cells,
        foreseen: Vec::new(),
        cells_left: 0,
        figures,
        failures: Vec::new(),
    }
}

#[test]
fn what_got_slower_than_the_tolerance_is_found_and_noise_is_not() {
    let before = document(
        vec![cell(4, 1.0), cell(16, 1.0), cell(64, 1.0), cell(256, 1.0)],
        vec![
            figure("rate", 50.0, Unit::GigabytesPerSecond),
            figure("time", 0.2, Unit::Milliseconds),
        ],
    );
    let after = document(
        vec![cell(4, 1.09), cell(16, 1.2), cell(64, 0.5)],
        vec![
            figure("rate", 40.0, Unit::GigabytesPerSecond),
            figure("time", 0.1, Unit::Milliseconds),
        ],
    );
    let comparison = Comparison::of(&before, &after, 1.1);
    let ids = |changes: Vec<&pinlane_bench::compare::Change>| -> Vec<String> {
        changes.into_iter().map(|change| change.id.clone()).collect()
    };
    assert_eq!(ids(comparison.slower()), ["rate", "d2h-mixed-16B-x2"]);
    assert_eq!(ids(comparison.faster()), ["time", "d2h-mixed-64B-x2"]);
    assert_eq!(comparison.alone, 1);
    assert!(!comparison.is_sound());
    assert!(Comparison::of(&before, &before, 1.1).is_sound());
    let shown = table::comparison(&comparison);
    assert!(shown.contains("2 slower, 2 faster, 1 the same"), "{shown}");
}

#[test]
fn what_got_slower_on_a_simulated_device_is_told_and_is_no_failure() {
    let simulated = |seconds| Document {
        simulated: true,
        ..document(vec![cell(4, seconds)], Vec::new())
    };
    let comparison = Comparison::of(&simulated(1.0), &simulated(2.0), 1.1);
    assert!(comparison.is_sound());
    let shown = table::comparison(&comparison);
    assert!(
        shown.contains("1 slower") && shown.contains("simulated device"),
        "{shown}"
    );
}

#[test]
fn figures_of_hardware_are_judged_and_simulated_ones_are_not() {
    let figure = Figure {
        asked: "at least 60 GB/s".to_owned(),
        holds: Some(false),
        ..figure("rate", 50.0, Unit::GigabytesPerSecond)
    };
    let real = document(Vec::new(), vec![figure.clone()]);
    let shown = table::document(&real);
    assert!(
        shown.contains("0 of 1 figures hold") && shown.contains("at least 60 GB/s"),
        "{shown}"
    );
    let simulated = Document {
        simulated: true,
        figures: vec![Figure {
            holds: None,
            ..figure
        }],
        ..real
    };
    let shown = table::document(&simulated);
    assert!(
        shown.contains("not judged") && shown.contains("50.0 GB/s"),
        "{shown}"
    );
    assert!(
        !shown.contains("hold\n") && !shown.contains("at least 60"),
        "{shown}"
    );
}

fn written(folder: &Path, name: &str, document: &Document) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, serde_json::to_vec(document).unwrap()).unwrap();
    path
}

#[test]
fn results_that_have_nothing_to_say_of_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let real = written(
        folder.path(),
        "real.json",
        &document(vec![cell(4, 1.0)], Vec::new()),
    );
    let other = written(
        folder.path(),
        "other.json",
        &document(vec![cell(16, 1.0)], Vec::new()),
    );
    let simulated = Document {
        simulated: true,
        ..document(vec![cell(4, 1.0)], Vec::new())
    };
    let simulated = written(folder.path(), "simulated.json", &simulated);
    let newer = Document {
        schema: SCHEMA + 1,
        ..document(vec![cell(4, 1.0)], Vec::new())
    };
    let newer = written(folder.path(), "newer.json", &newer);
    for (after, expected) in [
        (&other, "in common"),
        (&simulated, "simulated"),
        (&newer, "schema"),
        (&folder.path().join("missing.json"), "missing.json"),
    ] {
        let error = Comparison::of_files(&real, after, 1.1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Comparison::of_files(&real, &real, 1.1).is_ok());
}
