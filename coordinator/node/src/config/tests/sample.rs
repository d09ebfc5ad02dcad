//! The sample file is the manual: it names every key, and what it says of each is so.

use std::collections::BTreeSet;

use super::*;

/// One key of the sample file: what the comment above it promises, and what is written.
struct Documented {
    key: String,
    comment: String,
    value: String,
}

/// Reads the sample as a person does: comments, then a key, perhaps commented out.
fn documented() -> Vec<Documented> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), Vec::new());
    for line in SAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let word = bare.split(' ').next().unwrap_or_default();
        let is_key = bare.contains(" = ")
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if let Some(name) = line.strip_prefix("[[") {
            section = format!("{}[]", name.trim_end_matches("]]"));
        } else if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if is_key {
            let (key, value) = bare.split_once(" = ").unwrap();
            found.push(Documented {
                key: format!("{section}.{key}"),
                comment: std::mem::take(&mut comment),
                value: value.to_owned(),
            });
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(line.trim_start_matches('#'));
        }
    }
    found
}

#[test]
fn the_sample_file_is_accepted_without_a_warning() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.peers.len(), 3);
    assert_eq!(config.node.tags.get("zone").unwrap(), "a");
}

#[test]
fn the_sample_file_names_every_key_and_no_other() {
    let named: BTreeSet<String> = documented().into_iter().map(|entry| entry.key).collect();
    let exist: BTreeSet<String> = schema().into_keys().collect();
    assert_eq!(named, exist);
}

#[test]
fn the_sample_file_tells_the_truth_about_defaults() {
    let schema = schema();
    let toml = |text: &str| -> toml::Table { format!("it = {text}").parse().unwrap() };
    let mut seen = BTreeSet::new();
    for entry in documented() {
        if !seen.insert(entry.key.clone()) {
            continue;
        }
        let default = schema.get(&entry.key).unwrap();
        let promised = entry.comment.split_once("Default: ").map(|(_, rest)| rest.trim());
        match (default, promised) {
            (Some(default), Some(promised)) => {
                assert_eq!(toml(default), toml(promised), "{}", entry.key);
                // Tags are the one key whose default would show nobody how it is written.
                if entry.key != "node.tags" {
                    assert_eq!(toml(&entry.value), toml(default), "{}", entry.key);
                }
            }
            (None, None) => {
                let words = ["Mandatory.", "Optional."];
                let said = words.iter().any(|word| entry.comment.contains(word));
                assert!(said, "{} must be Mandatory. or Optional.", entry.key);
            }
            (default, promised) => panic!("{}: {default:?} against {promised:?}", entry.key),
        }
    }
}

#[test]
fn mandatory_keys_are_exactly_those_that_the_sample_calls_so() {
    let text = "[[peers]]\n[[signers]]\n[[checks]]\n";
    let faults = parse(text).unwrap_err();
    let missing: BTreeSet<String> =
        faults.errors().filter(|fault| fault.what == "missing").map(|fault| fault.key.replace("[0]", "[]")).collect();
    let mut mandatory: BTreeSet<String> =
        documented().into_iter().filter(|entry| entry.comment.contains("Mandatory.")).map(|entry| entry.key).collect();
    mandatory.insert("bitcoind.cookie_file".to_owned()); // or a user
    assert_eq!(missing, mandatory);
}
