//! Who answers at an address? By a TLS handshake with this node's own certificate, or by asking a health port.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::Value;

use crate::identity::Identity;
use crate::tls::{Material, SERVER_NAME};

/// How long connecting, and each answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What an HTTP/2 client says first: the preface and empty settings (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Length of a frame's head, which a server sends first.
const FRAME_HEAD: usize = 9;
/// Most of an HTTP answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

/// Who answered, and how long that took.
#[derive(Debug)]
pub struct Answer {
    /// The holder of the certificate.
    pub identity: Identity,
    /// From connecting to the first frame.
    pub took: Duration,
}

/// Why nobody did.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// No connection.
    #[error("no connection: {0}")]
    Unreachable(std::io::Error),
    /// Somebody is there, but not a node of this cluster that takes this certificate.
    #[error("somebody else answers, or refuses this node's certificate: {0}")]
    Stranger(String),
}

/// Asks a data or control port.
pub fn node(address: &str, material: &Material) -> Result<Answer, Silence> {
    let begun = Instant::now();
    let mut socket = connect(address).map_err(Silence::Unreachable)?;
    let stranger = |error: &dyn std::fmt::Display| Silence::Stranger(error.to_string());
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| stranger(&error))?;
    let mut connection =
        ClientConnection::new(Arc::clone(&material.rustls_client()), name).map_err(|error| stranger(&error))?;
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let mut head = [0; FRAME_HEAD];
    // Only once a frame has come is it sure that the other side took our certificate.
    stream
        .write_all(PREFACE)
        .and_then(|()| stream.flush())
        .and_then(|()| stream.read_exact(&mut head))
        .map_err(|error| stranger(&error))?;
    let took = begun.elapsed();
    let leaf =
        connection.peer_certificates().and_then(|chain| chain.first()).ok_or_else(|| stranger(&"no certificate"))?;
    let identity = Identity::from_certificate(leaf).map_err(|error| stranger(&error))?;
    Ok(Answer { identity, took })
}

/// Asks a health port for `/status`: the cluster and node that it names.
pub fn health(address: &str) -> Option<(String, u64)> {
    let mut socket = connect(address).ok()?;
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER).read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let status: Value = serde_json::from_str(body).ok()?;
    Some((status.get("cluster_id")?.as_str()?.to_owned(), status.get("node_id")?.as_u64()?))
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
