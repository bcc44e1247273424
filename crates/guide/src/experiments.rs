//! The experiments, one file each, in the order in which the guide makes its claims.

mod async_many;
mod d2h_garbage;
mod disk;
mod h2d_mutation;
mod one_sync;
mod overlap;
mod pin_then_copy;
mod pin_thread;
mod pinned_cost;
mod pinned_faster;
mod shuttle;
mod synergies;
mod tree;

use crate::{
    error::{Error, Result},
    experiment::Experiment,
};

/// All experiments.
pub static ALL: [&Experiment; 13] = [
    &pinned_faster::EXPERIMENT,
    &pin_then_copy::EXPERIMENT,
    &async_many::EXPERIMENT,
    &one_sync::EXPERIMENT,
    &synergies::EXPERIMENT,
    &d2h_garbage::EXPERIMENT,
    &h2d_mutation::EXPERIMENT,
    &overlap::EXPERIMENT,
    &pin_thread::EXPERIMENT,
    &tree::EXPERIMENT,
    &shuttle::EXPERIMENT,
    &disk::EXPERIMENT,
    &pinned_cost::EXPERIMENT,
];

/// The experiments with these ids, in the order of [`ALL`] and each once; all of them where no id is given.
///
/// # Errors
///
/// [`Error::UnknownExperiment`] for an id that none has.
pub fn named(ids: &[String]) -> Result<Vec<&'static Experiment>> {
    for id in ids {
        if !ALL.iter().any(|experiment| experiment.id == id) {
            let known: Vec<_> = ALL.iter().map(|experiment| experiment.id).collect();
            return Err(Error::UnknownExperiment {
                id: id.clone(),
                known: known.join(", "),
            });
        }
    }
    Ok(ALL
        .into_iter()
        .filter(|experiment| ids.is_empty() || ids.iter().any(|id| id == experiment.id))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_experiment_has_an_id_of_its_own() {
        let ids: HashSet<_> = ALL.iter().map(|experiment| experiment.id).collect();
        assert_eq!(ids.len(), ALL.len());
    }

    #[test]
    fn ids_are_found_in_the_guide_s_order_and_an_unknown_one_is_named() {
        let ids = |names: &[&str]| -> Result<Vec<&str>> {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Ok(named(&names)?.iter().map(|experiment| experiment.id).collect())
        };
        assert_eq!(ids(&[]).unwrap().len(), ALL.len());
        assert_eq!(
            ids(&["tree", "pinned-faster", "tree"]).unwrap(),
            ["pinned-faster", "tree"]
        );
        let error = ids(&["tree", "trees"]).unwrap_err().to_string();
        assert!(
            error.contains("\"trees\"") && error.contains("pinned-cost"),
            "{error}"
        );
    }
}
