//! The end of the process: asked for by a signal or by the node itself, orderly if it can be, and
//! certain in any case.
//!
//! A thread with a runtime of its own waits for signals and, once the end has been asked for, for
//! the deadline. So it ends the process even if every worker of the node's runtime hangs, for
//! instance on a client that never finishes its TLS handshake.

use std::future::Future;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Section;

/// Exit code of a process whose drain took longer than `deadline_ms` (as of timeout(1)).
pub const EXIT_DEADLINE: i32 = 124;
/// Exit code of a process that got a second signal while it drained (as of a shell, for SIGINT).
pub const EXIT_SECOND_SIGNAL: i32 = 130;

/// How long the export of the last traces may take, once everything else has ended: a collector that is dead must not hold
/// up a restart.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// How long the last log line may take: a full pipe must not keep the process alive.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// `[shutdown]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long requests in flight may take to finish.
    pub drain: Duration,
    /// When the process ends whatever still hangs.
    pub deadline: Duration,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            drain: section.millis("drain_ms", 0..=300_000, 5_000),
            deadline: section.millis("deadline_ms", 100..=600_000, 15_000),
        }
    }

    /// What the export of the last traces gets. After a drain that took all of its time, half of what is left until the
    /// deadline at most, so that the process ends by itself.
    pub fn last_traces(&self) -> Duration {
        let left = self.deadline.saturating_sub(self.drain);
        LAST_TRACES.min(self.drain).min(left / 2)
    }
}

/// The wish to end, shared by all that must hear of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    config: Config,
}

impl Shutdown {
    /// Without signals and deadline: for tests, and for tools that end by themselves.
    pub fn new(config: Config) -> Self {
        Self { token: CancellationToken::new(), config }
    }

    /// Listens for SIGTERM and SIGINT from now on. The first one asks for the end, a second one
    /// ends the process at once ([`EXIT_SECOND_SIGNAL`]); so does the deadline
    /// ([`EXIT_DEADLINE`]), counted from when the end was asked for, by whomever.
    ///
    /// # Errors
    /// If the thread or the signal handlers cannot be set up.
    pub fn listen(config: Config) -> std::io::Result<Self> {
        let shutdown = Self::new(config);
        let (listening, ready) = mpsc::channel();
        let watched = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
            let signals = {
                let _inside = runtime.enter();
                Signals::install()
            };
            match signals {
                Ok(signals) => {
                    let _ = listening.send(Ok(()));
                    runtime.block_on(watched.watch(signals));
                }
                Err(error) => {
                    let _ = listening.send(Err(error));
                }
            }
        })?;
        ready.recv().map_err(std::io::Error::other)??;
        Ok(shutdown)
    }

    /// Asks for the end, and tells the service manager. The second time it does nothing.
    pub fn request(&self, why: &str) {
        if !self.token.is_cancelled() {
            tracing::info!(why, "stopping");
            notify(&NotifyState::Stopping);
            self.token.cancel();
        }
    }

    /// Waits until the end is asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Begins to drain; its clock starts now.
    pub fn drain(&self) -> Drain {
        Drain { until: Instant::now() + self.config.drain }
    }

    async fn watch(self, mut signals: Signals) {
        tokio::select! {
            name = signals.next() => self.request(name),
            () = self.token.cancelled() => {}
        }
        tokio::select! {
            name = signals.next() => end(EXIT_SECOND_SIGNAL, name),
            () = tokio::time::sleep(self.config.deadline) => {
                end(EXIT_DEADLINE, "the drain took too long");
            }
        }
    }
}

/// The time that an orderly end may take, spent step by step.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    until: Instant,
}

impl Drain {
    /// Runs one step for as long as time is left. A step that is late is abandoned and the next
    /// one still gets its turn: each is polled at least once. `None` if it was late.
    pub async fn step<T>(&self, name: &'static str, work: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let left = self.left();
        let done = tokio::time::timeout(left, work).await.ok();
        let took_ms = began.elapsed().as_millis();
        if done.is_some() {
            tracing::debug!(step = name, took_ms, "drained");
        } else {
            tracing::warn!(step = name, took_ms, "abandoned while draining");
        }
        done
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Tells systemd, if it listens, that the node is up: to be called when it serves.
pub fn notify_ready() {
    notify(&NotifyState::Ready);
}

fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

fn end(code: i32, why: &str) {
    let why = why.to_owned();
    let _ = std::thread::Builder::new().spawn(move || {
        tracing::error!(why, code, "ending without having drained");
    });
    std::thread::sleep(LAST_WORDS);
    std::process::exit(code);
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
