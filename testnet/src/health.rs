//! A tiny HTTP client for the health port: GET, one answer, close; or many questions on one connection ([`Asker`]).

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest answer that is read; `/metrics` is the longest.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// What `/metrics` calls the permits that a signer's memory refused.
const REFUSALS: &str = "onespend_signer_memory_refusals_total";
/// And how often the node gave the lead to another one.
const HAND_OVERS: &str = "onespend_raft_hand_overs_total";

/// What the health port said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// Whether the status is 200.
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// The body as JSON; `Null` when it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// `GET path` (with its query, if any). `timeout` bounds connecting and each read.
///
/// # Errors
/// Nobody listens, nothing comes in time, or the answer is not HTTP or is cut short.
pub fn get(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<Answer> {
    let mut stream = connect(address, timeout)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| not_whole(&bytes))
}

/// The status of `path`, or 0 when there is no answer.
pub fn status(address: SocketAddr, path: &str, timeout: Duration) -> u16 {
    get(address, path, timeout).map_or(0, |answer| answer.status)
}

/// How often the memories of a node's signers have refused a permit, by the rule that was broken.
///
/// # Errors
/// As [`get`].
pub fn memory_refusals(address: SocketAddr, timeout: Duration) -> io::Result<BTreeMap<String, u64>> {
    get(address, "/metrics", timeout).map(|answer| refusals_by_rule(&answer.body))
}

fn refusals_by_rule(metrics: &str) -> BTreeMap<String, u64> {
    let shown = metrics.lines().filter_map(|line| {
        let (labels, count) = line.strip_prefix(REFUSALS)?.split_once("\"} ")?;
        let (_, rule) = labels.split_once("rule=\"")?;
        Some((rule.to_owned(), count.parse::<u64>().ok()?))
    });
    let mut by_rule: BTreeMap<String, u64> = BTreeMap::new();
    for (rule, count) in shown {
        *by_rule.entry(rule).or_default() += count;
    }
    by_rule
}

/// The codes of the alarms that stand on a node.
///
/// # Errors
/// As [`get`]; and `/status` has no list of them.
pub fn alarms(address: SocketAddr, timeout: Duration) -> io::Result<Vec<String>> {
    let answer = get(address, "/status", timeout)?;
    codes(&answer.json()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/status has no list of alarms: {:?}", answer.body))
    })
}

fn codes(status: &serde_json::Value) -> Option<Vec<String>> {
    status["alarms"].as_array()?.iter().map(|alarm| Some(alarm["code"].as_str()?.to_owned())).collect()
}

/// How often a node has given the lead to another one for this reason.
///
/// # Errors
/// As [`get`]; and `/metrics` does not have this reason.
pub fn hand_overs(address: SocketAddr, reason: &str, timeout: Duration) -> io::Result<u64> {
    let metrics = get(address, "/metrics", timeout)?.body;
    counted(&metrics, HAND_OVERS, reason)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/metrics has no {HAND_OVERS} for {reason}")))
}

fn counted(metrics: &str, counter: &str, reason: &str) -> Option<u64> {
    let series = format!("{counter}{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series))?.parse().ok()
}

/// Asks one health port many times a second on one connection. After a failure the next question connects anew.
#[derive(Debug)]
pub struct Asker {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Asker {
    /// Connects at the first question. `timeout` bounds connecting and each read.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, stream: None }
    }

    /// `GET path`, as [`get`].
    ///
    /// # Errors
    /// Also when the node has closed the connection, as it does from time to time: the next question connects anew.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(self.address, self.timeout)?),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads as much as the head says, and leaves the connection open.
fn read_answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let mut head = String::new();
    let mut bounded = stream.take(MAX_ANSWER_BYTES);
    while !head.ends_with("\r\n\r\n") {
        if bounded.read_line(&mut head)? == 0 {
            return Err(not_whole(head.as_bytes()));
        }
    }
    let (status, length) = parse_head(&head).ok_or_else(|| not_whole(head.as_bytes()))?;
    let mut body = Vec::new();
    bounded.take(length as u64).read_to_end(&mut body)?;
    let whole = (body.len() == length).then(|| String::from_utf8_lossy(&body).into_owned());
    whole.map(|body| Answer { status, body }).ok_or_else(|| not_whole(head.as_bytes()))
}

fn not_whole(bytes: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(bytes);
    io::Error::new(io::ErrorKind::InvalidData, format!("not a whole HTTP answer: {text:?}"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (status, length) = parse_head(head)?;
    // The interface promises complete answers with Content-Length, so a short one is a fault.
    (body.len() == length).then(|| Answer { status, body: body.to_owned() })
}

/// The status and the length of the body.
fn parse_head(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    })?;
    Some((status, length.ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_whole_answer_is_read() {
        let answer =
            parse(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 20\r\n\r\n{\"reason\":\"replica\"}").unwrap();
        assert_eq!(answer.status, 503);
        assert!(!answer.is_ok());
        assert_eq!(answer.json()["reason"], "replica");
    }

    #[test]
    fn a_short_or_foreign_answer_is_refused() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\nno length"), None);
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 200"), None);
    }

    #[test]
    fn refusals_are_counted_by_rule() {
        let metrics = "# TYPE onespend_signer_memory_refusals_total counter\n\
            onespend_signer_memory_refusals_total{signer=\"hot\",rule=\"frozen\"} 0\n\
            onespend_signer_memory_refusals_total{signer=\"hot\",rule=\"other_transaction\"} 2\n\
            onespend_signer_memory_refusals_total{signer=\"warm\",rule=\"other_transaction\"} 1\n\
            onespend_signer_frozen{signer=\"hot\"} 1\n";
        let by_rule = [("frozen".to_owned(), 0_u64), ("other_transaction".to_owned(), 3)];
        assert_eq!(refusals_by_rule(metrics), BTreeMap::from(by_rule));
    }

    #[test]
    fn alarms_are_told_by_their_codes_and_a_status_without_any_is_none() {
        let status = serde_json::json!({"alarms": [{"code": "DISK_LOW", "message": "m"}, {"code": "RECOVERY_MODE"}]});
        assert_eq!(codes(&status).unwrap(), ["DISK_LOW", "RECOVERY_MODE"]);
        assert_eq!(codes(&serde_json::json!({"alarms": []})), Some(Vec::new()));
        assert_eq!(codes(&serde_json::json!({"alarms": [{}]})), None);
        assert_eq!(codes(&serde_json::Value::Null), None);
    }

    #[test]
    fn hand_overs_are_counted_by_reason() {
        let metrics = "onespend_raft_hand_overs_total{reason=\"signer\"} 2\n\
            onespend_raft_hand_overs_total{reason=\"stop\"} 1\n";
        assert_eq!(counted(metrics, HAND_OVERS, "signer"), Some(2));
        assert_eq!(counted(metrics, HAND_OVERS, "disk"), None);
    }

    #[test]
    fn answers_on_one_connection_are_read_one_after_the_other() {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nx";
        let mut stream = BufReader::new(&two[..]);
        assert_eq!(read_answer(&mut stream).unwrap(), Answer { status: 200, body: "{}".to_owned() });
        assert_eq!(read_answer(&mut stream).unwrap(), Answer { status: 503, body: "x".to_owned() });
        assert!(read_answer(&mut stream).is_err());
        assert!(read_answer(&mut BufReader::new(&two[..39])).is_err(), "cut short");
    }
}
