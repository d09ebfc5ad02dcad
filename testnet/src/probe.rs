//! How long nodes take to say whether they may take spends, asked as a load balancer asks: again and again, on a connection
//! of its own each time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::health;
use crate::history::Nanos;
use crate::load::Spread;

const PATH: &str = "/primary";
/// From an answer to the next question to the same node.
const PACE: Duration = Duration::from_millis(10);
/// A node that says nothing for so long is asked anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long answers took, connecting included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Each of them, also of questions that nobody answered.
    pub took: Vec<Nanos>,
    /// Questions without a whole answer.
    pub unanswered: usize,
}

impl Waits {
    /// How they are spread; `None` of none.
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.took)
    }
}

/// Asks every node all the time, from a thread for each, until it is dropped.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    waits: Arc<Mutex<Waits>>,
    threads: Vec<JoinHandle<()>>,
}

impl Probe {
    /// Begins; `nodes` are the health ports. What is asked before `from` does not count.
    pub fn start(nodes: impl IntoIterator<Item = SocketAddr>, from: Instant) -> Self {
        let (stop, waits) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Waits>>::default());
        let threads = nodes
            .into_iter()
            .map(|node| {
                let (stop, waits) = (Arc::clone(&stop), Arc::clone(&waits));
                thread::spawn(move || ask(node, from, &stop, &waits))
            })
            .collect();
        Self { stop, waits, threads }
    }

    /// Questions that count until now.
    pub fn asked(&self) -> usize {
        held(&self.waits).took.len()
    }

    /// Ends it, and says what was measured.
    pub fn finish(mut self) -> Waits {
        self.end();
        held(&self.waits).clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _it_panicked = thread.join();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end();
    }
}

fn held(waits: &Mutex<Waits>) -> MutexGuard<'_, Waits> {
    waits.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(node: SocketAddr, from: Instant, stop: &AtomicBool, waits: &Mutex<Waits>) {
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answer = health::get(node, PATH, PATIENCE);
        let took = Nanos::try_from(asked.elapsed().as_nanos()).unwrap_or(Nanos::MAX);
        if asked >= from {
            let mut waits = held(waits);
            waits.took.push(took);
            waits.unanswered += usize::from(answer.is_err());
        }
        thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const QUESTIONS: usize = 3;

    /// Says no to so many questions, one after the other, and then goes away.
    fn node(questions: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for _ in 0..questions {
                let (mut socket, _) = listener.accept().unwrap();
                let mut asked = [0; 1_024];
                assert_ne!(socket.read(&mut asked).unwrap(), 0);
                socket.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            }
        });
        address
    }

    fn finished_after(probe: Probe, questions: usize) -> Waits {
        while probe.asked() < questions {
            thread::sleep(PACE);
        }
        probe.finish()
    }

    #[test]
    fn a_no_is_an_answer_and_silence_is_none() {
        let waits = finished_after(Probe::start([node(QUESTIONS)], Instant::now()), QUESTIONS + 1);
        assert_eq!(waits.unanswered, waits.took.len() - QUESTIONS, "{waits:?}");
        assert!(waits.took.iter().all(|took| *took > 0), "{waits:?}");
        let spread = waits.spread().unwrap();
        assert!(spread.p50 <= spread.p99 && spread.p99 <= spread.max, "{spread:?}");
        assert_eq!(Waits::default().spread(), None);
    }

    #[test]
    fn what_is_asked_before_the_time_does_not_count() {
        let (early, counts) = ([node(1_000)], [node(1_000)]);
        let early = Probe::start(early, Instant::now() + Duration::from_hours(1));
        finished_after(Probe::start(counts, Instant::now()), QUESTIONS);
        assert_eq!(early.finish(), Waits::default());
    }
}
