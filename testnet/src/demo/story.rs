//! What happens in a demo, in order: payments begin, the leader is killed, another takes over, the dead one returns,
//! every payment settles.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::{ListPaymentsRequest, PaymentState};
use tokio::runtime::Runtime;

use super::callers::{self, Event};
use super::orders::{self, Order};
use crate::cluster::{Cluster, FINALITY_DEPTH};
use crate::grpc;
use crate::hot::WALLET;
use crate::miner::Miner;
use crate::oracle::chain;
use crate::progress::Progress;

/// The leader dies when this share of the payments is acknowledged, and comes back at that share.
const KILL_AT_PERCENT: usize = 40;
const RESTART_AT_PERCENT: usize = 80;
const FAILOVER_PATIENCE: Duration = Duration::from_secs(30);
const SETTLE_PATIENCE: Duration = Duration::from_mins(2);
/// Blocks come faster when only depth is missing.
const SETTLE_PACE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(100);
const PAGE: i32 = 1_000;

/// What was seen on the way.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Leaders killed.
    pub leader_kills: usize,
    /// From just before the kill to the first acknowledgement of a later term.
    pub failover: Option<Duration>,
    /// Calls whose outcome was unknown until the same request id resolved it.
    pub unknown_resolved: usize,
    /// How long each call took, retries included.
    pub latencies: Vec<Duration>,
    /// From the first order to the last acknowledgement.
    pub paying: Duration,
    /// Blocks mined meanwhile and until everything was settled.
    pub blocks: u32,
}

/// Plays it to the end.
///
/// # Errors
/// A payment failed, nobody took over, or not everything settled in time.
pub fn play(
    cluster: &mut Cluster,
    runtime: &Runtime,
    orders: &[Order],
    callers: usize,
    miner: &Miner,
    first_height: u32,
) -> Result<Story> {
    let started = Instant::now();
    let events = start_callers(cluster, runtime, orders, callers)?;
    let mut progress = Progress::count("paid", u64::try_from(orders.len())?);
    let mut scene =
        Scene { cluster, story: Story::default(), acknowledged: 0, term: 0, killed: None, restarted: false };
    while scene.acknowledged < orders.len() {
        scene.next(&events, orders.len(), &progress)?;
        progress.reach(u64::try_from(scene.acknowledged)?);
    }
    scene.restart_the_dead(&progress)?;
    let Scene { story: mut seen, .. } = scene;
    progress.finish();
    seen.paying = started.elapsed();

    miner.set_pace(SETTLE_PACE);
    wait_until_settled_on_chain(cluster, orders, first_height)?;
    runtime.block_on(wait_until_service_agrees(cluster, orders.len()))?;
    let tip = cluster.bitcoinds().first().context("no bitcoind")?.height()?;
    seen.blocks = tip + 1 - first_height;
    Ok(seen)
}

fn start_callers(cluster: &Cluster, runtime: &Runtime, orders: &[Order], callers: usize) -> Result<Receiver<Event>> {
    let queue = Arc::new(Mutex::new(orders.iter().cloned().collect()));
    let (sender, events) = channel();
    for _ in 0..callers {
        let _inside = runtime.enter(); // a channel needs a runtime to live in
        let channel = grpc::channel(cluster.primary_address(), cluster.client())?;
        runtime.spawn(callers::work(channel, Arc::clone(&queue), sender.clone()));
    }
    Ok(events)
}

/// The part of the story in which payments are made.
struct Scene<'a> {
    cluster: &'a mut Cluster,
    story: Story,
    acknowledged: usize,
    /// The highest term seen.
    term: u64,
    /// Who was killed, when, and in which term.
    killed: Option<(usize, Instant, u64)>,
    restarted: bool,
}

