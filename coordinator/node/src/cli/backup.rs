//! `onespend backup`: the state of the cluster in a file.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use onespend_adapters::backup::{Backup, BackupError, BackupWriter, FORM_VERSION, Header, S3Address, Unpublished};
use onespend_proto::client::{BackupStream, Client};
use onespend_proto::v1::create_backup_response::Part;
use onespend_proto::v1::{self, BitcoindState, GetStatusResponse, NodeRole};

use super::connection::Need;
use super::exit::Exit;
use super::failure::Failure;
use super::output::note;
use super::progress::Progress;
use super::session::{Session, present};
use super::status::{Answer, ask_all, nobody};
use super::storage::Storage;
use super::view::backup::{Listed, Summary};
use super::with_runtime;
use crate::agreement::{MISMATCH, UNDECIDED};
use crate::backup::{Contents, UnusableBackup};

/// A replica that lacks more entries than this is not in sync.
const MAX_LAG_ENTRIES: u64 = 1_000;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the state of one node into a file, and check all of it, while the cluster works
    Create(Create),
    /// Check all of a backup: its sums, every row, and the rules that every state keeps; needs no cluster
    Verify {
        /// The backup: a file, or s3://BUCKET/PREFIX/NAME
        #[arg(value_name = "BACKUP")]
        at: PathBuf,
        #[command(flatten)]
        scratch: Scratch,
        #[command(flatten)]
        storage: Storage,
    },
    /// List what ends in .backup in a folder or a bucket, by its headers
    List {
        /// The folder, or s3://BUCKET/PREFIX
        #[arg(value_name = "PLACE")]
        place: PathBuf,
        #[command(flatten)]
        storage: Storage,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// The file to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Node to copy from [default: a replica in sync, else the leader]
    #[arg(long, value_name = "NODE-ID", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    scratch: Scratch,
}

