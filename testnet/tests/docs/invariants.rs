//! Holds the safety page's table of invariants against the tests: each invariant has a row, each row names tests that
//! are there, and each of these cites the invariant by its number (`safety 5`), so that either leads to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{assert_none, root, tree};

const PAGE: &str = "docs/src/safety.md";
/// The design's list has this many.
const INVARIANTS: u32 = 32;
/// How a row says that something of its invariant is held by no test.
const NO_TEST_YET: &str = "no test yet";
/// The rows that may say so, and why. This list may only get shorter: a row that is not on it needs its test.
const GAPS: [(u32, &str); 0] = [];

/// Those that the design asks for by name.
const SCENARIOS: usize = 18;

/// What the table says of one invariant.
struct Row {
    number: u32,
    tests: Vec<String>,
    has_gap: bool,
}

/// The tests that are there: by name, the comment of each that has that name.
type Tests = BTreeMap<String, Vec<String>>;

/// The rows of the table under the heading of the invariants.
fn rows(page: &str) -> Vec<Row> {
    let section = page.split("\n## ").find(|section| section.starts_with("Invariants\n")).unwrap_or_default();
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse() else { continue };
        let held_by = cells.get(3).copied().unwrap_or_default();
        let tests = held_by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push(Row { number, tests, has_gap: held_by.contains(NO_TEST_YET) });
    }
    rows
}

/// The numbers that a text cites, also as a list or a span: `safety 3`, `safety 1, 2, 4 to 9 and 11`.
fn cited(text: &str) -> BTreeSet<u32> {
    let text = text.to_lowercase();
    let mut found = BTreeSet::new();
    for list in text.split("safety ").skip(1) {
        let (mut rest, mut span_from) = (list, None);
        while let Some((number, after)) = leading_number(rest) {
            found.extend(span_from.unwrap_or(number)..=number);
            let next = [", ", " and ", " to "].into_iter().find_map(|joint| Some((joint, after.strip_prefix(joint)?)));
            let Some((joint, after)) = next else { break };
            span_from = (joint == " to ").then_some(number);
            rest = after;
        }
    }
    found
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split_once('(').map(|(name, _)| name)
}

/// Takes note of the tests in a file of Rust: functions with a test's attribute, and in a folder of tests also the
/// parts that one test calls. Their comments are what stands right above them.
fn note_rust(tests: &mut Tests, path: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let above = lines[..at].iter().rev().map(|line| line.trim());
        let above: Vec<&str> = above.take_while(|line| line.starts_with("//") || line.starts_with("#[")).collect();
        let is_test = above.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        if is_test || path.contains("/tests/") {
            let comment = above.iter().rev().filter(|line| line.starts_with("//"));
            let comment: Vec<&str> = comment.map(|line| line.trim_start_matches('/').trim()).collect();
            tests.entry(name.to_owned()).or_default().push(comment.join(" "));
        }
    }
}

/// Takes note of a scenario; its comment is the first line.
fn note_scenario(tests: &mut Tests, name: &str, text: &str) {
    let first = text.lines().next().filter(|line| line.starts_with('#')).unwrap_or_default();
    tests.entry(name.to_owned()).or_default().push(first.to_owned());
}

/// Every test of the project.
fn all_tests() -> Tests {
    let mut tests = Tests::new();
    for path in tree() {
        let read = || fs::read_to_string(root().join(&path)).unwrap();
        if Path::new(&path).extension().is_some_and(|end| end == "rs") {
            note_rust(&mut tests, &path, &read());
            continue;
        }
        let scenario =
            path.strip_prefix("coordinator/core/tests/scenarios/").and_then(|name| name.strip_suffix(".txt"));
        if let Some(name) = scenario {
            note_scenario(&mut tests, name, &read());
        }
    }
    tests
}

/// What is wrong with the table.
fn faults(rows: &[Row], tests: &Tests, gaps: &[(u32, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    for number in 1..=INVARIANTS {
        if numbers.iter().filter(|there| **there == number).count() != 1 {
            faults.push(format!("invariant {number} has not exactly one row"));
        }
    }
    faults.extend(
        numbers
            .iter()
            .filter(|number| **number == 0 || **number > INVARIANTS)
            .map(|number| format!("the row {number} is about an invariant that is not there")),
    );
    for row in rows {
        let number = row.number;
        let known = gaps.iter().any(|(gap, _)| *gap == number);
        match (row.has_gap, known) {
            (true, false) => faults.push(format!("invariant {number} has \"{NO_TEST_YET}\" and is no known gap")),
            (false, true) => faults.push(format!("invariant {number} is a known gap, and the page does not say so")),
            (false, false) if row.tests.is_empty() => faults.push(format!("invariant {number} names no test")),
            _ => {}
        }
        faults.extend(row.tests.iter().filter_map(|test| test_fault(number, test, tests)));
    }
    faults
}

fn test_fault(number: u32, test: &str, tests: &Tests) -> Option<String> {
    let Some(comments) = tests.get(test) else {
        return Some(format!("invariant {number}: there is no test {test}"));
    };
    let cites = |text: &str| cited(text).contains(&number);
    let is_cited = cites(&test.replace('_', " ")) || comments.iter().any(|comment| cites(comment));
    (!is_cited).then(|| format!("invariant {number}: {test} does not cite safety {number}"))
}

#[test]
fn every_invariant_has_a_test_that_cites_it() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    assert_none(&faults(&rows(&page), &all_tests(), &GAPS));
}

/// What is in backticks in the second column of the table under the heading of the scenarios, folders apart.
fn scenarios(page: &str) -> Vec<String> {
    let section = page.split("\n## ").find(|section| section.starts_with("Scenarios\n")).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|line| line.trim_matches('|').split(" | ").nth(1));
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    named.filter(|name| !name.contains('/')).map(str::to_owned).collect()
}