impl Scene<'_> {
    fn next(&mut self, events: &Receiver<Event>, total: usize, progress: &Progress) -> Result<()> {
        match events.recv_timeout(POLL) {
            Ok(Event::Acknowledged { term, at, took, was_unknown }) => {
                self.acknowledged += 1;
                self.term = self.term.max(term);
                self.story.latencies.push(took);
                self.story.unknown_resolved += usize::from(was_unknown);
                self.look_for_failover(term, at, progress);
            }
            Ok(Event::Failed(error)) => return Err(error.context("a payment failed")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the callers ended before their orders did")
            }
        }
        if self.killed.is_none() && self.acknowledged * 100 >= total * KILL_AT_PERCENT {
            self.kill_the_leader(progress)?;
        }
        if self.story.failover.is_some() && self.acknowledged * 100 >= total * RESTART_AT_PERCENT {
            self.restart_the_dead(progress)?;
        }
        if let (Some((_, at, _)), None) = (self.killed, self.story.failover) {
            ensure!(
                at.elapsed() < FAILOVER_PATIENCE,
                "nobody acknowledged anything for {FAILOVER_PATIENCE:?} after the kill"
            );
        }
        Ok(())
    }

    fn kill_the_leader(&mut self, progress: &Progress) -> Result<()> {
        let leader = self.cluster.wait_for_primary(FAILOVER_PATIENCE)?;
        let node = self.cluster.node(leader)?;
        let at = Instant::now();
        node.kill()?;
        progress.note(&format!("kill -9 of the leader, {}, after {} payments", node.name(), self.acknowledged));
        self.killed = Some((leader, at, self.term));
        self.story.leader_kills += 1;
        Ok(())
    }

    /// Only an acknowledgement of a later term counts: what the dead leader had answered may still be on its way.
    fn look_for_failover(&mut self, term: u64, at: Instant, progress: &Progress) {
        let Some((_, killed_at, old_term)) = self.killed else {
            return;
        };
        if term > old_term && self.story.failover.is_none() {
            let failover = at.saturating_duration_since(killed_at);
            progress.note(&format!("payments go on after {} ms", failover.as_millis()));
            self.story.failover = Some(failover);
        }
    }

    fn restart_the_dead(&mut self, progress: &Progress) -> Result<()> {
        if let (Some((index, _, _)), false) = (self.killed, self.restarted) {
            let node = self.cluster.node(index)?;
            node.restart()?;
            progress.note(&format!("{} is started again", node.name()));
            self.restarted = true;
        }
        Ok(())
    }
}

fn wait_until_settled_on_chain(cluster: &Cluster, orders: &[Order], first_height: u32) -> Result<()> {
    let expected = orders::for_judge(orders)?;
    let bitcoind = cluster.bitcoinds().first().context("no bitcoind")?;
    let depth = usize::try_from(FINALITY_DEPTH)?;
    let deadline = Instant::now() + SETTLE_PATIENCE;
    let mut progress = Progress::count("settled", u64::try_from(orders.len())?);
    let mut tip = None;
    loop {
        let now = bitcoind.tip()?;
        if tip != Some(now) {
            tip = Some(now);
            let verdict = chain::judge(&chain::read_blocks(bitcoind, first_height)?, &expected, depth);
            progress.reach(u64::try_from(verdict.settled.len())?);
            // A duplicate never settles; the report will name it.
            if verdict.settled.len() == orders.len() || !verdict.is_clean() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {} payments are settled on the chain after {SETTLE_PATIENCE:?}",
                verdict.settled.len(),
                orders.len()
            );
        }
        std::thread::sleep(POLL);
    }
}

/// The chain has the last word, but a service that cannot say that everything is paid is of no use either.
async fn wait_until_service_agrees(cluster: &Cluster, payments: usize) -> Result<()> {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    let mut client = PaymentServiceClient::new(grpc::channel(cluster.primary_address(), cluster.client())?);
    loop {
        let counted = count_settled(&mut client).await;
        if counted.as_ref().is_ok_and(|settled| *settled >= payments) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the chain has settled {payments} payments, the service says: {counted:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn count_settled(client: &mut PaymentServiceClient<tonic::transport::Channel>) -> Result<usize, tonic::Status> {
    let mut settled = 0;
    let mut page_token = String::new();
    loop {
        let request = ListPaymentsRequest {
            wallet_id: WALLET.to_owned(),
            states: vec![PaymentState::Settled.into()],
            page_size: PAGE,
            page_token,
            ..ListPaymentsRequest::default()
        };
        let answer = client.list_payments(request).await?.into_inner();
        settled += answer.payments.len();
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(settled);
        }
    }
}
