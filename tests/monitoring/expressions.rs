//! The metrics that a PromQL expression asks for.
//!
//! Enough of the grammar to tell metric names from everything else; promtool checks the expressions
//! themselves.

use std::collections::BTreeSet;

/// Words of the language in places where a metric name may stand. A bracket tells functions.
const WORDS: [&str; 15] = [
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "by",
    "without",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "inf",
    "nan",
    "start",
    "end",
];
/// Words before a list of labels in brackets.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The metric names in an expression, recording rules included.
pub(crate) fn metrics(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let (word, behind) =
                split(rest, |letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
            rest = behind.trim_start();
            if BEFORE_LABELS.contains(&word) && rest.starts_with('(') {
                rest = after(rest, ')');
            } else if !rest.starts_with('(')
                && !is_aggregated(rest)
                && !WORDS.contains(&word.to_ascii_lowercase().as_str())
            {
                names.insert(word.to_owned());
            }
        } else if first.is_ascii_digit() {
            // A number, or a time such as 5m.
            rest = split(rest, |letter| letter.is_ascii_alphanumeric() || letter == '.').1;
        } else {
            rest = match first {
                '{' => after(rest, '}'),
                '[' => after(rest, ']'),
                '"' | '\'' => after(rest.get(1..).unwrap_or_default(), first),
                _ => rest.get(first.len_utf8()..).unwrap_or_default(),
            };
        }
    }
    names
}

/// Whether the word before this text is an aggregation with its labels first, as in `sum by (job) (…)`.
fn is_aggregated(behind: &str) -> bool {
    let word = split(behind, |letter| letter.is_ascii_alphabetic()).0;
    ["by", "without"].contains(&word)
}

/// Splits the text after its first characters for which `belongs` holds.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|letter| !belongs(letter)).unwrap_or(text.len()))
}

/// The text after the next `end` outside of a string; nothing if there is none.
fn after(text: &str, end: char) -> &str {
    let mut quoted = None;
    for (at, letter) in text.char_indices() {
        match quoted {
            Some(quote) if letter == quote => quoted = None,
            Some(_) => {}
            None if letter == end => return text.get(at + letter.len_utf8()..).unwrap_or_default(),
            None if "\"'".contains(letter) => quoted = Some(letter),
            None => {}
        }
    }
    ""
}

#[test]
fn names_are_told_from_functions_labels_and_words() {
    let found = |expression| metrics(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("sum by (job, le) (rate(a_total{b=\"c}\", d!~'e'}[5m])) / on (job) f > 0.5"),
        ["a_total", "f"]
    );
    assert_eq!(found("sum(a) by (b) or c unless c offset 5m > bool 1e3"), ["a", "c"]);
    assert_eq!(
        found("job:a:rate5m * on (x) group_left(version) b - time() < 7 * 86400"),
        ["b", "job:a:rate5m"]
    );
    assert_eq!(found("label_replace(a, \"b\", \"$1\", \"c\", \"(.*)\") and absent(d)"), ["a", "d"]);
    assert_eq!(found("Inf + 5"), [""; 0]);
}
