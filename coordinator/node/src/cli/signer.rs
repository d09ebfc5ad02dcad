//! `onespend signer`: what a signer of this machine remembers. Works on its files, not on a cluster.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use onespend_adapters::signer::SignerError;
use onespend_adapters::signer::memory::{self, AuditRow, Merged, Owner};
use onespend_adapters::store::sqlite::read_table;
use onespend_adapters::store::{Row, StoreError};
use onespend_core::ids::Fence;
use onespend_core::state::State;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::format::{ago, counted};
use super::output::{Output, Show, note};
use super::signer_log::Log;
use super::signer_new::New;
use super::table;
use crate::config::{Config, ConfigFaults, SignerConfig};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new key for a signer, and a file with its private descriptor, which only the caller may read
    New(New),
    /// Show what a signer remembers, and whether it is frozen; also while the node runs
    Show(Which),
    /// List what a signer has signed, by its audit log; also while the node runs
    Log(Log),
    /// Print the public descriptors of the wallets that a signer can sign for, one per line, for `wallet register`
    Descriptors(Which),
    /// Let a frozen signer sign again, after you have looked; the node must be stopped
    Unfreeze {
        #[command(flatten)]
        which: Which,
        /// The wallets' payments and coins were compared with the chain and the mempool, and the log is the right one
        #[arg(long, required = true)]
        i_have_checked: bool,
    },
    /// Give a memory to the cluster of the configuration, which was restored from a backup; the node must be stopped
    Adopt {
        #[command(flatten)]
        which: Which,
        /// The cluster that the memory belongs to: the one that the backup is of
        #[arg(long, value_name = "CLUSTER")]
        from: String,
        /// This is the memory of the same keys, and no node of the old cluster will run again
        #[arg(long, required = true)]
        i_have_checked: bool,
    },
    /// Say that a memory knows what was signed before a fence epoch, after you have looked; the node must be stopped
    Accept {
        #[command(flatten)]
        which: Which,
        /// The fence epoch, as `recovery show` prints it: the signer signs for a log of it, and of none above it. Not
        /// above that of this node's own state
        #[arg(long)]
        epoch: u32,
        /// All memories of this signer are merged into it, and its payments compared with the chain and the mempool
        #[arg(long, required = true)]
        i_have_checked: bool,
    },
    /// Add what another memory of the same signer knows, as `signer copy` makes it; the node must be stopped
    Merge {
        #[command(flatten)]
        which: Which,
        /// The other memory; it stays as it is
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The cluster that the other memory belongs to, if that is another one; then its epoch is not accepted here
        #[arg(long, value_name = "CLUSTER")]
        from: Option<String>,
    },
    /// Copy what a signer remembers into one new file, for another node; also while the node runs
    Copy {
        #[command(flatten)]
        which: Which,
        /// The new file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Which {
    /// The node's configuration file
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
    /// The signer's name
    #[arg(long)]
    name: String,
}

impl Command {
    /// Shows or changes the memory.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        match self {
            Self::New(new) => new.run(output)?,
            Self::Show(which) => output.show(&which.locate()?.look()?)?,
            Self::Log(log) => log.run(output)?,
            Self::Descriptors(which) => output.show(&which.descriptors()?)?,
            // The flags are the operator's word, and clap demands them.
            Self::Unfreeze { which, i_have_checked: _ } => output.show(&which.locate_to_write()?.unfreeze()?)?,
            Self::Adopt { which, from, i_have_checked: _ } => output.show(&which.locate_to_write()?.adopt(from)?)?,
            Self::Accept { which, epoch, i_have_checked: _ } => {
                output.show(&which.locate_to_write()?.accept(epoch)?)?;
            }
            Self::Merge { which, file, from } => output.show(&which.locate_to_write()?.merge(&file, from)?)?,
            Self::Copy { which, file } => output.show(&which.locate_to_write()?.copy(file)?)?,
        }
        Ok(Exit::Done)
    }
}

/// Where a memory is, and whose.
struct Place {
    file: PathBuf,
    owner: Owner,
    /// The node's.
    data_dir: PathBuf,
}

