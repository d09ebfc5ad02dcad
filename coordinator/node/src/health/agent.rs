//! HAProxy's agent check: one line of text for whoever connects, then the end of the connection.
//!
//! HAProxy asks a server's agent beside its health check, and takes words from it (the section on `agent-check` in its
//! manual): `up` and `down` are about health, `ready` and `drain` about whether new connections go there. So a standby is
//! told from a fault: it is up and drained, and no alarm. A check that only knows 200 and 503 cannot say that.
//!
//! `drain` rather than `maint`: HAProxy cuts the connections of a server in maintenance, and a node that has handed over,
//! or is finishing its requests before it stops, still answers those that it has; a replica passes writes on.

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Health;
use super::question::Check;
use super::server::ACCEPT_PAUSE;
use super::verdict::{Reason, Verdict};

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
        let (_, [primary, ready]) = self.verdicts([Check::primary(), Check::ready()]);
        line(primary, ready)
    }
}

/// `primary` is what `/primary` says, `ready` what `/readyz` says.
fn line(primary: Verdict, ready: Verdict) -> String {
    match (primary.reason, ready.reason) {
        (None, _) => "up ready\n".to_owned(),
        (Some(Reason::Draining), _) => format!("up drain # {}\n", Reason::Draining.word()),
        (Some(Reason::NotLeader), None) => format!("up drain # {}\n", Reason::NotLeader.word()),
        (Some(Reason::NotLeader), Some(reason)) | (Some(reason), _) => format!("ready down # {}\n", reason.word()),
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
    use crate::health::{Limits, Role, Snapshot};

    #[test]
    fn a_standby_is_up_and_drained_and_a_fault_is_down() {
        let table = [
            (None, None, "up ready\n"),
            (Some(Reason::NotLeader), None, "up drain # NOT_LEADER\n"),
            (Some(Reason::Draining), Some(Reason::Draining), "up drain # DRAINING\n"),
            // A standby without a leader is out of order itself.
            (Some(Reason::NotLeader), Some(Reason::NoLeader), "ready down # NO_LEADER\n"),
            (Some(Reason::NotLeader), Some(Reason::AppliedLag), "ready down # APPLIED_LAG\n"),
            // A leader that may not take spends is no standby.
            (Some(Reason::QuorumLost), None, "ready down # QUORUM_LOST\n"),
            (Some(Reason::BitcoindNotInSync), None, "ready down # BITCOIND_NOT_IN_SYNC\n"),
            (Some(Reason::SnapshotStale), Some(Reason::SnapshotStale), "ready down # SNAPSHOT_STALE\n"),
        ];
        for (primary, ready, expected) in table {
            assert_eq!(line(Verdict { reason: primary }, Verdict { reason: ready }), expected);
        }
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
        const LIMITS: Limits = Limits {
            max_lag_entries: 10,
            quorum_ack: Duration::from_mins(1),
            leader_contact: Duration::from_mins(1),
            snapshot: Duration::from_mins(1),
            bitcoind_view: Duration::from_mins(1),
        };
        let starting = Snapshot::starting("demo", 1, BTreeMap::new());
        let health = Health::new(starting.clone(), LIMITS, String::new);
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
