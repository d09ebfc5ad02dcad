//! Small HTTP servers in place of a bitcoind and of a node's health port. What a real bitcoind answers is tested with
//! the chain port; here it matters what the doctor makes of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bitcoin::Network;
use bitcoin::constants::genesis_block;
use serde_json::{Value, json};

/// Answers every request by `answer`, which gets head and body and gives status line and body. Ends with the process.
pub fn serve(answer: impl Fn(&str, &str) -> (&'static str, String) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            while talk(&socket, &answer).is_some() {}
        }
    });
    address
}

fn talk(mut socket: &TcpStream, answer: &impl Fn(&str, &str) -> (&'static str, String)) -> Option<()> {
    let mut text = Vec::new();
    let head_end = loop {
        if let Some(at) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut byte = [0; 512];
        let read = socket.read(&mut byte).ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&byte[..read]);
    };
    let head = String::from_utf8_lossy(&text[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = text[head_end..].to_vec();
    let have = body.len();
    body.resize(length, 0);
    if have < length {
        socket.read_exact(&mut body[have..]).ok()?;
    }
    let (status, answer) = answer(&head, &String::from_utf8_lossy(&body));
    let close = if head.contains("connection: close") { "Connection: close\r\n" } else { "" };
    let answer = format!("HTTP/1.1 {status}\r\n{close}Content-Length: {}\r\n\r\n{answer}", answer.len());
    socket.write_all(answer.as_bytes()).ok()?;
    close.is_empty().then_some(())
}

/// A bitcoind on regtest at its genesis block, in its initial download or not.
pub fn bitcoind(initial_download: bool) -> SocketAddr {
    bitcoind_of(31, initial_download)
}

/// The same of a version.
pub fn bitcoind_of(major: u32, initial_download: bool) -> SocketAddr {
    bitcoind_with(major, initial_download, None)
}

/// One that throws old blocks away, and has those from this one on.
pub fn pruned_bitcoind(oldest: u32) -> SocketAddr {
    bitcoind_with(31, false, Some(oldest))
}

fn bitcoind_with(major: u32, initial_download: bool, oldest: Option<u32>) -> SocketAddr {
    let genesis = genesis_block(Network::Regtest).block_hash().to_string();
    serve(move |_, body| {
        let request: Value = serde_json::from_str(body).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "getblockchaininfo" => json!({
                "chain": "regtest", "blocks": 0, "headers": 0, "bestblockhash": genesis, "time": 1_296_688_602,
                "initialblockdownload": initial_download, "pruned": oldest.is_some(), "pruneheight": oldest,
            }),
            "getnetworkinfo" => json!({
                "version": major * 10_000, "subversion": format!("/Satoshi:{major}.0.0/"), "connections": 0,
            }),
            "getmempoolinfo" => {
                json!({ "size": 0, "loaded": true, "mempoolminfee": 0.000_001, "incrementalrelayfee": 0.000_001 })
            }
            "getblockhash" => json!(genesis),
            other => panic!("the doctor asked {other}"),
        };
        ("200 OK", json!({ "result": result, "error": null, "id": request["id"] }).to_string())
    })
}

/// A bitcoind that lets nobody in.
pub fn locked_bitcoind() -> SocketAddr {
    serve(|_, _| ("401 Unauthorized", String::new()))
}