impl Which {
    pub(super) fn read(&self) -> Result<(Config, SignerConfig), Failure> {
        let config = Config::load_text(&self.config).map_err(|faults| refuse_config(&faults))?;
        let Some(signer) = config.signers.iter().find(|signer| signer.name == self.name).cloned() else {
            let known: Vec<&str> = config.signers.iter().map(|signer| signer.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let failure = Failure::usage(format!("the configuration has no signer {}", self.name));
            return Err(failure.with("signers", known));
        };
        Ok((config, signer))
    }

    fn locate(&self) -> Result<Place, Failure> {
        let (config, signer) = self.read()?;
        let owner =
            Owner { cluster_id: config.cluster.id.clone(), network: config.cluster.network, signer: self.name.clone() };
        Ok(Place { file: signer.memory_file(&config.node.data_dir), owner, data_dir: config.node.data_dir })
    }

    /// The same for a command that writes.
    fn locate_to_write(&self) -> Result<Place, Failure> {
        let place = self.locate()?;
        Failure::refuse_root(&place.file)?;
        Ok(place)
    }

    fn descriptors(&self) -> Result<Descriptors, Failure> {
        let (config, section) = self.read()?;
        let keys = section.keys.ok_or_else(|| Failure::usage(format!("signer {} names no keys", self.name)))?;
        let signer = keys.software(&self.name, config.cluster.network).map_err(|error| refuse(&error))?;
        let descriptors = signer.public_descriptors().map(str::to_owned).collect();
        Ok(Descriptors { signer: self.name.clone(), descriptors })
    }
}

impl Place {
    fn unfreeze(&self) -> Result<View, Failure> {
        match memory::unfreeze(&self.file, &self.owner, &operator()).map_err(|error| refuse(&error))? {
            Some(position) => note(&format!("unfrozen: a log that has reached {} is accepted", position.spelled())),
            None => note("it was not frozen; nothing was changed"),
        }
        self.look()
    }

    fn adopt(&self, from: String) -> Result<View, Failure> {
        let before = self.of_another(from)?;
        memory::adopt(&self.file, &before, &self.owner.cluster_id, &operator()).map_err(|error| refuse(&error))?;
        self.look()
    }

    fn accept(&self, epoch: u32) -> Result<View, Failure> {
        let before = self.look()?.accepted_epoch;
        self.check_epoch(epoch)?;
        memory::accept(&self.file, &self.owner, epoch, &operator()).map_err(|error| refuse(&error))?;
        if epoch <= before {
            note(&format!("epoch {before} was accepted already; nothing was changed"));
        }
        self.look()
    }

    /// Nothing takes an epoch back, so one that the log has not reached would be accepted in advance for a recovery that
    /// nobody has looked at yet.
    fn check_epoch(&self, epoch: u32) -> Result<(), Failure> {
        match epoch_of_state(&self.data_dir) {
            Ok(Some(reached)) if epoch <= reached => Ok(()),
            Ok(Some(reached)) => {
                let sentence = format!("epoch {epoch} is above that of this node's state, which is {reached}");
                Err(Failure::new(Exit::Refused, sentence).remedy(
                    "see `fence epoch` of `onespend recovery show`; if this node lags, start it, wait, and stop it",
                ))
            }
            Ok(None) => {
                let sentence =
                    format!("this node has no state yet, so it cannot tell that the log is in epoch {epoch}");
                Err(Failure::new(Exit::Refused, sentence).with("data_dir", self.data_dir.display()).remedy(
                    "start the node and let it join, then stop it; or add an accepted memory (`onespend signer merge`)",
                ))
            }
            Err(error) => Err(Failure::new(Exit::Refused, error.to_string())
                .remedy("run it as the node's user; a node whose data is damaged says so when it starts")),
        }
    }

    fn merge(&self, file: &Path, from: Option<String>) -> Result<View, Failure> {
        let other = from.map_or_else(|| Ok(self.owner.clone()), |from| self.of_another(from))?;
        let merged = memory::merge(&self.file, &self.owner, file, &other, &operator());
        let Merged { added, known } = merged.map_err(|error| refuse(&error))?;
        note(&format!("added {}; known before: {known}", many(added, "attempt", "attempts")));
        self.look()
    }

    fn copy(self, file: PathBuf) -> Result<View, Failure> {
        memory::copy(&self.file, &self.owner, &file).map_err(|error| refuse(&error))?;
        Self { file, ..self }.look()
    }

    /// The same signer of the cluster that was named.
    fn of_another(&self, from: String) -> Result<Owner, Failure> {
        if from == self.owner.cluster_id {
            let sentence = format!("--from names {from}, which is the cluster of the configuration");
            return Err(Failure::usage(sentence).remedy("name the cluster that the memory comes from"));
        }
        Ok(Owner { cluster_id: from, ..self.owner.clone() })
    }

    fn look(&self) -> Result<View, Failure> {
        let summary = memory::inspect(&self.file, &self.owner).map_err(|error| refuse(&error))?;
        Ok(View {
            signer: self.owner.signer.clone(),
            cluster_id: self.owner.cluster_id.clone(),
            network: self.owner.network.to_string(),
            file: self.file.clone(),
            attempts: summary.attempts,
            outpoints: summary.outpoints,
            highest_fence: summary.highest_fence.map(|fence| fence.0),
            log_must_reach: summary.floor.map(|fence| fence.0),
            accepted_epoch: summary.epoch,
            frozen: summary.frozen.is_some(),
            frozen_position: summary.frozen.map(|fence| fence.0),
            audit: summary.audit.into_iter().map(Event::from).collect(),
        })
    }
}

/// The fence epoch of the state in a data folder; `None` where there is no state.
fn epoch_of_state(data_dir: &Path) -> Result<Option<u32>, StoreError> {
    let (mut state, mut found) = (State::default(), false);
    read_table(data_dir, State::FACTS, &mut |row: Row<'_>| {
        found = true;
        state.load_row(row.table, row.key, row.value).map_err(|unreadable| unreadable.to_string())
    })?;
    Ok(found.then(|| state.epoch()))
}

