//! The commands that the documentation and this program's own texts show can be typed as they stand: every option and
//! subcommand exists, and none that is needed is missing.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::{Cli, local};

const PROGRAM: &str = "onespend ";
/// What may stand before the program.
const BEFORE: [&str; 7] = [
    "",
    "runuser -u onespend -- ",
    "until ",
    "target/release/",
    "docker compose run --rm ",
    "ONESPEND_AS=client/payouts docker compose run --rm ",
    "descriptor=$(docker compose exec -T node-1 /usr/bin/",
];
/// Words that stand for a value, and one that they may stand for.
const SAMPLES: [(&str, &str); 6] = [
    ("ADDRESS", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
    ("OUTPOINT", "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456:0"),
    ("TXID", "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"),
    ("HASH", "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"),
    ("EPOCH/INDEX", "1/10523"),
    ("ID", "2"),
];
/// What is left out of a command.
const LEFT_OUT: &str = "…";

/// The README, the pages of the book, and the sources of this crate without their tests, by their paths.
fn texts() -> Vec<(PathBuf, String)> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_folder.join("../..");
    let mut files = vec![root.join("README.md")];
    files.extend(
        inside(&root.join("docs/src")).into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")),
    );
    let mut folders = vec![crate_folder.join("src")];
    while let Some(folder) = folders.pop() {
        let (inner, sources): (Vec<_>, Vec<_>) = inside(&folder).into_iter().partition(|path| path.is_dir());
        folders.extend(inner.into_iter().filter(|path| !path.ends_with("tests")));
        files.extend(sources.into_iter().filter(|path| !path.to_string_lossy().ends_with("tests.rs")));
    }
    files.into_iter().map(|path| (path.clone(), without_tests(&fs::read_to_string(path).unwrap()))).collect()
}

/// What lies in a folder.
fn inside(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The tests of a source stand at its end.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// The commands of a text without the program, and whether each is a line of a script, so that nothing may be missing.
fn shown(text: &str) -> Vec<(String, bool)> {
    let text = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for before in BEFORE {
        let start = format!("`{before}{PROGRAM}");
        let quoted = text.split(start.as_str()).skip(1).filter_map(|rest| rest.split_once('`'));
        found.extend(quoted.map(|(command, _)| (command.to_owned(), false)));
    }
    let command = |line: &str| {
        BEFORE.iter().find_map(|before| Some(line.strip_prefix(before)?.strip_prefix(PROGRAM)?.to_owned()))
    };
    found.extend(script(&text).into_iter().filter_map(command).map(|command| (command, true)));
    found
}

/// The lines of the blocks of shell commands.
fn script(text: &str) -> Vec<&str> {
    let (mut lines, mut fence) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        match (fence, line.strip_prefix("```")) {
            (None, opened) => fence = opened,
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => lines.push(line),
            (Some(_), None) => {}
        }
    }
    lines
}

/// The words of a command, as a shell has them. What follows the command is left out: a comment, a pipe, another command.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (quote, letter) {
            (Some(end), _) if letter == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | ';' | '>' | ')') => break,
            (None, '#') if word.is_none() => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (_, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// A value in place of a word that stands for one, also before `=`.
fn with_value(word: &str) -> String {
    let (name, rest) = word.split_at(word.find('=').unwrap_or(word.len()));
    let value = SAMPLES.iter().find(|(sampled, _)| *sampled == name).map_or(name, |(_, value)| value);
    format!("{value}{rest}")
}

/// Whether it is nothing but the name of a command, or of a group of them.
fn is_a_name(words: &[String]) -> bool {
    let all = Cli::command();
    let mut names = words.iter().filter(|word| *word != LEFT_OUT);
    names.try_fold(&all, |command, name| command.find_subcommand(name)).is_some()
}

/// Why a command cannot be typed.
fn fault(command: &str, is_script: bool) -> Option<String> {
    let words = words(command);
    if !is_script && is_a_name(&words) {
        return None;
    }
    let typed = words.iter().map(|word| with_value(word));
    let typed = std::iter::once(PROGRAM.trim().to_owned()).chain(typed).map(OsString::from);
    let refusal = local::parse(typed).err()?;
    let is_answered = matches!(refusal.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!is_answered).then(|| format!("{PROGRAM}{command}: {refusal}"))
}

#[test]
fn every_command_that_is_shown_can_be_typed() {
    let (mut seen, mut faults) = (0, Vec::new());
    for (path, text) in texts() {
        for (command, is_script) in shown(&text) {
            seen += 1;
            faults.extend(fault(&command, is_script).map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(seen > 200, "only {seen} commands were found");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_command_that_cannot_be_typed_is_caught() {
    for wrong in [
        "utxo list --state available",
        "utxo list --wallet hot --state gone",
        "utxo --state available",
        "walet list",
        "wallet unfrieze",
        "pay --no-such-option",
        "cluster transfer --to",
        "pki issue node 1",
        "--endpoint 127.0.0.1:1",
        "backup list folder --profile pki",
    ] {
        assert!(fault(wrong, false).is_some(), "{wrong}");
    }
    for fine in ["utxo list", "signer …", "wallet freeze hot --note …", "help pay", "cluster transfer --to ID"] {
        assert_eq!(fault(fine, false), None);
    }
    assert!(fault("utxo list", true).is_some(), "a script lacks nothing");
    assert_eq!(fault("pay --wallet hot --payment-id 1 --to ADDRESS=10000 # a comment", true), None);
}

#[test]
fn commands_are_found_in_sentences_and_scripts() {
    let text = "Say `onespend a --b\nc`.\n  ```sh\n  runuser -u onespend -- onespend d \\\n    e # f\n  ls\n  ```\n```text\nonespend g\n```\n";
    let found: Vec<_> = shown(text).into_iter().map(|(command, is_script)| (words(&command), is_script)).collect();
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(found, [(of(&["a", "--b", "c"]), false), (of(&["d", "e"]), true)]);
    assert_eq!(words("a 'b c' \"\" d#e | f"), of(&["a", "b c", "", "d#e"]));
    assert_eq!(
        [with_value("ID"), with_value("IDS"), with_value("HASH=1")],
        ["2".to_owned(), "IDS".to_owned(), format!("{}=1", SAMPLES[3].1)]
    );
}
