//! The configuration: one TOML file, each section the `Config` of the module that it configures,
//! with `ONESPEND_<SECTION>__<KEY>` variables laid over it.
//!
//! A file with faults is refused with all of them at once, each with line and column. Unknown keys
//! are faults: a misspelt safety setting must not silently fall back to its default.

mod address;
mod api;
mod bitcoind;
mod cluster;
mod document;
mod fault;
mod files;
mod raft;
mod reader;
mod rules;
mod signer;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use address::HostPort;
pub use api::ApiConfig;
pub use bitcoind::{BitcoindConfig, BitcoindLogin};
pub use cluster::{ClusterConfig, ListenConfig, MAX_PEERS, NodeConfig, PeerConfig};
pub use fault::{ConfigFaults, Fault, Place, Severity};
pub use reader::Section;
pub use signer::{MAX_SIGNERS, SignerConfig, SignerKeys};

pub(crate) use address::is_dns_name;

use document::{Table, Value};
use fault::Faults;
use reader::{Reading, closest};

use crate::checks::config::{CheckConfig, MAX_CHECKS};
use crate::raft::RaftConfig;
use crate::{backup, health, room, shutdown, telemetry, tls};

/// Exit code of `onespend config check` for a file with errors.
pub const EXIT_FAULTS: u8 = 2;

/// Largest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 1_048_576;

/// Everything that an operator can set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[cluster]`
    pub cluster: ClusterConfig,
    /// `[node]`
    pub node: NodeConfig,
    /// `[[peers]]`
    pub peers: Vec<PeerConfig>,
    /// `[listen]`
    pub listen: ListenConfig,
    /// `[tls]`
    pub tls: tls::Config,
    /// `[raft]`
    pub raft: RaftConfig,
    /// `[storage]`
    pub storage: room::Config,
    /// `[bitcoind]`
    pub bitcoind: BitcoindConfig,
    /// `[[signers]]`
    pub signers: Vec<SignerConfig>,
    /// `[health]`
    pub health: health::Config,
    /// `[[checks]]`
    pub checks: Vec<CheckConfig>,
    /// `[api]`
    pub api: ApiConfig,
    /// `[backup]`
    pub backup: backup::Config,
    /// `[log]`
    pub log: telemetry::LogConfig,
    /// `[telemetry]`
    pub telemetry: telemetry::Config,
    /// `[shutdown]`
    pub shutdown: shutdown::Config,
    /// What is doubtful though not wrong, to be logged at the start.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// Reads `path` and the process's environment, and looks at every file that is named there.
    ///
    /// # Errors
    /// Every fault that was found, with at least one that is an error.
    pub fn load(path: &Path) -> Result<Self, ConfigFaults> {
        Self::load_with(path, &environment())
    }

    /// Like [`Config::load`], but for whoever checks the file: what a node starts without, and an operator should mend
    /// before, is an error here.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_strictly(path: &Path) -> Result<Self, ConfigFaults> {
        Self::load_files(path, &environment(), Severity::Error)
    }

    /// Like [`Config::load`], but looks at none of the files that are named there, nor for the variables that hold
    /// keys: for commands that work on the folder of a stopped node and need no secret.
    ///
    /// # Errors
    /// As [`Config::load`], but for the files.
    pub fn load_text(path: &Path) -> Result<Self, ConfigFaults> {
        let text = read_text(path).map_err(|fault| ConfigFaults { file: path.to_owned(), faults: vec![fault] })?;
        Self::parse(&text, path, &environment())
    }

    /// Like [`Config::load`], with the given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(path: &Path, environment: &[(String, String)]) -> Result<Self, ConfigFaults> {
        Self::load_files(path, environment, Severity::Warning)
    }

    fn load_files(path: &Path, environment: &[(String, String)], dispensable: Severity) -> Result<Self, ConfigFaults> {
        let text = read_text(path).map_err(|fault| ConfigFaults { file: path.to_owned(), faults: vec![fault] })?;
        let (config, mut reading) = read(&text, path, environment);
        files::check(&config, environment, dispensable, &mut reading);
        finish(config, reading, path)
    }

    /// Reads a text without looking at any file that it names. `path` gives relative paths
    /// their folder and faults their name.
    ///
    /// # Errors
    /// As [`Config::load`], but for the files.
    pub fn parse(text: &str, path: &Path, environment: &[(String, String)]) -> Result<Self, ConfigFaults> {
        let (config, reading) = read(text, path, environment);
        finish(config, reading, path)
    }

    /// Whether the cluster has other nodes by this file: they are named, or are to be joined.
    pub fn has_others(&self) -> bool {
        self.node.join || self.peers.iter().any(|peer| peer.id != self.node.id)
    }

    /// The entry of `[[peers]]` that describes this node.
    pub fn this_peer(&self) -> Option<&PeerConfig> {
        self.peers.iter().find(|peer| peer.id == self.node.id)
    }
}

/// What `onespend config check FILE` prints and with which code it exits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// One line per fault, errors and warnings; empty if there is nothing to say.
    pub lines: Vec<String>,
    /// 0, or [`EXIT_FAULTS`] if there are errors.
    pub exit_code: u8,
}

/// Checks a configuration file as `onespend config check` does.
pub fn check(path: &Path) -> CheckReport {
    let (faults, exit_code) = match Config::load_strictly(path) {
        Ok(config) => (config.warnings, 0),
        Err(faults) => (faults.faults, EXIT_FAULTS),
    };
    CheckReport { lines: faults.iter().map(|fault| fault.line(path)).collect(), exit_code }
}

