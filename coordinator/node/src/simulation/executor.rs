//! Runs the tasks of all simulated hosts on one thread, one at a time, in an order that a seed decides. Time stands while
//! any task can go on, and then jumps to the next timer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Whose task it is. What belongs to no host never stops.
pub(crate) type Host = u64;
/// The world outside the hosts: callers, the network, the miner, the judge.
pub(crate) const OUTSIDE: Host = 0;
/// So many steps without time passing are a loop that never waits.
const LIVELOCK: u64 = 2_000_000;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The executor of one simulation.
pub(crate) struct Executor {
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    paused: RefCell<BTreeSet<Host>>,
    rng: RefCell<SmallRng>,
    /// When the simulation began, on the machine's clock: only differences to it mean anything.
    began: Instant,
    passed: Cell<Duration>,
    numbers: Cell<u64>,
    steps: Cell<u64>,
    host: Cell<Host>,
}

struct Task {
    host: Host,
    work: Work,
}

/// Tasks that can go on. A set, so that the order of the wakes means nothing: tokio's channels wake in an order that no
/// seed decides.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

impl Ready {
    fn set<R>(&self, change: impl FnOnce(&mut BTreeSet<u64>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Wakes {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.ready.set(|ready| ready.insert(self.task));
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// The simulation that this thread runs, if it runs one.
pub(crate) fn current() -> Option<Rc<Executor>> {
    CURRENT.with_borrow(Clone::clone)
}

impl Executor {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            paused: RefCell::default(),
            rng: RefCell::new(SmallRng::seed_from_u64(seed)),
            began: Instant::now(),
            passed: Cell::default(),
            numbers: Cell::new(1),
            steps: Cell::new(0),
            host: Cell::new(OUTSIDE),
        })
    }

    /// Runs until this work is done; what else was started is dropped then.
    pub(crate) fn run<T: 'static>(self: &Rc<Self>, work: impl Future<Output = T> + 'static) -> T {
        let _entered = Entered::with(self);
        let result: Rc<Cell<Option<T>>> = Rc::default();
        let slot = Rc::clone(&result);
        self.add(OUTSIDE, Box::pin(async move { slot.set(Some(work.await)) }));
        let mut still = (Duration::ZERO, 0);
        loop {
            if let Some(result) = result.take() {
                self.drop_all();
                return result;
            }
            self.step();
            still = if still.0 == self.passed.get() { (still.0, still.1 + 1) } else { (self.passed.get(), 0) };
            assert!(still.1 < LIVELOCK, "the simulation does not move on at {:?}", still.0);
        }
    }

    fn step(&self) {
        self.steps.set(self.steps.get() + 1);
        if let Some(task) = self.choose() {
            return self.poll(task);
        }
        let next = self.timers.borrow_mut().pop_first();
        let ((at, _), waker) = next.expect("some task waits for time, or the simulation would have ended");
        self.passed.set(at.max(self.passed.get()));
        waker.wake();
    }

    /// One of the tasks that can go on and are not on a paused host.
    fn choose(&self) -> Option<u64> {
        let (tasks, paused) = (self.tasks.borrow(), self.paused.borrow());
        self.ready.set(|ready| {
            ready.retain(|task| tasks.contains_key(task));
            let able: Vec<u64> = ready.iter().copied().filter(|task| !paused.contains(&tasks[task].host)).collect();
            let chosen = *able.get(self.pick(0..=able.len().checked_sub(1)?))?;
            ready.remove(&chosen);
            Some(chosen)
        })
    }

    fn poll(&self, id: u64) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        let waker = Waker::from(Arc::new(Wakes { task: id, ready: Arc::clone(&self.ready) }));
        let before = self.host.replace(task.host);
        let polled = task.work.as_mut().poll(&mut Context::from_waker(&waker));
        self.host.set(before);
        if polled == Poll::Pending {
            self.tasks.borrow_mut().insert(id, task);
        }
    }

    fn add(&self, host: Host, work: Work) -> u64 {
        let id = self.number();
        self.tasks.borrow_mut().insert(id, Task { host, work });
        self.ready.set(|ready| ready.insert(id));
        id
    }

    /// Starts a task on the host that the running task is of.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + 'static) -> Handle<T> {
        self.spawn_on(self.host.get(), work)
    }

    /// Starts a task on a host.
    pub(crate) fn spawn_on<T: Send + 'static>(&self, host: Host, work: impl Future<Output = T> + 'static) -> Handle<T> {
        let (tell, result) = oneshot::channel();
        let id = self.add(host, Box::pin(async move { drop(tell.send(work.await)) }));
        Handle { id, result }
    }

    /// The host loses its power: its tasks are gone, wherever they were.
    pub(crate) fn kill(&self, host: Host) {
        let gone: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let ids: Vec<u64> = tasks.iter().filter(|(_, task)| task.host == host).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| tasks.remove(id)).collect()
        };
        drop(gone);
        self.go_on(host);
    }

    /// One task is gone, wherever it was.
    pub(crate) fn abort(&self, id: u64) {
        let gone = self.tasks.borrow_mut().remove(&id);
        drop(gone);
    }

    /// The host's tasks stand; time passes for them all the same.
    pub(crate) fn pause(&self, host: Host) {
        self.paused.borrow_mut().insert(host);
    }

    /// They go on.
    pub(crate) fn go_on(&self, host: Host) {
        self.paused.borrow_mut().remove(&host);
    }

    pub(crate) fn is_paused(&self, host: Host) -> bool {
        self.paused.borrow().contains(&host)
    }

    fn drop_all(&self) {
        let gone = self.tasks.take();
        drop(gone);
        self.timers.borrow_mut().clear();
    }

    /// Time that has passed in the simulation.
    pub(crate) fn passed(&self) -> Duration {
        self.passed.get()
    }

    /// The time, as tasks see it.
    pub(crate) fn now(&self) -> Instant {
        self.began + self.passed.get()
    }

    /// Steps that were taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// When `at` is, in time that has passed.
    pub(crate) fn passed_at(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    /// A number in a range.
    pub(crate) fn pick(&self, range: RangeInclusive<usize>) -> usize {
        self.rng.borrow_mut().random_range(range)
    }

    /// A seed for somebody else's dice.
    pub(crate) fn seed(&self) -> u64 {
        self.rng.borrow_mut().random()
    }

    fn number(&self) -> u64 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    /// Registers a timer; the key is for [`Executor::forget`].
    pub(crate) fn wake_at(&self, at: Duration, waker: Waker) -> (Duration, u64) {
        let key = (at, self.number());
        self.timers.borrow_mut().insert(key, waker);
        key
    }

    /// Nobody waits for that timer any more.
    pub(crate) fn forget(&self, key: (Duration, u64)) {
        self.timers.borrow_mut().remove(&key);
    }
}

/// Makes an executor the thread's own until it is dropped.
struct Entered(Option<Rc<Executor>>);

impl Entered {
    fn with(executor: &Rc<Executor>) -> Self {
        Self(CURRENT.replace(Some(Rc::clone(executor))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

/// A task's end.
pub struct Handle<T> {
    id: u64,
    result: oneshot::Receiver<T>,
}

impl<T> Handle<T> {
    /// Ends the task; its result is lost.
    pub(crate) fn abort(&self) {
        if let Some(executor) = current() {
            executor.abort(self.id);
        }
    }
}

impl<T> Future for Handle<T> {
    /// `None` if the task is gone.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.result).poll(context).map(Result::ok)
    }
}
