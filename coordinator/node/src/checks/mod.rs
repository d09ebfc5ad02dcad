//! Configurable health checks: what else, besides Raft and bitcoind, decides whether this node may be primary or be
//! sent anything.
//!
//! Each check looks again and again, on a thread and runtime that it shares with the other checks only; each look has a
//! time limit, and what may hang in the kernel does so on a thread of its own. So neither a command that hangs nor a
//! dead disk holds up the node, or another check. A check whose looks stop coming fails by its age.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | `[[checks]]`, and the checks that every node has |
//! | [`judgement`] | hysteresis and aggregation; pure |
//! | [`built_in`] | looks at this process and its machine |
//! | [`fsync`] | how long the log's commits take, also the one that hangs |
//! | `command`, `http`, `grpc_health` | looks at others |
//! | `resolver` | the host names of others |
//! | `blocking` | what may hang in the kernel |

mod blocking;
pub mod built_in;
mod command;
pub mod config;
pub mod fsync;
mod grpc_health;
mod http;
pub mod judgement;
mod resolver;

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::health::{self, CheckView};
use blocking::Blocking;
use built_in::{ErrorRate, Figures};
use config::{CheckConfig, Purpose, Subject};
use fsync::FsyncWatch;
use judgement::{Aggregation, Hysteresis};
use resolver::Resolver;

/// How much later than it should a look may be, on a machine that is short of CPU, before its check fails by age.
const PATIENCE: Duration = Duration::from_secs(5);

/// One look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    good: bool,
    /// What was seen, for people.
    value: String,
}

impl Look {
    fn good(value: &str) -> Self {
        Self { good: true, value: value.to_owned() }
    }

    fn bad(value: &str) -> Self {
        Self { good: false, value: value.to_owned() }
    }
}

/// What is known of a check.
#[derive(Debug)]
struct Seen {
    at: Instant,
    /// By hysteresis.
    passes: bool,
    value: String,
}

#[derive(Debug)]
struct Check {
    config: CheckConfig,
    seen: ArcSwapOption<Seen>,
}

/// The checks of this node.
#[derive(Debug)]
pub struct Checks {
    all: Vec<Arc<Check>>,
    for_primary: Aggregation,
    for_readiness: Aggregation,
    fsync: Arc<FsyncWatch>,
}

/// The thread of the checks. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct ChecksThread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ChecksThread {
    /// Waits for the thread, which waits for no look.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for ChecksThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Checks {
    /// The configured ones, and those that every node has. Nothing is looked at before [`Checks::start`].
    pub fn new(configured: &[CheckConfig], health: &health::Config) -> Arc<Self> {
        let all = config::with_built_in(configured);
        let check = |config| Arc::new(Check { config, seen: ArcSwapOption::empty() });
        let fsync = Arc::new(FsyncWatch::new(all.len()));
        Arc::new(Self {
            all: all.into_iter().map(check).collect(),
            for_primary: health.checks_for_primary,
            for_readiness: health.checks_for_readiness,
            fsync,
        })
    }

    /// Nothing is looked at, and all is well.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        let fsync = Arc::new(FsyncWatch::new(0));
        Arc::new(Self { all: vec![], for_primary: Aggregation::All, for_readiness: Aggregation::All, fsync })
    }

    /// To be told of every commit of the log.
    pub fn fsync(&self) -> &Arc<FsyncWatch> {
        &self.fsync
    }

    /// Looks until it is stopped.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(self: &Arc<Self>, figures: Figures) -> std::io::Result<ChecksThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().thread_name("checks-io").enable_all().build()?;
        let (checks, stop, figures) = (Arc::clone(self), CancellationToken::new(), Arc::new(figures));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("checks".to_owned()).spawn(move || {
            runtime.block_on(async {
                for (reader, check) in checks.all.iter().enumerate() {
                    tokio::spawn(watch(Arc::clone(check), Looker::new(check, reader, &figures)));
                }
                stopped.cancelled().await;
            });
            // A look may hang; nobody waits for it.
            runtime.shutdown_background();
        })?;
        Ok(ChecksThread { stop, thread: Some(thread) })
    }

    /// Every check as it stands at `now`.
    pub fn views(&self, now: Instant) -> Vec<CheckView> {
        self.all.iter().map(|check| check.view(now)).collect()
    }

    /// Whether the checks for a purpose, taken together, pass.
    pub fn pass(&self, purpose: Purpose, views: &[CheckView]) -> bool {
        let aggregation = match purpose {
            Purpose::Primary => self.for_primary,
            Purpose::Readiness => self.for_readiness,
            Purpose::Report => return true,
        };
        aggregation.of(views.iter().filter(|view| view.purpose == purpose).map(|view| view.passes))
    }

    /// Why this node should not lead: the checks that fail, by name; `None` if it may.
    pub fn unfit(&self, now: Instant) -> Option<String> {
        let views = self.views(now);
        let failing: Vec<&str> = [Purpose::Primary, Purpose::Readiness]
            .into_iter()
            .filter(|purpose| !self.pass(*purpose, &views))
            .flat_map(|purpose| views.iter().filter(move |view| view.purpose == purpose && !view.passes))
            .map(|view| view.name.as_str())
            .collect();
        (!failing.is_empty()).then(|| failing.join(", "))
    }
}

