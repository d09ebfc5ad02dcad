//! What `/primary` says on every node, asked all the time: never may two nodes say 200 for longer than an election
//! timeout.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::health::Asker;

/// `election_timeout_max_ms` of the nodes, which run with the default; a test compares the two.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(200);

const PATH: &str = "/primary";
/// Between two questions to one node.
const PACE: Duration = Duration::from_millis(5);
/// A node that takes longer says nothing, and that is not yes.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// A time during which every answer of one node in one term was 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Index of the node.
    pub node: usize,
    /// The term that its answers named.
    pub term: u64,
    /// When the first of them came: it was primary not later than that.
    pub from: Instant,
    /// When the last of them was asked for: it was primary until then, at least.
    pub until: Instant,
    /// When the last of them came.
    pub last_answer: Instant,
}

/// Asks every node all the time, from a thread for each, until it is dropped.
#[derive(Debug)]
pub struct PrimaryWatch {
    stop: Arc<AtomicBool>,
    reigns: Arc<Mutex<Vec<Reign>>>,
    threads: Vec<JoinHandle<()>>,
}

impl PrimaryWatch {
    /// Begins; `nodes` are the health ports.
    pub fn start(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        let (stop, reigns) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let threads = nodes
            .into_iter()
            .enumerate()
            .map(|(node, address)| {
                let (stop, reigns) = (Arc::clone(&stop), Arc::clone(&reigns));
                thread::spawn(move || watch(node, address, &stop, &reigns))
            })
            .collect();
        Self { stop, reigns, threads }
    }

    /// What was seen until now, in the order in which it began.
    pub fn reigns(&self) -> Vec<Reign> {
        self.reigns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PrimaryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _it_panicked = thread.join();
        }
    }
}

fn watch(node: usize, address: SocketAddr, stop: &AtomicBool, reigns: &Mutex<Vec<Reign>>) {
    let mut asker = Asker::new(address, ANSWER_TIMEOUT);
    // Where this node's present reign stands in the list, if it has one.
    let mut present: Option<usize> = None;
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let yes = asker.get(PATH).ok().filter(crate::health::Answer::is_ok);
        let answered = Instant::now();
        if let Some(answer) = yes {
            let term = answer.json()["term"].as_u64().unwrap_or(0);
            let mut reigns = reigns.lock().unwrap_or_else(PoisonError::into_inner);
            let known = present.and_then(|at| reigns.get_mut(at)).filter(|reign| reign.term == term);
            if let Some(reign) = known {
                (reign.until, reign.last_answer) = (asked, answered);
            } else {
                present = Some(reigns.len());
                reigns.push(Reign { node, term, from: answered, until: asked, last_answer: answered });
            }
        } else {
            present = None;
        }
        thread::sleep(PACE);
    }
}

/// The longest time during which two nodes certainly were primary at once, and which two.
pub fn longest_overlap(reigns: &[Reign]) -> Option<(Duration, Reign, Reign)> {
    let pairs = reigns.iter().enumerate().flat_map(|(at, one)| reigns[..at].iter().map(move |other| (one, other)));
    pairs
        .filter(|(one, other)| one.node != other.node)
        .filter_map(|(one, other)| {
            let overlap = one.until.min(other.until).checked_duration_since(one.from.max(other.from))?;
            Some((overlap, other.clone(), one.clone()))
        })
        .max_by_key(|(overlap, _, _)| *overlap)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bound_is_the_default_of_the_nodes() {
        assert_eq!(ELECTION_TIMEOUT, onespend::raft::RaftConfig::default().election_timeout_max);
    }

    #[test]
    fn two_primaries_at_once_are_caught_and_one_after_the_other_are_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let reign =
            |node, from, until| Reign { node, term: 1, from: at(from), until: at(until), last_answer: at(until) };
        assert_eq!(longest_overlap(&[]), None);
        assert_eq!(longest_overlap(&[reign(0, 0, 100), reign(1, 101, 200), reign(0, 300, 400)]), None);
        assert_eq!(longest_overlap(&[reign(0, 0, 100), reign(0, 50, 90)]), None, "a node does not contradict itself");
        let reigns = [reign(0, 0, 100), reign(2, 90, 500), reign(1, 200, 450)];
        let (overlap, first, second) = longest_overlap(&reigns).unwrap();
        assert_eq!((overlap, first.node, second.node), (Duration::from_millis(250), 2, 1));
        // One answer each: between question and answer the moment of truth is not known.
        assert_eq!(longest_overlap(&[reign(0, 10, 5), reign(1, 0, 100)]), None);
    }

    #[test]
    fn a_port_where_nobody_answers_reigns_never() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let watch = PrimaryWatch::start([nobody]);
        thread::sleep(PACE * 4);
        assert_eq!(watch.reigns(), Vec::new());
    }
}
