#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, Txid, Witness};
use onespend_adapters::chain::BroadcastOutcome;
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::Signer;
use onespend_core::command::{CreatePayment, Recipient, RegisterWallet, Spent};
use onespend_core::ids::{AttemptNo, Fence, Height, LogIndex, PaymentId, PaymentKey};
use onespend_core::signing::SigningPermit;
use onespend_core::utxo::Claim;
use onespend_core::wallet::WalletDescriptor;
use tempfile::TempDir;

use super::*;
use crate::alarms::Alarms;
use crate::leader::broadcast;
use crate::specimen::{Careful, Coin, TIP, coin, leader, leader_at, register, request, soon, wallet};

/// A signer that signs nothing and remembers a fence.
struct Remembers(Option<Fence>);

impl Signer for Remembers {
    fn name(&self) -> &'static str {
        "hot"
    }

    fn holds(&self, _: &WalletDescriptor) -> bool {
        true
    }

    fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
        Err(SignerError::Unavailable { signer: "hot".to_owned(), why: "it is not asked here".to_owned() })
    }

    fn highest_fence(&self) -> Option<Fence> {
        self.0
    }
}

/// Why the cluster is in recovery mode after a leader has looked at a signer that remembers a fence.
async fn noticed(replica: &Arc<Replica>, fence: Option<Fence>) -> Option<String> {
    let (outbox, _inbox) = broadcast::queue();
    let signing =
        Signing::new(Arc::clone(replica), vec![Arc::new(Remembers(fence))], outbox, Arc::new(Alarms::default()));
    notice(replica, &signing).await;
    replica.read(|state| state.recovery().map(|recovery| recovery.why.clone()))
}

/// safety 30: without a mark, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_remembers_more_than_the_log_has_begins_recovery_mode() {
    let folder = TempDir::new().unwrap();
    let replica = leader(&folder).await;
    let granted = replica.read(State::fence);
    assert_eq!(noticed(&replica, None).await, None, "it remembers nothing");
    assert_eq!(noticed(&replica, Some(granted)).await, None, "the log has what was signed");
    let lost = Fence::of(0, LogIndex(1_000));
    let why = noticed(&replica, Some(lost)).await.expect("the log lacks what was signed");
    assert!(why.contains("signer hot") && why.contains(&lost.to_string()), "{why}");

    // An operator confirms; the epoch is above what the signer remembers, so this is not noticed again.
    let basis = replica.read(State::tip).unwrap();
    let reconcile = Command::Reconcile { basis, spent_outside: vec![] };
    replica.propose(None, reconcile, soon()).await.unwrap();
    let confirm = Command::ConfirmRecovery { epoch: 1, note: "checked".to_owned() };
    assert_eq!(replica.propose(None, confirm, soon()).await.unwrap().outcome, Outcome::Recorded);
    assert_eq!(noticed(&replica, Some(lost)).await, None);
}

/// A leader with a wallet of five coins, whose log follows a chain that has the first of them.
struct Scene {
    chain: FakeChain,
    replica: Arc<Replica>,
    careful: Arc<Careful>,
    comparison: Comparison,
    tip: BlockRef,
    minted: OutPoint,
    _folder: TempDir,
}

fn somebody() -> ScriptBuf {
    ScriptBuf::from_hex("00140102030405060708090a0b0c0d0e0f1011121314").unwrap()
}

impl Scene {
    async fn set() -> Self {
        let (folder, chain) = (TempDir::new().unwrap(), FakeChain::new());
        let blocks = chain.mine(TIP, &somebody());
        let minted = OutPoint::new(chain.block(blocks[0]).unwrap().txdata[0].compute_txid(), 0);
        let tip = BlockRef { height: Height(TIP), hash: *blocks.last().unwrap() };
        let replica = leader_at(&folder, tip).await;
        let careful = Arc::new(Careful::default());
        let (outbox, _inbox) = broadcast::queue();
        let signers: Vec<Arc<dyn Signer>> = vec![careful.clone()];
        let signing = Arc::new(Signing::new(Arc::clone(&replica), signers, outbox, Arc::default()));
        let comparison = Comparison { replica: Arc::clone(&replica), chain: Arc::new(chain.clone()), signing };
        let scene = Self { chain, replica, careful, comparison, tip, minted, _folder: folder };
        let Command::RegisterWallet(made) = register("w", &[Coin::of(100_000); 5]) else { panic!("no wallet") };
        let mut made = RegisterWallet { basis: tip, ..made };
        made.found[0].outpoint = minted;
        scene.propose(None, Command::RegisterWallet(made)).await;
        scene
    }

    async fn propose(&self, name: Option<&str>, command: Command) {
        let outcome = self.replica.propose(name.map(request), command, soon()).await.unwrap().outcome;
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }

