//! Keeps the documentation true where a program can: links lead somewhere, the book lists every page, the files that
//! the pages name are there, the architecture page's map has every module, the commands exist, and every invariant has
//! a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "docs/invariants.rs"]
mod invariants;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onespend_testnet::programs;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 1] = ["target"];
/// Pages whose backticked paths must be there, and where each says that its paths begin, besides the root.
const NAMES_FILES: [(&str, &[&str]); 4] = [
    ("docs/src/architecture.md", &["coordinator/node/src/"]),
    ("docs/src/safety.md", &["coordinator/", "coordinator/node/src/"]),
    ("docs/src/adr/", &["coordinator/", "coordinator/node/src/"]),
    ("CONTRIBUTING.md", &[]),
];
/// How a word in backticks shows that it is a path.
const PATH_ENDS: [&str; 6] = [".rs", ".proto", ".sh", ".py", ".toml", "/"];
const MAP: &str = "docs/src/architecture.md";
/// How the pages say that a command is run as the node's user.
const AS_NODE: &str = "runuser -u onespend -- ";
/// Crates whose modules the map must have, all of them.
const CRATES: [&str; 6] = ["coordinator/core", "coordinator/node", "adapters", "proto", "policies", "testnet"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file and folder (with a `/` at its end) of the project, relative to the root.
fn tree() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = entry.path().strip_prefix(root()).unwrap().display().to_string();
            if entry.file_type().unwrap().is_dir() {
                if !SKIPPED.contains(&name.as_str()) && (!name.starts_with('.') || name == ".ci" || name == ".github") {
                    found.insert(format!("{path}/"));
                    open.push(entry.path());
                }
            } else {
                found.insert(path);
            }
        }
    }
    found
}

fn pages(tree: &BTreeSet<String>) -> Vec<(String, String)> {
    let pages: Vec<_> = tree.iter().filter(|path| Path::new(path).extension().is_some_and(|end| end == "md")).collect();
    assert!(pages.len() > 10, "the scan found almost nothing: {pages:?}");
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The text without its fenced blocks, and the blocks of shell commands.
fn parts(text: &str) -> (String, String) {
    let (mut prose, mut shell, mut fence) = (String::new(), String::new(), None);
    for line in text.lines() {
        match (fence, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, None) => prose.extend([line, "\n"]),
            (Some("sh"), None) => shell.extend([line.trim_start(), "\n"]),
            (Some(_), None) => {}
        }
    }
    (prose, shell)
}

fn prose(text: &str) -> String {
    parts(text).0
}

/// Shell commands; those that end in a backslash are joined with the next line.
fn shell_lines(text: &str) -> Vec<String> {
    parts(text).1.replace("\\\n", "").lines().map(str::to_owned).collect()
}

/// The targets of the links of a page.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned()).collect()
}

/// The anchors that mdBook and GitHub make of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|heading| slug(heading.trim_start_matches('#').trim())).collect()
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// What is wrong with the links of one page.
fn link_faults(page: &str, text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for link in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
        let folder = Path::new(page).parent().unwrap();
        let target = if path.is_empty() { PathBuf::from(page) } else { folder.join(path) };
        match read(&target) {
            None => faults.push(format!("{page}: {link} leads nowhere")),
            Some(found) if anchor.is_some_and(|anchor| !anchors(&found).contains(anchor)) => {
                faults.push(format!("{page}: {link} names no heading"));
            }
            Some(_) => {}
        }
    }
    faults
}

/// The words in backticks that look like paths.
fn named_paths(text: &str) -> Vec<String> {
    let prose = prose(text);
    let words = prose.split('`').skip(1).step_by(2);
    let is_path =
        |word: &&str| !word.contains(['<', '*', ' ', '$', ':']) && PATH_ENDS.iter().any(|end| word.ends_with(end));
    words.filter(is_path).map(str::to_owned).collect()
}

/// Whether a path leads somewhere, from the root or from where the page says.
fn is_there(tree: &BTreeSet<String>, named: &str, prefixes: &[&str]) -> bool {
    tree.contains(named) || prefixes.iter().any(|prefix| tree.contains(&format!("{prefix}{named}")))
}

