//! What of the benchmark to run.

use crate::{
    cell::Cell,
    error::{Error, Result},
    figures::{self, Spec},
};

/// Figures to measure, and cells to race.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Selection {
    /// The names of the figures.
    pub figures: Vec<&'static str>,
    /// The cells.
    pub cells: Vec<Cell>,
}

impl Selection {
    /// Everything; or, where there are `words`, what they name: `figures` for those that need no grid, `grid` for the
    /// cells and the figures that follow from them, and otherwise every figure and cell whose name has the word in it.
    /// A figure that follows from the cells takes all of them along.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] for a word that names nothing.
    pub fn of(words: &[String], cells: &[Cell]) -> Result<Self> {
        if words.is_empty() {
            return Ok(Self {
                figures: figures::ALL.iter().map(|spec| spec.id).collect(),
                cells: cells.to_vec(),
            });
        }
        let mut chosen_figures = vec![false; figures::ALL.len()];
        let mut chosen_cells = vec![false; cells.len()];
        for word in words {
            let mut found = false;
            for (chosen, spec) in chosen_figures.iter_mut().zip(figures::ALL) {
                if names_figure(word, spec) {
                    (*chosen, found) = (true, true);
                }
            }
            let all = word == "grid"
                || figures::ALL
                    .iter()
                    .any(|spec| spec.needs_grid() && names_figure(word, spec));
            for (chosen, cell) in chosen_cells.iter_mut().zip(cells) {
                if all || cell.to_string().contains(word.as_str()) {
                    (*chosen, found) = (true, true);
                }
            }
            if !found {
                return Err(Error::Unknown {
                    name: word.clone(),
                    figures: figures::names(),
                });
            }
        }
        let kept =
            |chosen: &[bool]| -> Vec<usize> { (0..chosen.len()).filter(|place| chosen[*place]).collect() };
        Ok(Self {
            figures: kept(&chosen_figures)
                .into_iter()
                .map(|place| figures::ALL[place].id)
                .collect(),
            cells: kept(&chosen_cells)
                .into_iter()
                .map(|place| cells[place])
                .collect(),
        })
    }

    /// Whether a figure is to be measured.
    #[must_use]
    pub fn has(&self, spec: &Spec) -> bool {
        self.figures.contains(&spec.id)
    }
}

fn names_figure(word: &str, spec: &Spec) -> bool {
    match word {
        "figures" => !spec.needs_grid(),
        "grid" => spec.needs_grid(),
        _ => spec.id.contains(word),
    }
}

#[cfg(test)]
mod tests {
    use crate::cell::Axes;

    use super::*;

    fn chosen(words: &[&str]) -> Result<Selection> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Selection::of(&words, &Axes::all(1 << 20).cells())
    }

    #[test]
    fn a_word_chooses_the_figures_and_cells_that_have_it_in_their_names() {
        let all = chosen(&[]).unwrap();
        assert_eq!(all.figures.len(), figures::ALL.len());
        let figures = chosen(&["figures"]).unwrap();
        assert!(figures.cells.is_empty() && !figures.figures.contains(&"regret"));
        let grid = chosen(&["grid"]).unwrap();
        assert_eq!(grid.cells, all.cells);
        assert_eq!(grid.figures, ["never-slower", "regret", "predict-error"]);
        assert_eq!(chosen(&["regret"]).unwrap().cells, all.cells);
        let one = chosen(&["pool-ready", "d2h-pinned-4KiB-x10"]).unwrap();
        assert_eq!(one.figures, ["pool-ready"]);
        assert_eq!(one.cells.len(), 2, "x10 and x100");
    }

    #[test]
    fn a_word_that_names_nothing_is_refused_with_what_there_is() {
        let error = chosen(&["figures", "h2d-pagable"]).unwrap_err().to_string();
        assert!(
            error.contains("h2d-pagable") && error.contains("pool-ready"),
            "{error}"
        );
    }
}
