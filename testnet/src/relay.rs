//! A TCP relay between two processes that can misbehave, each direction by itself: partitions without root.
//!
//! A [`Wire`] is what misbehaves: the connections from one process to another. A [`Relay`] is a port with one wire behind
//! it, for whoever connects.
//!
//! [`Link::Held`] is what a partition looks like to TCP: connections stay open, nothing arrives, and what was sent is
//! delivered when the link heals (the kernel would retransmit it). [`Link::Cut`] is what a dead peer looks like:
//! connections break at once and new ones are refused.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// One read from a socket.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks under way per direction of a connection; a full queue stops the reading, as a full socket buffer would.
const QUEUED_CHUNKS: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A direction through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the relay.
    ToServer,
    /// Answers.
    ToClient,
}

/// How a direction behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Everything goes through at once.
    #[default]
    Open,
    /// Everything goes through this much later.
    Slow(Duration),
    /// Everything goes through, but not more than so many bytes a second; at least 1.
    Throttled(u32),
    /// Nothing goes through; it is delivered when the link heals.
    Held,
    /// Connections break, and new ones are closed as soon as they are made.
    Cut,
}

#[derive(Debug, Default)]
struct State {
    to_server: Link,
    to_client: Link,
    closed: bool,
    /// Both ends of every connection, to break them.
    open: Vec<(TcpStream, TcpStream)>,
}

impl State {
    fn link(&self, direction: Direction) -> Link {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn is_cut(&self) -> bool {
        self.closed || self.to_server == Link::Cut || self.to_client == Link::Cut
    }

    fn break_all(&mut self) {
        for (client, server) in self.open.drain(..) {
            let _broken_already = client.shutdown(Shutdown::Both);
            let _broken_already = server.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that misbehave alike. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Shared>);

impl Wire {
    /// Passes one connection on to `target`, as the wire then is. One that cannot be made there is closed: the client
    /// sees what a dead server would show it.
    pub fn carry(&self, client: TcpStream, target: SocketAddr) {
        let shared = Arc::clone(&self.0);
        thread::spawn(move || connect(&client, target, &shared));
    }

    /// Sets one direction.
    pub fn set(&self, direction: Direction, link: Link) {
        let mut state = self.0.lock();
        match direction {
            Direction::ToServer => state.to_server = link,
            Direction::ToClient => state.to_client = link,
        }
        if state.is_cut() {
            state.break_all();
        }
        self.0.changed.notify_all();
    }

    /// Sets both directions.
    pub fn set_both(&self, link: Link) {
        self.set(Direction::ToServer, link);
        self.set(Direction::ToClient, link);
    }

    /// Opens both directions.
    pub fn heal(&self) {
        self.set_both(Link::Open);
    }

    /// Breaks every connection and takes no more, for ever.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.break_all();
        drop(state);
        self.0.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

/// A running relay. Dropping it breaks its connections and frees its port.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    wire: Wire,
}

impl Relay {
    /// Listens on `listen` (port 0: any) and passes every connection on to `target`.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let wire = Wire::default();
        let for_accept = wire.clone();
        thread::spawn(move || accept_loop(&listener, target, &for_accept));
        Ok(Self { address, wire })
    }

    /// Where to connect instead of to the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it passes connections on through.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Sets one direction.
    pub fn set(&self, direction: Direction, link: Link) {
        self.wire.set(direction, link);
    }

    /// Sets both directions.
    pub fn set_both(&self, link: Link) {
        self.wire.set_both(link);
    }

    /// Opens both directions.
    pub fn heal(&self) {
        self.wire.heal();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.wire.close();
        // The accepting thread looks whether it is closed only when somebody connects.
        let _wakes_it = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT);
    }
}

fn accept_loop(listener: &TcpListener, target: SocketAddr, wire: &Wire) {
    for client in listener.incoming() {
        if wire.is_closed() {
            return;
        }
        if let Ok(client) = client {
            wire.carry(client, target);
        }
    }
}

fn connect(client: &TcpStream, target: SocketAddr, shared: &Arc<Shared>) {
    if shared.lock().is_cut() {
        return;
    }
    let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
        return;
    };
    let _hint = (client.set_nodelay(true), server.set_nodelay(true));
    let clones = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let (Some(forward), Some(backward), Some(kept)) = (clones(), clones(), clones()) else {
        return;
    };
    {
        let mut state = shared.lock();
        if state.is_cut() {
            return;
        }
        state.open.retain(|(client, _)| client.peer_addr().is_ok());
        state.open.push(kept);
    }
    pass(forward.0, forward.1, Direction::ToServer, shared);
    pass(backward.1, backward.0, Direction::ToClient, shared);
}

/// Two threads: one reads and stamps, one waits until each chunk may go on and writes it.
fn pass(from: TcpStream, to: TcpStream, direction: Direction, shared: &Arc<Shared>) {
    let (sender, receiver) = sync_channel(QUEUED_CHUNKS);
    let shared = Arc::clone(shared);
    thread::spawn(move || read(from, &sender));
    thread::spawn(move || write(to, direction, &receiver, &shared));
}

fn read(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now(), buffer[..count].to_vec())).is_err() {
            break;
        }
    }
}

