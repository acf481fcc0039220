//! The table of values in the chart's README equals the one generated from the comments in values.yaml.

use std::fmt::Write as _;

use crate::helm::chart;

const BEGIN: &str =
    "<!-- values: made from values.yaml by `MC_TEST_BLESS=1 cargo test -p tests --test chart readme` -->\n";
const END: &str = "<!-- end of values -->\n";

/// A row for each key with a comment `# -- …`.
fn table(values: &str) -> String {
    let mut table = "| value | default | what it is |\n| --- | --- | --- |\n".to_owned();
    let (mut path, mut meaning) = (Vec::<(usize, String)>::new(), None::<String>);
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(comment) = text.strip_prefix("# -- ") {
            meaning = Some(comment.replace('|', "\\|"));
            continue;
        }
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with(['#', '-'])) else {
            continue;
        };
        path.retain(|(depth, _)| *depth < indent);
        path.push((indent, key.to_owned()));
        if let Some(meaning) = meaning.take() {
            let keys: Vec<_> = path.iter().map(|(_, key)| key.as_str()).collect();
            let value = if value.trim().is_empty() {
                "see values.yaml".to_owned()
            } else {
                format!("`{}`", value.trim())
            };
            let _ = writeln!(table, "| `{}` | {value} | {meaning} |", keys.join("."));
        }
    }
    table
}

#[test]
fn the_readme_lists_every_value() {
    let read = |name: &str| std::fs::read_to_string(chart().join(name)).expect("it is there");
    let (values, readme) = (read("values.yaml"), read("README.md"));
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    let right = format!("{before}{BEGIN}\n{}\n{END}{after}", table(&values));
    if std::env::var_os("MC_TEST_BLESS").is_some() {
        std::fs::write(chart().join("README.md"), &right).expect("it can be written");
    } else {
        assert!(readme == right, "README.md is not what values.yaml says: run the test with MC_TEST_BLESS=1");
    }
    assert!(table(&values).lines().count() > 100);
}

#[test]
fn every_value_has_its_row() {
    let values = std::fs::read_to_string(chart().join("values.yaml")).expect("it is there");
    let tree: serde_yaml_ng::Value = serde_yaml_ng::from_str(&values).expect("it is YAML");
    let table = table(&values);
    leaves(&tree, "", &table);
}

/// Keys below a key with a row need no row.
fn leaves(value: &serde_yaml_ng::Value, at: &str, table: &str) {
    if table.contains(&format!("| `{at}` |")) {
        return;
    }
    let map = value.as_mapping().filter(|map| !map.is_empty());
    let map = map.unwrap_or_else(|| panic!("{at} has no comment `# -- …` in values.yaml"));
    for (key, value) in map {
        let key = key.as_str().expect("keys are texts");
        leaves(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }, table);
    }
}
