//! The book in `docs`: every chapter is in its summary, links lead somewhere, examples are run by someone, and it builds.
//!
//! The examples themselves are run by the steps `doctests` (Rust) and `python`; here only that none is left out.

mod document;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{program, run},
    tool::Tool,
    workspace,
};
use document::Document;

const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    says: "mdbook v0.5.4",
    // Neither a server nor a search index is needed to know that it builds.
    options: &["--no-default-features"],
    about: "builds the book",
};

const BOOK: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";
/// Documents beside the book whose links are looked at too.
const OTHERS: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md"];
/// Where the chapters with Rust examples are named, so that they run as doctests.
const DOCTESTS: &str = "crates/pinlane/src/lib.rs";

/// As a step.
pub(crate) fn check() -> Result<String> {
    let root = workspace::root();
    let documents = read(root)?;
    let doctests = fs::read_to_string(root.join(DOCTESTS)).with_context(|| format!("reading {DOCTESTS}"))?;
    let faults = faults(&documents, &|path| root.join(path).exists(), &doctests);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    run(program(MDBOOK.installed()?).args(["build", BOOK]))?;
    let chapters = documents.keys().filter(|path| path.starts_with(BOOK)).count() - 1;
    Ok(format!("{chapters} chapters in target/book"))
}

/// The chapters and the other documents, by their paths below the root.
fn read(root: &Path) -> Result<BTreeMap<PathBuf, Document>> {
    let mut paths: Vec<PathBuf> = OTHERS.map(PathBuf::from).into();
    let entries = fs::read_dir(root.join(BOOK)).with_context(|| format!("listing {BOOK}"))?;
    for entry in entries {
        let name = entry.with_context(|| format!("listing {BOOK}"))?.file_name();
        let path = Path::new(BOOK).join(name);
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("reading {}", path.display()))?;
            Ok((path, Document::parse(&text)))
        })
        .collect()
}

/// What is wrong with the documents. `exists` tells of paths below the root; `doctests` names chapters.
fn faults(
    documents: &BTreeMap<PathBuf, Document>,
    exists: &dyn Fn(&Path) -> bool,
    doctests: &str,
) -> Vec<String> {
    let mut faults = Vec::new();
    let summary = documents.get(Path::new(SUMMARY));
    for (path, document) in documents {
        let shown = path.display();
        for link in &document.links {
            if let Err(reason) = lead(path, link, documents, exists) {
                faults.push(format!("{shown}: the link to {link} {reason}"));
            }
        }
        if !path.starts_with(BOOK) || path == Path::new(SUMMARY) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if summary.is_none_or(|summary| !summary.links.iter().any(|link| *link == name)) {
            faults.push(format!("{shown}: not in {SUMMARY}"));
        }
        if document.has_code_in("rust") && !doctests.contains(&format!("/docs/{name}\"")) {
            faults.push(format!(
                "{shown}: has Rust examples, and {DOCTESTS} does not name it, so they do not run"
            ));
        }
        if document.code.iter().any(String::is_empty) {
            faults.push(format!(
                "{shown}: a block of code without a language, which would be taken for Rust"
            ));
        }
    }
    faults
}

/// Whether a link of the document at `from` leads somewhere. What is elsewhere is not asked: the network is no part of a test.
fn lead(
    from: &Path,
    link: &str,
    documents: &BTreeMap<PathBuf, Document>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<(), &'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(());
    }
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = if target.is_empty() {
        from.to_owned()
    } else {
        normal(&from.parent().unwrap_or(Path::new("")).join(target))
    };
    let leaves_book = from.starts_with(BOOK) && !path.starts_with(BOOK);
    if leaves_book {
        return Err("leaves the book, where nothing of it will be");
    }
    if !exists(&path) {
        return Err("leads nowhere");
    }
    match documents.get(&path) {
        Some(document) if !anchor.is_empty() && !document.anchors.contains(anchor) => {
            Err("leads to a heading that is not there")
        }
        _ => Ok(()),
    }
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(documents: &[(&str, &str)], doctests: &str) -> Vec<String> {
        let documents: BTreeMap<PathBuf, Document> = documents
            .iter()
            .map(|(path, text)| (PathBuf::from(path), Document::parse(text)))
            .collect();
        let exists = |path: &Path| documents.contains_key(path) || path == Path::new("crates/x");
        faults(&documents, &exists, doctests)
    }

    const GOOD: [(&str, &str); 3] = [
        (SUMMARY, "- [One](one.md)\n- [Two](two.md)\n"),
        (
            "docs/one.md",
            "# One\n\nSee [two](two.md#what-it-s-for) and [here](#one) and [there](https://example.org/x).\n",
        ),
        (
            "docs/two.md",
            "# Two\n\n## What it's for\n\n```rust\nlet x = 1;\n```\n",
        ),
    ];

    #[test]
    fn a_sound_book_has_no_faults() {
        let mut documents = GOOD.to_vec();
        documents.push(("README.md", "[one](docs/one.md) [a crate](crates/x)"));
        documents[1].1 = "# One\n\n[two](two.md#what-its-for) [here](#one) [there](https://example.org/x)\n";
        assert_eq!(
            found(&documents, r#"include_str!("../docs/two.md")"#),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_fault_is_found() {
        let doctests = r#"include_str!("../docs/two.md")"#;
        let with = |text| {
            let mut documents = GOOD.to_vec();
            documents[1].1 = text;
            found(&documents, doctests)
        };
        for (text, part) in [
            ("[x](three.md)", "leads nowhere"),
            ("[x](two.md#nothing)", "heading that is not there"),
            ("[x](#nothing)", "heading that is not there"),
            ("[x](../README.md)", "leaves the book"),
            ("```\ncode\n```", "without a language"),
            ("    code", "without a language"),
            ("```rust,no_run\ncode\n```", "do not run"),
        ] {
            let faults = with(text);
            assert!(
                faults.len() == 1 && faults[0].contains(part),
                "{text}: {faults:?}"
            );
        }
        let mut documents = GOOD.to_vec();
        documents[1].1 = "# One";
        documents.push(("docs/three.md", "# Three"));
        assert!(found(&documents, doctests)[0].contains("not in docs/SUMMARY.md"));
    }
}
