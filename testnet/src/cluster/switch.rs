//! A port in front of a node's control port that knows which node knocks, and has a wire for each of them.
//!
//! All nodes reach a member at one address, because that address is part of the replicated membership. So who knocks is
//! not seen by the port but by the process that owns the other end of the connection: its socket is in `/proc`.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::relay::Wire;

/// A connection is accepted before its owner is registered only in the first moments of a process.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_millis(10);
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Which process is which node, by index. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Processes(Arc<Mutex<Vec<Option<u32>>>>);

impl Processes {
    /// Of so many nodes, none of which runs.
    pub fn of(nodes: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![None; nodes])))
    }

    /// The node at `index` runs as this process now.
    pub fn note(&self, index: usize, pid: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get_mut(index) {
            *place = Some(pid);
        }
    }

    fn owner(&self, inode: &str) -> Option<usize> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.into_iter().position(|pid| pid.is_some_and(|pid| holds(pid, inode)))
    }
}

/// A running switch. Dropping it breaks its connections and frees its port.
#[derive(Debug)]
pub struct Switch {
    address: SocketAddr,
    wires: Vec<Wire>,
    closed: Arc<AtomicBool>,
}

impl Switch {
    /// Listens on a free port and passes connections of so many nodes on to `target`. Those of anybody else are closed:
    /// a partition with an unknown hole would be none.
    ///
    /// # Errors
    /// There is no port.
    pub fn start(target: SocketAddr, nodes: usize, processes: &Processes) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for a switch")?;
        let address = listener.local_addr()?;
        let wires = vec![(); nodes].into_iter().map(|()| Wire::default()).collect::<Vec<_>>();
        let closed = Arc::new(AtomicBool::new(false));
        let (inner, until, processes) = (wires.clone(), Arc::clone(&closed), processes.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (wires, processes) = (inner.clone(), processes.clone());
                thread::spawn(move || {
                    if let Some(wire) = caller(&client, address, &processes).and_then(|index| wires.get(index)) {
                        wire.carry(client, target);
                    }
                });
            }
        });
        Ok(Self { address, wires, closed })
    }

    /// Where nodes connect instead of to the control port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The wire from a node.
    pub fn from(&self, index: usize) -> Option<&Wire> {
        self.wires.get(index)
    }

    /// The wires from all nodes.
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        for wire in &self.wires {
            wire.close();
        }
        // The accepting thread looks whether it is closed only when somebody connects.
        let _wakes_it = TcpStream::connect_timeout(&self.address, WAKE_TIMEOUT);
    }
}

/// Which node a connection to `listen` comes from.
fn caller(client: &TcpStream, listen: SocketAddr, processes: &Processes) -> Option<usize> {
    let peer = client.peer_addr().ok()?;
    (0..TRIES).find_map(|attempt| {
        if attempt > 0 {
            thread::sleep(RETRY);
        }
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        processes.owner(inode_of(&table, peer, listen)?)
    })
}

/// The inode of the socket that is `local` at its own end and `remote` at the other (proc_net_tcp: addresses are
/// hexadecimal, IPv4 in the machine's byte order; the inode is the tenth column).
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<&str> {
    let (local, remote) = (in_table(local)?, in_table(remote)?);
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_it = columns.get(1) == Some(&local.as_str()) && columns.get(2) == Some(&remote.as_str());
        columns.get(9).copied().filter(|inode| is_it && *inode != "0")
    })
}

fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

fn holds(pid: u32, inode: &str) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::relay::Link;
    use crate::relay::tests::echo;
    use std::io::{Read, Write};

    fn say(address: SocketAddr) -> std::io::Result<[u8; 3]> {
        let mut client = TcpStream::connect(address)?;
        client.set_read_timeout(Some(Duration::from_millis(300)))?;
        client.write_all(b"hey")?;
        let mut answer = [0; 3];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn a_connection_takes_the_wire_of_the_process_that_made_it() {
        let processes = Processes::of(3);
        let switch = Switch::start(echo(), 3, &processes).unwrap();
        assert!(say(switch.address()).is_err(), "nobody knows this process yet");
        processes.note(1, std::process::id());
        assert_eq!(&say(switch.address()).unwrap(), b"hey");
        switch.from(0).unwrap().set_both(Link::Cut);
        assert_eq!(&say(switch.address()).unwrap(), b"hey", "another node's wire");
        switch.from(1).unwrap().set_both(Link::Cut);
        assert!(say(switch.address()).is_err());
        switch.from(1).unwrap().heal();
        assert_eq!(&say(switch.address()).unwrap(), b"hey");
    }

    #[test]
    fn the_table_is_read_by_both_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 11 1
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 22 1
   2: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000  1000        0 0 1
";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(inode_of(table, at(50_000), at(8_080)), Some("22"));
        assert_eq!(inode_of(table, at(50_001), at(8_080)), None, "closed already");
        assert_eq!(inode_of(table, at(50_002), at(8_080)), None);
    }
}
