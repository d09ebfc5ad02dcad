//! Runs the binary.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use assert_cmd::Command;
use onespend::pki::{self, Kind};
use serde_json::Value;
use tempfile::TempDir;

use crate::node::Node;

/// Nothing here takes nearly so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }

    /// Asserts the exit code, and hands the rest on.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A command that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// The next line of its standard output.
    pub fn next_line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a further line")
    }

    /// Ctrl-C: how it ended.
    pub fn interrupt(mut self) -> i32 {
        // `kill` of the shell: a system call would need unsafe code.
        let mut kill = std::process::Command::new("sh");
        kill.args(["-c", "kill -s INT \"$1\"", "kill"]).arg(self.child.id().to_string());
        assert!(kill.status().unwrap().success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `onespend` in a clean environment.
pub fn onespend(args: &[&str]) -> Ended {
    with_environment(&[], args)
}

/// Runs it with variables.
pub fn with_environment(variables: &[(&str, &str)], args: &[&str]) -> Ended {
    with_input("", variables, args)
}

/// Tries of what is in use.
pub const TRIES: usize = 10;
/// Wait between two of them.
pub const RETRY: Duration = Duration::from_millis(50);

/// Runs it with variables and standard input.
///
/// What is in use is asked for some more times: a process that another test begins has all files of this one until it runs
/// its program, those with a lock that this test has just given back as well.
pub fn with_input(input: &str, variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let run = || once(input, variables, args);
    let mut ended = run();
    for _ in 1..TRIES {
        if !ended.err.contains("in use by another process") {
            break;
        }
        std::thread::sleep(RETRY);
        ended = run();
    }
    ended
}

fn once(input: &str, variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_onespend"))
        .env_clear()
        .env("PATH", path)
        .envs(variables.iter().copied())
        .args(args)
        .write_stdin(input)
        .timeout(PATIENCE)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A certificate authority with certificates for nodes 1 to 3, a client and an operator.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        Self::of("demo")
    }

    /// The same for another cluster.
    pub fn of(cluster: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path(), cluster).unwrap();
        for id in ["1", "2", "3"] {
            pki::issue(folder.path(), Kind::Node, id, &["127.0.0.1".to_owned()], 100).unwrap();
        }
        pki::issue(folder.path(), Kind::Client, "payouts", &[], 100).unwrap();
        pki::issue(folder.path(), Kind::Operator, "alice", &[], 100).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A cluster of one node, and how a client calls it.
pub struct Cluster {
    pub authority: Authority,
    pub node: Node,
}

impl Cluster {
    pub fn start() -> Self {
        let authority = Authority::new();
        let node = Node::start(&authority, 1);
        let endpoints = format!("data = ['{0}']\ncontrol = ['{0}']\n", node.address());
        std::fs::write(authority.file("endpoints"), endpoints).unwrap();
        Self { authority, node }
    }

    /// Runs a command as `client/payouts`.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_as("client/payouts", args)
    }

    /// Begins a command as this caller, which ends only when it is told to.
    pub fn begin_as(&self, caller: &str, args: &[&str]) -> Running {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_onespend"))
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("ONESPEND_PROFILE", self.authority.path())
            .env("ONESPEND_AS", caller)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Running { child, lines }
    }

    /// Runs a command as this caller.
    pub fn run_as(&self, caller: &str, args: &[&str]) -> Ended {
        let profile = self.authority.path().to_str().unwrap();
        with_environment(&[("ONESPEND_PROFILE", profile), ("ONESPEND_AS", caller)], args)
    }
}
