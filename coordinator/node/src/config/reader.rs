//! Reads one section: each key once, with its type, its bounds and its default.
//!
//! A reader never fails. A wrong value becomes a [`Fault`](super::Fault) and a stand-in; the
//! whole configuration is refused afterwards, so no stand-in is ever used.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::address::HostPort;
use super::document::{Node, Table, Value};
use super::fault::{Faults, Place};

/// What is learnt while reading: faults, the place of each key, and which keys exist.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) faults: Faults,
    /// Key, such as `peers[0].id`, to where its value was written.
    pub(crate) places: BTreeMap<String, Place>,
    /// Every key that exists, such as `peers[].id`, and its default as TOML, if it has one.
    pub(crate) schema: BTreeMap<String, Option<String>>,
    /// The folder that relative paths start from: the file's own.
    pub(crate) base: PathBuf,
}

impl Reading {
    /// Where this key was written; its section, or the file's beginning, if it was not.
    pub(crate) fn place(&self, key: &str) -> Place {
        let section = key.rsplit_once('.').map_or(key, |(section, _)| section);
        self.places.get(key).or_else(|| self.places.get(section)).cloned().unwrap_or(Place::START)
    }

    /// Refuses the value of `key`, unless one of `others` (or it) is wrong already.
    pub(crate) fn refuse(&mut self, key: &str, others: &[&str], what: String, why: &str) {
        if !self.faults.concern(key) && !others.iter().any(|other| self.faults.concern(other)) {
            self.faults.error(self.place(key), key, what, why);
        }
    }

    /// Like [`Reading::refuse`], but the node may start.
    pub(crate) fn warn(&mut self, key: &str, others: &[&str], what: String, why: &str) {
        if !self.faults.concern(key) && !others.iter().any(|other| self.faults.concern(other)) {
            self.faults.warning(self.place(key), key, what, why);
        }
    }
}

/// A section being read. [`Section::finish`] then reports the keys that nobody asked for.
#[derive(Debug)]
pub struct Section<'a> {
    name: String,
    place: Place,
    entries: Table,
    known: Vec<String>,
    reading: &'a mut Reading,
}

impl<'a> Section<'a> {
    pub(crate) fn new(name: String, place: Place, entries: Table, reading: &'a mut Reading) -> Self {
        reading.places.insert(name.clone(), place.clone());
        Self { name, place, entries, known: Vec::new(), reading }
    }

    /// An integer within `bounds`; `None` as default makes it mandatory.
    pub fn integer(&mut self, key: &str, bounds: RangeInclusive<u64>, default: Option<u64>) -> u64 {
        let shown = default.map(|number| number.to_string());
        let stand_in = default.unwrap_or(*bounds.start());
        let Some(node) = self.take(key, shown, true) else {
            return stand_in;
        };
        self.within(key, &node, &bounds).unwrap_or(stand_in)
    }

    /// An integer within `bounds` that may be left out, which means something of its own.
    pub fn optional_integer(&mut self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let node = self.take(key, None, false)?;
        self.within(key, &node, &bounds)
    }

    fn within(&mut self, key: &str, node: &Node, bounds: &RangeInclusive<u64>) -> Option<u64> {
        let Value::Integer(number) = node.value else {
            self.wrong_type(key, node, "an integer");
            return None;
        };
        let fits = u64::try_from(number).ok().filter(|number| bounds.contains(number));
        if fits.is_none() {
            let what = format!("{number} is out of bounds");
            let why = format!("it must be within {}..={}", bounds.start(), bounds.end());
            self.fault(key, node, what, &why);
        }
        fits
    }

    /// An integer within `bounds` that fits 32 bits.
    pub fn integer32(&mut self, key: &str, bounds: RangeInclusive<u32>, default: u32) -> u32 {
        let bounds = u64::from(*bounds.start())..=u64::from(*bounds.end());
        let number = self.integer(key, bounds, Some(u64::from(default)));
        u32::try_from(number).unwrap_or(default)
    }

    /// A duration in whole milliseconds within `bounds`.
    pub fn millis(&mut self, key: &str, bounds: RangeInclusive<u64>, default: u64) -> std::time::Duration {
        std::time::Duration::from_millis(self.integer(key, bounds, Some(default)))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(node) = self.take(key, Some(default.to_string()), true) else {
            return default;
        };
        if let Value::Flag(flag) = node.value {
            return flag;
        }
        self.wrong_type(key, &node, "a boolean");
        default
    }

    /// A string; `None` as default makes it mandatory.
    pub fn text(&mut self, key: &str, default: Option<&str>) -> String {
        let shown = default.map(|text| format!("{text:?}"));
        self.take(key, shown, true)
            .and_then(|node| self.as_text(key, node))
            .unwrap_or_else(|| default.unwrap_or_default().to_owned())
    }

    /// A string that may be left out, which means something of its own.
    pub fn optional_text(&mut self, key: &str) -> Option<String> {
        let node = self.take(key, None, false)?;
        self.as_text(key, node)
    }

    /// A path; mandatory. A relative one starts from the configuration file's folder.
    pub fn path(&mut self, key: &str) -> PathBuf {
        let text = self.text(key, None);
        if text.is_empty() && !self.reading.faults.concern(&self.key(key)) {
            self.refuse(key, "is empty".to_owned(), "it must name a file or folder");
        }
        self.reading.base.join(text)
    }

