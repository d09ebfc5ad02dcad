//! A deposit is reorganised away and double-spent, on a chain that a leader's log follows.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use onespend_adapters::chain::Chain as _;
use onespend_adapters::chain::fake::FakeChain;
use onespend_core::command::{BlockRef, CreatePayment, Recipient, RegisterWallet};
use onespend_core::ids::{AttemptNo, Height, PaymentId, PaymentKey};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::payment::AttemptEnd;
use onespend_core::wallet::Keychain;
use tempfile::TempDir;

use super::*;
use crate::health::Progress;
use crate::leader::block_facts;
use crate::specimen::{self, request, soon};

/// Blocks after which a coinbase may be spent.
const MATURITY: u32 = 100;
const WALLET: &str = "hot";

/// A leader with a payment that spends a deposit which is gone.
struct Scene {
    chain: FakeChain,
    api: Arc<Api>,
    deposit: Transaction,
    /// What spends the same as the deposit, and its block.
    rival: Transaction,
    block: BlockHash,
    _folder: TempDir,
}

fn somebody() -> ScriptBuf {
    ScriptBuf::from_hex("00140102030405060708090a0b0c0d0e0f1011121314").unwrap()
}

fn paying(from: OutPoint, sat: u64, script_pubkey: ScriptBuf) -> Transaction {
    let input =
        TxIn { previous_output: from, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() };
    let output = TxOut { value: Amount::from_sat(sat), script_pubkey };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

fn key() -> PaymentKey {
    PaymentKey { wallet: specimen::wallet(WALLET), payment: PaymentId::parse("p").unwrap() }
}

impl Scene {
    async fn set() -> Self {
        let folder = TempDir::new().unwrap();
        let chain = FakeChain::new();
        let blocks = chain.mine(MATURITY + 1, &somebody());
        let theirs = OutPoint::new(chain.block(blocks[0]).unwrap().txdata[0].compute_txid(), 0);
        let basis = BlockRef { height: Height(MATURITY + 1), hash: *blocks.last().unwrap() };
        let api = specimen::api(specimen::leader_at(&folder, basis).await, chain.clone());
        let deposit = paying(theirs, 100_000, specimen::script(WALLET, Keychain::External, 0));
        let rival = paying(theirs, 90_000, somebody());
        let mut scene = Self { chain, api, deposit, rival, block: basis.hash, _folder: folder };
        let Command::RegisterWallet(register) = specimen::register(WALLET, &[]) else { panic!("a registration") };
        let register = Command::RegisterWallet(RegisterWallet { basis, ..register });
        assert_eq!(scene.propose(register).await, Outcome::WalletChanged);
        scene.lose_the_deposit().await;
        // Its threads end with the test's process.
        drop(scene.api.bitcoind.start(&Progress::default()).unwrap());
        while scene.api.bitcoind.in_sync().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        scene
    }

    /// A payment spends the deposit; then its block goes, and the next one has the other transaction.
    async fn lose_the_deposit(&mut self) {
        let first = self.chain.mine_with(std::slice::from_ref(&self.deposit), &somebody()).unwrap();
        assert_eq!(self.connect(first).await, Outcome::Recorded);
        let order = Command::CreatePayment(CreatePayment {
            key: key(),
            recipients: vec![Recipient { script: somebody(), amount_sat: 50_000 }],
            outpoints: vec![self.coin()],
            fee_sat: 1_000,
        });
        let permitted = self.api.replica.propose(Some(request("order")), order, soon()).await.unwrap().outcome;
        assert!(matches!(permitted, Outcome::Permitted { .. }), "{permitted:?}");
        let gone = BlockRef { height: Height(self.chain.header(first).unwrap().height), hash: first };
        self.chain.invalidate(first);
        assert_eq!(self.propose(Command::DisconnectBlock { block: gone }).await, Outcome::Recorded);
        self.block = self.chain.mine_with(std::slice::from_ref(&self.rival), &somebody()).unwrap();
        assert_eq!(self.connect(self.block).await, Outcome::Recorded);
    }

    async fn propose(&self, command: Command) -> Outcome {
        self.api.replica.propose(None, command, soon()).await.unwrap().outcome
    }

    /// Tells the log of a block, as the leader finds it.
    async fn connect(&self, hash: BlockHash) -> Outcome {
        let block = self.chain.block(hash).unwrap();
        let covered = self.api.scripts.cover(self.api.replica.raft().view());
        let at = BlockRef { height: Height(self.chain.header(hash).unwrap().height), hash };
        let received = block_facts::received(&block, at.height, &self.api.scripts);
        let command = self.api.replica.read(|state| block_facts::connect(&block, at, received, covered, state));
        self.propose(command).await
    }

    async fn mine(&self, blocks: u32) {
        for hash in self.chain.mine(blocks, &somebody()) {
            assert_eq!(self.connect(hash).await, Outcome::Recorded);
        }
    }

    fn coin(&self) -> OutPoint {
        OutPoint::new(self.deposit.compute_txid(), 0)
    }

    fn message(&self) -> v1::DeclareLostRequest {
        v1::DeclareLostRequest {
            request_id: "r".to_owned(),
            wallet_id: WALLET.to_owned(),
            outpoint: Some(v1::Outpoint { txid: self.coin().txid.to_string(), vout: 0 }),
            raw_deposit: serialize(&self.deposit).into(),
            conflicting_txid: self.rival.compute_txid().to_string(),
            block_hash: self.block.to_string(),
            note: "the depositor paid twice".to_owned(),
        }
    }

    /// What comes of it: a refusal of the leader's own, or what the log says.
    async fn declare(&self, message: &v1::DeclareLostRequest) -> Result<Outcome, Status> {
        let drafted = draft(&self.api, &parse(message)?).await?;
        Ok(self.propose(drafted.command).await)
    }

    fn end(&self) -> Option<AttemptEnd> {
        self.api.replica.read(|state| state.payment(&key()).unwrap().attempt(AttemptNo(1)).unwrap().end.clone())
    }
}

fn is_unproven(answer: &Result<Outcome, Status>) -> bool {
    answer.as_ref().is_err_and(|refused| status::is_for(refused, v1::ErrorReason::NotLost))
}

/// safety 6: what the operator says is checked against the deposit's own txid, the block, and the depth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_is_lost_only_to_a_final_transaction_that_spends_the_same() {
    let scene = Scene::set().await;
    let depth = WalletLimits::default().finality_depth;
    scene.mine(depth - 2).await;
    let early = scene.declare(&scene.message()).await.unwrap();
    assert!(matches!(early, Outcome::Rejected(Rejection::NotLost { .. })), "{early:?}");
    scene.mine(1).await;

    let tip = scene.chain.block_hash_at(scene.chain.probe().unwrap().tip.height).unwrap().unwrap();
    let elsewhere = v1::DeclareLostRequest { block_hash: tip.to_string(), ..scene.message() };
    let unproven = scene.declare(&elsewhere).await;
    assert!(is_unproven(&unproven), "{unproven:?}");
    let coinbase = scene.chain.block(scene.block).unwrap().txdata[0].compute_txid();
    let unrelated = v1::DeclareLostRequest { conflicting_txid: coinbase.to_string(), ..scene.message() };
    let unproven = scene.declare(&unrelated).await;
    assert!(is_unproven(&unproven), "{unproven:?}");
    // A transaction that does not make the coin proves nothing about it.
    let forged = v1::DeclareLostRequest { raw_deposit: serialize(&scene.rival).into(), ..scene.message() };
    let refused = scene.declare(&forged).await.unwrap_err();
    assert!(status::is_for(&refused, v1::ErrorReason::FieldInvalid), "{refused}");
    assert_eq!(scene.end(), None);

    assert_eq!(scene.declare(&scene.message()).await.unwrap(), Outcome::Recorded);
    assert_eq!(scene.end(), Some(AttemptEnd::Dead(scene.rival.compute_txid())));
    let again = scene.declare(&scene.message()).await;
    assert!(is_unproven(&again), "{again:?}");
}

#[test]
fn every_field_is_needed() {
    let refused = parse(&v1::DeclareLostRequest::default()).err().unwrap();
    for field in ["request_id", "wallet_id", "outpoint", "raw_deposit", "conflicting_txid", "block_hash", "note"] {
        assert!(refused.message().contains(&format!("{field}: ")), "{field}: {}", refused.message());
    }
}
