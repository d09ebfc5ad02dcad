//! A tiny HTTP client for the health port: GET, one answer, close.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest answer that is read; `/metrics` is the longest.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

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
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a whole HTTP answer: {:?}", String::from_utf8_lossy(&bytes)),
        )
    })
}

/// The status of `path`, or 0 when there is no answer.
pub fn status(address: SocketAddr, path: &str, timeout: Duration) -> u16 {
    get(address, path, timeout).map_or(0, |answer| answer.status)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    })?;
    // The interface promises complete answers with Content-Length, so a short one is a fault.
    (body.len() == length.ok()?).then(|| Answer { status, body: body.to_owned() })
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
}
