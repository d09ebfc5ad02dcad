//! The HTTP server: its own thread, its own runtime, nothing shared with the node but snapshots.
//!
//! HTTP/1.1 and HTTP/2 without TLS (prior knowledge), told apart by their first bytes. Clients
//! are not trusted to behave: connections, header sizes, silence and age are bounded.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::question::{Check, Question, Refusal};
use super::verdict::{Reason, known_leader};
use super::{Health, agent, body};

/// Most connections at a time; further ones wait in the listener's backlog.
pub const MAX_CONNECTIONS: usize = 256;
/// How long a connection may stay silent before or between requests.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How long a connection may live; then it is closed between two requests.
const MAX_AGE: Duration = Duration::from_mins(5);
/// How long a connection that is being closed may take to finish its answer.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Largest request head in bytes.
const MAX_HEAD_BYTES: usize = 16_384;
/// HTTP/2 requests at a time per connection.
const MAX_STREAMS: u32 = 32;
/// Pause after the system refuses a connection, for instance for want of file descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const ALLOWED: &str = "GET, HEAD, OPTIONS";
const JSON: &str = "application/json";
const METRICS_LATE: &str = "METRICS_LATE";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The socket cannot be used.
    #[error("the health listener: {0}")]
    Socket(std::io::Error),
    /// The thread or its runtime cannot be made.
    #[error("the health thread: {0}")]
    Thread(std::io::Error),
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    health: Health,
}

impl HealthServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node stops: from now on every answer says so, until [`Self::stop`].
    pub fn stopping(&self) {
        self.health.stopping();
    }

    /// Stops accepting, lets answers finish for at most two seconds, and waits for the thread.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Health {
    /// Serves on a bound socket, from a thread of its own.
    ///
    /// # Errors
    /// If the socket or the thread cannot be set up.
    pub fn serve(&self, listener: TcpListener) -> Result<HealthServer, HealthError> {
        self.serve_with_agent(listener, None)
    }

    /// The same, and answers HAProxy's agent check on a second socket.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub fn serve_with_agent(
        &self,
        listener: TcpListener,
        agent: Option<TcpListener>,
    ) -> Result<HealthServer, HealthError> {
        let address = listener.local_addr().map_err(HealthError::Socket)?;
        // The name is that of the thread that renders the metrics; none else is made.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("metrics-page")
            .enable_all()
            .build()
            .map_err(HealthError::Thread)?;
        let inside = runtime.enter();
        let (listener, agent) = (waiting(listener)?, agent.map(waiting).transpose()?);
        drop(inside);
        let stop = CancellationToken::new();
        let router = Router::new().fallback(respond).with_state(self.clone());
        let accepting = accept(listener, router, stop.clone());
        let (health, until) = (self.clone(), stop.clone());
        let serving = async move {
            match agent {
                Some(socket) => {
                    tokio::join!(accepting, agent::answer(socket, health, until));
                }
                None => accepting.await,
            }
        };
        let thread = std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                runtime.block_on(serving);
                // A page that hangs holds nobody up.
                runtime.shutdown_background();
            })
            .map_err(HealthError::Thread)?;
        Ok(HealthServer { address, stop, thread: Some(thread), health: self.clone() })
    }
}

/// A socket that the runtime waits for; to be called inside it.
fn waiting(listener: TcpListener) -> Result<tokio::net::TcpListener, HealthError> {
    listener.set_nonblocking(true).map_err(HealthError::Socket)?;
    tokio::net::TcpListener::from_std(listener).map_err(HealthError::Socket)
}

