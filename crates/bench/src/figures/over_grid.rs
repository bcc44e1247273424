//! What follows from the cells of the grid: the worst of them, and how well the planner foresees them.

use pinlane_guide::units;

use super::{
    Draft, Unit,
    judge::Asked::{Also, AtMost},
};
use crate::{
    grid::{CellReport, NOISE},
    rounds::median,
};

/// The most that the planner may be wrong by in the middle of the cells, and in one of twenty, in hundredths of what was measured.
const MEDIAN_ERROR: f64 = 10.0;
const LARGE_ERROR: f64 = 25.0;

pub(super) fn never_slower(cells: &[CellReport], planned: usize) -> Option<Draft> {
    worst(cells, planned, CellReport::against_plain)
}

pub(super) fn regret(cells: &[CellReport], planned: usize) -> Option<Draft> {
    worst(cells, planned, CellReport::regret)
}

/// The median error of the planner's predictions; the 95th percentile is told beside it and held to a bound of its own.
pub(super) fn predict_error(cells: &[CellReport], planned: usize) -> Option<Draft> {
    let mut errors: Vec<(f64, &CellReport)> = cells
        .iter()
        .filter_map(|cell| Some((100.0 * cell.prediction_error()?, cell)))
        .collect();
    errors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (worst, cell) = errors.last()?;
    let percents: Vec<f64> = errors.iter().map(|(error, _)| *error).collect();
    // The least error that 95 of 100 cells don't exceed.
    let large = percents[(percents.len() * 95).div_ceil(100) - 1];
    let mut detail = format!(
        "95th percentile {large:.1}%; worst cell {} {worst:.0}%; {} cells",
        cell.id,
        errors.len()
    );
    detail += &unmeasured(errors.len(), planned);
    Some(
        Draft::new(median(&percents), Unit::Percent)
            .asked([
                AtMost(MEDIAN_ERROR),
                Also("95th percentile at most 25%", large <= LARGE_ERROR),
                Also("every cell measured", errors.len() == planned),
            ])
            .detail(detail),
    )
}

/// What a remark ends with where some of the `planned` cells are missing.
fn unmeasured(measured: usize, planned: usize) -> String {
    match planned.saturating_sub(measured) {
        0 => String::new(),
        left => format!(
            "; {} not measured",
            units::counted(left as u64, "cell was", "cells were")
        ),
    }
}

fn worst(cells: &[CellReport], planned: usize, ratio: fn(&CellReport) -> Option<f64>) -> Option<Draft> {
    let ratios: Vec<(f64, &CellReport)> = cells
        .iter()
        .filter_map(|cell| Some((ratio(cell)?, cell)))
        .collect();
    let (worst, cell) = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let hold = ratios.iter().filter(|(ratio, _)| *ratio <= NOISE).count();
    let mut detail = format!("worst cell {}; {hold} of {} cells hold", cell.id, ratios.len());
    detail += &unmeasured(ratios.len(), planned);
    Some(
        Draft::new(*worst, Unit::Times)
            .asked([
                AtMost(NOISE),
                Also("every cell measured", ratios.len() == planned),
            ])
            .detail(detail),
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        cell::{Cell, Direction, Memory},
        rounds::Timing,
    };

    use super::*;

    fn cell(bytes: usize, ways: &[(&str, f64)]) -> CellReport {
        let cell = Cell {
            direction: Direction::H2d,
            memory: Memory::Pageable,
            bytes,
            count: 1,
        };
        let ways = ways.iter().map(|(way, seconds)| Timing {
            way: (*way).to_owned(),
            seconds: *seconds,
            fastest: *seconds,
            runs: 3,
        });
        CellReport {
            id: cell.to_string(),
            cell,
            route: "plain".to_owned(),
            reason: String::new(),
            predicted: None,
            ways: ways.collect(),
            repeated: None,
            same: Vec::new(),
        }
    }

    #[test]
    fn the_worst_cell_is_named_and_those_that_hold_are_counted() {
        let cells = [
            cell(4, &[("pinlane", 1.04), ("route-plain", 1.0), ("plain", 1.0)]),
            cell(16, &[("pinlane", 1.5), ("route-direct", 1.0), ("plain", 1.25)]),
            cell(64, &[("pinlane", 1.0), ("route-plain", 2.0), ("plain", 3.0)]),
        ];
        let slower = never_slower(&cells, 5).unwrap().judge("never-slower");
        assert_eq!((slower.value, slower.holds), (1.2, Some(false)));
        assert_eq!(
            slower.detail,
            "worst cell h2d-pageable-16B-x1; 2 of 3 cells hold; 2 cells were not measured"
        );
        let regret = regret(&cells, 3).unwrap().judge("regret");
        assert_eq!((regret.value, regret.holds), (1.5, Some(false)));
        assert!(regret.detail.ends_with("2 of 3 cells hold"));
    }

    #[test]
    fn the_error_of_predictions_is_the_median_with_a_bound_on_the_largest_too() {
        let predicted = |bytes, predicted| {
            let report = cell(bytes, &[("pinlane", 1.0)]);
            CellReport {
                predicted: Some(predicted),
                repeated: report.ways.first().cloned(),
                ..report
            }
        };
        let mut cells: Vec<_> = (1..=19).map(|bytes| predicted(bytes, 1.08)).collect();
        cells.push(predicted(20, 0.2));
        let figure = predict_error(&cells, 20).unwrap().judge("predict-error");
        assert!((figure.value - 8.0).abs() < 1e-9, "{figure:?}");
        assert_eq!(figure.holds, Some(true), "one of twenty may be further off");
        assert!(
            figure.detail.contains("worst cell h2d-pageable-20B-x1 80%"),
            "{figure:?}"
        );
        let part = predict_error(&cells, 21).unwrap().judge("predict-error");
        assert_eq!(
            part.holds,
            Some(false),
            "a part of the grid does not hold for all of it"
        );
        assert!(part.detail.ends_with("; 1 cell was not measured"), "{part:?}");
        cells[0] = predicted(1, 1.3);
        let figure = predict_error(&cells, 20).unwrap().judge("predict-error");
        assert_eq!(figure.holds, Some(false), "{figure:?}");
        assert!(predict_error(&[cell(4, &[("pinlane", 1.0)])], 1).is_none());
    }

    #[test]
    fn no_cell_gives_no_figure() {
        assert!(never_slower(&[], 7).is_none());
        assert!(never_slower(&[cell(4, &[("pinlane", 1.0)])], 1).is_none());
    }
}