#[test]
fn every_scenario_that_is_listed_is_there() {
    let (page, tests) = (fs::read_to_string(root().join(PAGE)).unwrap(), all_tests());
    let named = scenarios(&page);
    assert!(named.len() >= SCENARIOS, "only {named:?}");
    let missing: Vec<String> = named.into_iter().filter(|name| !tests.contains_key(name)).collect();
    assert_none(&missing);
    let table = "a\n## Scenarios\n\n| s | t |\n|---|---|\n| one `x` | `y`, and `z` in `a/b/` |\n\n## B\n| c | `d` |\n";
    assert_eq!(scenarios(table), ["y", "z"]);
}

/// The page as it should be, in small: every invariant is held by one test.
fn whole_page() -> String {
    let rows: Vec<String> = (1..=INVARIANTS).map(|number| format!("| {number} | a | b | `holds` |")).collect();
    format!("# Safety\n\n## Invariants\n\n| number | what | where | tests |\n|---|---|---|---|\n{}\n", rows.join("\n"))
}

fn small_tests() -> Tests {
    let mut tests = Tests::new();
    note_rust(&mut tests, "a/tests/b.rs", "/// safety 1 to 31,\n/// 32: all.\n#[test]\nfn holds() {\n}\n");
    note_rust(
        &mut tests,
        "a/src/b.rs",
        "/// safety 2.\n#[tokio::test]\nasync fn second() {}\n\n/// safety 2.\nfn none() {}\n",
    );
    note_scenario(&mut tests, "story", "# safety 3: a\n# safety 4\n");
    tests
}

#[test]
fn a_missing_row_an_unknown_test_and_one_that_does_not_cite_are_caught() {
    let tests = small_tests();
    let found = |from: &str, to: &str, gaps: &[(u32, &str)]| {
        let page = whole_page();
        assert!(page.contains(from), "{from} is not replaced");
        faults(&rows(&page.replace(from, to)), &tests, gaps)
    };
    let two = "| 2 | a | b | `holds` |";
    assert_eq!(found(two, two, &[]), Vec::<String>::new());
    assert_eq!(found(two, "| 2 | a | b | `holds`, `second` |", &[]), Vec::<String>::new());
    assert_eq!(found(two, "", &[]), ["invariant 2 has not exactly one row"]);
    assert_eq!(found(two, &format!("{two}\n{two}"), &[]), ["invariant 2 has not exactly one row"]);
    assert_eq!(found(two, &format!("{two}\n| 33 | a | b | `holds` |"), &[]).len(), 2, "no such row, not cited");
    assert_eq!(found(two, "| 2 | a | b | `gone` |", &[]), ["invariant 2: there is no test gone"]);
    assert_eq!(found(two, "| 2 | a | b | `none` |", &[]), ["invariant 2: there is no test none"], "no test");
    assert_eq!(found(two, "| 2 | a | b | `story` |", &[]), ["invariant 2: story does not cite safety 2"]);
    assert_eq!(found(two, "| 2 | a | b | |", &[]), ["invariant 2 names no test"]);
    assert_eq!(found("| 3 | a | b | `holds` |", "| 3 | a | b | `story` |", &[]), Vec::<String>::new());
    let four = found("| 4 | a | b | `holds` |", "| 4 | a | b | `story` |", &[]);
    assert_eq!(four, ["invariant 4: story does not cite safety 4"], "only the first line counts");
    let gap = "| 2 | a | b | no test yet |";
    assert_eq!(found(two, gap, &[(2, "why")]), Vec::<String>::new());
    assert_eq!(found(two, gap, &[]), ["invariant 2 has \"no test yet\" and is no known gap"]);
    let closed = ["invariant 2 is a known gap, and the page does not say so"];
    assert_eq!(found(two, two, &[(2, "why")]), closed, "the list can only shrink");
    assert_eq!(faults(&rows("no table"), &tests, &[]).len(), 32);
}

#[test]
fn lists_and_spans_of_citations_are_read() {
    let numbers = |text: &str| cited(text).into_iter().collect::<Vec<_>>();
    assert_eq!(numbers("Safety 4, 6: two. And safety 9."), [4, 6, 9]);
    assert_eq!(numbers("safety 1, 2, 4 to 6 and 11, for every stream of 7"), [1, 2, 4, 5, 6, 11]);
    assert_eq!(numbers("safety, Attempt; 5, safety first, unsafety"), Vec::<u32>::new());
}
