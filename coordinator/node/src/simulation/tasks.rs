//! `runtime` under test: on the thread of a simulation its executor, on any other thread tokio.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::executor::{Handle, current};
use crate::runtime::WorkLost;

/// The time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// A task that was started; it goes on when this is dropped.
pub enum Task<T> {
    OnTokio(tokio::task::JoinHandle<T>),
    Simulated(Handle<T>),
}

impl<T> Task<T> {
    fn abort(&self) {
        match self {
            Self::OnTokio(task) => task.abort(),
            Self::Simulated(task) => task.abort(),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, WorkLost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::OnTokio(task) => Pin::new(task).poll(context).map_err(|_| WorkLost),
            Self::Simulated(task) => Pin::new(task).poll(context).map(|result| result.ok_or(WorkLost)),
        }
    }
}

pub(crate) fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Task<T> {
    match current() {
        Some(executor) => Task::Simulated(executor.spawn(work)),
        None => Task::OnTokio(tokio::spawn(work)),
    }
}

pub(crate) fn now() -> Instant {
    current().map_or_else(Instant::now, |executor| executor.now())
}

pub(crate) async fn sleep(length: Duration) {
    sleep_until(now() + length).await;
}

pub(crate) async fn sleep_until(at: Instant) {
    if current().is_none() {
        return tokio::time::sleep_until(at).await;
    }
    let mut timer = Timer { at, set: None };
    poll_fn(|context| timer.poll(context)).await;
}

/// A timer of the simulation.
struct Timer {
    at: Instant,
    set: Option<(Duration, u64)>,
}

impl Timer {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.unset();
        let Some(executor) = current() else { return Poll::Pending };
        let at = executor.passed_at(self.at);
        if at <= executor.passed() {
            return Poll::Ready(());
        }
        self.set = Some(executor.wake_at(at, context.waker().clone()));
        Poll::Pending
    }

    fn unset(&mut self) {
        if let (Some(set), Some(executor)) = (self.set.take(), current()) {
            executor.forget(set);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.unset();
    }
}

pub(crate) async fn timeout<F: Future>(length: Duration, work: F) -> Result<F::Output, Elapsed> {
    timeout_at(now() + length, work).await
}

pub(crate) async fn timeout_at<F: Future>(at: Instant, work: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        result = work => Ok(result),
        () = sleep_until(at) => Err(Elapsed),
    }
}

/// In a simulation the work takes some time before and after it is done, as on a thread that has to wait for its turn.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkLost> {
    if current().is_none() {
        return tokio::task::spawn_blocking(work).await.map_err(|_| WorkLost);
    }
    let done = spawn(async move {
        sleep(a_while()).await;
        let result = work();
        sleep(a_while()).await;
        result
    });
    done.await
}

/// Up to 3 ms, and now and then up to 2 s.
fn a_while() -> Duration {
    let Some(executor) = current() else { return Duration::ZERO };
    let longest = if executor.pick(0..=99) == 0 { 2_000_000 } else { 3_000 };
    Duration::from_micros(executor.pick(0..=longest) as u64)
}

/// Tasks that end with this value.
pub(crate) struct TaskSet<T>(Vec<Task<T>>);

impl<T: Send + 'static> TaskSet<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn spawn(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0.push(spawn(work));
    }

    /// The next that ends; `None` when there are none.
    pub(crate) async fn join_next(&mut self) -> Option<Result<T, WorkLost>> {
        poll_fn(|context| {
            for at in 0..self.0.len() {
                if let Poll::Ready(ended) = Pin::new(&mut self.0[at]).poll(context) {
                    self.0.swap_remove(at);
                    return Poll::Ready(Some(ended));
                }
            }
            if self.0.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

impl<T> Drop for TaskSet<T> {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