    /// A path that may be left out.
    pub fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.optional_text(key)?;
        if text.is_empty() {
            self.refuse(key, "is empty".to_owned(), "leave the key out instead");
        }
        Some(self.reading.base.join(text))
    }

    /// A string that `check` accepts; it answers what is wrong with it.
    pub fn checked_text(&mut self, key: &str, check: fn(&str) -> Result<(), String>) -> String {
        let text = self.text(key, None);
        if !self.reading.faults.concern(&self.key(key))
            && let Err(why) = check(&text)
        {
            self.refuse(key, format!("{text:?} is not acceptable"), &why);
        }
        text
    }

    /// One of a few words. Without a default the key is mandatory.
    pub fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: Option<&str>) -> Option<T> {
        let text = self.text(key, default);
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() && !self.reading.faults.concern(&self.key(key)) {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let why = format!("it must be one of: {}", known.join(", "));
            self.refuse(key, format!("{text:?} is unknown"), &why);
        }
        found.map(|(_, value)| *value)
    }

    /// An address to listen on: an IP address and a port, which must not be 0.
    pub fn listen(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let text = self.text(key, Some(&default.to_string()));
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => address,
            Ok(_) => {
                let why = "peers and load balancers could not find a port that the system picks";
                self.refuse(key, "port 0".to_owned(), why);
                default
            }
            Err(_) => {
                let why = "it must be an IP address and a port, such as 0.0.0.0:7800 or [::]:7800";
                self.refuse(key, format!("{text:?} is not an address"), why);
                default
            }
        }
    }

    /// The same, for a socket that is not there unless it is named.
    pub fn optional_listen(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.optional_text(key)?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Some(address),
            Ok(_) => {
                let why = "a load balancer could not find a port that the system picks";
                self.refuse(key, "port 0".to_owned(), why);
                None
            }
            Err(_) => {
                let why = "it must be an IP address and a port, such as 0.0.0.0:7803 or [::]:7803";
                self.refuse(key, format!("{text:?} is not an address"), why);
                None
            }
        }
    }

    /// A host name or IP address with a port, as others reach it. Mandatory.
    pub fn host_port(&mut self, key: &str) -> HostPort {
        let text = self.text(key, None);
        if self.reading.faults.concern(&self.key(key)) {
            return HostPort::default();
        }
        match text.parse() {
            Ok(address) => address,
            Err(why) => {
                let what = format!("{text:?} is not an address");
                self.refuse(key, what, &why);
                HostPort::default()
            }
        }
    }

    /// An array of strings that may be left out, such as `["/usr/bin/test", "-e", "/run/ok"]`.
    pub fn optional_texts(&mut self, key: &str) -> Option<Vec<String>> {
        let node = self.take(key, None, false)?;
        let Value::Array(items) = node.value else {
            self.wrong_type(key, &node, "an array of strings");
            return None;
        };
        Some(items.into_iter().filter_map(|item| self.as_text(key, item)).collect())
    }

    /// A table of strings, such as `{ zone = "a" }`; empty by default.
    pub fn texts(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(node) = self.take(key, Some("{}".to_owned()), true) else {
            return BTreeMap::new();
        };
        let Value::Table(table) = node.value else {
            self.wrong_type(key, &node, "a table of strings");
            return BTreeMap::new();
        };
        let mut texts = BTreeMap::new();
        for (name, (_, node)) in table {
            if let Some(text) = self.as_text(key, node) {
                texts.insert(name, text);
            }
        }
        texts
    }

    /// Refuses the value of a key of this section.
    pub fn refuse(&mut self, key: &str, what: String, why: &str) {
        let path = self.key(key);
        self.reading.refuse(&path, &[], what, why);
    }

    /// Reports every key that was written and never asked for.
    pub fn finish(self) {
        for (key, (place, _)) in &self.entries {
            let why = closest(key, &self.known).map_or_else(
                || format!("[{}] knows: {}", self.name, self.known.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let path = self.key(key);
            let faults = &mut self.reading.faults;
            faults.error(place.clone(), &path, "unknown key".to_owned(), &why);
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn take(&mut self, key: &str, default: Option<String>, needed: bool) -> Option<Node> {
        let path = self.key(key);
        let mandatory = needed && default.is_none();
        self.known.push(key.to_owned());
        self.reading.schema.insert(general(&path), default);
        let Some((_, node)) = self.entries.remove(key) else {
            if mandatory {
                let what = "missing".to_owned();
                let place = self.place.clone();
                let why = "it has no default";
                self.reading.faults.error(place, &path, what, why);
            }
            return None;
        };
        self.reading.places.insert(path, node.place.clone());
        Some(node)
    }

    fn as_text(&mut self, key: &str, node: Node) -> Option<String> {
        match (node.value, node.raw) {
            (Value::Text(text), _) | (_, Some(text)) => Some(text),
            (value, None) => {
                let place = node.place;
                let node = Node { value, place, raw: None };
                self.wrong_type(key, &node, "a string");
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, node: &Node, wanted: &str) {
        let what = format!("is {}", node.value.kind());
        self.fault(key, node, what, &format!("it must be {wanted}"));
    }

    fn fault(&mut self, key: &str, node: &Node, what: String, why: &str) {
        let path = self.key(key);
        let place = node.place.clone();
        self.reading.faults.error(place, &path, what, why);
    }
}

/// `peers[3].id` → `peers[].id`.
fn general(path: &str) -> String {
    match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) => format!("{}{}", &path[..=open], &path[close..]),
        _ => path.to_owned(),
    }
}

/// A known word at an edit distance of at most 2: a typing mistake.
pub(crate) fn closest<'k>(word: &str, known: &'k [String]) -> Option<&'k String> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, by rows.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, letter) in left.chars().enumerate() {
        let mut next = vec![at + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = row[column] + usize::from(letter != *other);
            next.push(replaced.min(row[column + 1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row[right.len()]
}
