//! Free TCP ports on 127.0.0.1.
//!
//! Taken from below the range that the kernel gives to outgoing connections (32768 and up on Linux), so that a port
//! does not get lost between being found and being used, and each one handed out once per process.

use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// One port that nobody listens on.
///
/// # Errors
/// All of them are taken.
pub fn free_port() -> Result<u16> {
    let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut port = next.unwrap_or_else(start);
    for _ in FIRST..LAST {
        port = if port + 1 < LAST { port + 1 } else { FIRST };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            *next = Some(port);
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} to {LAST}")
}

/// Two harnesses on one machine start at different places.
fn start() -> u16 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let offset = nanos.wrapping_add(std::process::id().wrapping_mul(7_919)) % u32::from(LAST - FIRST);
    FIRST + u16::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_never_the_same() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| (FIRST..LAST).contains(port)));
    }

    #[test]
    fn a_port_in_use_is_skipped() {
        let port = free_port().unwrap();
        let next = if port + 1 < LAST { port + 1 } else { FIRST };
        let _held = TcpListener::bind(("127.0.0.1", next));
        assert_ne!(free_port().unwrap(), next);
    }
}
