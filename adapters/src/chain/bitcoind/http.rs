//! HTTP/1.1 to bitcoind, with one promise: a request is sent at most once.
//!
//! The transport that comes with the jsonrpc crate (`simple_http`) sends a request again on a fresh socket when
//! reading the answer fails, a timeout included; a broadcast would run twice and take twice its timeout. So here a
//! connection is checked *before* a request goes out, nothing is ever sent again, and a deadline bounds the whole
//! exchange instead of each read.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoincore_rpc::jsonrpc::{self, Request, Response, Transport};
use secrecy::{ExposeSecret, SecretString};

/// The largest answer taken. A block is at most 8 MB as hex; a scan that finds 500 000 outputs is about 200 MB.
const MAX_BODY_BYTES: u64 = 256 * 1024 * 1024;
/// The largest status line and headers taken together.
const MAX_HEADER_BYTES: u64 = 16 * 1024;
/// A connection that was idle for longer is not used again. Half of bitcoind's default `-rpcservertimeout` of 30 s,
/// so that its closing and our sending do not cross.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// The smallest socket timeout; zero would mean none.
const MIN_SOCKET_TIMEOUT: Duration = Duration::from_millis(1);

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// No connection; nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The deadline passed.
    #[error("timed out")]
    TimedOut,
    /// The connection broke, or the answer was no HTTP or no JSON, after something was sent.
    #[error("{0}")]
    Broken(String),
    /// HTTP 401 or 403; the request was not executed.
    #[error("HTTP status {0}")]
    Refused(u16),
    /// HTTP 503; the request was not executed.
    #[error("HTTP status 503: {0}")]
    Overloaded(String),
}

/// Where bitcoind listens: `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    authority: String,
    path: String,
}

impl Target {
    /// Reads a URL. Plain HTTP only: bitcoind speaks no TLS. The port must be named, because the default differs
    /// between networks.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("url {url:?} must begin with http:// (bitcoind speaks no TLS)"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err("url must not contain credentials".to_owned());
        }
        let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(format!("url {url:?} must name the RPC port, as in http://127.0.0.1:8332"));
        }
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// How long the next request may take, set by the lane that owns the transport.
#[derive(Debug, Clone)]
pub(super) struct TimeLimit(Arc<AtomicU64>);

impl TimeLimit {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    pub(super) fn set(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// One connection to bitcoind, opened when needed and kept open between requests.
pub(super) struct HttpTransport {
    target: Target,
    /// `user:password` in Base64.
    basic_auth: SecretString,
    limit: TimeLimit,
    idle: Mutex<Option<Connection>>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    since: Instant,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    keep: bool,
}

impl HttpTransport {
    pub(super) fn new(target: Target, basic_auth: SecretString, limit: TimeLimit) -> Self {
        Self { target, basic_auth, limit, idle: Mutex::new(None) }
    }

    fn exchange(&self, body: &[u8]) -> Result<Vec<u8>, HttpError> {
        let deadline = Instant::now() + self.limit.get();
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept.filter(Connection::is_usable) {
            Some(connection) => connection,
            None => Connection::open(&self.target, deadline)?,
        };
        connection.send(&self.head(body.len()), body, deadline)?;
        let answer = connection.receive(deadline)?;
        if answer.keep {
            connection.since = Instant::now();
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        judge_status(answer)
    }

    fn head(&self, body_len: usize) -> SecretString {
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {body_len}\r\n\
             Authorization: Basic {}\r\n\r\n",
            self.target.path,
            self.target.authority,
            self.basic_auth.expose_secret()
        )
        .into()
    }
}

/// Bitcoin Core puts JSON-RPC errors into bodies with status 200, 400, 404 or 500, depending on version.
fn judge_status(answer: Answer) -> Result<Vec<u8>, HttpError> {
    match answer.status {
        401 | 403 => Err(HttpError::Refused(answer.status)),
        503 => Err(HttpError::Overloaded(String::from_utf8_lossy(&answer.body).trim().to_owned())),
        _ => Ok(answer.body),
    }
}

impl Connection {
    fn open(target: &Target, deadline: Instant) -> Result<Self, HttpError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in target.authority.to_socket_addrs().map_err(HttpError::Connect)? {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(HttpError::Connect)?;
                    let since = Instant::now();
                    return Ok(Self { stream: BufReader::new(stream), since });
                }
                Err(error) => last = error,
            }
        }
        Err(if is_timeout(&last) { HttpError::TimedOut } else { HttpError::Connect(last) })
    }

    /// Whether the other end still holds this connection and has nothing to say. Sends nothing.
    fn is_usable(&self) -> bool {
        let stream = self.stream.get_ref();
        if self.since.elapsed() > MAX_IDLE || !self.stream.buffer().is_empty() || stream.set_nonblocking(true).is_err()
        {
            return false;
        }
        let quiet = matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).is_ok() && quiet
    }

    fn send(&mut self, head: &SecretString, body: &[u8], deadline: Instant) -> Result<(), HttpError> {
        let mut message = Vec::with_capacity(head.expose_secret().len() + body.len());
        message.extend_from_slice(head.expose_secret().as_bytes());
        message.extend_from_slice(body);
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(remaining(deadline)?)).map_err(|e| broken(&e))?;
        stream.write_all(&message).map_err(|e| broken(&e))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Answer, HttpError> {
        let mut reader = UntilDeadline { stream: &mut self.stream, deadline };
        let head = Head::read(&mut reader)?;
        let limit = head.content_length.unwrap_or(MAX_BODY_BYTES);
        if limit > MAX_BODY_BYTES {
            return Err(HttpError::Broken(format!("answer of {limit} bytes is too large")));
        }
        let mut body = Vec::new();
        reader.take(limit).read_to_end(&mut body).map_err(|e| broken(&e))?;
        if head.content_length.is_some_and(|length| length != body.len() as u64) {
            return Err(HttpError::Broken("connection closed inside an answer".to_owned()));
        }
        let keep = head.keep_alive && head.content_length.is_some();
        Ok(Answer { status: head.status, body, keep })
    }
}

