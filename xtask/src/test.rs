//! `cargo xtask test`: everything that checks the project, cheapest first.

use anyhow::{Context, Result};

use crate::{
    asan, book, deny, figures, guide, lint, model, msrv, python, report, shuttle, step, step::Step, suite,
    sync_module,
};

/// The steps, in the order in which they run.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "the code is formatted",
        needs: &[],
        run: lint::format,
    },
    Step {
        name: "figures",
        about: "the documents show the figures of bench/results",
        needs: &[],
        run: figures::check,
    },
    Step {
        name: "book",
        about: "the book builds, holds every chapter, and its links and those of the other documents lead somewhere",
        needs: &[],
        run: book::check,
    },
    Step {
        name: "sync",
        about: "threads and locks come from the one module that shuttle can replace",
        needs: &[],
        run: sync_module::check,
    },
    Step {
        name: "clippy",
        about: "no lint fires, the minimum Rust version's included",
        needs: &[],
        run: lint::clippy,
    },
    Step {
        name: "msrv",
        about: "no dependency wants a newer Rust than the workspace states",
        needs: &[],
        run: msrv::check,
    },
    Step {
        name: "deny",
        about: "licences, sources and duplicates of the dependencies",
        needs: &[],
        run: deny::check,
    },
    Step {
        name: "build",
        about: "every crate builds",
        needs: &[],
        run: suite::build,
    },
    Step {
        name: "model",
        about: "a real checkpoint to test with",
        needs: &[],
        run: model::fetch_for_tests,
    },
    Step {
        name: "tests",
        about: "unit, property, conformance, fault and compile-fail tests",
        needs: &["build"],
        run: suite::tests,
    },
    Step {
        name: "doctests",
        about: "the examples of the documentation run",
        needs: &["build"],
        run: suite::doctests,
    },
    Step {
        name: "rustdoc",
        about: "the documentation builds and its links lead somewhere",
        needs: &["build"],
        run: lint::rustdoc,
    },
    Step {
        name: "shuttle",
        about: "pool, lanes and transfers in every order that shuttle tries",
        needs: &["build"],
        run: shuttle::check,
    },
    Step {
        name: "guide",
        about: "every experiment of the guide runs and is judged",
        needs: &["build"],
        run: guide::check,
    },
    Step {
        name: "guide-model",
        about: "the guide on the tensors of a real checkpoint",
        needs: &["build", "model"],
        run: guide::check_on_model,
    },
    Step {
        name: "report",
        about: "the pages of reports, as a browser shows them",
        needs: &["build"],
        run: report::check,
    },
    Step {
        name: "python",
        about: "the Python package: types, tests, the examples of its documentation",
        needs: &["build"],
        run: python::check,
    },
    Step {
        name: "asan",
        about: "the driver's and the engine's tests under AddressSanitizer",
        needs: &["build"],
        run: asan::check,
    },
];

/// Runs all steps, or those that `names` names, in their usual order.
pub(crate) fn run(names: &[String]) -> Result<()> {
    for name in names {
        STEPS
            .iter()
            .find(|step| step.name == name)
            .with_context(|| format!("`test` has no step `{name}`; `cargo xtask --help` lists them"))?;
    }
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
        .collect();
    step::run(&chosen)
}
