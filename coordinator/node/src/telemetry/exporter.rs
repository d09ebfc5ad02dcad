//! An exporter that is watched: bounded in time, its failures counted, and told once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;

/// Wraps an exporter. Exports run on the given runtime, since the caller's thread has none.
#[derive(Debug)]
pub(super) struct Watched<E> {
    inner: Arc<E>,
    runtime: Handle,
    within: Duration,
    failures: Failures,
}

/// Counts failed batches; logs when they begin and when they end.
struct Failures {
    counter: metrics::Counter,
    failing: AtomicBool,
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Failures").field("failing", &self.failing).finish_non_exhaustive()
    }
}

impl<E> Watched<E> {
    pub(super) fn new(inner: E, runtime: Handle, within: Duration) -> Self {
        Self {
            inner: Arc::new(inner),
            runtime,
            within,
            failures: Failures { counter: crate::metrics::telemetry_failures(), failing: AtomicBool::new(false) },
        }
    }
}

impl<E: SpanExporter + 'static> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (inner, within) = (Arc::clone(&self.inner), self.within);
        let sending = self.runtime.spawn(async move { tokio::time::timeout(within, inner.export(batch)).await });
        let result = match sending.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(within)),
            Err(ended) => Err(OTelSdkError::InternalFailure(ended.to_string())),
        };
        self.failures.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before the first export, while nothing else holds the exporter.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

impl Failures {
    fn note(&self, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                self.counter.increment(1);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces cannot be exported and are dropped");
                }
            }
        }
    }
}