/// The page without the map, whose paths begin with the folder in the heading; it has a test of its own.
fn without_map(text: &str) -> String {
    let parts: Vec<&str> = text.split("\n## ").filter(|section| !section.starts_with("The map")).collect();
    parts.join("\n## ")
}

/// The sections of the map: the folder in the heading, and what is named below it.
fn map_sections(text: &str) -> Vec<(String, Vec<String>)> {
    let map = text.split("\n## ").find(|section| section.starts_with("The map")).unwrap();
    let sections = map.split("\n### `").skip(1).map(|section| section.split_once('`').unwrap());
    sections.map(|(folder, text)| (folder.to_owned(), named_paths(text))).collect()
}

/// The modules of a crate: what lies in its `src`, tests and the entries of folders apart.
fn modules(tree: &BTreeSet<String>, folder: &str) -> Vec<String> {
    let inside = tree.iter().filter_map(|path| path.strip_prefix(&format!("{folder}/")));
    let top = inside.filter(|path| {
        let rest = path.strip_prefix("src/").unwrap_or_default();
        let is_module = !rest.is_empty() && !rest.trim_end_matches('/').contains('/');
        is_module && !rest.ends_with("_tests.rs")
    });
    top.map(str::to_owned).collect()
}

#[test]
fn links_lead_somewhere() {
    let read = |path: &Path| {
        let path = root().join(path);
        if path.is_dir() { Some(String::new()) } else { fs::read_to_string(path).ok() }
    };
    let faults = pages(&tree()).iter().flat_map(|(page, text)| link_faults(page, text, read)).collect::<Vec<_>>();
    assert_none(&faults);
}

#[test]
fn the_summary_lists_every_page() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = links(&summary).iter().map(|link| format!("docs/src/{link}")).collect();
    let pages = pages(&tree()).into_iter().map(|(page, _)| page);
    let there: BTreeSet<String> =
        pages.filter(|page| page.starts_with("docs/src/") && !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, there);
}

#[test]
fn files_that_the_pages_name_are_there() {
    let tree = tree();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (page, text) in &pages(&tree) {
        let Some((name, prefixes)) = NAMES_FILES.iter().find(|(name, _)| page.starts_with(name)) else { continue };
        let named = named_paths(&without_map(text));
        if !named.is_empty() {
            seen.insert(*name);
        }
        let missing = named.into_iter().filter(|path| !is_there(&tree, path, prefixes));
        faults.extend(
            missing.map(|path| format!("{page} names {path}, which leads nowhere from the root or {prefixes:?}")),
        );
    }
    assert_eq!(seen.len(), NAMES_FILES.len(), "only these name a file: {seen:?}");
    assert_none(&faults);
}

#[test]
fn the_map_has_every_module_and_nothing_else() {
    let tree = tree();
    let sections = map_sections(&fs::read_to_string(root().join(MAP)).unwrap());
    let folders: Vec<&str> = sections.iter().map(|(folder, _)| folder.as_str()).collect();
    assert_eq!(folders, CRATES);
    let mut faults = Vec::new();
    for (folder, named) in &sections {
        let missing = named.iter().filter(|path| !tree.contains(&format!("{folder}/{path}")));
        faults.extend(missing.map(|path| format!("{folder} has no {path}")));
        let mapped = |module: &String| named.iter().any(|path| path.starts_with(module.as_str()));
        let forgotten = modules(&tree, folder).into_iter().filter(|module| !mapped(module));
        faults.extend(forgotten.map(|module| format!("the map lacks {folder}/{module}")));
    }
    assert_none(&faults);
}

#[test]
fn make_has_every_target_that_is_named() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut faults = Vec::new();
    for (page, text) in pages(&tree()) {
        let lines = shell_lines(&text);
        let in_backticks = text.split('`').map(str::to_owned);
        let named =
            lines.into_iter().chain(in_backticks).filter_map(|line| line.strip_prefix("make ").map(str::to_owned));
        let targets = named.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        let missing = targets.filter(|target| !makefile.contains(&format!("\n{target}:")));
        faults.extend(missing.map(|target| format!("{page} names make {target}")));
    }
    assert_none(&faults);
}

