//! Results as Markdown: what is asked, what was measured, and whether it is enough. Nothing that falls short or was not
//! measured is left out.

use std::sync::LazyLock;

use super::results::{Figure, Results, Verdict, significant};

/// The figures that are asked for, in the order in which they are shown, and the work that each is about.
static WORK: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../bench/figures.json"))
        .expect("bench/figures.json is a list of names and works")
});

/// How much of the table is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Detail {
    /// For a reader who has never seen the project.
    Short,
    /// With limits and remarks.
    Full,
}

/// What stands between the markers: a table for each machine, or that there are no results.
pub(crate) fn section(machines: &[Results], detail: Detail) -> String {
    if machines.is_empty() {
        return "No results of real hardware are committed yet: `bench/results` is empty.\n".to_owned();
    }
    let shown = match detail {
        Detail::Short => &machines[..1],
        Detail::Full => machines,
    };
    let mut tables: Vec<String> = shown.iter().map(|results| table(results, detail)).collect();
    if shown.len() < machines.len() {
        let others: Vec<_> = machines[1..].iter().map(Results::of_when).collect();
        tables.push(format!(
            "Earlier results of other machines ({}) are in [docs/performance.md](docs/performance.md#the-figures).\n",
            others.join("; ")
        ));
    }
    tables.join("\n")
}

/// One machine's table, under a sentence that says where it comes from and above one that counts verdicts.
fn table(results: &Results, detail: Detail) -> String {
    let mut text = format!("{}\n\n", results.origin());
    let header: &[&str] = match detail {
        Detail::Short => &["work", "pinlane", "best peer", "gain", "goal", "reached"],
        Detail::Full => &[
            "figure",
            "work",
            "pinlane",
            "limit",
            "best peer",
            "gain",
            "asked",
            "holds",
            "remark",
        ],
    };
    text += &row(header.iter().map(|title| (*title).to_owned()).collect());
    text += &row(vec!["---".to_owned(); header.len()]);

    let mut counts = [0; 3];
    for (id, work, figure) in rows(results) {
        let verdict = figure.map_or(Verdict::NotMeasured, Figure::verdict);
        counts[verdict as usize] += 1;
        let failure = results.failures.iter().find(|failure| failure.id == id);
        let remark = match figure {
            Some(figure) => figure.detail.clone(),
            None => failure.map(|failure| failure.error.clone()).unwrap_or_default(),
        };
        text += &row(cells((id, work), figure, verdict, remark, detail));
    }
    let [hold, fall_short, not_measured] = counts;
    text += &format!(
        "\n{} figures: {}, {}, {} not measured.\n",
        counts.iter().sum::<usize>(),
        counted(hold, "holds", "hold"),
        counted(fall_short, "falls short", "fall short"),
        counted(not_measured, "was", "were"),
    );
    if let (Detail::Full, Some(steps)) = (detail, &results.steps) {
        text += &format!("\n{}", steps.section());
    }
    text
}

/// A number with the word that goes with so many.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What is asked for, measured or not, and then whatever else was measured.
fn rows(results: &Results) -> Vec<(&str, &str, Option<&Figure>)> {
    let of = |id: &str| results.figures.iter().find(|figure| figure.id == id);
    let asked = WORK.iter().map(|(id, work)| (id.as_str(), work.as_str(), of(id)));
    let others = results
        .figures
        .iter()
        .filter(|figure| !WORK.iter().any(|(id, _)| *id == figure.id))
        .map(|figure| (figure.id.as_str(), "", Some(figure)));
    asked.chain(others).collect()
}

fn cells(
    (id, work): (&str, &str),
    figure: Option<&Figure>,
    verdict: Verdict,
    remark: String,
    detail: Detail,
) -> Vec<String> {
    let with_unit = |number: f64, figure: &Figure| format!("{} {}", significant(number), figure.unit);
    let measured = figure.and_then(|figure| Some(with_unit(figure.value?, figure)));
    let limit = figure.and_then(|figure| Some(with_unit(figure.limit?, figure)));
    let peer = figure.and_then(|figure| {
        let (name, value) = figure.best_peer()?;
        Some(format!("{} ({name})", with_unit(value, figure)))
    });
    let gain = figure.and_then(|figure| Some(format!("{} times", significant(figure.against_best_peer()?))));
    let asked = figure.map(|figure| figure.asked.clone());
    let verdict = match verdict {
        Verdict::Holds => "yes",
        Verdict::FallsShort => "**no**",
        Verdict::NotMeasured => "not measured",
    };
    let id = format!("`{id}`");
    let or_nothing = Option::unwrap_or_default;
    match detail {
        Detail::Short => {
            let work = if work.is_empty() { id } else { work.to_owned() };
            vec![
                work,
                or_nothing(measured),
                or_nothing(peer),
                or_nothing(gain),
                or_nothing(asked),
                verdict.to_owned(),
            ]
        }
        Detail::Full => vec![
            id,
            work.to_owned(),
            or_nothing(measured),
            or_nothing(limit),
            or_nothing(peer),
            or_nothing(gain),
            or_nothing(asked),
            verdict.to_owned(),
            remark,
        ],
    }
}

