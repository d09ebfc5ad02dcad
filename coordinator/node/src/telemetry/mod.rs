//! Logs on stderr, and traces to an OTLP collector if one is configured.
//!
//! Telemetry must never be the reason why a payment waits. Spans go into a bounded queue; a
//! thread sends them in batches, each within a bound; what does not fit or cannot be sent is
//! dropped. The sending has a runtime of its own, so it does not compete with requests either.

mod config;
mod exporter;
mod propagation;

use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

pub use config::{Config, LogConfig, LogFormat};
pub use propagation::{accept_parent, inject};

use exporter::Watched;

/// Spans that wait for export; further ones are dropped.
const MAX_QUEUED_SPANS: usize = 2_048;
/// Spans sent at once.
const MAX_BATCH_SPANS: usize = 512;
/// A span waits at most this long for its batch.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// How long connecting to the collector may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long one batch may take, connecting included.
const EXPORT_WITHIN: Duration = Duration::from_secs(2);

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is malformed.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The collector's address is malformed.
    #[error("telemetry.otlp_endpoint: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// The exporter refuses its settings.
    #[error("the trace exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The exporter's thread cannot be started.
    #[error("the trace thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A subscriber is installed already.
    #[error("telemetry is set up already: {0}")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Holds the exporter. To be flushed when the process ends.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<Traces>,
}

#[derive(Debug)]
struct Traces {
    provider: SdkTracerProvider,
    runtime: Runtime,
}

/// Sets up logs and traces for the process. Metrics must be installed before, or failed exports
/// are not counted. `instance` names this process in traces, such as `demo/node/1`.
///
/// # Errors
/// If a setting is malformed or something is installed already.
pub fn start(log: &LogConfig, config: &Config, instance: &str) -> Result<Telemetry, TelemetryError> {
    let (subscriber, telemetry) = build(log, config, instance, stderr())?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(telemetry)
}

fn stderr() -> BoxMakeWriter {
    BoxMakeWriter::new(std::io::stderr)
}

fn build(
    log: &LogConfig,
    config: &Config,
    instance: &str,
    writer: BoxMakeWriter,
) -> Result<(impl Subscriber + Send + Sync + use<>, Telemetry), TelemetryError> {
    let traces = match &config.otlp_endpoint {
        Some(endpoint) => Some(Traces::start(endpoint, instance)?),
        None => None,
    };
    let tracer = traces.as_ref().map(|traces| {
        // Libraries' own spans would drown ours.
        let ours = Targets::new().with_target("onespend", Level::DEBUG);
        let tracer = traces.provider.tracer("onespend");
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours)
    });
    let subscriber = Registry::default().with(tracer).with(lines(log, writer)?);
    Ok((subscriber, Telemetry { traces }))
}

/// The layer that writes log lines.
fn lines<S>(log: &LogConfig, writer: BoxMakeWriter) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let mut filter: EnvFilter = log.filter.parse()?;
    if !log.filter.contains("opentelemetry") {
        // Its complaints about a dead collector repeat with every batch; ours do not.
        filter = filter.add_directive("opentelemetry=off".parse()?);
    }
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match log.format {
        LogFormat::Human => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    })
}

impl Traces {
    fn start(endpoint: &str, instance: &str) -> Result<Self, TelemetryError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("otlp").enable_all().build()?;
        let endpoint = tonic::transport::Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(CONNECT_WITHIN)
            .timeout(EXPORT_WITHIN);
        let exporter = {
            let _inside = runtime.enter();
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_channel(endpoint.connect_lazy())
                .with_timeout(EXPORT_WITHIN)
                .build()?
        };
        let watched = Watched::new(exporter, runtime.handle().clone(), EXPORT_WITHIN);
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_max_export_batch_size(MAX_BATCH_SPANS)
            .with_scheduled_delay(BATCH_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(watched).with_batch_config(batches).build();
        let provider =
            SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource(instance)).build();
        Ok(Self { provider, runtime })
    }
}

fn resource(instance: &str) -> Resource {
    use opentelemetry_semantic_conventions::resource::{SERVICE_INSTANCE_ID, SERVICE_VERSION};
    Resource::builder()
        .with_service_name("onespend")
        .with_attribute(KeyValue::new(SERVICE_INSTANCE_ID, instance.to_owned()))
        .with_attribute(KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
        .build()
}

impl Telemetry {
    /// Sends what is queued and ends the exporter, for at most `within`. Whether everything
    /// was sent in time; true if there is nothing to send.
    pub fn flush(self, within: Duration) -> bool {
        let Some(Traces { provider, runtime }) = self.traces else {
            return true;
        };
        // The exporter bounds itself, but the end of the process must not rest on that.
        let (done, waits) = mpsc::channel();
        let worker = std::thread::Builder::new().spawn(move || {
            let _ = done.send(provider.shutdown_with_timeout(within).is_ok());
        });
        let sent = worker.is_ok() && waits.recv_timeout(within).unwrap_or(false);
        runtime.shutdown_background();
        sent
    }
}

#[cfg(test)]
mod payment_tests;
#[cfg(test)]
pub(crate) mod tests;
