//! A caller of the service, as a wallet back end would write it: one address (the load balancer's), mutual TLS, and a
//! retry that keeps the request id while the outcome is unknown.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use onespend_proto::client::{Client, ClientConfig, TlsConfig};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::cluster::{Addresses, Credentials};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// One try of one call. A node that is cut off from its quorum may hold a call for longer than that.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A channel that connects when it is first used, and again whenever the connection is lost.
///
/// # Errors
/// A certificate cannot be read. (No address is tried yet.)
pub fn channel(address: SocketAddr, credentials: &Credentials) -> Result<Channel> {
    channel_within(address, credentials, TRY_TIMEOUT)
}

/// The same, for calls that take longer.
///
/// # Errors
/// As [`channel`].
pub fn channel_within(address: SocketAddr, credentials: &Credentials, try_timeout: Duration) -> Result<Channel> {
    let read = |path| fs::read(path).with_context(|| format!("cannot read {}", Path::display(path)));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&credentials.ca)?))
        .identity(Identity::from_pem(read(&credentials.cert)?, read(&credentials.key)?))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port()))?
        .tls_config(tls)?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(try_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// A leader-following client of these nodes, which goes to the data ports (and, for operators, to the control ports)
/// without a load balancer.
///
/// # Errors
/// A certificate cannot be read, or this is not inside a Tokio runtime. (Nothing is waited for.)
pub fn following_client(nodes: &[Addresses], credentials: &Credentials) -> Result<Client> {
    let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {}", Path::display(path)));
    let tls = TlsConfig { ca: read(&credentials.ca)?, cert: read(&credentials.cert)?, key: read(&credentials.key)? };
    let config = ClientConfig::new(nodes.iter().map(|node| node.data.to_string()))
        .with_control_endpoints(nodes.iter().map(|node| node.control.to_string()))
        .with_tls(tls);
    Ok(Client::connect(config)?)
}

/// What an error means for the caller (the table in the interface's description).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It may have been applied: ask again with the *same* request id.
    Unknown,
    /// It was not applied, and may be later: ask again with a *new* request id, since the refusal is remembered.
    NotNow,
    /// It was not applied and never will be.
    Never,
}

/// The meaning of a status, by its code alone; a caller that knows no reason of this service gets as far.
pub fn meaning(status: &Status) -> Meaning {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        // The service never says so: it is tonic's own word for an answer that it does not read.
        | Code::OutOfRange
        | Code::DataLoss => Meaning::Unknown,
        Code::FailedPrecondition | Code::Aborted | Code::ResourceExhausted | Code::NotFound => Meaning::NotNow,
        Code::Ok
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Meaning::Never,
    }
}

/// An answer, and how hard it was to get.
#[derive(Clone, Debug)]
pub struct Answered<T> {
    /// The answer.
    pub answer: T,
    /// When it came.
    pub at: Instant,
    /// Whether the outcome was unknown for a while, and the same request id resolved it.
    pub was_unknown: bool,
}

/// One try, bounded also while it connects: the bounds of an endpoint leave out the TLS handshake, which a frozen process
/// never answers.
///
/// # Errors
/// What the call said, or `DEADLINE_EXCEEDED`.
pub async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(CONNECT_TIMEOUT + TRY_TIMEOUT, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// Calls until there is an answer or `deadline` passes. `call` gets the request id to use.
///
/// # Errors
/// Refused for good, or no answer in time; the last status says why.
pub async fn until_answered<T, F, C>(deadline: Instant, mut call: C) -> Result<Answered<T>>
where
    C: FnMut(String) -> F,
    F: Future<Output = Result<T, Status>>,
{
    until_answered_unbounded(deadline, |request_id| bounded(call(request_id))).await
}

/// The same for calls that have a bound of their own.
///
/// # Errors
/// As [`until_answered`].
pub async fn until_answered_unbounded<T, F, C>(deadline: Instant, mut call: C) -> Result<Answered<T>>
where
    C: FnMut(String) -> F,
    F: Future<Output = Result<T, Status>>,
{
    let mut request_id = fresh_request_id();
    let mut was_unknown = false;
    let mut backoff = FIRST_BACKOFF;
    loop {
        let status = match call(request_id.clone()).await {
            Ok(answer) => {
                return Ok(Answered { answer, at: Instant::now(), was_unknown });
            }
            Err(status) => status,
        };
        match meaning(&status) {
            Meaning::Unknown => was_unknown = true,
            Meaning::NotNow => request_id = fresh_request_id(),
            Meaning::Never => bail!("refused: {} {}", status.code(), status.message()),
        }
        if Instant::now() >= deadline {
            bail!("no answer in time; the last one: {} {}", status.code(), status.message());
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn fresh_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::RefCell;

    fn in_a_second() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    /// Runs calls that get `statuses` one after the other and then an answer; returns the request ids used.
    async fn ids_for(statuses: &[Code]) -> Result<(Vec<String>, Answered<()>)> {
        let ids = RefCell::new(Vec::new());
        let answered = until_answered(in_a_second(), |id| {
            ids.borrow_mut().push(id);
            let code = statuses.get(ids.borrow().len() - 1).copied();
            async move { code.map_or(Ok(()), |code| Err(Status::new(code, "told so"))) }
        })
        .await?;
        Ok((ids.into_inner(), answered))
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_asked_again_with_the_same_id() {
        let (ids, answered) = ids_for(&[Code::Unavailable, Code::DeadlineExceeded]).await.unwrap();
        assert_eq!(ids.len(), 3);
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert!(answered.was_unknown);
    }

    #[tokio::test]
    async fn a_refusal_is_asked_again_with_a_new_id() {
        let (ids, answered) = ids_for(&[Code::FailedPrecondition]).await.unwrap();
        assert_ne!(ids[0], ids[1]);
        assert!(!answered.was_unknown);
    }

    #[tokio::test]
    async fn a_refusal_for_good_and_a_long_silence_end_it() {
        assert!(ids_for(&[Code::PermissionDenied]).await.unwrap_err().to_string().contains("told so"));
        let past = Instant::now();
        let silent = until_answered::<(), _, _>(past, |_| async { Err(Status::unavailable("nobody")) }).await;
        assert!(silent.unwrap_err().to_string().contains("nobody"));
    }
}
