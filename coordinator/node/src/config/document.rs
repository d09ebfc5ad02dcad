//! The configuration as written: a tree of values, each of which knows its place.
//!
//! serde stops at the first fault and forgets where values came from; rules that combine two keys
//! need the place of both. So the text becomes this tree, the environment is laid over it, and
//! sections read themselves from it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Place};

/// Variables that begin so may override a key: `ONESPEND_<SECTION>__<KEY>`.
const PREFIX: &str = "ONESPEND_";

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
    /// The untyped text, for values from the environment: `7` may have been meant as a text.
    pub(crate) raw: Option<String>,
}

/// What TOML can say.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float,
    Flag(bool),
    Date,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The type's name in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a float",
            Self::Flag(_) => "a boolean",
            Self::Date => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A table: per key the place of the key itself and its value.
pub(crate) type Table = BTreeMap<String, (Place, Node)>;

/// Parses the text. Every fault of syntax is reported, and then nothing else; what could be read is returned.
pub(crate) fn parse(text: &str, faults: &mut Faults) -> Table {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = error.span().map_or(Place::START, |span| lines.place(span.start));
        let why = "the file must be TOML";
        faults.syntax(place, error.message().trim().replace('\n', ", "), why);
    }
    lines.table(table.get_ref(), faults)
}

/// Lays `ONESPEND_<SECTION>__<KEY>` variables over the file. A value is typed by reading it as
/// TOML; what is not TOML is a string. Variables named in `but` (signers' secrets) are not keys.
pub(crate) fn overlay(table: &mut Table, environment: &[(String, String)], but: &[String], faults: &mut Faults) {
    for (name, raw) in environment {
        let Some((section, key)) = override_target(name) else {
            continue;
        };
        if but.contains(name) {
            continue;
        }
        let place = Place::Environment(name.clone());
        let node = Node { value: scalar(raw), place: place.clone(), raw: Some(raw.clone()) };
        let (_, holder) = table.entry(section.clone()).or_insert_with(|| (place.clone(), table_at(&place)));
        if let Value::Table(entries) = &mut holder.value {
            entries.insert(key, (place, node));
        } else {
            let what = "cannot be set from the environment".to_owned();
            faults.error(place, &section, what, "only keys of plain sections can");
        }
    }
}

fn override_target(name: &str) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
    Some((section.to_lowercase(), key.to_lowercase()))
}

fn table_at(place: &Place) -> Node {
    Node { value: Value::Table(Table::new()), place: place.clone(), raw: None }
}

fn scalar(raw: &str) -> Value {
    let mut unplaced = Faults::default();
    match DeValue::parse(raw) {
        Ok(value) => Lines::of(raw).value(&value, &mut unplaced).value,
        Err(_) => Value::Text(raw.to_owned()),
    }
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).map_or(0, |start| *start);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        Place::File { line, column: column + 1 }
    }

    fn span(&self, span: &Range<usize>) -> Place {
        self.place(span.start)
    }

    fn table(&self, table: &DeTable<'_>, faults: &mut Faults) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let place = self.span(&key.span());
                (key.get_ref().to_string(), (place, self.value(value, faults)))
            })
            .collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, faults: &mut Faults) -> Node {
        let place = self.span(&value.span());
        let read = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let read = i64::from_str_radix(number.as_str(), number.radix());
                Value::Integer(read.unwrap_or_else(|_| {
                    let what = format!("{number} is too large");
                    faults.error(place.clone(), "", what, "integers have 64 bits");
                    0
                }))
            }
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.value(item, faults)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, faults)),
        };
        Node { value: read, place, raw: None }
    }
}