impl Check {
    fn note(&self, passes: bool, value: String) {
        let seen = Arc::new(Seen { at: Instant::now(), passes, value });
        let before = self.seen.swap(Some(Arc::clone(&seen)));
        let (check, purpose, value) = (self.config.name.as_str(), self.config.purpose.word(), seen.value.as_str());
        match (before.map(|before| before.passes), passes) {
            // A node that starts has hardly looked at anything, and tells at `/readyz` what it waits for.
            (None, false) => info!(check, purpose, value, "a check does not pass yet"),
            (Some(true), false) => warn!(check, purpose, value, "a check fails"),
            (Some(false), true) => info!(check, purpose, value, "a check passes now"),
            _ => {}
        }
    }

    fn view(&self, now: Instant) -> CheckView {
        let seen = self.seen.load();
        let longest = self.config.interval + self.config.timeout + PATIENCE;
        let (passes, value) = match seen.as_deref() {
            None => (false, "not looked at yet".to_owned()),
            Some(seen) if now.saturating_duration_since(seen.at) > longest => {
                (false, format!("not looked at for more than {} ms; then: {}", longest.as_millis(), seen.value))
            }
            Some(seen) => (seen.passes, seen.value.clone()),
        };
        CheckView {
            name: self.config.name.clone(),
            purpose: self.config.purpose,
            passes,
            value,
            looked_at: seen.as_ref().map(|seen| seen.at),
        }
    }
}

/// Looks for ever.
async fn watch(check: Arc<Check>, mut looker: Looker) {
    let mut hysteresis = Hysteresis::new(check.config.rise, check.config.fall);
    loop {
        let look = looker.look(check.config.timeout).await;
        let passes = hysteresis.note(look.good);
        check.note(passes, told(look.value, &hysteresis));
        tokio::time::sleep(check.config.interval).await;
    }
}

/// What was seen, and of a failing check that recovers how far it has come: the value alone would say that all is well.
fn told(value: String, hysteresis: &Hysteresis) -> String {
    match hysteresis.rising() {
        Some((seen, needed)) => format!("{value}, {seen} of {needed} good looks"),
        None => value,
    }
}

/// What looks, with what it remembers from one look to the next.
struct Looker {
    subject: Option<Subject>,
    figures: Arc<Figures>,
    /// Which reader of the fsync figures this is.
    reader: usize,
    errors: ErrorRate,
    program: command::Program,
    url: http::Url,
    resolver: Resolver,
    blocking: Blocking<Look>,
}

impl Looker {
    fn new(check: &Check, reader: usize, figures: &Arc<Figures>) -> Self {
        let subject = check.config.subject.clone();
        let argv = if let Some(Subject::Command { argv }) = &subject { argv.clone() } else { Vec::new() };
        let (url, status) = match &subject {
            Some(Subject::Http { url, status }) => (url.clone(), *status),
            _ => (String::new(), 0),
        };
        let resolver = Resolver::new();
        Self {
            subject,
            figures: Arc::clone(figures),
            reader,
            errors: ErrorRate::start(),
            program: command::Program::new(argv),
            url: http::Url::new(url, status, resolver.clone()),
            resolver,
            blocking: Blocking::default(),
        }
    }

    async fn look(&mut self, within: Duration) -> Look {
        let Some(subject) = &self.subject else { return Look::bad("it says not what to look at") };
        match subject {
            Subject::Bitcoind => self.figures.bitcoind(),
            Subject::ApplyLag { max_entries } => self.figures.apply_lag(*max_entries),
            Subject::FsyncLatency { longest } => self.figures.fsync(self.reader, *longest),
            Subject::ErrorRate { max_percent, min_requests } => self.errors.look(*max_percent, *min_requests),
            Subject::DiskFree { min_bytes } => {
                let (folder, least) = (self.figures.data_dir.clone(), *min_bytes);
                in_time(within, on_a_thread(&mut self.blocking, move || built_in::disk_free(&folder, least))).await
            }
            Subject::Memory { max_bytes } => {
                let most = *max_bytes;
                in_time(within, on_a_thread(&mut self.blocking, move || built_in::memory(most))).await
            }
            Subject::Http { .. } => in_time(within, self.url.look()).await,
            Subject::Grpc { url, service } => {
                in_time(within, grpc_health::look(url, service, self.resolver.clone())).await
            }
            Subject::Command { .. } => self.program.look(within).await,
        }
    }
}

async fn in_time(within: Duration, look: impl Future<Output = Look>) -> Look {
    timeout(within, look).await.unwrap_or_else(|_| late(within))
}

fn late(within: Duration) -> Look {
    Look::bad(&format!("no answer within {} ms", within.as_millis()))
}

/// A look that may hang in the kernel.
async fn on_a_thread(blocking: &mut Blocking<Look>, look: impl FnOnce() -> Look + Send + 'static) -> Look {
    blocking.run(look).await.unwrap_or_else(|error| Look::bad(&error.to_string()))
}

/// An error with its causes: hyper and tonic keep what matters in them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
