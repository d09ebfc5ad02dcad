//! What every command that talks to a cluster has at hand.

use std::future::Future;

use clap::Args;
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1;

use super::connection::{Connection, Need};
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::values;

/// A command's way to the cluster and to the person.
#[derive(Debug)]
pub struct Session {
    /// Where answers go.
    pub output: Output,
    /// How to reach the cluster.
    pub connection: Connection,
}

impl Session {
    /// A client of the data ports.
    ///
    /// # Errors
    /// What is missing, and how to set it.
    pub fn data(&self) -> Result<Client, Failure> {
        self.connection.client(Need::Data)
    }
}

/// The idempotency key of a mutation.
#[derive(Debug, Clone, Args)]
pub struct Repeat {
    /// Repeat an earlier request, whose outcome is unknown, under its id [default: a new UUID]
    #[arg(long, value_name = "ID", value_parser = values::request_id)]
    request_id: Option<String>,
}

impl Repeat {
    /// The id to send: the one that was given, or a new one.
    pub fn id(&self) -> String {
        self.request_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }
}

/// How old an answer may be.
#[derive(Debug, Clone, Default, Args)]
pub struct Freshness {
    /// Accept an answer that is up to so old, from any node; works without a quorum [default: linearizable]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    max_lag: Option<std::time::Duration>,
}

impl Freshness {
    /// Up to so old; linearizable if nothing is said.
    pub fn up_to(max_lag: Option<std::time::Duration>) -> Self {
        Self { max_lag }
    }

    /// For a read's request.
    pub fn consistency(&self) -> Option<v1::ReadConsistency> {
        self.max_lag.map(|lag| {
            let max_lag_ms = u32::try_from(lag.as_millis()).unwrap_or(u32::MAX);
            let level = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms });
            v1::ReadConsistency { level: Some(level) }
        })
    }
}

/// Waits for a mutation. Also when the person gives up meanwhile, the request id is told.
///
/// # Errors
/// As the call ends.
pub async fn mutation<T>(request_id: &str, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    tokio::select! {
        answer = call => answer.map_err(|error| Failure::of_mutation(error, request_id)),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::unknown(request_id).with("last", "interrupted")),
    }
}

/// The resource that an answer must carry.
///
/// # Errors
/// A service that answers without it is not one of this version.
pub fn present<T>(resource: Option<T>) -> Result<T, Failure> {
    resource.ok_or_else(|| {
        Failure::new(Exit::Refused, "the node's answer is incomplete")
            .remedy("use a command line of the node's version")
    })
}