async fn accept(listener: tokio::net::TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            serve(socket, router, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(CLOSE_WITHIN, slots.acquire_many(all)).await;
}

async fn serve(socket: TcpStream, router: Router, stop: CancellationToken) {
    // The protocol is told by the first bytes, and hyper waits for those without a limit.
    let first_byte = timeout(MAX_SILENCE, socket.readable());
    tokio::select! {
        readable = first_byte => if !matches!(readable, Ok(Ok(()))) { return },
        () = stop.cancelled() => return,
    }
    let _ = socket.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(MAX_SILENCE).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(16_384)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(MAX_SILENCE)
        .keep_alive_timeout(MAX_SILENCE);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        // A broken connection is its client's business.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(MAX_AGE) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSE_WITHIN, connection).await;
}

async fn respond(State(health): State<Health>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let answer = match read(request.method(), request.uri()) {
        Ok(question) => health.answer(&question).await,
        Err(refused) => refused,
    };
    Ok(answer.for_method(request.method()))
}

/// An answer before it is cut to the request's method.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn json(status: StatusCode, body: &Value) -> Self {
        Self { status, content_type: JSON, body: format!("{body}\n") }
    }

    fn verdict(reason: Option<Reason>, body: &Value) -> Self {
        let status = match reason {
            None => StatusCode::OK,
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::json(status, body)
    }

    /// GET gets all; HEAD the same head; OPTIONS the same status, which is what HAProxy's
    /// `option httpchk` looks at by default.
    fn for_method(self, method: &Method) -> Response<Body> {
        let length = match *method {
            Method::OPTIONS => 0,
            _ => self.body.len(),
        };
        let body = match *method {
            Method::OPTIONS | Method::HEAD => Body::empty(),
            _ => Body::from(self.body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if *method == Method::OPTIONS || self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
        }
        response
    }
}

impl Health {
    /// At once, but for the metrics.
    async fn answer(&self, question: &Question) -> Answer {
        let snapshot = self.snapshot();
        let now = Instant::now();
        let led_by = known_leader(&snapshot, &self.limits, now);
        let ok = |body: &Value| Answer::json(StatusCode::OK, body);
        match question {
            Question::Check(check) => {
                let reason = super::verdict(check, &snapshot, &self.limits, now).reason;
                let body = body::answer(&snapshot, led_by, reason.map(Reason::word));
                Answer::verdict(reason, &body)
            }
            Question::Verbose(check) => {
                let reason = super::verdict(check, &snapshot, &self.limits, now).reason;
                Answer::verdict(reason, &body::verbose(&snapshot, led_by, reason.map(Reason::word), now))
            }
            Question::Live => {
                let pulses = self.progress.pulses(now);
                let stalled = pulses.iter().any(|pulse| !pulse.alive);
                let reason = stalled.then_some(Reason::Stalled);
                let body = body::live(&snapshot, led_by, reason.map(Reason::word), &pulses);
                Answer::verdict(reason, &body)
            }
            Question::Status => {
                let fault = super::verdict(&Check::Startup, &snapshot, &self.limits, now).reason;
                ok(&body::status(&snapshot, led_by, fault == Some(Reason::SnapshotStale), now))
            }
            Question::Cluster => ok(&body::cluster(&snapshot, led_by)),
            Question::History => ok(&body::history(&snapshot)),
            Question::Metrics => self.scrape().await,
        }
    }

    async fn scrape(&self) -> Answer {
        let asked = self.clone();
        if let Some(body) = self.metrics.text(move || asked.verdict(&Check::primary()).is_yes()).await {
            return Answer { status: StatusCode::OK, content_type: PROMETHEUS, body };
        }
        // Seconds have passed.
        let snapshot = self.snapshot();
        let led_by = known_leader(&snapshot, &self.limits, Instant::now());
        Answer::json(StatusCode::SERVICE_UNAVAILABLE, &body::answer(&snapshot, led_by, Some(METRICS_LATE)))
    }
}

fn read(method: &Method, uri: &Uri) -> Result<Question, Answer> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        let body = body::refusal("METHOD_NOT_ALLOWED", "this listener is read-only");
        return Err(Answer::json(StatusCode::METHOD_NOT_ALLOWED, &body));
    }
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
        let body = body::refusal("BAD_PARAMETER", &error.to_string());
        Answer::json(StatusCode::BAD_REQUEST, &body)
    })?;
    Question::read(uri.path(), parameters.0).map_err(|refusal| {
        let (status, reason) = match refusal {
            Refusal::UnknownPath => (StatusCode::NOT_FOUND, "UNKNOWN_PATH"),
            Refusal::BadParameter { .. } => (StatusCode::BAD_REQUEST, "BAD_PARAMETER"),
        };
        Answer::json(status, &body::refusal(reason, &refusal.to_string()))
    })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
