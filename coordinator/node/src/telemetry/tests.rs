//! Spans arrive at a collector, and a collector that is dead or mute delays nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use super::*;
use crate::metrics::Metrics;

pub(super) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(super) const PARENT: &str = "00f067aa0ba902b7";

/// An OTLP collector that keeps what it gets.
#[derive(Clone, Default)]
pub(super) struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves until the runtime is dropped.
    pub(super) fn serve(&self) -> (SocketAddr, Runtime) {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(self.clone());
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (address, runtime)
    }

    /// The spans that have arrived.
    pub(super) fn spans(&self) -> Vec<opentelemetry_proto::tonic::trace::v1::Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }
}

pub(super) fn to(address: SocketAddr) -> Config {
    Config { otlp_endpoint: Some(format!("http://{address}")) }
}

fn log(format: LogFormat, filter: &str) -> LogConfig {
    LogConfig { format, filter: filter.to_owned() }
}

pub(super) fn quiet() -> LogConfig {
    log(LogFormat::Human, "off")
}

pub(super) fn of_caller() -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let parent = format!("00-{TRACE}-{PARENT}-01");
    metadata.insert("traceparent", parent.parse().unwrap());
    metadata.insert("tracestate", "vendor=value".parse().unwrap());
    metadata
}

/// As in `traceparent`.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn a_span_of_the_callers_trace_arrives_and_the_next_node_is_told() {
    let collector = Collector::default();
    let (address, _runtime) = collector.serve();
    let (subscriber, telemetry) = build(&quiet(), &to(address), "demo/node/1", stderr()).unwrap();
    let mut forwarded = MetadataMap::new();
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("reserve_utxos");
        accept_parent(&span, &of_caller());
        let _entered = span.enter();
        inject(&mut forwarded);
        let _library = tracing::info_span!(target: "h2::codec", "frames").entered();
    });
    assert!(telemetry.flush(Duration::from_secs(5)));

    let requests = collector.0.lock().unwrap();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    let named = |key: &str| {
        let found = resource.attributes.iter().find(|pair| pair.key == key);
        format!("{:?}", found.unwrap().value)
    };
    assert!(named("service.name").contains("onespend"));
    assert!(named("service.instance.id").contains("demo/node/1"));
    let spans: Vec<_> = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|spans| &spans.scope_spans)
        .flat_map(|spans| &spans.spans)
        .collect();
    assert_eq!(spans.len(), 1, "a library's span is not ours: {spans:?}");
    assert_eq!(spans[0].name, "reserve_utxos");
    assert_eq!(hex(&spans[0].trace_id), TRACE);
    assert_eq!(hex(&spans[0].parent_span_id), PARENT);
    let told = forwarded.get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&spans[0].span_id)));
    assert_eq!(forwarded.get("tracestate").unwrap(), "vendor=value");
}

#[test]
fn a_malformed_or_missing_parent_begins_a_trace_of_its_own() {
    let (address, _runtime) = Collector::default().serve();
    let (subscriber, telemetry) = build(&quiet(), &to(address), "x", stderr()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for parent in ["", "rubbish", "00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            let mut metadata = MetadataMap::new();
            metadata.insert("traceparent", parent.parse().unwrap());
            let span = tracing::info_span!("request");
            accept_parent(&span, &metadata);
            let mut forwarded = MetadataMap::new();
            span.in_scope(|| inject(&mut forwarded));
            let told = forwarded.get("traceparent").unwrap().to_str().unwrap();
            assert!(!told.contains("0000000000000000"), "{parent}: {told}");
        }
    });
    telemetry.flush(Duration::from_secs(5));
}

#[test]
fn without_a_collector_nothing_is_sent_or_told() {
    let off = Config { otlp_endpoint: None };
    let (subscriber, telemetry) = build(&quiet(), &off, "x", stderr()).unwrap();
    let mut forwarded = MetadataMap::new();
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("request");
        accept_parent(&span, &of_caller());
        span.in_scope(|| inject(&mut forwarded));
    });
    assert!(forwarded.is_empty());
    assert!(telemetry.flush(Duration::ZERO));
}

/// Ten thousand spans against this collector; how long the caller took, the metrics, the rest.
fn burst(address: SocketAddr) -> (Duration, Metrics, Telemetry) {
    let metrics = Metrics::new().unwrap();
    let built = metrics.record(|| build(&quiet(), &to(address), "x", stderr()));
    let (subscriber, telemetry) = built.unwrap();
    let began = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..10_000 {
            let span = tracing::info_span!("request", number);
            let _entered = span.enter();
        }
    });
    (began.elapsed(), metrics, telemetry)
}

fn failures(metrics: &Metrics) -> u64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix("onespend_telemetry_export_failures_total "));
    line.unwrap().parse().unwrap()
}

fn wait_for_a_failure(metrics: &Metrics) {
    let deadline = Instant::now() + EXPORT_WITHIN * 10;
    while failures(metrics) == 0 {
        assert!(Instant::now() < deadline, "no failure was counted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_dead_collector_delays_nothing_and_is_counted() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (took, metrics, telemetry) = burst(address);
    assert!(took < EXPORT_WITHIN, "10 000 spans took {took:?}");
    wait_for_a_failure(&metrics);
    let began = Instant::now();
    telemetry.flush(Duration::from_secs(1));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_collector_that_accepts_and_never_answers_delays_nothing_and_is_counted() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (took, metrics, telemetry) = burst(mute.local_addr().unwrap());
    assert!(took < EXPORT_WITHIN, "10 000 spans took {took:?}");
    let began = Instant::now();
    assert!(!telemetry.flush(Duration::from_millis(300)), "nothing can have been sent");
    assert!(began.elapsed() < EXPORT_WITHIN, "flushing is bounded");
    let (_, again, telemetry) = burst(mute.local_addr().unwrap());
    wait_for_a_failure(&again);
    telemetry.flush(Duration::ZERO);
    drop(metrics);
}

/// A writer that keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged meanwhile on this thread.
pub(crate) fn logged(log: &LogConfig, write: impl FnOnce()) -> String {
    // Where tests beside this one, without a subscriber, come to the same places in the code: see `payment_tests.rs`.
    let _second = Dispatch::new(NoSubscriber::default());
    let kept = Kept::default();
    let writer = kept.clone();
    let writer = BoxMakeWriter::new(move || writer.clone());
    let off = Config { otlp_endpoint: None };
    let (subscriber, _telemetry) = build(log, &off, "x", writer).unwrap();
    tracing::subscriber::with_default(subscriber, write);
    String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn json_logs_are_one_object_per_line_with_fields_at_the_top() {
    let text = logged(&log(LogFormat::Json, "info"), || {
        let _span = tracing::info_span!("outer", colour = "red").entered();
        tracing::info!(shape = "round", "it happened");
        tracing::debug!("not shown");
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["message"], "it happened");
    assert_eq!(lines[0]["shape"], "round");
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["span"]["colour"], "red");
}

#[test]
fn human_logs_obey_the_filter() {
    let text = logged(&log(LogFormat::Human, "warn,onespend=debug"), || {
        tracing::debug!("ours");
        tracing::info!(target: "h2", "theirs");
        tracing::error!(target: "opentelemetry", "repeated");
    });
    assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
    assert!(!text.contains("repeated"), "{text}");
    let wrong = build(&log(LogFormat::Human, "a=b=c"), &Config { otlp_endpoint: None }, "x", stderr());
    assert!(matches!(wrong.err(), Some(TelemetryError::Filter(_))));
}
