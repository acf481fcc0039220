//! Writes sections as text: the sample file in TOML, the reference in Markdown.

use super::{COMMAND, Key, Section};

/// The most characters of a comment line, without its `# `.
const WIDTH: usize = 118;

const SAMPLE_HEAD: &str = "\
# Every key of message center with its default. Copy what you change; leave the rest out.
#
# One file serves all parts: each part reads the sections that it needs. The environment overrides the file
# (MC_EDGE__LISTEN is `listen` in [edge]), and flags override the environment. docs/config.md is the reference.
# Times are written like \"250ms\", \"20s\", \"5m\"; sizes like \"4KiB\", \"8GiB\".
";

const REFERENCE_HEAD: &str = "\
# Configuration

Every key with its type, its default and its name in the environment. [The sample file](../message-center.toml) holds
the same keys with the same defaults. [running.md](running.md) says how file, environment and flags are combined, and
which keys are read again while the process runs.

| type | how it is written |
| --- | --- |
| text | `\"…\"` |
| secret | text that is never printed or logged; best set in the environment |
| time | `\"250ms\"`, `\"20s\"`, `\"5m\"`, `\"1h 30m\"`: a number and its unit |
| size | `\"4KiB\"`, `\"8GiB\"`, or a number of bytes |
| value | a whole number, `true` or `false`, a text, or a range of whole numbers: `\"500-599\"` |
| list, table | as in TOML, in the environment too: `MC_EDGE__ORIGINS='[\"https://app.example.com\"]'` |

In the environment a text needs no quotes. The column *live* says whether the process applies a change of the file while
it runs (on SIGHUP, or within a few seconds by itself). All other keys are read at the start; if such a key changes, the
log says that the change waits for a restart.
";

/// Returns the sample file.
pub(super) fn sample(sections: &[Section]) -> String {
    let mut text = SAMPLE_HEAD.to_owned();
    for (index, section) in sections.iter().enumerate() {
        text.push('\n');
        if !is_further(sections, index) {
            text.push_str(&comment(&section.description));
        }
        text.push_str(&header(section));
        text.push('\n');
        for key in &section.keys {
            match &key.default {
                Some(default) => {
                    // A key of a list is explained at the first entry that has the key.
                    let known = is_written(&sections[..index], section, key);
                    let explanation = if known { String::new() } else { comment(&key.description) };
                    text.push_str(&format!("{explanation}{} = {default}\n", key.name));
                }
                None => text.push_str(&optional(key)),
            }
        }
    }
    text
}

/// Returns whether an earlier entry of the same list has a value for this key.
fn is_written(earlier: &[Section], section: &Section, key: &Key) -> bool {
    let entries = earlier.iter().filter(|entry| entry.path == section.path);
    entries.flat_map(|entry| &entry.keys).any(|known| known.name == key.name && known.default.is_some())
}

/// Returns whether a section is an entry of a list of which an earlier section is an entry, too.
fn is_further(sections: &[Section], index: usize) -> bool {
    sections[..index].iter().any(|earlier| earlier.path == sections[index].path)
}

/// Returns the reference.
pub(super) fn reference(sections: &[Section]) -> String {
    let mut text =
        format!("<!-- Made from the types by `{COMMAND}`. Change their doc comments, not this. -->\n\n");
    text.push_str(REFERENCE_HEAD);
    for (index, section) in sections.iter().enumerate() {
        if is_further(sections, index) {
            continue;
        }
        text.push_str(&format!("\n## `{}`\n\n{}\n", header(section), section.description));
        if section.keys.is_empty() {
            continue;
        }
        if section.is_list {
            text.push_str(&format!(
                "\nA list of tables; `{}` holds all of them.\n\n",
                variable(&section.path)
            ));
            text.push_str("| key | type | default | live | what it is |\n| --- | --- | --- | --- | --- |\n");
        } else {
            text.push_str(
                "\n| key | type | default | live | what it is |\n| --- | --- | --- | --- | --- |\n",
            );
        }
        for key in &section.keys {
            text.push_str(&row(section, key));
        }
    }
    text
}

/// Returns an optional key as a comment that can be made a line, since the key has no default.
fn optional(key: &Key) -> String {
    format!("{}# {} =\n", comment(&key.description), key.name)
}

fn header(section: &Section) -> String {
    if section.is_list { format!("[[{}]]", section.path) } else { format!("[{}]", section.path) }
}

fn row(section: &Section, key: &Key) -> String {
    let name = if section.is_list {
        format!("`{}`", key.name)
    } else {
        format!("`{}`<br>`{}`", key.name, variable(&format!("{}.{}", section.path, key.name)))
    };
    let default = key.default.as_ref().map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let live = if key.reloadable { "yes" } else { "" };
    let description = key.description.replace('\n', " ");
    let cells = [name.as_str(), &key.kind, &default, live, &description];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// Returns the name of a key in the environment.
fn variable(path: &str) -> String {
    format!("MC_{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Returns a text as comment lines, wrapped to the width.
fn comment(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let key = Key {
            name: "origins".into(),
            kind: "list of text".into(),
            default: Some("[]".into()),
            reloadable: true,
            description: "Who may\nconnect: `a|b`.".into(),
        };
        let none = Key { default: None, reloadable: false, name: "rate".into(), ..key.clone() };
        let (path, description) = ("edge".to_owned(), "Holds the sockets.".to_owned());
        Section { path, is_list: false, description, keys: vec![key, none] }
    }

    #[test]
    fn the_sample_has_every_key_and_those_without_a_default_as_comments() {
        let text = sample(&[section()]);
        let body = text.strip_prefix(SAMPLE_HEAD).unwrap();
        assert_eq!(
            body,
            "\n# Holds the sockets.\n[edge]\n# Who may connect: `a|b`.\norigins = []\n# Who may connect: `a|b`.\n# rate =\n"
        );
    }

    #[test]
    fn the_reference_has_everything() {
        let text = reference(&[section()]);
        let row =
            "| `origins`<br>`MC_EDGE__ORIGINS` | list of text | `[]` | yes | Who may connect: `a\\|b`. |\n";
        assert!(text.contains("\n## `[edge]`\n\nHolds the sockets.\n") && text.contains(row), "{text}");
        assert!(text.contains("`MC_EDGE__RATE` | list of text | none |  | Who"), "{text}");
        let list = reference(&[Section { is_list: true, ..section() }]);
        assert!(list.contains("## `[[edge]]`") && list.contains("\n| `origins` | list"), "{list}");
    }

    #[test]
    fn further_entries_of_a_list_repeat_no_explanation() {
        let mut entry = Section { is_list: true, ..section() };
        let first = entry.clone();
        entry.keys[1].default = Some("1".into());
        let entries = [first, entry];
        let text = sample(&entries);
        assert_eq!(text.matches("# Holds the sockets.").count(), 1, "{text}");
        assert!(text.ends_with("\n[[edge]]\norigins = []\n# Who may connect: `a|b`.\nrate = 1\n"), "{text}");
        assert_eq!(reference(&entries).matches("## `[[edge]]`").count(), 1);
    }

    #[test]
    fn a_comment_is_filled_to_its_width() {
        let long = "word ".repeat(60);
        let text = comment(&long);
        assert!(text.lines().all(|line| line.len() <= WIDTH + 2 && line.starts_with("# word")), "{text}");
        assert_eq!(text.matches("word").count(), 60);
    }
}
