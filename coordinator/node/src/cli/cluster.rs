//! `onespend cluster`: administration, on the control ports.

use std::cmp::Reverse;
use std::time::Duration;

use clap::Subcommand;
use futures::future::join_all;
use onespend_proto::client::Client;
use onespend_proto::v1;
use serde::Serialize;

use super::answer::Changed;
use super::connection::Need;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Show;
use super::session::{Repeat, Session, mutation};
use super::status::{ask_all, nobody};
use super::survivor::Recover;
use super::view::history::History;
use super::view::members::Members;
use super::with_runtime;
use crate::agreement::MISMATCH;
use crate::alarms::stops_spends;
use crate::restored::RECOVERY;

/// A voter that its leader has not heard for longer is not chosen to lead.
const MAX_SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Asks(Request),
    /// Go on from one node after the quorum was lost for good, as a new cluster; works on the folder of a stopped node
    ///
    /// Only where most of the voters are lost with their disks: while enough of them can come back, bring them back. The
    /// configuration must name a new cluster, and this node alone in [[peers]]. Everything in the node's log counts, also
    /// what is not known to be committed. The node leads alone, in recovery mode: nothing is signed until an operator
    /// confirms. The other nodes join it empty, under ids that are higher than any that was used.
    Recover(Recover),
}

