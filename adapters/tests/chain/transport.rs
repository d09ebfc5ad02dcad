//! Lost, slow and strange answers, from a scripted server in place of bitcoind.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use onespend_adapters::chain::{Bitcoind, BitcoindAuth, BitcoindConfig, Chain, ChainError, ScanDescriptor};
use serde_json::Value;

use crate::purse::{Coin, Purse, nowhere};

const TIMEOUT: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_secs(1);
/// How long a server keeps silent connections open.
const SILENCE: Duration = Duration::from_secs(2);
const HASH: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";

/// What the server does after it has read a request.
type Script = fn(request: &Value, stream: &mut TcpStream);

/// Requests in the order in which they came, by connection.
type Log = Arc<Mutex<Vec<(usize, String)>>>;

fn serve(script: Script) -> (Bitcoind, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().enumerate() {
            let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
            thread::spawn(move || converse(stream, connection, script, &seen));
        }
    });
    let auth = BitcoindAuth::UserPass { user: "u".to_owned(), password: "p".into() };
    let config = BitcoindConfig { timeout: TIMEOUT, scan_timeout: TIMEOUT, ..BitcoindConfig::new(url, auth) };
    (Bitcoind::new(config, None).unwrap(), log)
}

fn converse(mut stream: TcpStream, connection: usize, script: Script, log: &Log) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let method = request["method"].as_str().unwrap().to_owned();
        log.lock().unwrap().push((connection, method));
        script(&request, &mut stream);
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn answer(request: &Value, stream: &mut TcpStream, result: &str) {
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", request["id"]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn hash_answer(request: &Value, stream: &mut TcpStream) {
    answer(request, stream, &format!("\"{HASH}\""));
}

fn error_answer(request: &Value, stream: &mut TcpStream, code: i32, message: &str) {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":{code},\"message\":\"{message}\"}}}}",
        request["id"]
    );
    let head = format!("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn methods(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|(_, method)| method.clone()).collect()
}

#[test]
fn a_request_without_an_answer_is_sent_once() {
    let (chain, log) = serve(|_, _| thread::sleep(SILENCE));
    let start = Instant::now();
    let error = chain.block_hash_at(0).unwrap_err();
    assert!(matches!(error, ChainError::Timeout { .. }), "{error}");
    assert!(start.elapsed() >= TIMEOUT && start.elapsed() < TIMEOUT + SLACK);
    thread::sleep(TIMEOUT);
    assert_eq!(methods(&log), ["getblockhash"]);
}

/// safety 27, towards bitcoind.
#[test]
fn a_broadcast_whose_answer_is_lost_is_unknown_and_sent_once() {
    let (chain, log) = serve(|request, stream| {
        if request["method"] == "sendrawtransaction" {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        } else {
            error_answer(request, stream, -5, "no");
        }
    });
    let coin = Coin { outpoint: nowhere(), value: bitcoin::Amount::from_sat(9_000) };
    let error = chain.broadcast(&Purse::new(1).send(coin, 500)).unwrap_err();
    assert!(matches!(error, ChainError::Transport { method: "sendrawtransaction", sent: true, .. }), "{error}");
    assert!(error.is_unknown());
    assert_eq!(methods(&log), ["getmempoolentry", "sendrawtransaction"]);
}