/// A row of a Markdown table.
pub(super) fn row(cells: Vec<String>) -> String {
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
        .collect();
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Results {
        let text = json!({
            "schema": 1,
            "machine": { "device": "NVIDIA H200" },
            "date": "2026-11-22T17:00:00Z",
            "commit": "abc1234",
            "simulated": false,
            "quick": false,
            "failures": [{ "id": "pool-ready", "error": "no memory may be pinned" }],
            "link": { "h2d": 55.2, "d2h": 55.2, "both": 100.6 },
            "figures": [
                { "id": "h2d-pageable-1gib", "value": 52.5, "unit": "GB/s", "limit": 55.2,
                  "peers": { "torch_to": 9.2, "plain_to": 10.0 }, "asked": "0.95 of the link | 5.5 times", "holds": true },
                { "id": "d2h-small-1000", "value": 0.2, "unit": "ms", "limit": null,
                  "peers": { "torch_non_blocking": 9.7 }, "asked": "at most 0.12 ms", "holds": false, "detail": "a remark" },
                { "id": "newcomer", "value": 7, "unit": "ms", "limit": null, "peers": {}, "asked": "none",
                  "holds": null },
            ],
        });
        Results::parse(&text.to_string()).unwrap()
    }

    #[test]
    fn the_short_section_has_the_first_machine_and_names_the_others() {
        let machines = [results(), results()];
        let short = section(&machines, Detail::Short);
        assert_eq!(short.matches("| work |").count(), 1);
        assert!(short.contains("| gain | goal | reached |"), "{short}");
        assert!(
            short.contains("| 48.5 times | at most 0.12 ms | **no** |"),
            "{short}"
        );
        assert!(
            short.contains("(NVIDIA H200, 2026-11-22) are in [docs/performance.md]"),
            "{short}"
        );
        assert_eq!(section(&machines, Detail::Full).matches("| work |").count(), 2);
        assert!(!section(&machines[..1], Detail::Short).contains("Earlier"));
    }

    fn line<'a>(text: &'a str, word: &str) -> &'a str {
        text.lines().find(|line| line.contains(word)).unwrap()
    }

    #[test]
    fn a_figure_is_shown_with_its_limit_its_best_peer_and_its_verdict() {
        let text = section(&[results()], Detail::Full);
        assert_eq!(
            line(&text, "`h2d-pageable-1gib`"),
            "| `h2d-pageable-1gib` | 1 GiB, pageable to device | 52.5 GB/s | 55.2 GB/s | 10.0 GB/s (plain_to) \
             | 5.25 times | 0.95 of the link \\| 5.5 times | yes |  |"
        );
        assert!(
            text.contains("NVIDIA H200, 2026-11-22, commit `abc1234`"),
            "{text}"
        );
    }

    #[test]
    fn what_falls_short_or_was_not_measured_is_said() {
        let text = section(&[results()], Detail::Full);
        let short = line(&text, "`d2h-small-1000`");
        assert!(
            short.contains("| 48.5 times | at most 0.12 ms | **no** | a remark |"),
            "{short}"
        );
        let failed = line(&text, "`pool-ready`");
        assert!(
            failed.ends_with("| not measured | no memory may be pinned |"),
            "{failed}"
        );
        assert!(line(&text, "`newcomer`").contains("| not measured |"), "{text}");
        // The newcomer is not asked for, and two of those that are were measured.
        let (all, missing) = (WORK.len() + 1, WORK.len() - 1);
        let counts = format!("\n{all} figures: 1 holds, 1 falls short, {missing} were not measured.\n");
        assert!(text.ends_with(&counts), "{text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_header() {
        for detail in [Detail::Short, Detail::Full] {
            let text = section(&[results()], detail).replace("\\|", "");
            let mut widths: Vec<usize> = text
                .lines()
                .filter(|line| line.starts_with('|'))
                .map(|line| line.matches('|').count())
                .collect();
            widths.dedup();
            assert_eq!(widths.len(), 1, "{text}");
        }
    }

    #[test]
    fn without_results_the_section_says_so() {
        assert!(section(&[], Detail::Short).contains("No results"));
    }
}
