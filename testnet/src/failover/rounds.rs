//! One fault after the other of one kind: struck, measured, mended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use onespend_proto::client::Client;
use onespend_proto::v1;
use tokio::runtime::Runtime;

use super::Plan;
use crate::cluster::{Addresses, Cluster, Node};
use crate::grpc;
use crate::history::Nanos;
use crate::load::Load;
use crate::process::Signal;
use crate::progress::Progress;
use crate::relay::Link;
use crate::routing::cluster_is_whole;
use crate::seed::Seeded;

/// Answers that each caller must have before each fault.
const SETTLED: usize = 3;
const TRANSFER_DEADLINE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(20);

/// What strikes the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: its connections stay open and nobody answers.
    Pause,
    /// Nothing it sends arrives, and nothing reaches it: neither nodes nor callers. Connections stay open.
    Blackhole,
    /// An operator asks for another leader.
    Handover,
}

/// As many rounds as planned: how long each took, from the fault to the first mutation of a later term.
pub(super) fn strike(
    fault: Fault,
    plan: &Plan,
    name: &'static str,
    cluster: &mut Cluster,
    load: &Load,
    runtime: &Runtime,
) -> Result<Vec<Nanos>> {
    let mut random = Seeded::new(plan.seed);
    let mut bar = Progress::count(name, u64::try_from(plan.rounds)?);
    let mut times = Vec::new();
    for round in 0..plan.rounds {
        let leader = cluster_is_whole(cluster)?;
        load.wait_for_answers(load.now(), SETTLED)?;
        let term = load.term();
        let mut scene = Scene { cluster, load, runtime, leader };
        let from = scene.strike(fault, &mut random)?;
        let at = load.wait_for_later_term(from, term)?;
        times.push(at.saturating_sub(from));
        scene.mend(fault)?;
        bar.reach(u64::try_from(round + 1)?);
    }
    cluster_is_whole(cluster)?;
    load.wait_for_answers(load.now(), SETTLED)?;
    Ok(times)
}

struct Scene<'a> {
    cluster: &'a mut Cluster,
    load: &'a Load,
    runtime: &'a Runtime,
    leader: usize,
}

impl Scene<'_> {
    /// Returns when it began.
    fn strike(&mut self, fault: Fault, random: &mut Seeded) -> Result<Nanos> {
        if fault == Fault::Handover {
            return self.hand_over(random);
        }
        let from = self.load.now();
        match fault {
            Fault::Kill => self.cluster.node(self.leader)?.kill()?,
            Fault::Pause => self.cluster.node(self.leader)?.signal(Signal::Stop)?,
            Fault::Blackhole => self.set_paths(Link::Held)?,
            Fault::Handover => {}
        }
        Ok(from)
    }

    fn mend(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => self.cluster.node(self.leader)?.restart(),
            Fault::Pause => self.cluster.node(self.leader)?.signal(Signal::Continue),
            Fault::Blackhole => self.set_paths(Link::Open),
            Fault::Handover => Ok(()),
        }
    }

    fn set_paths(&self, link: Link) -> Result<()> {
        let wires = self.cluster.wires()?;
        for other in (0..self.cluster.nodes().len()).filter(|other| *other != self.leader) {
            wires.set_between(self.leader, other, link);
        }
        wires.callers(self.leader)?.set_both(link);
        Ok(())
    }

    /// Asks the leader itself, on a connection that is there already: what is measured is the cluster.
    fn hand_over(&self, random: &mut Seeded) -> Result<Nanos> {
        let nodes = u64::try_from(self.cluster.nodes().len())?;
        ensure!(nodes > 1, "nobody to hand over to");
        let target = (u64::try_from(self.leader)? + random.between(1, nodes)) % nodes;
        let node_id = self.cluster.nodes().get(usize::try_from(target)?).map(Node::id).context("no such node")?;
        let leader: Addresses = self.cluster.nodes().get(self.leader).map(Node::addresses).context("no leader")?;
        let load = self.load;
        self.runtime.block_on(async move {
            let operator = grpc::following_client(&[leader], self.cluster.operator())?;
            transferred(&operator, node_id, || load.now()).await
        })
    }
}

/// Asks until it is done; a node that has not caught up yet is refused, and nothing has changed then. Returns when the
/// last request was sent.
async fn transferred(operator: &Client, node_id: u64, now: impl Fn() -> Nanos) -> Result<Nanos> {
    let operator = operator.with_deadline(TRANSFER_DEADLINE);
    operator.get_status(v1::GetStatusRequest {}).await?;
    let deadline = Instant::now() + TRANSFER_DEADLINE;
    loop {
        let from = now();
        let request_id = uuid::Uuid::new_v4().to_string();
        match operator.transfer_leadership(v1::TransferLeadershipRequest { request_id, node_id }).await {
            Ok(_) => return Ok(from),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