/// What is asked of a cluster.
#[derive(Debug, Subcommand)]
pub enum Request {
    /// List the members: vote, lag, bitcoind, version
    Members,
    /// Let a new node receive the log; it must have a higher id than any node that was removed, and `join = true`
    Add {
        /// The new node's id
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        /// Where nodes and operators reach it
        #[arg(long, value_name = "HOST:PORT")]
        control_address: String,
        /// Where wallet back ends reach it
        #[arg(long, value_name = "HOST:PORT")]
        data_address: String,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Give a learner that has caught up its vote
    Promote {
        /// Which learner
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Remove a node, also a dead one; its id, and lower ones that are free, are never used again
    Remove {
        /// Which node
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Change where a member is reached; it keeps its id, its vote and its log
    ///
    /// The node itself takes its addresses from its configuration: change them there and restart it, before or after.
    /// One node at a time.
    Move {
        /// Which member
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        /// Where nodes and operators reach it
        #[arg(long, value_name = "HOST:PORT")]
        control_address: String,
        /// Where wallet back ends reach it
        #[arg(long, value_name = "HOST:PORT")]
        data_address: String,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Take a node out of rotation for planned work: not ready, gives up the lead, answers on
    ///
    /// It stays so until it is undrained or restarted. It goes on to vote and to store the log. Where only drained
    /// nodes are left to lead, one of them does after some seconds, without being primary.
    Drain {
        /// Which node
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Put a drained node back into rotation
    Undrain {
        /// Which node
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// List who led and from when, as far as the nodes have learnt since they started
    History,
    /// Hand leadership to another voter, and wait until it leads
    Transfer {
        /// Node that should lead [default: the voter that has caught up best; first one with a bitcoind in sync, no
        /// alarm and checks that pass]
        #[arg(long, value_name = "ID", value_parser = node_ids())]
        to: Option<u64>,
        #[command(flatten)]
        repeat: Repeat,
    },
}

fn node_ids() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

/// Who leads now.
#[derive(Debug, Serialize)]
struct Leader {
    leader_id: u64,
    /// What it says against that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Show for Leader {
    fn text(&self) -> String {
        with_warnings(format!("node {} leads", self.leader_id), &self.warnings)
    }
}

fn with_warnings(mut text: String, warnings: &[String]) -> String {
    for warning in warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    text
}

/// Warnings with the node that they are about.
fn about(node_id: u64, warnings: &[String]) -> Vec<String> {
    warnings.iter().map(|why| format!("node {node_id}: {why}")).collect()
}

/// Whether a node is in rotation.
#[derive(Debug, Serialize)]
struct Rotation {
    node_id: u64,
    draining: bool,
    /// Null if it knows none.
    leader_id: Option<u64>,
    /// What a leader that took the lead over from it says against that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Rotation {
    fn new(node_id: u64, draining: bool, leader_id: u64) -> Self {
        Self { node_id, draining, leader_id: Some(leader_id).filter(|leader| *leader != 0), warnings: Vec::new() }
    }
}

impl Show for Rotation {
    fn text(&self) -> String {
        let drained = "drained: it gets no new callers, and leads only where no other node can";
        let how = if self.draining { drained } else { "in rotation" };
        let text = match self.leader_id {
            Some(leader) => format!("node {} is {how}; node {leader} leads", self.node_id),
            None => format!("node {} is {how}; no leader is known there", self.node_id),
        };
        with_warnings(text, &self.warnings)
    }
}

/// Asks for a change, and shows what is made of one part of the answer, under that part's name.
macro_rules! change {
    (
        $session:ident, $repeat:ident,
        $client:ident.$method:ident($request:ident { $($field:ident $(: $value:expr)?),* }).$part:ident
            => $resource:expr
    ) => {{
        let request_id = $repeat.id();
        let request = v1::$request { request_id: request_id.clone(), $($field $(: $value)?),* };
        let answer = mutation(&request_id, $client.$method(request)).await?;
        let (applied_index, term, $part) = (answer.applied_index, answer.term, answer.$part);
        $session.output.show(&Changed { resource: $resource, applied_index, term, request_id })
    }};
}

impl Command {
    /// Runs it.
    pub fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self {
            Self::Asks(request) => with_runtime(request.run(session)),
            Self::Recover(command) => command.run(session.output),
        }
    }
}

impl Request {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.connection.client(Need::Control)?;
        match self {
            Self::Members => members(&client, session).await,
            Self::Add { node, control_address, data_address, repeat } => change!(
                session, repeat,
                client.add_learner(AddLearnerRequest { node_id: node, control_address, data_address }).members
                    => Members::of_leader(members)
            ),
            Self::Promote { node, repeat } => promote(&client, session, node, repeat.id()).await,
            Self::Remove { node, repeat } => change!(
                session, repeat,
                client.remove_node(RemoveNodeRequest { node_id: node }).members => Members::of_leader(members)
            ),
            Self::Move { node, control_address, data_address, repeat } => change!(
                session, repeat,
                client.move_node(MoveNodeRequest { node_id: node, control_address, data_address }).members
                    => Members::of_leader(members)
            ),
            Self::Drain { node, repeat } => drain(&client, session, node, repeat.id()).await,
            Self::Undrain { node, repeat } => change!(
                session, repeat,
                client.undrain_node(UndrainNodeRequest { node_id: node }).leader_id
                    => Rotation::new(node, false, leader_id)
            ),
            Self::History => history(&client, session).await,
            Self::Transfer { to, repeat } => transfer(&client, session, to, repeat.id()).await,
        }
    }
}

async fn members(client: &Client, session: &Session) -> Result<(), Failure> {
    let answers = ask_all(client, &session.connection.settings(Need::Control)?).await;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return Err(nobody(answers));
    }
    session.output.show(&Members::of_all(answers.into_iter().filter_map(|(_, answer)| answer.ok()).collect()))
}

async fn promote(client: &Client, session: &Session, node_id: u64, request_id: String) -> Result<(), Failure> {
    let request = v1::PromoteLearnerRequest { request_id: request_id.clone(), node_id };
    let answer = mutation(&request_id, client.promote_learner(request)).await?;
    let warnings = about(node_id, &answer.warnings);
    session.output.show(&Changed {
        resource: Members::of_promotion(answer.members, warnings),
        applied_index: answer.applied_index,
        term: answer.term,
        request_id,
    })
}

async fn drain(client: &Client, session: &Session, node_id: u64, request_id: String) -> Result<(), Failure> {
    let request = v1::DrainNodeRequest { request_id: request_id.clone(), node_id };
    let answer = mutation(&request_id, client.drain_node(request)).await?;
    let warnings = about(answer.leader_id, &answer.warnings);
    session.output.show(&Changed {
        resource: Rotation { warnings, ..Rotation::new(node_id, true, answer.leader_id) },
        applied_index: answer.applied_index,
        term: answer.term,
        request_id,
    })
}

/// Of every node that answers: one that has just been restarted has seen little.
async fn history(client: &Client, session: &Session) -> Result<(), Failure> {
    let answers = ask_all(client, &session.connection.settings(Need::Control)?).await;
    let there = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(address, _)| address);
    let told: Vec<_> = join_all(there.map(|address| client.get_history_of(address))).await;
    let (told, silent): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
    match silent.into_iter().find_map(Result::err) {
        _ if !told.is_empty() => session.output.show(&History::of_all(told.into_iter().flatten().collect())),
        Some(error) => Err(Failure::of_read(error)),
        None => Err(nobody(answers)),
    }
}

/// Names the node even if the person did not, so that the client may repeat what had no answer: once the lead has moved,
/// the same request without a name would move it on.
async fn transfer(client: &Client, session: &Session, to: Option<u64>, request_id: String) -> Result<(), Failure> {
    let node_id = if let Some(node_id) = to { node_id } else { choose(client, session).await? };
    let request = v1::TransferLeadershipRequest { request_id: request_id.clone(), node_id };
    let answer = mutation(&request_id, client.transfer_leadership(request)).await;
    let answer = answer.map_err(|failure| match node_id {
        0 if failure.exit == Exit::Unknown => failure.remedy("look who leads before you ask again: `onespend status`"),
        0 => failure,
        named => failure.with("to", named),
    })?;
    session.output.show(&Changed {
        resource: Leader { leader_id: answer.leader_id, warnings: about(answer.leader_id, &answer.warnings) },
        applied_index: answer.applied_index,
        term: answer.term,
        request_id,
    })
}

/// Who should lead next. Where nobody is found it is 0: the leader is left to look, and says why not.
async fn choose(client: &Client, session: &Session) -> Result<u64, Failure> {
    let answers = ask_all(client, &session.connection.settings(Need::Control)?).await;
    let answers: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
    Ok(successor(&answers).unwrap_or_default())
}

/// Of the voters that stand for election and that the leader has heard lately, the one that has caught up best; one
/// that has nothing against itself before any other, as a leader chooses that hands over by itself.
fn successor(answers: &[v1::GetStatusResponse]) -> Option<u64> {
    let leaders = answers.iter().filter(|answer| answer.role() == v1::NodeRole::Leader);
    let leader = leaders.max_by_key(|answer| answer.term)?;
    let heard = |member: &v1::Member| {
        let silence = member.last_contact.and_then(|contact| Duration::try_from(contact).ok());
        silence.is_some_and(|silence| silence <= MAX_SILENCE)
    };
    let said = |id: u64| answers.iter().find(|answer| answer.node_id == id);
    let stands =
        |id: u64| said(id).is_none_or(|answer| !answer.draining && !codes(answer).any(|code| code == MISMATCH));
    let others = leader.members.iter().filter(|member| member.voter && member.node_id != leader.node_id);
    let others = others.filter(|member| stands(member.node_id) && heard(member));
    let rank = |id: u64, matched: Option<u64>| (said(id).is_some_and(is_fit), matched, Reverse(id));
    others.max_by_key(|member| rank(member.node_id, member.matched_index)).map(|member| member.node_id)
}

/// Whether a node says nothing of itself that speaks against its lead.
fn is_fit(answer: &v1::GetStatusResponse) -> bool {
    let bitcoind = answer.bitcoind.as_ref();
    let in_sync = bitcoind.is_some_and(|bitcoind| bitcoind.state() == v1::BitcoindState::InSync);
    // Recovery mode is the whole cluster's.
    let alarm = codes(answer).any(|code| code != RECOVERY && stops_spends(code));
    let decides = |check: &v1::FailingCheck| check.purpose() != v1::CheckPurpose::Report;
    let fails = answer.health.iter().flat_map(|health| &health.failing_checks).any(decides);
    in_sync && !alarm && !fails
}

/// The codes of a node's alarms.
fn codes(answer: &v1::GetStatusResponse) -> impl Iterator<Item = &str> {
    answer.alarms.iter().filter_map(|alarm| alarm.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, voter: bool, matched: u64, silent_s: i64) -> v1::Member {
        let last_contact = Some(prost_types::Duration { seconds: silent_s, nanos: 0 });
        v1::Member { node_id, voter, matched_index: Some(matched), last_contact, ..Default::default() }
    }

    fn status(node_id: u64, role: v1::NodeRole, term: u64, members: Vec<v1::Member>) -> v1::GetStatusResponse {
        v1::GetStatusResponse { node_id, role: role.into(), term, members, ..Default::default() }
    }

    #[test]
    fn the_voter_that_has_caught_up_best_and_is_there_leads_next() {
        let leader = |members| [status(1, v1::NodeRole::Leader, 2, members)];
        let own = member(1, true, 0, 0);
        let best = leader(vec![own.clone(), member(2, true, 90, 0), member(3, true, 91, 0)]);
        assert_eq!(successor(&best), Some(3));
        let equal = leader(vec![own.clone(), member(3, true, 91, 0), member(2, true, 91, 0)]);
        assert_eq!(successor(&equal), Some(2));
        let silent = leader(vec![own.clone(), member(2, true, 90, 0), member(3, true, 91, 3)]);
        assert_eq!(successor(&silent), Some(2));
        let learner = leader(vec![own.clone(), member(2, false, 91, 0)]);
        assert_eq!(successor(&learner), None);
        assert_eq!(successor(&leader(vec![own])), None);
    }

    #[test]
    fn a_drained_node_is_not_chosen_to_lead() {
        let leads = status(1, v1::NodeRole::Leader, 2, vec![member(2, true, 91, 0), member(3, true, 90, 0)]);
        let drained = v1::GetStatusResponse { draining: true, ..status(2, v1::NodeRole::Replica, 2, vec![]) };
        assert_eq!(successor(&[leads.clone(), drained.clone()]), Some(3));
        let undrained = v1::GetStatusResponse { draining: false, ..drained };
        assert_eq!(successor(&[leads, undrained]), Some(2));
    }

    /// What a node says that may lead.
    fn fit(node_id: u64) -> v1::GetStatusResponse {
        let bitcoind = Some(v1::BitcoindView { state: v1::BitcoindState::InSync.into(), ..Default::default() });
        v1::GetStatusResponse { bitcoind, ..status(node_id, v1::NodeRole::Replica, 2, vec![]) }
    }

    #[test]
    fn a_node_with_something_against_it_is_chosen_only_where_no_other_is_fit() {
        let leads = status(1, v1::NodeRole::Leader, 2, vec![member(2, true, 91, 0), member(3, true, 90, 0)]);
        let next = |second: v1::GetStatusResponse, third| successor(&[leads.clone(), second, third]);
        assert_eq!(next(fit(2), fit(3)), Some(2));
        let alarm = |text: &str| v1::GetStatusResponse { alarms: vec![text.to_owned()], ..fit(2) };
        let failing = |purpose: v1::CheckPurpose| {
            let check = v1::FailingCheck { purpose: purpose.into(), ..Default::default() };
            let health = Some(v1::NodeHealth { failing_checks: vec![check], ..Default::default() });
            v1::GetStatusResponse { health, ..fit(2) }
        };
        let behind = || v1::GetStatusResponse { bitcoind: None, ..fit(2) };
        for unfit in [behind(), alarm("DISK_LOW: why"), failing(v1::CheckPurpose::Primary)] {
            assert_eq!(next(unfit.clone(), fit(3)), Some(3), "{unfit:?}");
        }
        for same in [alarm("DEEP_REORGANISATION: why"), alarm("RECOVERY_MODE"), failing(v1::CheckPurpose::Report)] {
            assert_eq!(next(same.clone(), fit(3)), Some(2), "{same:?}");
        }
        let neither = v1::GetStatusResponse { bitcoind: None, ..fit(3) };
        assert_eq!(next(behind(), neither.clone()), Some(2));
        assert_eq!(next(alarm("STATE_HASH_MISMATCH: why"), neither), Some(3), "it stands for no election");
        assert_eq!(successor(&[leads.clone(), fit(3)]), Some(3), "the other one says nothing");
        assert_eq!(successor(&[leads]), Some(2), "neither says anything");
    }

    #[test]
    fn of_two_that_think_they_lead_the_later_one_is_asked() {
        let old = status(1, v1::NodeRole::Leader, 2, vec![member(2, true, 9, 0)]);
        let new = status(2, v1::NodeRole::Leader, 3, vec![member(1, true, 9, 0)]);
        let replica = status(3, v1::NodeRole::Replica, 3, vec![]);
        assert_eq!(successor(&[old, new, replica.clone()]), Some(1));
        assert_eq!(successor(&[replica]), None);
    }
}
