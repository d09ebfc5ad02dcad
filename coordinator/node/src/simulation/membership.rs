//! Members that come and go, on nodes of which nothing runs but Raft. Every message takes as long as the test says and none
//! is lost but those of a node that the test cuts off, so it is known what has arrived where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use onespend_adapters::store::PeerBook;
use onespend_adapters::store::memory::{MemoryLog, MemoryState};
use onespend_core::command::Command;
use onespend_core::ids::ReservationId;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::ClientTlsConfig;

use super::executor::{Executor, Host};
use super::machine::CLUSTER;
use super::world::executor;
use crate::agreement;
use crate::raft::simulated::{self, Lines, Weather};
use crate::raft::{
    Addresses, Draft, LeaderHint, MembershipError, NoObserver, RaftConfig, RaftNode, RaftParts, RaftStatus,
};
use crate::replica::Replica;
use crate::runtime::{now, sleep};

/// Longer than anything takes, in simulated time.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked: more often than messages arrive.
const POLL: Duration = Duration::from_micros(100);
/// How long a message takes between machines that stand beside each other.
const NEAR: Duration = Duration::from_millis(1);
/// And to one that is far away: five messages of entries take a second, and it answers all the time.
const FAR: Duration = Duration::from_millis(100);

/// How long every message takes, and who is cut off.
struct Distance(Mutex<(Duration, Option<Host>)>);

impl Distance {
    fn set(&self, distance: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = distance;
    }

    fn cut_off(&self, host: Option<Host>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = host;
    }
}

impl Weather for Distance {
    fn arrivals(&self, from: Host, to: Host) -> Vec<Duration> {
        let (distance, cut_off) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cut_off.is_some_and(|host| host == from || host == to) { vec![] } else { vec![distance] }
    }
}

/// Nodes, with their disks.
pub(super) struct Nodes {
    config: RaftConfig,
    distance: Arc<Distance>,
    lines: Lines,
    pub(super) running: BTreeMap<Host, RaftNode>,
    disks: Vec<TempDir>,
}

impl Nodes {
    /// Nodes 1 to `voters`, which are a cluster.
    pub(super) async fn found(config: RaftConfig, voters: Host) -> Self {
        let distance = Arc::new(Distance(Mutex::new((NEAR, None))));
        let weather: Arc<dyn Weather> = distance.clone();
        let lines = Lines::new(weather);
        let mut nodes = Self { config, distance, lines, running: BTreeMap::new(), disks: Vec::new() };
        for id in 1..=voters {
            nodes.boot(id).await;
        }
        for node in nodes.running.values() {
            node.initialize((1..=voters).map(|id| (id, Addresses::default())).collect()).await.unwrap();
        }
        nodes
    }

    /// Starts a node with an empty disk.
    async fn boot(&mut self, id: Host) {
        let disk = TempDir::new().unwrap();
        let state = Arc::new(MemoryState::open(disk.path(), CLUSTER).unwrap());
        let parts = RaftParts {
            config: self.config.clone(),
            cluster_id: CLUSTER.to_owned(),
            node_id: id,
            log: Arc::new(MemoryLog::default()),
            state: state.clone(),
            instance: format!("disk-{id}"),
            peers: PeerBook::default(),
            tls: ClientTlsConfig::new(),
            observer: Arc::new(NoObserver),
        };
        let lines = self.lines.clone();
        let node = executor().spawn_on(id, async move { simulated::start(parts, &lines, state).await }).await;
        self.running.insert(id, node.expect("it starts"));
        self.disks.push(disk);
    }

    /// Its power fails.
    pub(super) fn kill(&mut self, id: Host) {
        self.lines.disconnect(id);
        self.running.remove(&id);
        executor().kill(id);
    }

    /// Loses all messages to and from this node, or from now on nobody's.
    pub(super) fn cut_off(&self, host: Option<Host>) {
        self.distance.cut_off(host);
    }

    /// The node that leads and is ready to, once there is one.
    pub(super) async fn leader(&self) -> (Host, RaftNode) {
        let leads = |node: &RaftNode| node.leadership().borrow().leader_term().is_some();
        until("a node leads", || {
            self.running.iter().find(|(_, node)| leads(node)).map(|(id, node)| (*id, node.clone()))
        })
        .await
    }
}

pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let late = soon();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(now() < late, "in {PATIENCE:?} not: {what}");
        sleep(POLL).await;
    }
}

pub(super) fn soon() -> Instant {
    now() + PATIENCE
}