/// Who runs this command: the name that the shell knows, the one before `sudo` first, and the id that the system knows.
fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|variable| std::env::var(variable).ok());
    let uid = std::fs::metadata("/proc/self").map_or_else(|_| "unknown".to_owned(), |own| own.uid().to_string());
    let nameless = if uid == "0" { "root" } else { "unknown" };
    format!("{} (uid {uid})", name.as_deref().unwrap_or(nameless))
}

fn many(number: u64, one: &str, many: &str) -> String {
    counted(usize::try_from(number).unwrap_or(usize::MAX), one, many)
}

pub(super) fn refuse(error: &SignerError) -> Failure {
    let failure = Failure::new(Exit::Refused, error.to_string());
    match error {
        SignerError::MemoryInUse { .. } => failure.remedy("stop the node, and start it again afterwards"),
        _ => failure,
    }
}

fn refuse_config(faults: &ConfigFaults) -> Failure {
    let failure = Failure::usage("the configuration cannot be used");
    faults.errors().fold(failure, |failure, fault| failure.with("fault", fault.line(&faults.file)))
}

/// Which wallets a signer can sign for. No secret is among it.
#[derive(Debug, Serialize)]
struct Descriptors {
    signer: String,
    descriptors: Vec<String>,
}

impl Show for Descriptors {
    fn text(&self) -> String {
        self.descriptors.join("\n")
    }
}

/// What a signer remembers.
#[derive(Debug, Serialize)]
struct View {
    signer: String,
    cluster_id: String,
    network: String,
    file: PathBuf,
    /// How many attempts were signed, or were about to be.
    attempts: u64,
    /// How many coins they spend.
    outpoints: u64,
    /// Null before the first.
    highest_fence: Option<u64>,
    /// A log below it freezes the signer; null before the first record.
    log_must_reach: Option<u64>,
    /// Nothing is signed for a log of a higher fence epoch.
    accepted_epoch: u32,
    frozen: bool,
    /// Where the log stood that froze it.
    frozen_position: Option<u64>,
    audit: Vec<Event>,
}

/// Frozen, unfrozen, adopted, accepted or merged. `at_unix_ms` is wall time.
#[derive(Debug, Serialize)]
struct Event {
    at_unix_ms: u64,
    what: String,
    who: String,
    position: u64,
    recorded: u64,
}

impl From<AuditRow> for Event {
    fn from(row: AuditRow) -> Self {
        let AuditRow { at_ms, what, who, position, recorded } = row;
        Self { at_unix_ms: at_ms, what, who, position: position.0, recorded: recorded.0 }
    }
}

impl Event {
    fn text(&self) -> String {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.at_unix_ms);
        let Self { what, who, .. } = self;
        let [position, recorded] = [self.position, self.recorded].map(|fence| Fence(fence).spelled());
        let done = format!("{what} {} by {who}", ago(at));
        match what.as_str() {
            "accepted" => format!("{done}: epoch {}", Fence(self.position).epoch()),
            "merged" => format!("{done}: what was signed up to {position}, to what was up to {recorded}"),
            _ => format!("{done}: the log at {position}, signed at {recorded}"),
        }
    }
}

impl View {
    fn state(&self) -> String {
        match self.frozen_position {
            Some(at) => format!("FROZEN: the log stood at {}, below what was signed", Fence(at).spelled()),
            None => "signs".to_owned(),
        }
    }
}

impl Show for View {
    fn text(&self) -> String {
        let spelled = |fence: Option<u64>| fence.map(|fence| Fence(fence).spelled()).unwrap_or_default();
        let attempts = many(self.attempts, "attempt", "attempts");
        let spend = if self.attempts == 1 { "spends" } else { "spend" };
        let signed = format!("{attempts} that {spend} {}", many(self.outpoints, "coin", "coins"));
        let card = table::card([
            ("signer", format!("{} of cluster {} on {}", self.signer, self.cluster_id, self.network)),
            ("memory", self.file.display().to_string()),
            ("state", self.state()),
            ("remembers", signed),
            ("highest fence", spelled(self.highest_fence)),
            ("log must reach", spelled(self.log_must_reach)),
            ("accepted epoch", self.accepted_epoch.to_string()),
        ]);
        let events = self.audit.iter().map(Event::text);
        std::iter::once(card).chain(events).collect::<Vec<_>>().join("\n")
    }
}