/// Where a backup's content is looked at.
#[derive(Debug, Args)]
pub struct Scratch {
    /// Folder for a temporary copy of the content, which must have room for it [default: the system's]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Scratch {
    pub(super) fn folder(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl Command {
    /// Runs it.
    pub fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self {
            Self::Create(create) => with_runtime(create.run(session)),
            Self::Verify { at, scratch, storage } => {
                let contents = read(storage.backup(&at)?, &scratch.folder())?;
                session.output.show(&Summary::of(&at, &contents))?;
                Ok(Exit::Done)
            }
            Self::List { place, storage } => {
                let depot = storage.depot(&place)?;
                let progress = Progress::start("reading the headers");
                let kept = depot.list().map_err(|error| refused(&error))?;
                drop(progress);
                session.output.show(&Listed::of(kept))?;
                Ok(Exit::Done)
            }
        }
    }
}

/// Reads a backup and checks all of it, in sight of the person.
pub(super) fn read(open: impl FnOnce() -> Result<Backup, BackupError>, scratch: &Path) -> Result<Contents, Failure> {
    let progress = Progress::start("checking the backup");
    let opened = open().map_err(UnusableBackup::File);
    let read = opened.and_then(|backup| Contents::read(backup, scratch, &mut |done, of| progress.bytes(done, of)));
    read.map_err(|error| unusable(&error))
}

fn unusable(error: &UnusableBackup) -> Failure {
    let failure = Failure::new(Exit::Refused, error.to_string());
    match error {
        UnusableBackup::File(BackupError::Damaged { part, .. }) => {
            failure.with("part", part).remedy("use another backup; this one is not what was written")
        }
        UnusableBackup::File(BackupError::Content { .. }) | UnusableBackup::State { .. } => {
            failure.with("part", "content").remedy("use another backup, and report this one")
        }
        UnusableBackup::File(_) => failure,
    }
}

fn refused(error: &BackupError) -> Failure {
    let failure = Failure::new(Exit::Refused, error.to_string());
    match error {
        BackupError::Exists { .. } => failure.remedy("name another file, or add --force"),
        _ => failure,
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.out.to_str().is_some_and(S3Address::is_meant) {
            let failure =
                Failure::usage("--out names a file; a node's schedule makes backups in S3-compatible storage");
            return Err(failure.remedy("make a file and copy it there, or set [backup] s3_bucket"));
        }
        if self.out.exists() && !self.force {
            return Err(refused(&BackupError::Exists { path: self.out }));
        }
        let config = session.connection.settings(Need::Control)?;
        let client = Client::connect(config.clone()).map_err(Failure::of_read)?;
        let answers = ask_all(&client, &config).await;
        if answers.iter().all(|(_, answer)| answer.is_err()) {
            return Err(nobody(answers));
        }
        let (address, node_id) = self.source(&answers)?;
        // Dropped when the person gives up, and what was written goes with it.
        let made = tokio::select! {
            made = self.fetch(&client, &address, node_id) => made?,
            Ok(()) = tokio::signal::ctrl_c() => {
                return Err(Failure::new(Exit::Refused, "interrupted: there is no backup"));
            }
        };
        let contents = read(|| Backup::open(made.path()), &self.scratch.folder())?;
        made.publish(&self.out, self.force).map_err(|error| refused(&error))?;
        session.output.show(&Summary::of(&self.out, &contents))
    }

    fn source(&self, answers: &[Answer]) -> Result<(String, u64), Failure> {
        let known: Vec<(&str, &GetStatusResponse)> =
            answers.iter().filter_map(|(address, answer)| Some((address.as_str(), answer.as_ref().ok()?))).collect();
        let chosen = match self.from {
            Some(id) => known.iter().copied().find(|(_, status)| status.node_id == id),
            None => choose(&known),
        };
        let Some((address, status)) = chosen else {
            let failure = Failure::new(Exit::Unreachable, "the node to copy from does not answer");
            let there: Vec<String> = known.iter().map(|(_, status)| status.node_id.to_string()).collect();
            return Err(failure.with("nodes that answer", there.join(", ")));
        };
        if status.leader_id == 0 {
            note(&format!("node {} knows no leader: its state may lag", status.node_id));
        }
        if let Some(doubt) = doubt(&known) {
            note(&doubt);
        }
        Ok((address.to_owned(), status.node_id))
    }

    async fn fetch(&self, client: &Client, address: &str, node_id: u64) -> Result<Unpublished, Failure> {
        let progress = Progress::start(format!("node {node_id} copies its state"));
        let request = v1::CreateBackupRequest::default();
        let mut stream = client.create_backup_on(address, request).await.map_err(Failure::of_read)?;
        let header = receive_header(&mut stream).await?;
        progress.say(format!("backup of node {node_id}"));
        let mut writer = BackupWriter::begin(&self.out, &header).map_err(|error| refused(&error))?;
        let mut received = 0;
        loop {
            match next(&mut stream).await? {
                Part::Data(chunk) => {
                    writer.write(&chunk).map_err(|error| refused(&error))?;
                    received += chunk.len() as u64;
                    progress.bytes(received, header.size_bytes);
                }
                Part::Sha256(sum) => {
                    let sum = sum.as_ref().try_into().map_err(|_| incomplete())?;
                    progress.say("writing to the disk");
                    return writer.finish(&sum).map_err(|error| refused(&error));
                }
                Part::Header(_) => return Err(incomplete()),
            }
        }
    }
}

async fn next(stream: &mut BackupStream) -> Result<Part, Failure> {
    let message = stream.next().await.map_err(Failure::of_read)?;
    message.and_then(|message| message.part).ok_or_else(incomplete)
}

async fn receive_header(stream: &mut BackupStream) -> Result<Header, Failure> {
    let first = stream.next().await.map_err(Failure::of_read)?.ok_or_else(incomplete)?;
    let Some(Part::Header(header)) = first.part else { return Err(incomplete()) };
    if header.form_version != FORM_VERSION {
        let failure = Failure::new(Exit::Refused, "the node writes another form of backups than this command line");
        return Err(failure
            .with("node", header.form_version)
            .with("command line", FORM_VERSION)
            .remedy("use a command line of the node's version"));
    }
    let hash = present(header.state_hash)?.hash;
    let made = header.make_time.and_then(|at| std::time::SystemTime::try_from(at).ok());
    let since = made.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(Header {
        cluster_id: header.cluster_id,
        node_id: header.node_id,
        index: first.applied_index,
        term: first.term,
        state_hash: hash.as_ref().try_into().map_err(|_| incomplete())?,
        size_bytes: header.size_bytes,
        made_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        version: header.version,
    })
}

fn incomplete() -> Failure {
    Failure::new(Exit::Refused, "the node's stream is no backup of this version")
        .remedy("ask again; use a command line of the node's version")
}

/// Whether a node's state may be wrong, as the states of others say.
fn is_in_doubt(status: &GetStatusResponse) -> bool {
    status.alarms.iter().any(|alarm| [MISMATCH, UNDECIDED].iter().any(|code| alarm.starts_with(*code)))
}

/// What to say where nodes differ in their state, and nobody knows which is right.
fn doubt(known: &[(&str, &GetStatusResponse)]) -> Option<String> {
    let tied = |status: &GetStatusResponse| status.alarms.iter().any(|alarm| alarm.starts_with(UNDECIDED));
    let tied = known.iter().filter(|(_, status)| tied(status));
    let nodes: Vec<String> = tied.map(|(_, status)| format!("node {}", status.node_id)).collect();
    let nodes = Some(nodes.join(", ")).filter(|nodes| !nodes.is_empty())?;
    Some(format!("{UNDECIDED} stands on {nodes}: this backup may hold a wrong state, so keep the earlier ones"))
}

/// A replica in sync whose state nobody doubts, one with a bitcoind in sync first; else the leader; else, in a cluster
/// without one, whoever is furthest.
fn choose<'a>(known: &[(&'a str, &'a GetStatusResponse)]) -> Option<(&'a str, &'a GetStatusResponse)> {
    let committed = known.iter().map(|(_, status)| status.committed_index).max().unwrap_or(0);
    let follows = |status: &GetStatusResponse| {
        let role = matches!(status.role(), NodeRole::Replica | NodeRole::Learner);
        let near = status.applied_index.saturating_add(MAX_LAG_ENTRIES) >= committed;
        role && near && status.leader_id != 0 && !status.draining && !is_in_doubt(status)
    };
    let in_sync = |status: &GetStatusResponse| {
        status.bitcoind.as_ref().is_some_and(|bitcoind| bitcoind.state() == BitcoindState::InSync)
    };
    let rank = |status: &GetStatusResponse| (in_sync(status), status.applied_index, Reverse(status.node_id));
    let replica = known.iter().filter(|(_, status)| follows(status)).max_by_key(|(_, status)| rank(status));
    let leader = || {
        let leaders = known.iter().filter(|(_, status)| status.role() == NodeRole::Leader);
        leaders.max_by_key(|(_, status)| status.term)
    };
    let anybody = || known.iter().max_by_key(|(_, status)| (status.applied_index, Reverse(status.node_id)));
    replica.or_else(leader).or_else(anybody).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node_id: u64, role: NodeRole, applied: u64, bitcoind: BitcoindState) -> GetStatusResponse {
        let bitcoind = Some(v1::BitcoindView { state: bitcoind.into(), ..Default::default() });
        let (applied_index, committed_index) = (applied, applied);
        let (role, leader_id) = (role.into(), 1);
        GetStatusResponse { node_id, role, leader_id, applied_index, committed_index, bitcoind, ..Default::default() }
    }

    fn chosen(all: &[GetStatusResponse]) -> Option<u64> {
        let known: Vec<_> = all.iter().map(|status| ("10.0.0.1:7801", status)).collect();
        choose(&known).map(|(_, status)| status.node_id)
    }

    #[test]
    fn a_replica_in_sync_is_asked_before_the_leader() {
        use BitcoindState::{Behind, InSync};
        let leader = status(1, NodeRole::Leader, 5_000, InSync);
        let near = status(2, NodeRole::Replica, 4_990, InSync);
        let nearer = status(3, NodeRole::Replica, 4_999, InSync);
        let alone = status(4, NodeRole::Learner, 4_999, Behind);
        let far = status(5, NodeRole::Replica, 3_000, InSync);
        assert_eq!(chosen(&[leader.clone(), near.clone(), nearer.clone(), alone.clone()]), Some(3));
        assert_eq!(chosen(&[leader.clone(), near, alone.clone()]), Some(2), "its bitcoind is in sync");
        assert_eq!(chosen(&[leader.clone(), alone, far.clone()]), Some(4));
        assert_eq!(chosen(&[leader.clone(), far.clone()]), Some(1));
        let drains = GetStatusResponse { draining: true, ..nearer.clone() };
        assert_eq!(chosen(&[leader.clone(), drains]), Some(1));
        let differs = GetStatusResponse { alarms: vec![format!("{MISMATCH}: why")], ..nearer.clone() };
        assert_eq!(chosen(&[leader, differs]), Some(1), "it would refuse");
        let lost = |status: &GetStatusResponse| GetStatusResponse { leader_id: 0, ..status.clone() };
        assert_eq!(chosen(&[lost(&far), lost(&nearer)]), Some(3), "without a quorum whoever has most");
        assert_eq!(chosen(&[]), None);
    }

    /// safety 31: the person should not remove the last backup that is right.
    #[test]
    fn a_backup_of_a_state_that_may_be_wrong_comes_with_a_warning() {
        let sound = status(1, NodeRole::Leader, 9, BitcoindState::InSync);
        let tied = |node_id| GetStatusResponse {
            alarms: vec![format!("{UNDECIDED}: as many nodes contradict it")],
            ..status(node_id, NodeRole::Replica, 9, BitcoindState::InSync)
        };
        assert_eq!(doubt(&[("a", &sound)]), None);
        let told = doubt(&[("a", &sound), ("b", &tied(2)), ("c", &tied(3))]).unwrap();
        assert!(told.contains("node 2, node 3: ") && told.contains("keep the earlier ones"), "{told}");
    }
}
