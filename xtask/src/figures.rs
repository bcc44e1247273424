//! `cargo xtask figures`: the figures in the README, which has the newest machine's, and in `docs/performance.md`, which has
//! every machine's, written from `bench/results/*.json`.
//!
//! Beside the figures of a machine, `h200.json`, may lie what `gpu-check` said of its steps, `h200.steps.json`; it is shown below
//! them.
//!
//! Between two markers the text is generated; `--check` fails where it is not what the results give.

mod results;
pub(crate) mod steps;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;
use results::Results;
use steps::Steps;
use table::Detail;

const RESULTS: &str = "bench/results";

const BEGIN: &str = "<!-- figures: written by `cargo xtask figures` from bench/results -->\n";
const END: &str = "<!-- end of figures -->";

/// The documents that show figures, and how much of them.
const DOCUMENTS: [(&str, Detail); 2] = [
    ("README.md", Detail::Short),
    ("docs/performance.md", Detail::Full),
];

/// Writes the figures, or with `--check` only compares.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {
            for (path, text) in documents()? {
                fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
                println!("{}", path.display());
            }
            Ok(())
        }
        [flag] if flag == "--check" => {
            println!("{}", check()?);
            Ok(())
        }
        _ => bail!(
            "`figures` takes `--check` or nothing, and was given `{}`",
            arguments.join(" ")
        ),
    }
}

/// As a step: the documents show what the results say.
pub(crate) fn check() -> Result<String> {
    for (path, text) in documents()? {
        ensure!(
            fs::read_to_string(&path)? == text,
            "the figures in {} are not those of {RESULTS}: `cargo xtask figures` writes them anew",
            path.display()
        );
    }
    let machines: Vec<String> = machines()?
        .iter()
        .map(|results| results.gpu().to_owned())
        .collect();
    Ok(match machines.as_slice() {
        [] => "no results yet".to_owned(),
        _ => machines.join(", "),
    })
}

/// The documents as they should be.
fn documents() -> Result<Vec<(PathBuf, String)>> {
    let machines = machines()?;
    let document = |(name, detail)| {
        let path = workspace::root().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
        let text = replaced(&text, &table::section(&machines, detail))
            .with_context(|| format!("putting figures into {name}"))?;
        Ok((path, text))
    };
    DOCUMENTS.into_iter().map(document).collect()
}

/// The results of every machine, the newest first; none where there is no folder of results.
fn machines() -> Result<Vec<Results>> {
    let folder = workspace::root().join(RESULTS);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {RESULTS}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") && !Steps::are_in(&path) {
            files.push(path);
        }
    }
    files.sort();
    let results = files.iter().map(|path| Results::read(Path::new(path)));
    let mut results = results.collect::<Result<Vec<_>>>()?;
    results.sort_by(|a, b| b.date().cmp(a.date()));
    Ok(results)
}

/// The document with `section` between its markers.
fn replaced(document: &str, section: &str) -> Result<String> {
    let (before, rest) = document
        .split_once(BEGIN)
        .with_context(|| format!("it has no line `{}`", BEGIN.trim()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("no line `{END}` follows the one that begins the figures"))?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let document = format!("before\n{BEGIN}old{END}\nafter\n");
        let once = replaced(&document, "new\n").unwrap();
        assert_eq!(once, format!("before\n{BEGIN}\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
    }

    #[test]
    fn a_document_without_markers_is_an_error_that_shows_the_missing_one() {
        let error = replaced("nothing", "new").unwrap_err();
        assert!(error.to_string().contains(BEGIN.trim()), "{error}");
        let error = replaced(BEGIN, "new").unwrap_err();
        assert!(error.to_string().contains(END), "{error}");
    }
}
