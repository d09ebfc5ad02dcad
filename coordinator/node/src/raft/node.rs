//! One node's Raft, as the rest of the process holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onespend_adapters::store::{LogStore, PeerBook, StateStore, StoreError, WriteBehind};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::network::{NetSnapshot, RaftNetworkFactory};
use tokio::sync::watch;
use tokio::time::Instant as Deadline;
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use super::abstention::{Abstention, Abstentions};
use super::acks::Acks;
use super::acquaintance::Acquaintance;
use super::channels::Channels;
use super::config::{InvalidRaftConfig, RaftConfig};
use super::contact::Contact;
use super::dating::QuorumAcked;
use super::doubt::Doubt;
use super::lag::AppendTimes;
use super::leadership::{self, Leadership};
use super::linearizable::{self, ReadError};
use super::log_store::RaftLog;
use super::network::Network;
use super::observer::RaftObserver;
use super::peer_service::{NodeView, PeerIdentity, PeerService};
use super::propose::Proposer;
use super::state_machine::StateMachine;
use super::status::{RaftStatus, Role, quorum_acked};
use super::types::{Addresses, NodeId, Raft, SnapshotFile, TypeConfig};
use super::view::StateView;
use crate::runtime;

/// Stopping Raft waits this long for its tasks; what hangs then ends with the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node's Raft is made of.
pub struct RaftParts {
    /// Settings.
    pub config: RaftConfig,
    /// The cluster's name, ASCII.
    pub cluster_id: String,
    /// This node.
    pub node_id: NodeId,
    /// The log and the vote.
    pub log: Arc<dyn LogStore>,
    /// The rows of the state, and snapshots.
    pub state: Arc<dyn StateStore>,
    /// Names this node's data folder, ASCII; never the same for two folders.
    pub instance: String,
    /// Which folders the other nodes came with.
    pub peers: PeerBook,
    /// For connections to the other nodes, with this node's certificate and the name that all nodes' certificates carry.
    pub tls: ClientTlsConfig,
    /// Told of what happens.
    pub observer: Arc<dyn RaftObserver>,
}

/// Why Raft cannot start. Nothing here gets better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot work.
    #[error(transparent)]
    Config(#[from] InvalidRaftConfig),
    /// What is stored cannot be read.
    #[error("stored state: {0}")]
    Stored(std::io::Error),
    /// The cluster's name cannot travel with a request.
    #[error("cluster id {0:?} is not plain ASCII")]
    ClusterId(String),
    /// openraft refused.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why Raft stopped for good. The process has to exit, and its supervisor to start it again if that helps.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RaftFatal {
    /// A store failed; what is on disk is no longer known.
    #[error("storage: {0}")]
    Store(StoreError),
    /// Raft gave up: an entry that it cannot read, a task that panicked.
    #[error("raft: {0}")]
    Raft(String),
    /// The others know this node by another data folder: its disk was lost, or another node has its id.
    #[error("{0}")]
    Outcast(String),
}

impl RaftFatal {
    /// Whether the node can go on once it is started again, with the id and the data folder that it has.
    pub fn ends_with_a_restart(&self) -> bool {
        match self {
            Self::Store(_) | Self::Raft(_) => true,
            Self::Outcast(_) => false,
        }
    }
}

/// Why the cluster could not be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// This node is not among the members.
    #[error("node {0} is not among the initial members")]
    NotAMember(NodeId),
    /// This node stops.
    #[error("raft stopped: {0}")]
    Stopped(String),
}

/// One node's Raft. Clones are the same.
#[derive(Clone)]
pub struct RaftNode(Arc<Inner>);

