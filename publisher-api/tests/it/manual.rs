//! The manual says what the code does.

const MANUAL: &str = include_str!("../../../deploy/docs/publishing.md");

#[test]
fn the_table_of_codes_is_that_of_the_code() {
    let table = publisher_api::error::code_table();
    assert!(MANUAL.contains(&table), "put this table into deploy/docs/publishing.md:\n{table}");
}

#[test]
fn the_table_of_problems_is_that_of_the_code() {
    let table = publisher_api::error::problem_table();
    assert!(MANUAL.contains(&table), "put this table into deploy/docs/publishing.md:\n{table}");
}

#[test]
fn every_key_and_its_default_is_in_the_manual() {
    use shared::config::print;
    let printed = print(&publisher_api::Settings::default());
    let section = printed.split("[publisher_api]\n").nth(1).unwrap().split("\n[").next().unwrap();
    for line in section.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap();
        let row = format!("| `{key}` | `{}` |", value.trim_matches('"'));
        assert!(MANUAL.contains(&row), "deploy/docs/publishing.md has no row {row}");
    }
}
