//! Tables without frames, within 100 columns.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

/// Widest output in columns.
pub const WIDTH: u16 = 100;

/// How a column behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Identifiers and words: never broken, since people copy them.
    Whole(&'static str),
    /// Numbers: to the right, never broken.
    Number(&'static str),
    /// Sentences: broken where the width ends.
    Text(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Whole(title) | Self::Number(title) | Self::Text(title) => title,
        }
    }
}

/// A list under headings; `none` if it is empty.
pub fn list<const N: usize>(columns: [Column; N], rows: impl IntoIterator<Item = [String; N]>, none: &str) -> String {
    let mut table = bare();
    table.set_header(columns.map(Column::title));
    table.add_rows(rows);
    if table.row_count() == 0 {
        return none.to_owned();
    }
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        match kind {
            Column::Whole(_) => drop(column.set_constraint(ColumnConstraint::ContentWidth)),
            Column::Number(_) => {
                column.set_constraint(ColumnConstraint::ContentWidth);
                column.set_cell_alignment(CellAlignment::Right);
            }
            Column::Text(_) => {}
        }
    }
    finish(&table)
}

/// One thing: a name and a value per line. Lines with an empty value are left out.
pub fn card<const N: usize>(lines: [(&str, String); N]) -> String {
    let mut table = bare();
    table.add_rows(
        lines.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| [name.to_owned(), value]),
    );
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    finish(&table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH + 2);
    table
}

fn finish(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_aligned_and_have_no_trailing_space() {
        let rows = [["a".to_owned(), "5".to_owned()], ["bb".to_owned(), "1,000".to_owned()]];
        let text = list([Column::Whole("ID"), Column::Number("SAT")], rows, "nothing");
        assert_eq!(text, "ID    SAT\na       5\nbb  1,000");
        let none: [[String; 1]; 0] = [];
        assert_eq!(list([Column::Text("ID")], none, "nothing"), "nothing");
    }

    #[test]
    fn sentences_are_broken_at_100_columns_and_identifiers_never() {
        let id = "f".repeat(66);
        let rows = [[id.clone(), "a sentence of several words that is far too long for what is left".to_owned()]];
        let text = list([Column::Whole("ID"), Column::Text("NOTE")], rows, "");
        assert!(text.contains(&id));
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
        let text = card([("name", "value ".repeat(40)), ("empty", String::new())]);
        assert!(text.lines().count() > 2 && !text.contains("empty"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
    }
}
