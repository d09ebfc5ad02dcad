//! A caller's trace goes on here, and from here to the next node: W3C Trace Context in gRPC
//! metadata (`traceparent`, `tracestate`).

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{Ascii, KeyRef, MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Makes the caller's span the parent of `span`, if the metadata names one. To be called before
/// the span is entered. Malformed headers are ignored, as the specification wants.
pub fn accept_parent(span: &Span, metadata: &MetadataMap) {
    let context = TraceContextPropagator::new().extract(&Reads(metadata));
    if context.span().span_context().is_valid() {
        // Fails only when traces are off, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}

/// Names the current span as the parent of what the metadata's receiver does. Does nothing when
/// traces are off.
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Writes(metadata));
}

struct Reads<'a>(&'a MetadataMap);

impl Extractor for Reads<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter_map(|key| match key {
                KeyRef::Ascii(key) => Some(key.as_str()),
                KeyRef::Binary(_) => None,
            })
            .collect()
    }
}

struct Writes<'a>(&'a mut MetadataMap);

impl Injector for Writes<'_> {
    fn set(&mut self, key: &str, value: String) {
        let key = key.parse::<MetadataKey<Ascii>>();
        if let (Ok(key), Ok(value)) = (key, value.parse::<MetadataValue<Ascii>>()) {
            self.0.insert(key, value);
        }
    }
}
