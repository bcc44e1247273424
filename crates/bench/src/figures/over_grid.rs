//! What follows from the cells of the grid: the worst of them.

use super::{
    Draft, Unit,
    judge::Asked::{Also, AtMost},
};
use crate::grid::{CellReport, NOISE};

pub(super) fn never_slower(cells: &[CellReport], planned: usize) -> Option<Draft> {
    worst(cells, planned, CellReport::against_plain)
}

pub(super) fn regret(cells: &[CellReport], planned: usize) -> Option<Draft> {
    worst(cells, planned, CellReport::regret)
}

fn worst(cells: &[CellReport], planned: usize, ratio: fn(&CellReport) -> Option<f64>) -> Option<Draft> {
    let ratios: Vec<(f64, &CellReport)> = cells
        .iter()
        .filter_map(|cell| Some((ratio(cell)?, cell)))
        .collect();
    let (worst, cell) = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let hold = ratios.iter().filter(|(ratio, _)| *ratio <= NOISE).count();
    let mut detail = format!("worst cell {}; {hold} of {} cells hold", cell.id, ratios.len());
    if ratios.len() < planned {
        detail += &format!("; {} cells were not measured", planned - ratios.len());
    }
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
            ways: ways.collect(),
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
    fn no_cell_gives_no_figure() {
        assert!(never_slower(&[], 7).is_none());
        assert!(never_slower(&[cell(4, &[("pinlane", 1.0)])], 1).is_none());
    }
}
