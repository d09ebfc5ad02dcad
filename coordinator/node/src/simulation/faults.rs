//! What goes wrong, one thing after the other and some at once.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use onespend_adapters::chain::fake::Fault;

use super::executor::Host;
use super::machine::NODES;
use super::world::{World, chance, executor, pause, pick};
use crate::runtime::now;

/// How often each kind happened.
pub(super) type Counts = BTreeMap<&'static str, u32>;

/// Lets things go wrong until the run calms down.
pub(super) async fn run(world: Rc<World>) -> Counts {
    let mut counts = Counts::new();
    while world.busy.get() {
        pause(100..=2_000).await;
        let node = NODES[pick(0..=2)];
        let kind = match pick(0..=10) {
            0..=1 => kill(&world, &[node]),
            2 => kill(&world, &NODES[..pick(2..=3)]),
            3 => Some(hold(&world, node)),
            4 => Some(cut_off(&world, node)),
            5 => Some(cut_one_way(&world, node)),
            6 => Some(storm(&world)),
            7 => reorganise(&world),
            8 => Some(chain_fault(&world)),
            9 => evict(&world),
            _ => hand_over(&world),
        };
        if let Some(kind) = kind {
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

/// The nodes lose their power and what was not synced, and come back one after the other.
fn kill(world: &Rc<World>, nodes: &[Host]) -> Option<&'static str> {
    let running = nodes.iter().filter(|id| world.node(**id).is_some()).count();
    for id in nodes {
        world.kill(*id);
        let (world, id) = (Rc::clone(world), *id);
        executor().spawn(async move {
            // Now and then so long that the others have purged what it lacks.
            pause(50..=if chance(20) { 12_000 } else { 3_000 }).await;
            world.start(id).await;
        });
    }
    match running {
        0 => None,
        1 => Some("kill"),
        _ => Some("power"),
    }
}

/// A process that gets no processor for a while; then it goes on as if nothing had been.
fn hold(world: &Rc<World>, node: Host) -> &'static str {
    // The leader, most of the time: it has more to do wrong.
    let leader = world.nodes().into_iter().find(|(_, node)| node.replica.leader_term().is_some());
    let node = leader.filter(|_| chance(70)).map_or(node, |(id, _)| id);
    executor().pause(node);
    executor().spawn(async move {
        pause(50..=3_000).await;
        executor().go_on(node);
    });
    "pause"
}

fn join_later(world: &Rc<World>) {
    let world = Rc::clone(world);
    executor().spawn(async move {
        pause(200..=4_000).await;
        world.sky.join();
    });
}

fn cut_off(world: &Rc<World>, node: Host) -> &'static str {
    for other in NODES.into_iter().filter(|other| *other != node) {
        world.sky.cut(node, other);
        world.sky.cut(other, node);
    }
    join_later(world);
    "partition"
}

/// It is not heard, or does not hear, by one node or by both.
fn cut_one_way(world: &Rc<World>, node: Host) -> &'static str {
    let heard = chance(50);
    for other in NODES.into_iter().filter(|other| *other != node).take(pick(1..=2)) {
        if heard { world.sky.cut(node, other) } else { world.sky.cut(other, node) }
    }
    join_later(world);
    "one-way"
}

fn storm(world: &Rc<World>) -> &'static str {
    world.sky.set_storm(true);
    let world = Rc::clone(world);
    executor().spawn(async move {
        pause(500..=5_000).await;
        world.sky.set_storm(false);
    });
    "storm"
}

/// The last blocks are replaced by more of them, below the depth at which anything is final.
fn reorganise(world: &Rc<World>) -> Option<&'static str> {
    let depth = pick(1..=4);
    let block = world.chain.blocks().into_iter().rev().nth(depth - 1)?;
    world.chain.invalidate(block.block_hash());
    if chance(30) {
        // What was in them is not in the mempool of who mines next.
        for transaction in world.chain.mempool() {
            world.chain.evict(transaction.compute_txid());
        }
    }
    world.mine(u32::try_from(depth).unwrap_or(1) + 1);
    Some("reorg")
}

fn chain_fault(world: &Rc<World>) -> &'static str {
    let methods = ["sendrawtransaction", "getblock", "getblockheader", "getblockchaininfo"];
    let faults = [Fault::LostAnswer, Fault::Timeout, Fault::Starting, Fault::Refused];
    let times = u32::try_from(pick(1..=5)).unwrap_or(1);
    world.chain.inject(Some(methods[pick(0..=3)]), faults[pick(0..=3)], times);
    "bitcoind"
}

fn evict(world: &Rc<World>) -> Option<&'static str> {
    let transaction = world.chain.mempool().into_iter().next()?;
    world.chain.evict(transaction.compute_txid());
    Some("evict")
}

fn hand_over(world: &Rc<World>) -> Option<&'static str> {
    let (id, node) = world.nodes().into_iter().find(|(_, node)| node.replica.leader_term().is_some())?;
    executor().spawn_on(id, async move {
        let deadline = now().into_std() + Duration::from_secs(2);
        let _ = node.replica.transfer(None, deadline, deadline).await;
    });
    Some("transfer")
}
