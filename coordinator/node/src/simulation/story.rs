//! One run, from its seed to its verdict.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use bitcoin::Network;
use onespend_core::command::{Command, Received, RegisterWallet};
use onespend_core::ids::Height;
use onespend_core::outcome::Outcome;
use onespend_core::payment::Payment;
use onespend_core::settlement::attempt_state;
use onespend_core::state::State;
use onespend_core::wallet::Keychain;

use super::callers::{self, Caller};
use super::executor::Executor;
use super::faults::{self, Counts};
use super::machine::{Lie, NODES};
use super::world::{WALLET, World, executor, pause, tip};
use super::{primaries, verdict};
use crate::health::Check;
use crate::runtime::{now, sleep};
use crate::specimen::{register, script, wallet};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(20);
/// How long a cluster without faults may take until every payment is settled.
const HEALING: Duration = Duration::from_mins(4);
const CALLERS: usize = 5;
/// How far below the tip the cluster begins to follow the chain.
const START_DEPTH: usize = 20;

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) violations: Vec<String>,
    /// SHA-256 of the last state, and the steps that led there: the same for the same seed.
    pub(super) end: ([u8; 32], u64),
    pub(super) faults: Counts,
    pub(super) acknowledged: usize,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) signed: usize,
    pub(super) payments: usize,
    pub(super) settled: usize,
    /// The longest time for which two nodes were primary.
    pub(super) two_primaries: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} acknowledged, {} refused, {} unknown; ",
            self.seed, self.acknowledged, self.refused, self.unknown
        )?;
        write!(
            f,
            "{} payments, {} signed, {} settled; faults {:?}",
            self.payments, self.signed, self.settled, self.faults
        )?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// Runs one seed.
pub(super) fn run(seed: u64, lie: Option<Lie>) -> Run {
    let executor = Executor::new(seed);
    let world = World::new(seed, lie);
    let told = Rc::clone(&world);
    let (faults, end) = executor.run(async move { tell(told).await });
    let steps = executor.steps();
    let (payments, settled) = end.1;
    world.judge.seen(|seen| Run {
        seed,
        violations: std::mem::take(&mut seen.violations),
        end: (end.0, steps),
        faults,
        acknowledged: seen.answers.len(),
        refused: seen.refused,
        unknown: seen.unknown,
        signed: seen.signed.len(),
        payments,
        settled,
        two_primaries: seen.primaries.longest(),
    })
}

type End = ([u8; 32], (usize, usize));

async fn tell(world: Rc<World>) -> (Counts, End) {
    for id in NODES {
        world.start(id).await;
    }
    executor().spawn(mine(Rc::clone(&world)));
    executor().spawn(primaries::watch(Rc::clone(&world)));
    found_wallet(&world).await;
    let callers: Vec<_> = (1..=CALLERS).map(|name| executor().spawn(Caller::new(&world, name).run())).collect();
    let trouble = executor().spawn(faults::run(Rc::clone(&world)));
    sleep(TROUBLE).await;
    world.busy.set(false);
    let faults = trouble.await.unwrap_or_default();
    calm(&world).await;
    for caller in callers {
        caller.await;
    }
    if let Err(why) = heal(&world).await {
        world.judge.violation(why);
    }
    verdict::judge(&world);
    let end = world.nodes().first().map_or(([0; 32], (0, 0)), |(_, node)| {
        node.replica.read(|state| {
            let settled = state.payments().filter(|(_, payment)| payment.is_settled()).count();
            (state.hash(), (state.payment_count(), settled))
        })
    });
    (faults, end)
}

/// A block every second or so, for ever.
async fn mine(world: Rc<World>) {
    loop {
        pause(300..=1_500).await;
        world.mine(1);
    }
}

/// The cluster meets the chain, and gets a wallet with the coins that were mined for it.
async fn found_wallet(world: &World) {
    // Below every reorganisation that is to come.
    insist(world, &Command::Start { network: Network::Regtest, tip: tip(&world.chain, START_DEPTH) }).await;
    loop {
        let Some(basis) = world.nodes().first().and_then(|(_, node)| node.replica.read(|state| state.tip().ok()))
        else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Command::RegisterWallet(order) = register(WALLET, &[]) else { unreachable!("it registers") };
        let order = RegisterWallet { basis, found: coins(world), ..order };
        if insist(world, &Command::RegisterWallet(order)).await {
            return;
        }
    }
}