struct Inner {
    raft: Raft,
    cluster_id: String,
    node_id: NodeId,
    view: StateView,
    proposer: Proposer,
    leadership: watch::Receiver<Leadership>,
    store_failure: watch::Receiver<Option<StoreError>>,
    contact: Contact,
    acks: Acks,
    acquaintance: Acquaintance,
    abstentions: Abstentions,
    doubt: Doubt,
    stopping: CancellationToken,
    log: Arc<dyn LogStore>,
    state: Arc<dyn StateStore>,
    behind: Arc<WriteBehind>,
    machine_gone: CancellationToken,
    ended: watch::Receiver<bool>,
}

impl RaftNode {
    /// Loads what is stored, replays the log from there, and starts. It answers other nodes only once its
    /// [`RaftNode::peer_service`] is served. Reads from disk and so blocks; call it before there is work to do.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(parts: RaftParts) -> Result<Self, StartError> {
        let unnameable = || StartError::ClusterId(parts.cluster_id.clone());
        let acquaintance = Acquaintance::new(&parts.instance, parts.peers.clone()).map_err(|_| unnameable())?;
        let (channels, acks) = (Channels::new(parts.tls.clone()), Acks::default());
        let (quorum, doubt) = (QuorumAcked::default(), Doubt::default());
        let network = Network::new(
            &parts.cluster_id,
            channels.clone(),
            acquaintance.clone(),
            acks.clone(),
            Arc::clone(&quorum),
            doubt.clone(),
        );
        let network = network.map_err(|_| unnameable())?;
        let node = Self::start_over(parts, network, acquaintance, acks.clone(), doubt).await?;
        let metrics = node.0.raft.metrics();
        // Shorter than a copy of the metrics takes, though it holds up Raft.
        let _set_once = quorum.set(Box::new(move || quorum_acked(&metrics.borrow_watched(), &acks)));
        runtime::spawn(follow_members(node.0.raft.clone(), channels));
        Ok(node)
    }

    /// The same over any network, which notes in `acks` what it hears, and sends no snapshot while `doubt` stands.
    pub(crate) async fn start_over<N>(
        parts: RaftParts,
        network: N,
        acquaintance: Acquaintance,
        acks: Acks,
        doubt: Doubt,
    ) -> Result<Self, StartError>
    where
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotFile>,
    {
        let config = Arc::new(parts.config.for_openraft(&parts.cluster_id)?);
        let appended = AppendTimes::default();
        let machine = StateMachine::open(Arc::clone(&parts.state), appended.clone(), Arc::clone(&parts.observer))
            .map_err(StartError::Stored)?;
        let (view, behind, machine_gone) = (machine.view().clone(), machine.behind(), machine.gone());
        let store_failure = watch_failures(&*parts.log, &*parts.state);
        let log = RaftLog::new(Arc::clone(&parts.log), appended);
        let raft = Raft::new(parts.node_id, config, network, log, machine)
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        let (told, leadership) = watch::channel(Leadership::Unknown);
        let proposer = Proposer::new(raft.clone(), view.clone(), leadership.clone(), Arc::clone(&parts.observer));
        let follow = leadership::follow(raft.clone(), view.clone(), proposer.clone(), told, parts.observer);
        let (end, ended) = watch::channel(false);
        runtime::spawn(async move {
            // Told also when it panics.
            let _told = Ends(end);
            follow.await;
        });
        Ok(Self(Arc::new(Inner {
            raft,
            cluster_id: parts.cluster_id,
            node_id: parts.node_id,
            view,
            proposer,
            leadership,
            store_failure,
            contact: Contact::new(),
            acks,
            acquaintance,
            abstentions: Abstentions::default(),
            doubt,
            stopping: CancellationToken::new(),
            log: parts.log,
            state: parts.state,
            behind,
            machine_gone,
            ended,
        })))
    }

    /// Begins the cluster, if this node has never belonged to one. Every initial member calls it with the same members;
    /// whoever has a log already keeps it. A node whose disk was lost must not come back this way under its old id: it
    /// might vote twice.
    ///
    /// # Errors
    /// See [`BootstrapError`].
    pub async fn initialize(&self, members: BTreeMap<NodeId, Addresses>) -> Result<(), BootstrapError> {
        match self.0.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(BootstrapError::NotAMember(self.0.node_id))
            }
            Err(RaftError::Fatal(fatal)) => Err(BootstrapError::Stopped(fatal.to_string())),
        }
    }

    /// What to serve on the control port. The server's sockets need TCP_NODELAY: without it an answer waits up to 40 ms for
    /// the sender's delayed acknowledgement, and an election several times that.
    pub fn peer_service(&self, identity: PeerIdentity, view: NodeView) -> PeerService {
        PeerService {
            cluster_id: self.0.cluster_id.clone(),
            node_id: self.0.node_id,
            raft: self.0.raft.clone(),
            store: Arc::clone(&self.0.state),
            identity,
            view,
            contact: self.0.contact.clone(),
            acquaintance: self.0.acquaintance.clone(),
            abstentions: self.0.abstentions.clone(),
            stopping: self.0.stopping.clone(),
            incoming: PeerService::permits(),
        }
    }

    /// The replicated state, as far as it is applied here.
    pub fn view(&self) -> &StateView {
        &self.0.view
    }

    /// Proposes callers' commands. Duties propose through [`super::LeaderTerm`].
    pub fn proposer(&self) -> &Proposer {
        &self.0.proposer
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// What is known at this moment.
    pub fn status(&self) -> RaftStatus {
        // Cloned at once: holding the borrow would hold up Raft itself.
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        RaftStatus::of(&metrics, self.0.view.position(), &self.0.acks)
    }

    /// Waits for one turn of Raft's core, which needs neither a quorum nor the disk; whether it still runs.
    pub async fn turns(&self) -> bool {
        self.0.raft.with_raft_state(|_| ()).await.is_ok()
    }

    /// Waits until the state here holds everything that was acknowledged before the call; on the leader only.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn linearizable(&self, deadline: Deadline) -> Result<(), ReadError> {
        linearizable::wait(&self.0.raft, deadline).await
    }

    /// Waits until every entry that was handed to the log before the call, here or on an earlier leader, is applied
    /// here or can never be; on the leader only.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn all_decided(&self, deadline: Deadline) -> Result<(), ReadError> {
        linearizable::wait_for_log(&self.0.raft, &self.0.view, deadline).await
    }

    /// Ends only when Raft, or a store under it, has stopped for good.
    pub async fn wait_fatal(&self) -> RaftFatal {
        let mut store = self.0.store_failure.clone();
        let mut outcast = self.0.acquaintance.outcast();
        // Not openraft's metrics, which change 150 times a second and more in a cluster that has nothing to do.
        let mut ended = self.0.ended.clone();
        loop {
            if let Some(error) = store.borrow_and_update().clone() {
                return RaftFatal::Store(error);
            }
            if let Some(why) = outcast.borrow_and_update().clone() {
                return RaftFatal::Outcast(why);
            }
            if *ended.borrow_and_update() {
                let running = self.0.raft.metrics().borrow_watched().running_state.clone();
                let why = running.map_or_else(|fatal| fatal.to_string(), |()| "its task has ended".to_owned());
                return RaftFatal::Raft(why);
            }
            tokio::select! {
                biased;
                // This node holds the senders of the first two; the third has told of the end before it goes.
                Ok(()) = outcast.changed() => {}
                Ok(()) = store.changed() => {}
                Ok(()) = ended.changed() => {}
            }
        }
    }

    /// Stops: other nodes' streams end, Raft ends, and what was applied is written. A leader should hand over before, see
    /// [`RaftNode::transfer_leadership`]; else the others need an election.
    ///
    /// # Errors
    /// What was applied could not be written to its end. Nothing is lost: it is replayed from the log.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.0.stopping.cancel();
        if runtime::timeout(SHUTDOWN_TIMEOUT, self.0.raft.shutdown()).await.is_err() {
            tracing::warn!("raft did not stop in time");
        }
        // Entries that were committed just before may still be on their way into the state.
        if runtime::timeout(SHUTDOWN_TIMEOUT, self.0.machine_gone.cancelled()).await.is_err() {
            tracing::warn!("the state machine did not stop in time");
        }
        // It ends with Raft, and says that nobody leads any more: that lets go of the last term's handle.
        if runtime::timeout(SHUTDOWN_TIMEOUT, self.0.ended.clone().wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("the watch over leadership did not end in time");
        }
        let (behind, log) = (Arc::clone(&self.0.behind), Arc::clone(&self.0.log));
        let close = move || {
            let written = behind.stop();
            log.stop();
            written
        };
        runtime::blocking(close).await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Whether this node was elected and has not heard of another leader.
    pub fn leads(&self) -> bool {
        self.status().role == Role::Leader
    }

    /// When this node last accepted an append of a leader.
    pub fn leader_heard_at(&self) -> Option<std::time::Instant> {
        self.0.contact.heard_at()
    }

    /// The latest moment at which this node, as a replica, is known to have had all that was committed.
    pub fn caught_up_at(&self) -> Option<std::time::Instant> {
        self.0.contact.caught_up_at(self.0.view.position().index.0)
    }

    /// From now on this node stands for no election, and takes the lead from nobody. It votes, and stores the log, as
    /// before.
    pub fn abstain(&self, why: Abstention) {
        self.0.abstentions.set(why, true, |elect| self.0.raft.runtime_config().elect(elect));
    }

    /// Takes a reason to abstain away.
    pub fn abstain_no_more(&self, why: Abstention) {
        self.0.abstentions.set(why, false, |elect| self.0.raft.runtime_config().elect(elect));
    }

    /// Whether the state here may be wrong. As long as it may, no other node gets it as a snapshot; one that is on its
    /// way is broken off.
    pub fn withhold_snapshots(&self, in_doubt: bool) {
        self.0.doubt.set(in_doubt);
    }

    #[cfg(test)]
    pub(crate) fn withholds_snapshots(&self) -> bool {
        self.0.doubt.stands()
    }

    /// Stands for one election although it abstains, if a quorum would vote for it: its log may be the only one that can
    /// win. It should hand the lead on.
    pub async fn stand_once(&self) {
        // Raft that has ended is told by `wait_fatal`.
        let _ended = self.0.raft.trigger().elect(true).await;
    }

    /// Whether this node stands for no election.
    pub fn abstains(&self) -> bool {
        self.0.abstentions.any()
    }

    /// What writes the rows, and what it writes them to.
    pub(super) fn stores(&self) -> (Arc<WriteBehind>, Arc<dyn StateStore>) {
        (Arc::clone(&self.0.behind), Arc::clone(&self.0.state))
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }
}

/// Reaches every member where the latest membership has it, until Raft stops: openraft's streams to a node go on with the
/// addresses that they began with.
async fn follow_members(raft: Raft, channels: Channels) {
    let mut server = raft.server_metrics();
    loop {
        // Cloned at once: holding the borrow would hold up Raft itself.
        let members = server.borrow_and_update().membership_config.clone();
        channels.place(members.nodes());
        if server.changed().await.is_err() {
            return;
        }
    }
}

/// Says when it is dropped that something has ended.
struct Ends(watch::Sender<bool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn watch_failures(log: &dyn LogStore, state: &dyn StateStore) -> watch::Receiver<Option<StoreError>> {
    let (tell, failure) = watch::channel(None);
    let tell = Arc::new(tell);
    let watcher = |tell: Arc<watch::Sender<Option<StoreError>>>| {
        Box::new(move |error| {
            tell.send_replace(Some(error));
        })
    };
    log.on_failure(watcher(Arc::clone(&tell)));
    state.on_failure(watcher(tell));
    failure
}
