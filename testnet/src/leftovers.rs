//! Nodes of a folder that somebody started again by hand. They outlive the harness, hold the folder's ports, and would go
//! on in a folder that the next cluster empties.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::programs;
use crate::progress::say;

/// Above a node's own deadline for its shutdown.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A running node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    pid: u32,
    /// When it began, in ticks since the machine did: with the id it names one process for ever.
    began: String,
    program: PathBuf,
    config: PathBuf,
    user: u32,
}

/// Ends the nodes that run from a configuration in `dir`. One that is another user's or another program's is only named.
///
/// # Errors
/// One does not end.
pub fn end(dir: &Path) -> Result<()> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let user = fs::metadata(&dir)?.uid();
    let program = programs::onespend().ok().and_then(|program| program.canonicalize().ok());
    let found: Vec<Node> = running().filter(|node| node.config.starts_with(&dir)).collect();
    let (ours, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|node| node.user == user && Some(&node.program) == program.as_ref());
    for node in others {
        let (pid, config) = (node.pid, node.config.display());
        say(&format!("process {pid} ({}) still runs from {config}: end it yourself", node.program.display()));
    }
    for node in &ours {
        say(&format!("ending process {}, which was started by hand from {}", node.pid, node.config.display()));
        let _gone_already =
            Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "kill", &node.pid.to_string()]).status();
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while let Some(node) = ours.iter().find(|node| of(node.pid).as_ref() == Some(node)) {
        ensure!(Instant::now() < deadline, "process {} still runs after {STOP_TIMEOUT:?}", node.pid);
        thread::sleep(POLL);
    }
    Ok(())
}

fn running() -> impl Iterator<Item = Node> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?))
}

/// The node that a process is, if it is one.
fn of(pid: u32) -> Option<Node> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let words = fs::read(folder.join("cmdline")).ok()?;
    let words: Vec<String> = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into()).collect();
    let config = config_of(&words)?;
    let program = fs::read_link(folder.join("exe")).ok()?;
    // The kernel says so of one whose file was built anew since.
    let program = PathBuf::from(program.to_str()?.trim_end_matches(" (deleted)"));
    let config = fs::read_link(folder.join("cwd")).ok()?.join(config).canonicalize().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let began = stat.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned();
    Some(Node { pid, began, program, config, user: fs::metadata(&folder).ok()?.uid() })
}

/// The configuration of `onespend serve --config FILE`.
fn config_of(words: &[String]) -> Option<&str> {
    let (program, rest) = words.split_first()?;
    let is_node = Path::new(program).file_name()? == "onespend" && rest.iter().any(|word| word == "serve");
    let named =
        rest.iter().zip(rest.iter().skip(1)).find(|(word, _)| *word == "--config").map(|(_, file)| file.as_str());
    named.or_else(|| rest.iter().find_map(|word| word.strip_prefix("--config="))).filter(|_| is_node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_node_is_known_by_its_command_line() {
        let config = |line: &str| config_of(&words(line)).map(str::to_owned);
        assert_eq!(config("target/release/onespend serve --config a/b.toml"), Some("a/b.toml".to_owned()));
        assert_eq!(config("onespend serve --config=b.toml"), Some("b.toml".to_owned()));
        assert_eq!(config("onespend config check --config b.toml"), None);
        assert_eq!(config("less serve --config b.toml"), None);
        assert_eq!(config("onespend serve"), None);
    }

    /// Whoever calls itself a node without being our program is left alone.
    #[test]
    fn a_process_of_another_program_is_found_and_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        fs::write(&config, "").unwrap();
        let mut child = Command::new("sh");
        child.arg0("onespend").args(["-c", "read line; exit", "serve", "--config"]).arg(&config);
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let node = loop {
            if let Some(node) = of(child.id()) {
                break node;
            }
            assert!(Instant::now() < deadline, "it is not found");
            thread::sleep(POLL);
        };
        assert_eq!(node.config, config.canonicalize().unwrap());
        assert_ne!(node.program.file_name().unwrap(), "onespend");
        assert!(running().any(|other| other == node));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(node.pid), None);
    }
}