fn coins(world: &World) -> Vec<Received> {
    let own = script(WALLET, Keychain::External, 0);
    let blocks = (0..).zip(world.chain.blocks());
    let paid = blocks.filter(|(_, block)| block.txdata[0].output[0].script_pubkey == own);
    paid.map(|(at, block)| Received {
        outpoint: bitcoin::OutPoint::new(block.txdata[0].compute_txid(), 0),
        wallet: wallet(WALLET),
        value_sat: block.txdata[0].output[0].value.to_sat(),
        script: own.clone(),
        keychain: Keychain::External,
        index: 0,
        coinbase: true,
        height: Height(at),
    })
    .collect()
}

/// Proposes until a leader takes it; whether the core accepted it.
async fn insist(world: &World, command: &Command) -> bool {
    loop {
        for id in NODES {
            let command = command.clone();
            let asked = world.call(id, move |node| async move {
                let deadline = now().into_std() + Duration::from_secs(2);
                node.replica.propose(None, command, deadline).await
            });
            if let Some(Ok(applied)) = asked.await {
                return !matches!(applied.outcome, Outcome::Rejected(_));
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Nothing goes wrong any more.
async fn calm(world: &World) {
    // What is broken for a while is whole again by itself.
    sleep(Duration::from_secs(6)).await;
    world.sky.join();
    world.sky.set_storm(false);
    world.chain.clear_faults();
    for id in NODES {
        executor().go_on(id);
        world.start(id).await;
    }
}

/// Waits until all payments are settled and all nodes have applied the same.
async fn heal(world: &Rc<World>) -> Result<(), String> {
    let late = now() + HEALING;
    let mut refused = None;
    while now() < late {
        let nodes = world.nodes();
        let open: usize = nodes.iter().map(|(_, node)| node.replica.read(|state| state.open_payments().len())).sum();
        if nodes.len() == 3 && open == 0 {
            one_primary(world).await?;
            return agree(world).await;
        }
        refused = callers::pay_again(world).await.or(refused);
        sleep(Duration::from_millis(500)).await;
    }
    let mut why = format!("no healing within {HEALING:?} after the last fault; {refused:?}");
    for (id, node) in world.nodes() {
        let (status, open) = (node.replica.status(), node.replica.read(stuck));
        let _ = write!(why, "\n  node {id}: {:?} term {}, log {:?}", status.role, status.term, status.last_log);
        let _ = write!(why, ", committed {:?}, applied {:?}", status.committed, status.applied);
        for line in open {
            let _ = write!(why, "\n    {line}");
        }
    }
    Err(why)
}

/// The open payments, and where each attempt stands.
fn stuck(state: &State) -> Vec<String> {
    let frozen = state.wallets().filter(|(_, wallet)| wallet.frozen.is_some()).map(|(id, _)| format!("{id} is frozen"));
    let open = state.open_payments().into_iter().flat_map(|key| {
        let attempts = state.payment(&key).into_iter().flat_map(Payment::numbered);
        let told = attempts.map(|(number, attempt)| {
            let coins = attempt.inputs().map(|outpoint| {
                (outpoint, state.utxo(&outpoint).map(|utxo| (utxo.height, utxo.claim.clone(), utxo.spent.clone())))
            });
            let stands = (attempt_state(state, attempt), &attempt.relay, attempt.fee_sat);
            format!("{key} {number} {} {stands:?} {:?}", attempt.txid(), coins.collect::<Vec<_>>())
        });
        told.collect::<Vec<_>>()
    });
    frozen.chain(open).collect()
}

/// Waits until one node says that it may take spends, and no other: nothing is wrong any more.
async fn one_primary(world: &World) -> Result<(), String> {
    for _ in 0..1_000 {
        if primaries::answered(world).len() == 1 {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let nodes = world.nodes();
    let said: Vec<_> = nodes.iter().map(|(id, node)| (id, node.health.verdict(&Check::primary()).reason)).collect();
    Err(format!("not one node of a healthy cluster is primary: {said:?}"))
}

async fn agree(world: &World) -> Result<(), String> {
    for _ in 0..1_000 {
        let places: BTreeSet<_> = world.nodes().iter().map(|(_, node)| node.replica.read(State::applied)).collect();
        if places.len() == 1 {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("the nodes do not come to the same index".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::raft::simulated::SNAPSHOTS_TAKEN;

    /// Seeds of `make test`; `make simulate` sets more.
    const SEEDS: u64 = 200;
    const PANICKED: &str = "it panicked";

    fn setting(name: &str, otherwise: u64) -> u64 {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    }

    /// Runs seeds on as many threads as there are processors.
    fn run_all(first: u64, count: u64) -> Vec<Run> {
        let next = AtomicU64::new(first);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let work = || {
            let mut runs = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return runs;
                }
                if seed > first && (seed - first).is_multiple_of(500) {
                    println!("simulation: {} of {count} seeds", seed - first);
                }
                runs.push(caught(seed, None));
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a run panicked")).collect()
        })
    }

    /// A run; one that panics has that as its violation.
    fn caught(seed: u64, lie: Option<Lie>) -> Run {
        let ended = std::panic::catch_unwind(|| run(seed, lie));
        ended.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Run { seed, violations: vec![format!("{PANICKED}: {}", text.unwrap_or_default())], ..Run::default() }
        })
    }

    /// safety 1, 3, 4, 5, 9, 11, 15, 25, 29: over hundreds of histories that no real cluster shows in a day.
    #[test]
    fn no_seed_leads_to_a_double_spend_or_a_lost_answer() {
        let (first, count) = (setting("ONESPEND_SIMULATION_SEED", 1), setting("ONESPEND_SIMULATIONS", SEEDS));
        let runs = run_all(first, count);
        for run in runs.iter().filter(|run| !run.violations.is_empty()) {
            eprintln!("{run}");
        }
        let sum = |of: fn(&Run) -> usize| runs.iter().map(of).sum::<usize>();
        let mut faults = Counts::new();
        for (kind, times) in runs.iter().flat_map(|run| &run.faults) {
            *faults.entry(*kind).or_default() += times;
        }
        println!(
            "simulation: {} seeds from {first}: {} requests acknowledged, {} payments, {} signatures, {} settled; faults {faults:?}",
            runs.len(),
            sum(|run| run.acknowledged),
            sum(|run| run.payments),
            sum(|run| run.signed),
            sum(|run| run.settled),
        );
        let together = runs.iter().map(|run| run.two_primaries).max().unwrap_or_default();
        println!("simulation: two nodes were primary together for {together:?} at most");
        let bad: Vec<u64> = runs.iter().filter(|run| !run.violations.is_empty()).map(|run| run.seed).collect();
        assert!(bad.is_empty(), "seeds with violations: {bad:?}");
        assert!(sum(|run| run.settled) as u64 >= 3 * count, "too little was paid to mean anything");
        assert!(count < 20 || faults.len() == 10, "not every fault happened: {faults:?}");
        assert!(count < 20 || SNAPSHOTS_TAKEN.load(Ordering::Relaxed) > 0, "no node ever took a snapshot from another");
    }

    /// A failure that cannot be repeated cannot be understood.
    #[test]
    fn the_same_seed_gives_the_same_run() {
        let again = |seed| std::thread::spawn(move || run(seed, None)).join().expect("it runs");
        // With signers that forget, and with signers that remember.
        assert_eq!(again(4_711), again(4_711));
        assert_eq!(again(4_712), again(4_712));
        assert_ne!(again(4_711).end, again(4_712).end);
    }

    /// The judge must be able to say no.
    #[test]
    fn disks_that_lie_are_noticed() {
        for lie in [Lie::Entries, Lie::Votes] {
            let noticed = (1..=40).find_map(|seed| {
                // openraft finds by itself that entries are gone which it knows to be committed, and stops; a vote that
                // is gone only the judge can find.
                let first = caught(seed, Some(lie)).violations.into_iter().next()?;
                (lie == Lie::Entries || !first.starts_with(PANICKED)).then(|| format!("seed {seed}: {first}"))
            });
            println!("{lie:?}: noticed at {noticed:?}");
            assert!(noticed.is_some(), "{lie:?} was not noticed in 40 runs");
        }
    }

    /// Where the judge would be content with whatever `/primary` says, this would find nothing.
    #[test]
    fn a_primary_that_no_quorum_acknowledges_is_noticed() {
        let told = |seed| {
            caught(seed, Some(Lie::Quorum)).violations.into_iter().find(|what| what.contains("primary together"))
        };
        let noticed = (1..=40).find_map(|seed| told(seed).map(|what| format!("seed {seed}: {what}")));
        println!("{:?}: noticed at {noticed:?}", Lie::Quorum);
        assert!(noticed.is_some(), "it was not noticed in 40 runs");
    }
}