    /// The transaction of a payment that spends these coins.
    async fn pay(&self, name: &str, coins: &[u32], amount_sat: u64) -> Txid {
        let key = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse(name).unwrap() };
        let outpoints = coins.iter().map(|number| coin(*number)).collect();
        let recipients = vec![Recipient { script: somebody(), amount_sat }];
        let order = CreatePayment { key: key.clone(), recipients, outpoints, fee_sat: 1_000 };
        self.propose(Some(name), Command::CreatePayment(order)).await;
        self.replica.read(|state| state.payment(&key).unwrap().attempt(AttemptNo(1)).unwrap().txid())
    }

    /// Mines as many blocks as are final; in the first one somebody else spends a coin.
    async fn lose(&mut self, number: u32) {
        let depth = self.replica.read(|state| state.wallet(&wallet("w")).unwrap().limits.finality_depth);
        let mut spent = vec![Spent { outpoint: coin(number), txid: Txid::hash(b"somebody else") }];
        for hash in self.chain.mine(depth, &somebody()) {
            let block = BlockRef { height: Height(self.tip.height.0 + 1), hash };
            let (previous, spent, received) = (self.tip.hash, std::mem::take(&mut spent), vec![]);
            let connect = Command::ConnectBlock { block, previous, received, spent, wallets: 1, followed: None };
            self.propose(None, connect).await;
            self.tip = block;
        }
    }

    /// The mempool gets what spends the coin that the chain has.
    fn spend_minted(&self) {
        // Its block is the first after genesis.
        let mut output = self.chain.blocks()[1].txdata[0].output[0].clone();
        output.value -= Amount::from_sat(1_000);
        let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
        let input = TxIn { previous_output: self.minted, script_sig, sequence: Sequence::MAX, witness };
        let (input, output) = (vec![input], vec![output]);
        let spends = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        assert_eq!(self.chain.broadcast(&spends).unwrap(), BroadcastOutcome::Accepted);
    }

    async fn compare(&self) -> Result<usize, NotCompared> {
        self.comparison.make(&self.replica.leader_term().unwrap(), self.tip).await
    }

    fn held_back(&self) -> BTreeSet<OutPoint> {
        self.replica.read(|state| {
            let held = state.utxos().filter(|(_, utxo)| utxo.claim == Claim::Quarantined);
            held.map(|(outpoint, _)| *outpoint).collect()
        })
    }
}

/// safety 30: but for what the state's own attempts spend, or would have spent: those that ended let their coins go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coins_are_held_back_that_the_mempool_or_a_signer_spends_by_what_the_state_does_not_know() {
    let mut scene = Scene::set().await;
    let dead = scene.pay("dead", &[2, 3], 150_000).await;
    let alive = scene.pay("alive", &[4], 50_000).await;
    scene.lose(3).await;
    scene.spend_minted();
    for (number, by) in [(1, Txid::hash(b"lost")), (2, dead), (3, dead), (4, alive)] {
        scene.careful.remember(coin(number), by);
    }
    scene.propose(None, Command::EnterRecovery { why: "on purpose".to_owned() }).await;
    let told = |is_held| {
        let found = scene.comparison.spent_outside(scene.tip).unwrap();
        assert!(found.iter().all(|one| one.is_held == is_held), "what was told once is not told again");
        found.into_iter().map(|one| (one.coin, one.source)).collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from([(scene.minted, "mempool".to_owned()), (coin(1), "signer careful".to_owned())]);
    assert_eq!(told(false), both);
    assert_eq!(scene.compare().await.unwrap(), 2);
    assert_eq!(scene.held_back(), BTreeSet::from([scene.minted, coin(1)]));
    assert_eq!(told(true), both);
    let free = scene.replica.read(|state| state.utxo(&coin(2)).unwrap().claim.clone());
    assert_eq!(free, Claim::Free, "its transaction is dead, and the state knows that");
    assert_eq!(scene.replica.read(|state| state.recovery().unwrap().reconciled), Some(scene.tip));
}

/// safety 30: half a comparison would say that nothing is to be held back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_counts_as_compared_while_bitcoind_or_a_signer_does_not_tell() {
    let scene = Scene::set().await;
    scene.propose(None, Command::EnterRecovery { why: "on purpose".to_owned() }).await;
    scene.chain.configure(|node| node.mempool_loaded = false);
    assert!(matches!(scene.compare().await, Err(NotCompared::OtherTip)));
    scene.chain.configure(|node| node.mempool_loaded = true);
    scene.careful.forget();
    let told = scene.compare().await.unwrap_err();
    assert!(matches!(told, NotCompared::Signer(_)) && told.to_string().contains("cannot be read"), "{told}");
    scene.chain.mine(1, &somebody());
    assert!(matches!(scene.compare().await, Err(NotCompared::OtherTip)));
    assert_eq!(scene.replica.read(|state| state.recovery().unwrap().reconciled), None);
}