/// The process's variables, as far as they are text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let refuse = |what: String| Fault {
        severity: Severity::Error,
        place: Place::START,
        key: String::new(),
        what,
        why: "a node needs its configuration file".to_owned(),
    };
    let size = std::fs::metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(refuse(format!("has {size} bytes, more than {MAX_FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))
}

fn finish(config: Config, reading: Reading, path: &Path) -> Result<Config, ConfigFaults> {
    let refused = reading.faults.any_error();
    let faults = reading.faults.into_sorted();
    if refused {
        return Err(ConfigFaults { file: path.to_owned(), faults });
    }
    Ok(Config { warnings: faults, ..config })
}

fn read(text: &str, path: &Path, environment: &[(String, String)]) -> (Config, Reading) {
    let mut reading = Reading { base: path.parent().map(Path::to_owned).unwrap_or_default(), ..Reading::default() };
    let mut table = document::parse(text, &mut reading.faults);
    let secrets = signer_variables(&table);
    document::overlay(&mut table, environment, &secrets, &mut reading.faults);
    let config = read_sections(table, &mut reading);
    rules::check(&config, &mut reading);
    (config, reading)
}

fn read_sections(mut table: Table, reading: &mut Reading) -> Config {
    let mut sections = Sections { table: &mut table, reading, known: Vec::new() };
    let config = Config {
        cluster: sections.one("cluster", ClusterConfig::read),
        node: sections.one("node", NodeConfig::read),
        peers: sections.many("peers", MAX_PEERS, PeerConfig::read),
        listen: sections.one("listen", ListenConfig::read),
        tls: sections.one("tls", tls::Config::read),
        raft: sections.one("raft", raft::read),
        storage: sections.one("storage", room::Config::read),
        bitcoind: sections.one("bitcoind", BitcoindConfig::read),
        signers: sections.many("signers", MAX_SIGNERS, SignerConfig::read),
        health: sections.one("health", health::Config::read),
        checks: sections.many("checks", MAX_CHECKS, CheckConfig::read),
        api: sections.one("api", ApiConfig::read),
        backup: sections.one("backup", backup::Config::read),
        log: sections.one("log", telemetry::LogConfig::read),
        telemetry: sections.one("telemetry", telemetry::Config::read),
        shutdown: sections.one("shutdown", shutdown::Config::read),
        warnings: Vec::new(),
    };
    sections.refuse_the_rest();
    config
}

/// The names of variables that hold signers' keys; they may look like overrides.
fn signer_variables(table: &Table) -> Vec<String> {
    let Some((_, signers)) = table.get("signers") else {
        return Vec::new();
    };
    let Value::Array(signers) = &signers.value else {
        return Vec::new();
    };
    let variable = |signer: &document::Node| match &signer.value {
        Value::Table(entries) => match &entries.get("env")?.1.value {
            Value::Text(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    signers.iter().filter_map(variable).collect()
}

/// The top level of the file, from which sections are taken one by one.
struct Sections<'a> {
    table: &'a mut Table,
    reading: &'a mut Reading,
    known: Vec<String>,
}

impl Sections<'_> {
    fn one<T>(&mut self, name: &str, read: fn(&mut Section<'_>) -> T) -> T {
        self.known.push(name.to_owned());
        let (place, entries) = match self.table.remove(name) {
            None => (Place::START, Table::new()),
            Some((place, node)) => match node.value {
                Value::Table(entries) => (place, entries),
                other => {
                    let what = format!("is {}", other.kind());
                    let why = format!("it must be a section: [{name}]");
                    self.reading.faults.error(place.clone(), name, what, &why);
                    (place, Table::new())
                }
            },
        };
        let mut section = Section::new(name.to_owned(), place, entries, self.reading);
        let value = read(&mut section);
        section.finish();
        value
    }

    fn many<T>(&mut self, name: &str, most: usize, read: fn(&mut Section<'_>) -> T) -> Vec<T> {
        self.known.push(name.to_owned());
        let Some((place, node)) = self.table.remove(name) else {
            return Vec::new();
        };
        self.reading.places.insert(name.to_owned(), place.clone());
        let why = format!("it must be sections of this form, at most {most}: [[{name}]]");
        let Value::Array(items) = node.value else {
            let what = format!("is {}", node.value.kind());
            self.reading.faults.error(place, name, what, &why);
            return Vec::new();
        };
        if items.len() > most {
            let what = format!("has {} elements", items.len());
            self.reading.faults.error(place, name, what, &why);
        }
        let mut values = Vec::new();
        for (at, item) in items.into_iter().enumerate().take(most) {
            let Value::Table(entries) = item.value else {
                let what = format!("is {}", item.value.kind());
                let key = format!("{name}[{at}]");
                self.reading.faults.error(item.place, &key, what, &why);
                continue;
            };
            let element = format!("{name}[{at}]");
            let mut section = Section::new(element, item.place, entries, self.reading);
            values.push(read(&mut section));
            section.finish();
        }
        values
    }

    fn refuse_the_rest(self) {
        for (name, (place, _)) in &*self.table {
            let why = closest(name, &self.known).map_or_else(
                || format!("the sections are: {}", self.known.join(", ")),
                |near| format!("did you mean [{near}]?"),
            );
            let faults: &mut Faults = &mut self.reading.faults;
            faults.error(place.clone(), name, "unknown section".to_owned(), &why);
        }
    }
}

/// Every key that exists, with its default as TOML if it has one. Array elements are `peers[].id`.
#[cfg(test)]
fn schema() -> std::collections::BTreeMap<String, Option<String>> {
    let (_, reading) = read("[[peers]]\n[[signers]]\n[[checks]]\n", Path::new("onespend.toml"), &[]);
    reading.schema
}
