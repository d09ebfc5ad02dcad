//! openraft's runtime under test: the simulation's executor on its thread, tokio on any other.

use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioWatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::runtime::{self, WorkLost};
use crate::simulation::executor::current;
use crate::simulation::tasks::{Elapsed, Task};

/// The runtime.
#[derive(Debug)]
pub struct Runtime(tokio::runtime::Runtime);

type Sleeping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A moment of the runtime's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(tokio::time::Instant);

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0 + length)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, length: Duration) {
        self.0 += length;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, length: Duration) -> Self {
        Self(self.0 - length)
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, length: Duration) {
        self.0 -= length;
    }
}

impl Instant for Moment {
    fn now() -> Self {
        Self(runtime::now())
    }
}

/// Work with a time limit.
pub struct Limited<T> {
    work: Pin<Box<T>>,
    limit: Sleeping,
}

impl<T: Future> Future for Limited<T> {
    type Output = Result<T::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.work.as_mut().poll(context) {
            return Poll::Ready(Ok(result));
        }
        self.limit.as_mut().poll(context).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = WorkLost;
    type JoinHandle<T: OptionalSend + 'static> = Task<T>;
    type Sleep = Sleeping;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Limited<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Task<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        runtime::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleeping {
        Self::sleep_until(Moment::now() + duration)
    }

    fn sleep_until(deadline: Moment) -> Sleeping {
        Box::pin(runtime::sleep_until(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Limited<F> {
        Self::timeout_at(Moment::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Moment, future: F) -> Limited<F> {
        Limited { work: Box::pin(future), limit: Self::sleep_until(deadline) }
    }

    /// A panic in a simulated task is a panic of the simulation, so nobody gets to ask.
    fn is_panic(_: &WorkLost) -> bool {
        false
    }

    fn thread_rng() -> SmallRng {
        let seed = current().map_or_else(|| rand::rng().random(), |executor| executor.seed());
        SmallRng::seed_from_u64(seed)
    }

    fn new(threads: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(builder.worker_threads(threads).enable_all().build().expect("a runtime for tests"))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;
    use crate::simulation::executor::Executor;

    type Checks = Suite<Runtime>;

    /// openraft's own checks of a runtime. In the simulation their waits cost no time.
    #[test]
    fn the_simulations_runtime_is_one_for_openraft() {
        Executor::new(1).run(async {
            Checks::test_spawn_join_handle().await;
            Checks::test_thread_rng().await;
            Checks::test_sleep().await;
            Checks::test_instant().await;
            Checks::test_instant_arithmetic().await;
            Checks::test_sleep_until().await;
            Checks::test_timeout().await;
            Checks::test_timeout_at().await;
            Checks::test_mpsc_send().await;
            Checks::test_mpsc_backpressure().await;
            Checks::test_watch_changed_marks_as_seen().await;
            Checks::test_watch_multiple_receivers().await;
            Checks::test_oneshot_send_from_another_task().await;
            Checks::test_mutex_contention().await;
        });
    }
}