fn write(mut to: TcpStream, direction: Direction, chunks: &Receiver<(Instant, Vec<u8>)>, shared: &Shared) {
    let mut written_at = Instant::now();
    for (read_at, bytes) in chunks {
        let passes = wait_for_turn(read_at, written_at, bytes.len(), direction, shared);
        if !passes || to.write_all(&bytes).is_err() {
            let _broken_already = to.shutdown(Shutdown::Both);
            return;
        }
        written_at = Instant::now();
    }
    // The sender has finished; what it sent has been delivered. The other direction may go on.
    let _broken_already = to.shutdown(Shutdown::Write);
}

/// True when a chunk of so many bytes, read at `read_at`, may be written; false when the link was cut meanwhile.
/// `written_at` is when the one before it was.
fn wait_for_turn(read_at: Instant, written_at: Instant, bytes: usize, direction: Direction, shared: &Shared) -> bool {
    let mut state = shared.lock();
    loop {
        if state.is_cut() {
            return false;
        }
        let wait = match state.link(direction) {
            Link::Slow(delay) => (read_at + delay).saturating_duration_since(Instant::now()),
            Link::Throttled(rate) => (written_at + transfer(bytes, rate)).saturating_duration_since(Instant::now()),
            Link::Held => Duration::MAX,
            Link::Open | Link::Cut => Duration::ZERO,
        };
        if wait.is_zero() {
            return true;
        }
        state = if wait == Duration::MAX {
            shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
        } else {
            shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
        };
    }
}

/// How long so many bytes take at so many bytes a second.
fn transfer(bytes: usize, bytes_per_s: u32) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs_f64(f64::from(bytes) / f64::from(bytes_per_s.max(1)))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ANY: &str = "127.0.0.1:0";
    const A_MOMENT: Duration = Duration::from_millis(150);

    /// A server that sends back what it gets.
    pub(crate) fn echo() -> SocketAddr {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut back = stream.try_clone().unwrap();
                    std::io::copy(&mut stream, &mut back)
                });
            }
        });
        address
    }

    fn relay_and_client() -> (Relay, TcpStream) {
        let relay = Relay::start(ANY.parse().unwrap(), echo()).unwrap();
        let client = TcpStream::connect(relay.address()).unwrap();
        client.set_read_timeout(Some(A_MOMENT)).unwrap();
        (relay, client)
    }

    fn say(client: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        client.write_all(text)?;
        hear(client, text.len())
    }

    fn hear(client: &mut TcpStream, bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut answer = vec![0; bytes];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn an_open_link_passes_everything_in_order() {
        let (_relay, mut client) = relay_and_client();
        let long: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(say(&mut client, &long).unwrap(), long);
    }

    #[test]
    fn a_held_link_delivers_after_it_heals() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (relay, mut client) = relay_and_client();
            assert_eq!(say(&mut client, b"one").unwrap(), b"one");
            relay.set(direction, Link::Held);
            assert!(say(&mut client, b"two").is_err(), "{direction:?}");
            relay.heal();
            assert_eq!(hear(&mut client, 3).unwrap(), b"two");
        }
    }

    #[test]
    fn a_slow_link_delivers_later_but_not_slower() {
        const DELAY: Duration = Duration::from_millis(200);
        let (relay, mut client) = relay_and_client();
        client.set_read_timeout(Some(10 * DELAY)).unwrap();
        relay.set(Direction::ToClient, Link::Slow(DELAY));
        let before = Instant::now();
        for _ in 0..10 {
            client.write_all(b"x").unwrap();
        }
        hear(&mut client, 10).unwrap();
        let took = before.elapsed();
        assert!(took >= DELAY && took < 5 * DELAY, "{took:?}");
    }

    #[test]
    fn a_throttled_link_delivers_everything_at_its_rate() {
        let (relay, mut client) = relay_and_client();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        relay.set(Direction::ToServer, Link::Throttled(100_000));
        let before = Instant::now();
        let long = vec![7; 40_000];
        assert_eq!(say(&mut client, &long).unwrap(), long);
        let took = before.elapsed();
        assert!(took >= Duration::from_millis(390), "{took:?}");
    }

    #[test]
    fn a_cut_link_breaks_and_refuses_until_it_heals() {
        let (relay, mut client) = relay_and_client();
        assert_eq!(say(&mut client, b"one").unwrap(), b"one");
        relay.set_both(Link::Cut);
        assert!(say(&mut client, b"two").is_err());
        let mut refused = TcpStream::connect(relay.address()).unwrap();
        refused.set_read_timeout(Some(A_MOMENT)).unwrap();
        assert!(say(&mut refused, b"three").is_err());
        relay.heal();
        let mut again = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(say(&mut again, b"four").unwrap(), b"four");
    }

    #[test]
    fn dropping_it_breaks_connections_and_frees_the_port() {
        let (relay, mut client) = relay_and_client();
        assert_eq!(say(&mut client, b"one").unwrap(), b"one");
        let address = relay.address();
        drop(relay);
        assert!(say(&mut client, b"two").is_err());
        thread::sleep(Duration::from_millis(50));
        assert!(TcpStream::connect(address).is_err());
    }
}
