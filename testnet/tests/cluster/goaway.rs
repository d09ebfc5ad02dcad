//! How a node ends its HTTP/2 connections: it says so first (GOAWAY, RFC 9113, 6.8), so that no request is sent into a
//! connection that is about to close.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use onespend_testnet::cluster::Credentials;
use onespend_testnet::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::scene::{PATIENCE, Scene};

/// What a client says first: the preface and empty settings (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const NO_ERROR: u32 = 0;

/// One frame of HTTP/2.
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// An open connection, without a request at first.
pub struct Idle(StreamOwned<ClientConnection, TcpStream>);

/// An open connection with a request under way.
pub struct Busy(TcpStream);

impl Drop for Busy {
    fn drop(&mut self) {
        // The node may have closed it.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Idle {
    pub fn open(address: std::net::SocketAddr, own: &Credentials) -> Self {
        let read = |file: &Path| fs::read(file).unwrap();
        let certificates = |file: &Path| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(&read(file)).collect::<Result<_, _>>().unwrap()
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&own.ca) {
            roots.add(authority).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&read(&own.key)).unwrap();
        let config = config.with_root_certificates(roots).with_client_auth_cert(certificates(&own.cert), key);
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(tls, socket);
        stream.write_all(PREFACE).unwrap();
        stream.flush().unwrap();
        Self(stream)
    }

    /// Begins a request that does not end, and waits until the node has it. It is given up when what comes back is
    /// dropped.
    pub fn begin_request(mut self) -> Busy {
        // Headers as RFC 7541 writes them: POST and https by their index, a known name by its own, a new one in full.
        let mut headers = vec![0x83, 0x87];
        for (name, value) in [
            (&[0x04][..], "/onespend.v1.ChainService/GetTip"),
            (&[0x01][..], "localhost"),
            (&[0x0f, 0x10][..], "application/grpc"),
            (&b"\x00\x02te"[..], "trailers"),
        ] {
            headers.extend_from_slice(name);
            headers.push(u8::try_from(value.len()).unwrap());
            headers.extend_from_slice(value.as_bytes());
        }
        let length = u8::try_from(headers.len()).unwrap();
        let head = [0, 0, length, HEADERS, END_HEADERS, 0, 0, 0, 1];
        let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        self.0.write_all(&[&head[..], &headers[..], &ping[..]].concat()).unwrap();
        self.0.flush().unwrap();
        loop {
            let frame = self.next().expect("the node reads on");
            if frame.kind == PING && frame.flags & ACK != 0 {
                break;
            }
            self.acknowledge(&frame);
        }
        let socket = self.0.sock.try_clone().unwrap();
        // A client whose pings are not answered is given up.
        thread::spawn(move || {
            while let Some(frame) = self.next() {
                self.acknowledge(&frame);
            }
        });
        Busy(socket)
    }

    /// The next frame; `None` once the node has closed the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], payload })
    }

    /// As a client has to: settings and pings are acknowledged.
    fn acknowledge(&mut self, frame: &Frame) {
        if frame.flags & ACK != 0 {
            return;
        }
        let payload: &[u8] = match frame.kind {
            SETTINGS => &[],
            PING => &frame.payload,
            _ => return,
        };
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, frame.kind, ACK, 0, 0, 0, 0];
        // A node that has closed already does not need to be told.
        let _ = self.0.write_all(&[&head[..], payload].concat()).and_then(|()| self.0.flush());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_goaway_before_it_closes_a_connection() {
    let mut scene = Scene::start("goaway");
    let leader = scene.primary();
    for index in [Scene::others(leader)[0], leader] {
        let mut idle = Idle::open(scene.addresses(index).data, scene.cluster.client());
        let first = idle.next().expect("the node speaks HTTP/2");
        assert_eq!(first.kind, SETTINGS);
        idle.acknowledge(&first);

        let process = scene.node(index).process().unwrap();
        process.signal(Signal::Term).unwrap();
        let mut errors = Vec::new();
        while let Some(frame) = idle.next() {
            if frame.kind == GOAWAY {
                errors.push(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
            idle.acknowledge(&frame);
        }
        assert!(!errors.is_empty(), "node {} closed a connection without a word", index + 1);
        assert!(errors.iter().all(|error| *error == NO_ERROR), "{errors:?}");
        let process = scene.node(index).process().unwrap();
        let ended = process.wait(Duration::from_secs(30)).unwrap();
        assert_eq!(ended.code(), Some(0), "{}", process.log_tail());
        scene.node(index).restart().unwrap();
        scene.primary();
    }
    scene.finish();
}
