//! A document in Markdown: where it links to, what can be linked to in it, and the languages of its code.

use std::collections::BTreeSet;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// What matters of a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// As they are written.
    pub(super) links: Vec<String>,
    /// Those of headings.
    pub(super) anchors: BTreeSet<String>,
    /// The language of each block of code; empty where none is said.
    pub(super) code: Vec<String>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut heading = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = slug(&heading.take().unwrap_or_default());
                    document.anchors.insert(anchor);
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Start(Tag::CodeBlock(kind)) => document.code.push(match kind {
                    CodeBlockKind::Fenced(info) => {
                        let language = info.split([',', ' ']).next().unwrap_or_default();
                        language.to_owned()
                    }
                    CodeBlockKind::Indented => String::new(),
                }),
                _ => {}
            }
        }
        document
    }

    /// Whether there is code in that language.
    pub(super) fn has_code_in(&self, language: &str) -> bool {
        self.code.iter().any(|found| found == language)
    }
}

/// What mdBook and forges make of a heading: small letters, digits, hyphens for spaces.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            character if character.is_alphanumeric() => Some(character.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_headings_and_languages_are_found_and_what_is_code_is_no_link() {
        let text = "# What `it` is: a_b\n\n[x](y.md) `[no](link.md)`\n\n| [in](table.md) |\n| --- |\n\n\
                    ```rust,no_run\n[no](code.md)\n```\n\n```text\n```\n";
        let document = Document::parse(text);
        assert_eq!(document.links, ["y.md", "table.md"]);
        assert_eq!(document.anchors.iter().collect::<Vec<_>>(), ["what-it-is-a_b"]);
        assert_eq!(document.code, ["rust", "text"]);
        assert!(document.has_code_in("rust") && !document.has_code_in("python"));
    }
}
