//! What a client must know, and its bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Endpoint, Identity};

use super::error::ClientError;

/// The DNS name that every node's certificate carries, whatever its address.
pub const SERVER_NAME: &str = "onespend";
/// Most endpoints in one list, those included that hints added.
pub const MAX_ENDPOINTS: usize = 32;
/// Least time before a connection is checked again; servers answer more frequent pings with GOAWAY.
const MIN_KEEPALIVE: Duration = Duration::from_millis(100);

/// Called with the metadata of every try, for example to add a trace context. Must not block.
pub type Interceptor = Arc<dyn Fn(&mut MetadataMap) + Send + Sync>;

/// Client certificate and the authority that signed the nodes' certificates, all PEM.
#[derive(Clone)]
pub struct TlsConfig {
    /// Certificate of the cluster's authority.
    pub ca: String,
    /// The client's certificate chain.
    pub cert: String,
    /// The client's private key.
    pub key: String,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// Where the nodes are and how long to try. Start from [`ClientConfig::new`].
#[derive(Clone)]
pub struct ClientConfig {
    /// Data ports as `host:port`, of all nodes or of a load balancer; 1 to [`MAX_ENDPOINTS`].
    pub endpoints: Vec<String>,
    /// Control ports as `host:port`, for operators; may be empty.
    pub control_endpoints: Vec<String>,
    /// Mutual TLS; `None` speaks plain HTTP/2, which nodes refuse.
    pub tls: Option<TlsConfig>,
    /// How long one call may take, all tries included.
    pub deadline: Duration,
    /// How long one try may take, so that a paused node cannot use up the deadline.
    pub try_timeout: Duration,
    /// How long the first try of a quick call may take: reservations, addresses, and reads of one thing. Each try without
    /// an answer doubles it, up to `try_timeout`.
    pub first_try_timeout: Duration,
    /// Both bounds for RegisterWallet, which waits for a scan of the UTXO set, and for ConfirmRecovery, which compares
    /// every coin.
    pub long_deadline: Duration,
    /// How long TCP may take to set up one connection, and how long TLS may take after it.
    pub connect_timeout: Duration,
    /// How often a silent connection is pinged, at least 100 ms.
    pub keepalive_interval: Duration,
    /// How long a ping may stay without an answer.
    pub keepalive_timeout: Duration,
    /// Largest message that is sent or accepted, in bytes.
    pub max_message_bytes: usize,
    /// Called with the metadata of every try.
    pub interceptor: Option<Interceptor>,
}

impl ClientConfig {
    /// The defaults: 10 s a call, 1 s a try and 400 ms the first one of a quick call, 10 min to register a wallet or to end recovery, 500 ms to connect, a ping every 5 s that
    /// must be answered within 2 s, messages up to 4 MiB.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            control_endpoints: Vec::new(),
            tls: None,
            deadline: Duration::from_secs(10),
            try_timeout: Duration::from_secs(1),
            first_try_timeout: Duration::from_millis(400),
            long_deadline: Duration::from_mins(10),
            connect_timeout: Duration::from_millis(500),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(2),
            max_message_bytes: 4 * 1024 * 1024,
            interceptor: None,
        }
    }

    /// Adds control ports.
    pub fn with_control_endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.control_endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the certificates.
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets what is called with the metadata of every try.
    pub fn with_interceptor(mut self, interceptor: impl Fn(&mut MetadataMap) + Send + Sync + 'static) -> Self {
        self.interceptor = Some(Arc::new(interceptor));
        self
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        let nothing = self.endpoints.is_empty() && self.control_endpoints.is_empty();
        let too_many = self.endpoints.len().max(self.control_endpoints.len()) > MAX_ENDPOINTS;
        let zero = [self.deadline, self.try_timeout, self.first_try_timeout, self.long_deadline, self.connect_timeout]
            .iter()
            .any(Duration::is_zero);
        let fault = if nothing {
            "no endpoints"
        } else if too_many {
            "more than 32 endpoints"
        } else if zero {
            "a deadline or timeout is zero"
        } else if self.keepalive_interval < MIN_KEEPALIVE {
            "keepalive_interval is below 100 ms"
        } else {
            return Ok(());
        };
        Err(ClientError::Config(fault.to_owned()))
    }

    /// A node's endpoint, not connected yet.
    pub(super) fn endpoint(&self, address: &str) -> Result<Endpoint, ClientError> {
        let fault = |what: &dyn fmt::Display| ClientError::Config(format!("endpoint {address}: {what}"));
        if address.contains("://") {
            return Err(fault(&"give host:port without a scheme"));
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|e| fault(&e))?;
        if endpoint.uri().port_u16().is_none() {
            return Err(fault(&"no port"));
        }
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else {
            return Ok(endpoint);
        };
        let tls = tonic::transport::ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            // The endpoint's own bound is over TCP alone.
            .timeout(self.connect_timeout)
            .ca_certificate(Certificate::from_pem(&tls.ca))
            .identity(Identity::from_pem(&tls.cert, &tls.key));
        endpoint.tls_config(tls).map_err(|e| fault(&error_chain(&e)))
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("endpoints", &self.endpoints)
            .field("control_endpoints", &self.control_endpoints)
            .field("tls", &self.tls)
            .field("deadline", &self.deadline)
            .field("try_timeout", &self.try_timeout)
            .field("first_try_timeout", &self.first_try_timeout)
            .finish_non_exhaustive()
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