struct Head {
    status: u16,
    content_length: Option<u64>,
    keep_alive: bool,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self, HttpError> {
        let mut reader = reader.take(MAX_HEADER_BYTES);
        let mut head = Self::from_status_line(&header_line(&mut reader)?)?;
        loop {
            let line = header_line(&mut reader)?;
            if line.is_empty() {
                return Ok(head);
            }
            head.note(&line)?;
        }
    }

    fn from_status_line(line: &str) -> Result<Self, HttpError> {
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| HttpError::Broken("the answer is no HTTP".to_owned()))?;
        Ok(Self { status, content_length: None, keep_alive: line.starts_with("HTTP/1.1") })
    }

    fn note(&mut self, line: &str) -> Result<(), HttpError> {
        let Some((name, value)) = line.split_once(':') else {
            return Err(HttpError::Broken("malformed HTTP header".to_owned()));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse();
            let length = length.map_err(|_| HttpError::Broken("bad Content-Length".to_owned()))?;
            self.content_length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Broken("chunked answers are not supported".to_owned()));
        } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            self.keep_alive = false;
        }
        Ok(())
    }
}

fn header_line(reader: &mut impl BufRead) -> Result<String, HttpError> {
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|e| broken(&e))?;
    if !line.ends_with('\n') {
        return Err(HttpError::Broken("connection closed before an answer".to_owned()));
    }
    Ok(line.trim_end().to_owned())
}

/// Reads that together end at one deadline.
struct UntilDeadline<'a> {
    stream: &'a mut BufReader<TcpStream>,
    deadline: Instant,
}

impl UntilDeadline<'_> {
    fn arm(&self) -> io::Result<()> {
        let left = remaining(self.deadline).map_err(|_| io::ErrorKind::TimedOut)?;
        self.stream.get_ref().set_read_timeout(Some(left))
    }
}

impl Read for UntilDeadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.stream.read(buffer)
    }
}

impl BufRead for UntilDeadline<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.arm()?;
        self.stream.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.stream.consume(amount);
    }
}

fn remaining(deadline: Instant) -> Result<Duration, HttpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(HttpError::TimedOut) } else { Ok(left.max(MIN_SOCKET_TIMEOUT)) }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn broken(error: &io::Error) -> HttpError {
    if is_timeout(error) { HttpError::TimedOut } else { HttpError::Broken(error.to_string()) }
}

impl Transport for HttpTransport {
    fn send_request(&self, request: Request<'_>) -> Result<Response, jsonrpc::Error> {
        let body = serde_json::to_vec(&request)?;
        let answer = self.exchange(&body).map_err(|e| jsonrpc::Error::Transport(Box::new(e)))?;
        serde_json::from_slice(&answer).map_err(|e| {
            let detail = format!("the answer is no JSON-RPC: {e}");
            jsonrpc::Error::Transport(Box::new(HttpError::Broken(detail)))
        })
    }

    /// Batches are not used: one failing call would hide the others.
    fn send_batch(&self, _: &[Request<'_>]) -> Result<Vec<Response>, jsonrpc::Error> {
        Err(jsonrpc::Error::EmptyBatch)
    }

    fn fmt_target(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)
    }
}