/// Makes the log longer.
pub(super) async fn write(leader: &RaftNode, thousands: usize) {
    let release = || Draft::duty(Command::Release { reservation: ReservationId(1), fence: None });
    for _ in 0..thousands {
        let asked = (0..1_000).map(|_| leader.proposer().propose(release(), soon()));
        assert!(join_all(asked).await.iter().all(Result::is_ok));
    }
}

/// How many entries of the leader's log a member is not known to have.
pub(super) fn lag(leader: &RaftStatus, of: Host) -> u64 {
    let member = leader.members.iter().find(|member| member.node_id == of).expect("it is a member");
    leader.last_log.unwrap_or(0) - member.matched.unwrap_or(0)
}

fn voters(node: &RaftNode) -> Vec<Host> {
    node.status().voters().collect()
}

/// As a voter it would count for every quorum, and help in none.
#[test]
fn a_learner_that_lags_gets_no_vote_until_it_has_caught_up() {
    Executor::new(1).run(async {
        let second = Duration::from_secs(1);
        let patient = RaftConfig {
            heartbeat: second / 2,
            election_timeout_min: second,
            election_timeout_max: 2 * second,
            ..RaftConfig::default()
        };
        let mut nodes = Nodes::found(patient, 1).await;
        let (_, leader) = nodes.leader().await;
        write(&leader, 5).await;
        nodes.boot(2).await;
        nodes.distance.set(FAR);
        leader.add_learner(2, Addresses::default(), soon()).await.unwrap();

        let (late, mut refusals) = (soon(), Vec::new());
        let lacked = loop {
            let lacks = lag(&leader.status(), 2);
            match leader.promote_learner(2, soon()).await {
                Ok(()) => break lacks,
                Err(MembershipError::Refused(why)) => refusals.push(why),
                Err(error) => panic!("{error}"),
            }
            assert!(now() < late, "{refusals:?}");
            sleep(FAR / 10).await;
        };
        // A tenth of the log.
        assert!(lacked <= 501, "it lacked {lacked} entries");
        assert!(refusals.iter().any(|why| why.contains("it has entries up to")), "{refusals:?}");
        assert_eq!(voters(&leader), [1, 2]);
    });
}

/// By what the state machine has applied, whoever has seen it happen.
#[test]
fn no_new_node_gets_the_id_of_a_removed_one_or_a_lower_one() {
    Executor::new(3).run(async {
        let nodes = Nodes::found(RaftConfig::default(), 1).await;
        let (_, leader) = nodes.leader().await;
        let add = async |id| leader.add_learner(id, Addresses::default(), soon()).await;
        let refused = |added| matches!(added, Err(MembershipError::Refused(why)) if why.contains("never used again"));
        add(5).await.unwrap();
        add(3).await.expect("nobody was removed yet");
        add(5).await.expect("it is a member");
        leader.remove_node(5, soon()).await.unwrap();
        assert!(refused(add(5).await) && refused(add(4).await));
        add(3).await.expect("it is a member");
        add(6).await.expect("it is a higher one");
        leader.remove_node(3, soon()).await.unwrap();
        assert!(refused(add(3).await) && refused(add(5).await));
    });
}

#[test]
fn a_change_of_the_voters_that_its_leader_left_half_done_is_finished_by_the_next() {
    Executor::new(2).run(async {
        let mut nodes = Nodes::found(RaftConfig::default(), 3).await;
        let (old, leader) = nodes.leader().await;
        nodes.boot(4).await;
        leader.add_learner(4, Addresses::default(), soon()).await.unwrap();
        until("the learner has all", || (lag(&leader.status(), 4) == 0).then_some(())).await;

        // Two have to acknowledge the first of the two entries, and as soon as one of them has it none can have done so.
        executor().spawn_on(old, async move { leader.promote_learner(4, soon()).await });
        let has_first = |(id, node): (&Host, &RaftNode)| *id != old && node.status().joint;
        until("another node has the first entry", || nodes.running.iter().any(has_first).then_some(())).await;
        nodes.kill(old);

        let (next, leader) = nodes.leader().await;
        assert!(leader.status().joint, "the change is half done");
        let other = nodes.running.iter().find(|(id, _)| **id != next).map(|(_, node)| node.clone()).unwrap();
        assert_eq!(other.finish_change(soon()).await, Err(MembershipError::NotLeader));
        let own = LeaderHint { node_id: next, addresses: Addresses::default(), term: 0 };
        agreement::finish_change(&Replica::new(leader, own)).await;
        let finished = |node: &RaftNode| !node.status().joint && voters(node) == [1, 2, 3, 4];
        until("the change is finished", || nodes.running.values().all(finished).then_some(())).await;
    });
}
