//! A Markdown page: its links, and the anchors of its headings.
//!
//! Text in code, fenced or inline, makes neither links nor anchors.

use std::collections::HashMap;

/// The links and anchors of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Link targets as written, in order.
    pub(crate) links: Vec<String>,
    /// Anchors of its headings, without `#`.
    pub(crate) anchors: Vec<String>,
}

impl Page {
    /// Parses a page.
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut times = HashMap::<String, u32>::new();
        let mut fence: Option<&str> = None;
        for line in text.lines() {
            let bare = line.trim_start();
            match fence {
                Some(open) => {
                    if bare.starts_with(open) {
                        fence = None;
                    }
                    continue;
                }
                None => fence = ["```", "~~~"].into_iter().find(|mark| bare.starts_with(*mark)),
            }
            if fence.is_some() {
                continue;
            }
            if let Some(title) = heading(line) {
                let anchor = anchor(title);
                let before = times.entry(anchor.clone()).or_default();
                page.anchors.push(if *before == 0 { anchor } else { format!("{anchor}-{before}") });
                *before += 1;
            }
            links(&without_code(line), &mut page.links);
        }
        page
    }
}

/// The text of a heading, without `#`.
fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    let level = line.len() - rest.len();
    ((1..=6).contains(&level) && rest.starts_with(' ')).then(|| rest.trim())
}

/// The anchor that GitHub makes of a heading: letters, digits, `-` and `_` in lower case, blanks as `-`.
fn anchor(title: &str) -> String {
    let mut anchor = String::new();
    // A link counts as its text.
    let mut rest = title;
    let mut seen = String::new();
    while let Some((before, behind)) = rest.split_once("](") {
        seen.push_str(before);
        rest = behind.split_once(')').map_or("", |(_, behind)| behind);
    }
    seen.push_str(rest);
    for letter in seen.chars().flat_map(char::to_lowercase) {
        match letter {
            ' ' => anchor.push('-'),
            '-' | '_' => anchor.push(letter),
            _ if letter.is_alphanumeric() => anchor.push(letter),
            _ => {}
        }
    }
    anchor
}

/// The line without its inline code. (A span over several lines begins and ends on lines of its own.)
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Adds the targets of `[text](target)`, `[text](target "title")` and `[name]: target`.
fn links(line: &str, found: &mut Vec<String>) {
    for behind in line.split("](").skip(1) {
        let target = behind.split([')', ' ']).next().unwrap_or_default();
        found.push(target.trim_matches(['<', '>']).to_owned());
    }
    if let Some((name, target)) = line.split_once("]: ")
        && name.starts_with('[')
        && !name.contains(' ')
        && let Some(target) = target.split_whitespace().next()
    {
        found.push(target.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let page = Page::read(concat!(
            "See [a](a.md), [`b`](../b.md#c) and `[no](no.md)`.\n",
            "```sh\n# no heading\n[no](no.md)\n```\n",
            "[d](d.md \"with a title\") ![picture](e.png)\n",
            "[name]: f.md\n"
        ));
        assert_eq!(page.links, ["a.md", "../b.md#c", "d.md", "e.png", "f.md"]);
        assert!(page.anchors.is_empty(), "{page:?}");
    }

    #[test]
    fn headings_make_anchors_as_on_github() {
        let page = Page::read(concat!(
            "# Missing nothing\n",
            "## `[bus.store]`\n",
            "### One message: `POST /v1/mesh/publish`\n",
            "#### See [the page](page.md) too\n",
            "## What a session costs\n",
            "## What a session costs\n",
            "#no heading\n"
        ));
        assert_eq!(
            page.anchors,
            [
                "missing-nothing",
                "busstore",
                "one-message-post-v1meshpublish",
                "see-the-page-too",
                "what-a-session-costs",
                "what-a-session-costs-1",
            ]
        );
    }
}
