//! The leader-following client: channels to all nodes, hints followed, and retries that carry the same request id
//! within one deadline.
//!
//! ```no_run
//! use onespend_proto::client::{Client, ClientConfig};
//! use onespend_proto::v1;
//!
//! # async fn pay() -> Result<(), onespend_proto::client::ClientError> {
//! let client = Client::connect(ClientConfig::new(["10.0.0.1:7800", "10.0.0.2:7800", "10.0.0.3:7800"]))?;
//! let request = v1::GetBalanceRequest { wallet_id: "hot".into(), ..Default::default() };
//! let balance = client.get_balance(request).await?.balance;
//! # Ok(())
//! # }
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `config` | where the nodes are, and bounds |
//! | `calls` | a typed method for every rpc |
//! | `retry` | one call: its tries and how it ends |
//! | `error` | what a failed try means, and what a call can end with |
//! | `nodes` | channels and the guess at the leader |
//! | `watch` | following payments and reservations across failovers |
//! | `backup` | asking one node for its state |

mod backoff;
mod backup;
mod calls;
mod config;
mod error;
mod nodes;
mod retry;
mod stats;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub use backup::BackupStream;
pub use config::{ClientConfig, Interceptor, MAX_ENDPOINTS, SERVER_NAME, TlsConfig};
pub use error::{ClientError, FieldViolation, Rejection, tried, unreached};
pub use stats::Stats;
pub use watch::{PaymentWatch, ReservationWatch};

use crate::{detail, v1};
use nodes::Nodes;
use retry::Plane;
use stats::Counters;

/// A client of one cluster. Cloning is cheap and shares connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    deadline: Duration,
}

struct Inner {
    config: ClientConfig,
    data: Nodes,
    control: Nodes,
    counters: Counters,
}

impl Client {
    /// Checks the configuration and begins to connect to every data port in the background. Does not wait: a cluster
    /// that is down shows at the first call.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration cannot work, or outside a Tokio runtime.
    pub fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let client = Self::new(config)?;
        tokio::spawn(client.clone().warm());
        Ok(client)
    }

    /// The same client with another deadline per call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { inner: self.inner.clone(), deadline }
    }

    /// Counts since the client was made.
    pub fn stats(&self) -> Stats {
        self.inner.counters.snapshot()
    }

    /// Address of the data port where the next call begins: the leader's, as far as is known.
    pub fn preferred_endpoint(&self) -> String {
        self.inner.data.address(self.inner.data.preferred())
    }

    fn new(config: ClientConfig) -> Result<Self, ClientError> {
        config.check()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(ClientError::Config("a client needs a Tokio runtime".to_owned()));
        }
        let data = Nodes::new(&config, &config.endpoints)?;
        let control = Nodes::new(&config, &config.control_endpoints)?;
        let deadline = config.deadline;
        let inner = Inner { config, data, control, counters: Counters::default() };
        Ok(Self { inner: Arc::new(inner), deadline })
    }

    /// A client of one control port, for one try.
    fn alone(config: &ClientConfig, control: &str, deadline: Duration) -> Result<Self, ClientError> {
        let config = ClientConfig {
            endpoints: Vec::new(),
            control_endpoints: vec![control.to_owned()],
            deadline,
            ..config.clone()
        };
        Self::new(config)
    }

    /// Makes every node's connection, by the cheapest request; what it answers does not matter.
    async fn warm(self) {
        let within = self.inner.config.connect_timeout + self.inner.config.try_timeout;
        let asks = (0..self.inner.data.len()).filter_map(|node| self.inner.data.channel(node)).map(|channel| async {
            let mut client = v1::chain_service_client::ChainServiceClient::new(channel);
            let level = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 3_600_000 });
            let consistency = Some(v1::ReadConsistency { level: Some(level) });
            let ask = client.get_tip(v1::GetTipRequest { consistency });
            if let Ok(Err(status)) = tokio::time::timeout(within, ask).await {
                tracing::debug!(error = %status, "a node did not answer the first request");
            }
        });
        futures::future::join_all(asks).await;
    }

    fn data_plane(&self) -> Plane<'_> {
        self.plane(&self.inner.data, detail::LEADER_DATA_ADDR)
    }

    fn control_plane(&self) -> Plane<'_> {
        self.plane(&self.inner.control, detail::LEADER_CONTROL_ADDR)
    }

    fn plane<'a>(&'a self, nodes: &'a Nodes, hint_key: &'static str) -> Plane<'a> {
        Plane { nodes, counters: &self.inner.counters, interceptor: self.inner.config.interceptor.as_ref(), hint_key }
    }
}

/// A request id that is empty becomes a random UUID.
fn fill_request_id(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = uuid::Uuid::new_v4().to_string();
    }
}
