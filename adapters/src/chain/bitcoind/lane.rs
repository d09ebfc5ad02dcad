//! One connection to bitcoind for one kind of call.
//!
//! A JSON-RPC client holds one socket and therefore one call at a time. Lanes keep the kinds apart: a long poll of
//! ten seconds or a scan of minutes never delays a broadcast. Waiting for a lane counts against the caller's timeout,
//! so callers that queue behind a hung node all return in time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoincore_rpc::{Client, RpcApi, jsonrpc};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::auth::BitcoindAuth;
use super::http::{HttpError, HttpTransport, Target, TimeLimit};
use crate::chain::error::RPC_IN_WARMUP;
use crate::chain::{ChainError, RpcObserver};

/// What all lanes have in common.
pub(super) struct Endpoint {
    pub(super) target: Target,
    pub(super) auth: BitcoindAuth,
    pub(super) observer: Option<RpcObserver>,
}

/// One connection and the queue for it.
pub(super) struct Lane {
    name: &'static str,
    endpoint: Arc<Endpoint>,
    slot: Mutex<Slot>,
    freed: Condvar,
}

#[derive(Default)]
struct Slot {
    taken: bool,
    session: Option<Session>,
}

/// A client made with the credentials as they were then.
struct Session {
    client: Client,
    limit: TimeLimit,
    basic_auth: SecretString,
}

/// Exclusive use of a lane; gives it back when dropped, also in a panic.
struct Turn<'a> {
    lane: &'a Lane,
    session: Option<Session>,
}

impl Lane {
    pub(super) fn new(name: &'static str, endpoint: &Arc<Endpoint>) -> Self {
        Self { name, endpoint: Arc::clone(endpoint), slot: Mutex::default(), freed: Condvar::new() }
    }

    /// Calls one RPC and reports it to the observer.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        args: &[Value],
        timeout: Duration,
    ) -> Result<T, ChainError> {
        let span = tracing::debug_span!(
            "bitcoind",
            otel.kind = "client",
            rpc.system = "jsonrpc",
            rpc.method = method,
            lane = self.name
        );
        let _entered = span.enter();
        let start = Instant::now();
        let result = self.call_in_turn(method, args, timeout, start);
        if let Some(observer) = &self.endpoint.observer {
            observer(method, start.elapsed(), result.as_ref().map(|_| ()));
        }
        result
    }

    fn call_in_turn<T: DeserializeOwned>(
        &self,
        method: &'static str,
        args: &[Value],
        timeout: Duration,
        start: Instant,
    ) -> Result<T, ChainError> {
        let deadline = start + timeout;
        let mut turn = self.take_turn(deadline).ok_or_else(|| ChainError::Busy {
            method,
            detail: format!("earlier calls hold the {} connection", self.name),
        })?;
        let refused = match turn.call(method, args, deadline, timeout) {
            Err(CallError::Refused(used)) => used,
            Err(CallError::Chain(error)) => return Err(error),
            Ok(value) => return Ok(value),
        };
        // Refused before it was executed, so a second try is harmless. bitcoind makes a new cookie at every start.
        if self.endpoint.auth.changed_since(&refused, method)? {
            tracing::info!(method, lane = self.name, "bitcoind has new credentials");
            if let Some(value) = accept_refusal(turn.call(method, args, deadline, timeout))? {
                return Ok(value);
            }
        }
        Err(ChainError::Unauthorized { method, asked: true, detail: self.endpoint.auth.describe() })
    }

    fn take_turn(&self, deadline: Instant) -> Option<Turn<'_>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        while slot.taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            (slot, _) = self.freed.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner);
        }
        slot.taken = true;
        Some(Turn { lane: self, session: slot.session.take() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut slot = self.lane.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.taken = false;
        slot.session = self.session.take();
        drop(slot);
        self.lane.freed.notify_one();
    }
}

enum CallError {
    /// HTTP 401 or 403 for these credentials.
    Refused(SecretString),
    Chain(ChainError),
}

fn accept_refusal<T>(result: Result<T, CallError>) -> Result<Option<T>, ChainError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(_)) => Ok(None),
        Err(CallError::Chain(error)) => Err(error),
    }
}

impl Turn<'_> {
    fn call<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        args: &[Value],
        deadline: Instant,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.lane.endpoint, method).map_err(CallError::Chain)?,
        };
        session.limit.set(deadline.saturating_duration_since(Instant::now()));
        let result = session.client.call(method, args);
        match result {
            Err(error) if is_refusal(&error) => Err(CallError::Refused(session.basic_auth)),
            other => {
                self.session = Some(session);
                other.map_err(|error| CallError::Chain(translate(method, timeout, error)))
            }
        }
    }
}

impl Session {
    fn open(endpoint: &Endpoint, method: &'static str) -> Result<Self, ChainError> {
        let basic_auth = endpoint.auth.read(method)?;
        let limit = TimeLimit::new();
        let transport = HttpTransport::new(endpoint.target.clone(), basic_auth.clone(), limit.clone());
        let client = Client::from_jsonrpc(jsonrpc::Client::with_transport(transport));
        Ok(Self { client, limit, basic_auth })
    }
}

impl BitcoindAuth {
    /// Whether a new client would present other credentials than the refused ones.
    fn changed_since(&self, refused: &SecretString, method: &'static str) -> Result<bool, ChainError> {
        let now = self.read(method).map_err(|error| match error {
            // What was there before has been refused.
            ChainError::Unauthorized { method, detail, .. } => ChainError::Unauthorized { method, asked: true, detail },
            other => other,
        })?;
        Ok(now.expose_secret() != refused.expose_secret())
    }
}

fn http_error(error: &bitcoincore_rpc::Error) -> Option<&HttpError> {
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Transport(cause)) => cause.downcast_ref(),
        _ => None,
    }
}

fn is_refusal(error: &bitcoincore_rpc::Error) -> bool {
    matches!(http_error(error), Some(HttpError::Refused(_)))
}

/// The one place where the errors of the transport become those of the port.
fn translate(method: &'static str, timeout: Duration, error: bitcoincore_rpc::Error) -> ChainError {
    if let Some(http) = http_error(&error) {
        let detail = http.to_string();
        return match http {
            HttpError::TimedOut => ChainError::Timeout { method, after: timeout },
            HttpError::Connect(_) => ChainError::Transport { method, sent: false, detail },
            HttpError::Broken(_) => ChainError::Transport { method, sent: true, detail },
            HttpError::Overloaded(_) => ChainError::Busy { method, detail },
            HttpError::Refused(_) => ChainError::Unauthorized { method, asked: true, detail },
        };
    }
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(rpc)) => {
            if rpc.code == RPC_IN_WARMUP {
                ChainError::Starting { method, message: rpc.message }
            } else {
                ChainError::Rpc { method, code: rpc.code, message: rpc.message }
            }
        }
        other => ChainError::Decode { method, detail: other.to_string() },
    }
}