/// A test that `make` asks for by its whole name, and that has another one, would not be run, and nothing would fail.
#[test]
fn tests_that_make_asks_for_by_name_are_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let named: Vec<&str> = makefile.split_whitespace().filter(|word| word.contains("::tests::")).collect();
    assert!(makefile.contains("--exact") && named.len() == makefile.matches("--exact").count(), "{named:?}");
    for name in named {
        let (module, test) = name.split_once("::tests::").unwrap();
        let path = format!("coordinator/node/src/{}.rs", module.replace("::", "/"));
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(text.contains(&format!("#[test]\n    fn {test}()")), "{path} has no test {test}");
    }
}

/// The commands of the pages, as `--help` knows them: subcommands and options, not their values.
#[test]
fn the_command_line_has_every_command_that_is_shown() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for (page, text) in pages(&tree()) {
        let lines = shell_lines(&text);
        for line in lines.iter().map(|line| as_anybody(line)).filter(|line| line.starts_with("onespend ")) {
            seen += 1;
            faults.extend(command_faults(line).into_iter().map(|fault| format!("{page}: {line}\n  {fault}")));
        }
    }
    assert!(seen > 5, "only {seen} commands were found in the pages");
    assert_eq!(command_faults("onespend pay --no-such-option").len(), 1);
    assert_eq!(command_faults("onespend wallet no-such-command --profile x").len(), 1);
    assert_eq!(as_anybody("  runuser -u onespend -- onespend signer show "), "onespend signer show");
    assert_none(&faults);
}

/// The command, whoever runs it.
fn as_anybody(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix(AS_NODE).unwrap_or(line)
}

fn command_faults(line: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut help = help_of(&path);
    let line = line.split(" #").next().unwrap();
    for word in line.split_whitespace().skip(1) {
        if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap();
            if !help.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == format!("--{option}")) {
                return vec![format!("onespend {} has no --{option}", path.join(" "))];
            }
        } else if has_subcommands(&help) {
            path.push(word.to_owned());
            help = help_of(&path);
            if help.is_empty() {
                return vec![format!("there is no command {}", path.join(" "))];
            }
        }
    }
    Vec::new()
}

fn has_subcommands(help: &str) -> bool {
    help.lines().any(|line| line == "Commands:")
}

fn help_of(path: &[String]) -> String {
    let output = Command::new(programs::onespend().unwrap()).args(path).arg("--help").output().unwrap();
    if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() }
}

#[test]
fn a_dead_link_and_a_missing_file_are_caught() {
    let read = |path: &Path| (path == Path::new("docs/there.md")).then(|| "# A heading, or two".to_owned());
    let faults = |text: &str| link_faults("docs/page.md", text, read).len();
    assert_eq!(faults("[a](there.md) [b](there.md#a-heading-or-two) [c](https://example.org/)"), 0);
    assert_eq!(faults("[a](gone.md) [b](there.md#another) [c](../there.md)"), 3);
    assert_eq!(faults("text\n```sh\n[a](gone.md)\n```\nmore"), 0);
    let tree = BTreeSet::from(["a/src/b.rs".to_owned(), "a/src/c/".to_owned(), "a/src/c/d.rs".to_owned()]);
    assert!(is_there(&tree, "a/src/b.rs", &[]) && is_there(&tree, "c/", &["a/src/"]));
    assert!(!is_there(&tree, "src/b.rs", &["a/src/"]) && !is_there(&tree, "b.rs", &[]), "the end of a path is not one");
    assert_eq!(without_map("a\n## The map\nb\n### c\nd\n## e\nf"), "a\n## e\nf");
    assert_eq!(named_paths("`b.rs` and `c/`, but `let x` and `Vec<u8>/` and `raft.db`"), ["b.rs", "c/"]);
    assert_eq!(modules(&tree, "a"), ["src/b.rs", "src/c/"]);
    assert_eq!(shell_lines("x\n  ```sh\n  one \\\n  two\n  ```\n```text\nthree\n```"), ["one two"]);
}
