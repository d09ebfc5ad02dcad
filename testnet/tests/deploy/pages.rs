//! What the book says of alerts and alarms.

use std::collections::BTreeSet;

/// The text below the heading of this anchor, up to the next heading of its level or above.
pub fn section<'a>(page: &'a str, anchor: &str) -> Option<&'a str> {
    let (mut begin, mut level, mut at) = (None, 0, 0);
    for line in page.split_inclusive('\n') {
        let depth = line.len() - line.trim_start_matches('#').len();
        if depth > 0 && begin.is_some() && depth <= level {
            return begin.map(|begin| &page[begin..at]);
        }
        at += line.len();
        if depth > 0 && begin.is_none() && slug(line) == anchor {
            (begin, level) = (Some(at), depth);
        }
    }
    begin.map(|begin| &page[begin..])
}

/// The anchor that GitHub and mdBook make of a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The word in backticks that begins each row of the tables.
pub fn rows(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(first, _)| first.to_owned()).collect()
}

#[test]
fn sections_and_rows_are_found() {
    let page = "# A\n\n| `x` | y |\n\n## B, or c\n| `b` | d |\n### D\n| `d` | `e` |\n## E\n| `f` |\n| g `h` |\n";
    let rows_of = |anchor| section(page, anchor).map(|found| rows(found).into_iter().collect::<Vec<_>>());
    assert_eq!(rows_of("b-or-c"), Some(vec!["b".to_owned(), "d".to_owned()]));
    assert_eq!(rows_of("d"), Some(vec!["d".to_owned()]));
    assert_eq!(rows_of("e"), Some(vec!["f".to_owned()]));
    assert_eq!(rows_of("gone"), None);
    assert_eq!(rows(page).len(), 4);
}