#[test]
fn an_answer_that_drips_ends_with_the_deadline() {
    let (chain, _) = serve(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").unwrap();
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let start = Instant::now();
    let error = chain.block_hash_at(0).unwrap_err();
    assert!(matches!(error, ChainError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < TIMEOUT + SLACK, "took {:?}", start.elapsed());
}

#[test]
fn a_connection_is_used_again_until_the_other_end_closes_it() {
    let (chain, log) = serve(|request, stream| {
        hash_answer(request, stream);
        if request["params"][0] == 2 {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    });
    let hash: BlockHash = HASH.parse().unwrap();
    for height in [1, 2, 3] {
        assert_eq!(chain.block_hash_at(height).unwrap(), Some(hash));
        thread::sleep(Duration::from_millis(50));
    }
    let connections: Vec<usize> = log.lock().unwrap().iter().map(|(c, _)| *c).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn a_late_answer_is_never_taken_for_that_of_the_next_request() {
    let (chain, log) = serve(|request, stream| {
        if request["params"][0] == 1 {
            thread::sleep(TIMEOUT + Duration::from_millis(100));
            answer(request, stream, &format!("\"{}\"", "11".repeat(32)));
        } else {
            hash_answer(request, stream);
        }
    });
    assert!(matches!(chain.block_hash_at(1), Err(ChainError::Timeout { .. })));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(chain.block_hash_at(2).unwrap(), Some(HASH.parse().unwrap()));
    assert_eq!(log.lock().unwrap().last().unwrap().0, 1, "on a fresh connection");
}

#[test]
fn strange_answers_are_errors_that_name_the_call() {
    fn reply(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    fn endless_header() -> String {
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(99_999))
    }
    let strange: [(Script, &str); 7] = [
        (|_, s| reply(s, "SSH-2.0-OpenSSH\r\n"), "no HTTP"),
        (|_, s| reply(s, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "inside an answer"),
        (|_, s| reply(s, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "too large"),
        (|_, s| reply(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), "chunked"),
        (|_, s| reply(s, "HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\n<ht>"), "no JSON-RPC"),
        (|_, s| reply(s, &endless_header()), "closed"),
        (|_, s| reply(s, ""), "closed before"),
    ];
    for (script, expected) in strange {
        let (chain, _) = serve(script);
        let error = chain.block_hash_at(0).unwrap_err();
        assert!(error.is_unknown(), "{error}");
        let text = error.to_string();
        assert!(text.contains("getblockhash") && text.contains(expected), "{text}");
    }
}

#[test]
fn an_answer_of_another_shape_is_a_decode_error() {
    let (chain, _) = serve(|request, stream| answer(request, stream, "{\"surprise\":1}"));
    let error = chain.block_hash_at(0).unwrap_err();
    assert!(matches!(error, ChainError::Decode { method: "getblockhash", .. }), "{error}");
    assert!(error.is_unknown());
}

#[test]
fn a_block_that_is_not_the_one_asked_for_is_refused() {
    let (chain, _) = serve(|request, stream| {
        let genesis = bitcoin::blockdata::constants::genesis_block(bitcoin::Network::Regtest);
        let hex = bitcoin::consensus::encode::serialize_hex(&genesis);
        answer(request, stream, &format!("\"{hex}\""));
    });
    chain.block(HASH.parse().unwrap()).unwrap();
    let other: BlockHash = "11".repeat(32).parse().unwrap();
    assert!(matches!(chain.block(other), Err(ChainError::Decode { .. })));
}

#[test]
fn a_scan_that_takes_too_long_is_aborted() {
    let (chain, log) = serve(|request, stream| {
        if request["params"][0] == "start" {
            thread::sleep(SILENCE);
        } else {
            answer(request, stream, "true");
        }
    });
    let wanted = ScanDescriptor { descriptor: "raw(51)".to_owned(), range: None };
    let error = chain.scan(&[wanted]).unwrap_err();
    assert!(matches!(error, ChainError::Timeout { .. }), "{error}");
    assert_eq!(methods(&log), ["scantxoutset", "scantxoutset"]);
}

#[test]
fn a_running_scan_is_busy() {
    let (chain, _) = serve(|request, stream| {
        error_answer(request, stream, -8, "Scan already in progress, use action");
    });
    let wanted = ScanDescriptor { descriptor: "raw(51)".to_owned(), range: None };
    let error = chain.scan(&[wanted]).unwrap_err();
    assert!(matches!(error, ChainError::Busy { .. }), "{error}");
}

#[test]
fn spenders_come_from_the_mempool_while_the_index_is_behind() {
    let (chain, log) = serve(|request, stream| {
        if request["params"][1]["mempool_only"] == true {
            let told = "[{\"txid\":\"TXID\",\"vout\":0,\"spendingtxid\":\"TXID\"}]";
            answer(request, stream, &told.replace("TXID", &nowhere().txid.to_string()));
        } else {
            let message = "Mempool lacks a relevant spend, and txospenderindex is unavailable.";
            error_answer(request, stream, -1, message);
        }
    });
    assert_eq!(chain.spending_prevout(&[nowhere()]).unwrap(), [Some(nowhere().txid)]);
    assert_eq!(methods(&log).len(), 2);
}
