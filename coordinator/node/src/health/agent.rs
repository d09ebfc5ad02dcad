//! HAProxy's agent check: one line of text for whoever connects, then the end of the connection.
//!
//! HAProxy asks a server's agent beside its health check, and takes words from it (the section on `agent-check` in its
//! manual): `up` and `down` are about health, `ready` and `drain` about whether new connections go there. So a standby is
//! told from a fault: it is up and drained, and no alarm. A check that only knows 200 and 503 cannot say that.
//!
//! `drain` rather than `maint`: HAProxy cuts the connections of a server in maintenance, and a node that has handed over,
//! or is finishing its requests before it stops, still answers those that it has; a replica passes writes on.

use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::question::Check;
use super::server::ACCEPT_PAUSE;
use super::verdict::{Limits, Reason, Verdict};
use super::{Health, Snapshot};

/// Answers on a socket until it is told to stop.
///
/// A connection is never waited for: a line of this length fits into the send buffer of a new connection, and what the
/// other side sends is not read. So nobody can hold the listener up.
pub(super) async fn answer(listener: TcpListener, health: Health, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => tell(&socket, &health.agent_line()).await,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn tell(socket: &TcpStream, line: &str) {
    // At once for a new connection, or it is broken: its client's business.
    if socket.writable().await.is_ok() {
        let _ = socket.try_write(line.as_bytes());
    }
}

impl Health {
    /// What HAProxy is told now.
    fn agent_line(&self) -> String {
        let (snapshot, [primary, ready]) = self.verdicts([Check::primary(), Check::ready()]);
        let heard = is_heard(&snapshot, &self.limits, Instant::now());
        line(primary, ready, heard && is_of_a_change(primary, ready, &snapshot, &self.limits))
    }
}

/// `primary` is what `/primary` says, `ready` what `/readyz` says; `changing` if only because the lead changes
/// hands.
fn line(primary: Verdict, ready: Verdict, changing: bool) -> String {
    match (primary.reason, ready.reason) {
        (None, _) => "up ready\n".to_owned(),
        (Some(Reason::Draining), _) => format!("up drain # {}\n", Reason::Draining.word()),
        (Some(Reason::NotLeader), None) => format!("up drain # {}\n", Reason::NotLeader.word()),
        (Some(Reason::NotLeader), Some(reason)) | (Some(reason), _) => {
            format!("{} # {}\n", if changing { "up drain" } else { "ready down" }, reason.word())
        }
    }
}

/// Whether a leader was heard lately. Without one it is no change of leaders, but a cluster that has none.
fn is_heard(snapshot: &Snapshot, limits: &Limits, now: Instant) -> bool {
    snapshot.leader_contact.is_some_and(|at| now.saturating_duration_since(at) <= limits.leader_contact)
}

/// Whether a change of leaders does that, for a moment, to a node that is in order. `down` would cut its connections.
fn is_of_a_change(primary: Verdict, ready: Verdict, snapshot: &Snapshot, limits: &Limits) -> bool {
    match (primary.reason, ready.reason) {
        // It has voted and has not heard who won; or it has won and has not applied its first entry.
        (Some(Reason::NotLeader), Some(Reason::NoLeader)) | (Some(Reason::OwnTermNotApplied), None) => true,
        // It has led for as long as it runs, and follows for the first time.
        (Some(Reason::NotLeader), Some(Reason::AppliedLag)) => {
            snapshot.caught_up.is_none() && snapshot.applied_lag() <= limits.max_lag_entries
        }
        // It has won, and nobody has answered its first append yet. One that lost its quorum had one before.
        (Some(Reason::QuorumLost), _) => snapshot.last_quorum_ack.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::health::{LeaderInfo, Role};

    #[test]
    fn a_standby_is_up_and_drained_and_a_fault_is_down() {
        let table = [
            (None, None, "up ready\n"),
            (Some(Reason::NotLeader), None, "up drain # NOT_LEADER\n"),
            (Some(Reason::Draining), Some(Reason::Draining), "up drain # DRAINING\n"),
            // A standby that has not heard a leader for long is out of order itself.
            (Some(Reason::NotLeader), Some(Reason::NoLeader), "ready down # NO_LEADER\n"),
            (Some(Reason::NotLeader), Some(Reason::AppliedLag), "ready down # APPLIED_LAG\n"),
            // A leader that may not take spends is no standby.
            (Some(Reason::QuorumLost), None, "ready down # QUORUM_LOST\n"),
            (Some(Reason::BitcoindNotInSync), None, "ready down # BITCOIND_NOT_IN_SYNC\n"),
            (Some(Reason::SnapshotStale), Some(Reason::SnapshotStale), "ready down # SNAPSHOT_STALE\n"),
        ];
        for (primary, ready, expected) in table {
            assert_eq!(line(Verdict { reason: primary }, Verdict { reason: ready }, false), expected);
        }
    }

    const LIMITS: Limits = Limits {
        max_lag_entries: 10,
        quorum_ack: Duration::from_mins(1),
        leader_contact: Duration::from_mins(1),
        snapshot: Duration::from_mins(1),
        bitcoind_view: Duration::from_mins(1),
    };

    /// A follower that is one entry behind, after this change.
    fn said(change: impl FnOnce(&mut Snapshot)) -> String {
        let now = Some(Instant::now());
        let starting = Snapshot::starting("demo", 1, BTreeMap::new());
        let (committed_index, applied_index) = (8, 7);
        let (leader_contact, caught_up) = (now, now);
        let mut snapshot =
            Snapshot { recovered: true, committed_index, applied_index, leader_contact, caught_up, ..starting };
        change(&mut snapshot);
        Health::new(snapshot, LIMITS, |_| String::new()).agent_line()
    }

    #[test]
    fn while_the_lead_changes_hands_nobody_is_down_who_has_heard_a_leader_lately() {
        let long_ago = Instant::now().checked_sub(LIMITS.leader_contact * 2);
        let leader = || Some(LeaderInfo { id: 2, control: String::new(), data: String::new() });
        // It has voted; it has led until now, and never followed.
        assert_eq!(said(|_| {}), "up drain # NO_LEADER\n");
        assert_eq!(said(|now| now.role = Role::Candidate), "up drain # NO_LEADER\n");
        assert_eq!(said(|now| (now.leader, now.caught_up) = (leader(), None)), "up drain # APPLIED_LAG\n");
        // It has won.
        assert_eq!(said(|now| now.role = Role::Leader), "up drain # QUORUM_LOST\n");
        let own_term = "up drain # OWN_TERM_NOT_APPLIED\n";
        assert_eq!(said(|now| (now.role, now.last_quorum_ack) = (Role::Leader, now.leader_contact)), own_term);

        // That is no moment any more, or is no change of leaders.
        assert_eq!(said(|now| now.leader_contact = None), "ready down # NO_LEADER\n");
        assert_eq!(said(|now| now.leader_contact = long_ago), "ready down # NO_LEADER\n");
        assert_eq!(said(|now| (now.role, now.leader_contact) = (Role::Leader, long_ago)), "ready down # QUORUM_LOST\n");
        assert_eq!(
            said(|now| (now.role, now.last_quorum_ack) = (Role::Leader, long_ago)),
            "ready down # QUORUM_LOST\n"
        );
        let lag = |now: &mut Snapshot| (now.leader, now.committed_index) = (leader(), 100);
        assert_eq!(said(lag), "ready down # APPLIED_LAG\n");
    }

    fn ask(agent: SocketAddr, says: &[u8]) -> String {
        let mut socket = TcpStream::connect(agent).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(says).unwrap();
        let mut line = String::new();
        // What the agent does not read may break the connection behind its line.
        let _ = socket.read_to_string(&mut line);
        line
    }

    #[test]
    fn whoever_connects_is_told_what_the_snapshot_says_now() {
        let starting = Snapshot::starting("demo", 1, BTreeMap::new());
        let health = Health::new(starting.clone(), LIMITS, |_| String::new());
        let (http, agent) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = agent.local_addr().unwrap();
        let server = health.serve_with_agent(http, Some(agent)).unwrap();
        assert_eq!(ask(address, b""), "ready down # NOT_RECOVERED\n");
        // One that says nothing and stays does not hold up the next.
        let _silent = TcpStream::connect(address).unwrap();
        health.publish(Snapshot { recovered: true, draining: true, ..starting.clone() });
        assert_eq!(ask(address, b""), "up drain # DRAINING\n");
        let now = Some(Instant::now());
        let (role, last_quorum_ack, own_term_applied) = (Role::Leader, now, true);
        health.publish(Snapshot { recovered: true, role, last_quorum_ack, own_term_applied, ..starting });
        assert_eq!(ask(address, b""), "ready down # BITCOIND_VIEW_STALE\n");
        ask(address, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(ask(address, b""), "ready down # BITCOIND_VIEW_STALE\n");
        server.stop();
        assert!(TcpStream::connect(address).is_err(), "it still listens");
    }
}
