//! Tiny grids on the simulated device: every way runs, is timed and checked, and the document is whole.

use pinlane_bench::{
    cell::{Direction, Memory},
    document::Document,
    run::{AxesOptions, Bench, Observer, Options},
};
use pinlane_guide::device::Accelerator;

struct Silent;

impl Observer for Silent {
    fn started(&self, _id: &str, done: usize, all: usize) {
        assert!(done <= all);
    }
}

fn run(options: Options) -> Document {
    let accelerator = Accelerator::open(Some("sim:0")).unwrap();
    Bench::new(accelerator, options).unwrap().run(&Silent).unwrap()
}

fn tiny() -> Options {
    Options {
        quick: true,
        only: vec!["grid".to_owned()],
        axes: AxesOptions {
            sizes: vec![4, 1001, 30_000],
            counts: vec![1, 7],
            ..AxesOptions::default()
        },
        commit: Some("abc".to_owned()),
        ..Options::default()
    }
}

#[test]
fn every_cell_has_pinlane_the_plain_way_and_a_route_and_every_byte_landed() {
    let document = run(tiny());
    assert_eq!(document.failures, []);
    // Three sizes; one tensor is never mixed.
    assert_eq!(document.cells.len(), 2 * 3 * (2 + 3));
    for cell in &document.cells {
        assert!(
            cell.way("pinlane").is_some_and(|way| way.runs >= 3),
            "{}",
            cell.id
        );
        assert!(cell.way("plain").is_some_and(|way| way.runs >= 1), "{}", cell.id);
        let is_timed_or_chosen =
            |route: &str| cell.way(route).is_some() || cell.same.iter().any(|same| same == route);
        assert!(is_timed_or_chosen("route-plain"), "{}", cell.id);
        assert!(
            cell.same.iter().all(|same| cell.way(same).is_none()),
            "{}",
            cell.id
        );
        assert!(
            cell.ways.iter().all(|way| way.fastest <= way.seconds),
            "{}",
            cell.id
        );
        assert!(cell.regret().is_some_and(|regret| regret >= 1.0), "{}", cell.id);
        assert!(
            !cell.route.is_empty() && cell.reason.contains("tensor"),
            "{}",
            cell.reason
        );
        let direct = is_timed_or_chosen("route-direct");
        assert_eq!(direct, cell.cell.memory == Memory::Pinned, "{}", cell.id);
    }
}

#[test]
fn what_follows_from_the_whole_grid_does_not_follow_from_a_part_of_it() {
    let document = run(tiny());
    for id in ["never-slower", "regret"] {
        let figure = document.figures.iter().find(|figure| figure.id == id).unwrap();
        // Of the three sizes, only 4 bytes are one of the whole grid, and so is only one of the counts.
        assert!(figure.detail.ends_with("cells were not measured"), "{figure:?}");
    }
}

#[test]
fn the_document_comes_back_from_json_as_it_went() {
    let document = run(tiny());
    let json = serde_json::to_value(&document).unwrap();
    for key in [
        "schema",
        "machine",
        "date",
        "commit",
        "simulated",
        "link",
        "cells",
        "figures",
    ] {
        assert!(!json[key].is_null(), "{key}");
    }
    assert_eq!(json["simulated"], true);
    assert_eq!(json["cells"][0]["direction"], "h2d");
    assert_eq!(json["figures"][0]["id"], "never-slower");
    for key in ["id", "value", "unit", "limit", "peers", "asked", "holds"] {
        assert!(json["figures"][0].get(key).is_some(), "{key}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.json");
    std::fs::write(&path, serde_json::to_vec(&document).unwrap()).unwrap();
    assert_eq!(Document::read(&path).unwrap(), document);
    std::fs::write(&path, serde_json::to_vec(&document.without_cells()).unwrap()).unwrap();
    let figures = Document::read(&path).unwrap();
    assert!(figures.cells.is_empty());
    assert_eq!(figures.figures, document.figures);
    assert_eq!(figures.foreseen.len(), document.cells.len());
    for (foreseen, cell) in figures.foreseen.iter().zip(&document.cells) {
        assert_eq!(Some(foreseen), cell.foreseen().as_ref());
    }
    assert_eq!(figures.without_cells(), figures);
}

#[test]
fn a_grid_whose_time_is_up_says_how_many_cells_were_not_measured() {
    let document = run(Options {
        grid_time: Some(std::time::Duration::ZERO),
        ..tiny()
    });
    assert!(document.cells.is_empty() && document.figures.is_empty());
    assert_eq!(document.cells_left, 2 * 3 * (2 + 3));
    assert!(document.is_sound());
}

#[test]
fn only_what_was_asked_for_is_in_the_grid() {
    let document = run(Options {
        axes: AxesOptions {
            directions: vec![Direction::D2h],
            memory: vec![Memory::Pageable],
            ..tiny().axes
        },
        ..tiny()
    });
    assert_eq!(document.cells.len(), 6);
    assert!(
        document
            .cells
            .iter()
            .all(|cell| cell.id.starts_with("d2h-pageable"))
    );
}

#[test]
fn every_figure_is_measured_on_a_simulated_device_and_says_that_it_is_one() {
    let document = run(Options {
        only: vec!["figures".to_owned()],
        ..tiny()
    });
    assert_eq!(document.failures, []);
    let alone = pinlane_bench::figures::ALL
        .iter()
        .filter(|spec| !spec.needs_grid());
    let expected: Vec<_> = alone.map(|spec| spec.id).collect();
    let measured: Vec<_> = document.figures.iter().map(|figure| figure.id.as_str()).collect();
    assert_eq!(measured, expected);
    assert!(document.simulated);
    for figure in &document.figures {
        assert!(figure.value.is_finite() && figure.value > 0.0, "{}", figure.id);
        assert!(!figure.asked.is_empty(), "{}", figure.id);
    }
    // Whose work was made smaller for it says so, and no other.
    let is_smaller = |id| {
        let figure = document.figures.iter().find(|figure| figure.id == id);
        figure.unwrap().scale_note().is_some()
    };
    assert!(is_smaller("h2d-pageable-1gib") && is_smaller("pinned-peak"));
    assert!(!is_smaller("h2d-small-1000") && !is_smaller("d2h-small-1000"));
}

#[test]
fn a_route_that_does_what_the_choice_does_is_not_timed_against_it() {
    let document = run(Options {
        axes: AxesOptions {
            directions: vec![Direction::H2d],
            memory: vec![Memory::Pageable],
            sizes: vec![1000],
            counts: vec![50],
            ..AxesOptions::default()
        },
        ..tiny()
    });
    let [cell] = document.cells.as_slice() else {
        panic!("one cell was asked for")
    };
    assert_eq!(cell.route, "packed");
    assert_eq!(cell.same, ["route-packed"]);
    assert!(cell.way("route-packed").is_none() && cell.way("route-staged").is_some());
}
