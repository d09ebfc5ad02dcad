//! The cluster that every check asks, what lies in it, and what was found wrong.

use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use onespend_proto::v1;
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::{Cluster, Folder, SIGNER};
use onespend_testnet::grpc::{channel_for, until_answered_for};
use tonic::{Response, Status};

use crate::door::{Clients, Door, Who};
use crate::keys::{self, Keys};
use crate::ledger::Ledger;
use crate::refusal::{Refusal, form_fault};

const SEED: u64 = 20_774;
const NODES: usize = 3;
/// The wallet that pays by wpkh.
pub const HOT: &str = "hot";
/// The wallet that pays by taproot.
pub const TAP: &str = "tap";
/// A wallet without a signer.
pub const WATCH: &str = "watch";
/// A wallet whose caller signs.
pub const OUTSIDE: &str = "outside";
/// What each coin is worth.
pub const COIN_SAT: u64 = 100_000;
/// Confirmed coins of each wallet.
const COINS: [(&str, usize); 4] = [(HOT, 24), (TAP, 8), (WATCH, 4), (OUTSIDE, 2)];
/// What is shown of a finding.
const MAX_FAULT_CHARS: usize = 600;
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The cluster and the checks' findings.
pub struct Stage {
    pub cluster: Cluster,
    pub keys: Keys,
    doors: [Door; 2],
    faults: Vec<String>,
    check: String,
    asked: usize,
}

impl Stage {
    /// Starts three nodes and gives four wallets coins.
    pub async fn set() -> Result<Self> {
        let folder = Folder::temporary("bad-input")?;
        let mut cluster = Cluster::start(folder, NODES, SEED, &mut |_| {})?;
        let other = cluster.issue("client", "other")?;
        let leader = cluster.wait_for_primary(PATIENCE)?;
        let door = |name, index: usize| {
            let node = cluster.nodes().get(index).context("no such node")?;
            Door::open(name, node.addresses(), [cluster.client(), &other, cluster.operator()])
        };
        let doors = [door("leader", leader)?, door("replica", (leader + 1) % NODES)?];
        let keys = Keys::new(SEED);
        let mut stage = Self { cluster, keys, doors, faults: vec![], check: String::new(), asked: 0 };
        stage.register_wallets().await?;
        stage.fund_wallets().await?;
        Ok(stage)
    }

    async fn register_wallets(&mut self) -> Result<()> {
        let wallets = [
            (HOT, self.cluster.wallet().public_descriptor().to_owned(), SIGNER),
            (TAP, self.cluster.wallet().taproot_descriptor().to_owned(), SIGNER),
            (WATCH, self.keys.wpkh("watch"), ""),
            (OUTSIDE, self.keys.wpkh("outside"), "external"),
        ];
        for (wallet, descriptor, signer) in wallets {
            // A new cluster first follows the chain to its tip, and says so meanwhile.
            let address = self.doors[0].addresses.data;
            let clients = Clients::new(channel_for(address, self.cluster.operator(), PATIENCE)?);
            let registered = until_answered_for(Instant::now() + PATIENCE, PATIENCE, |request_id| {
                let request = v1::RegisterWalletRequest {
                    request_id,
                    wallet_id: wallet.to_owned(),
                    descriptor: descriptor.clone(),
                    signer: signer.to_owned(),
                    ..Default::default()
                };
                let mut clients = clients.clone();
                async move { clients.wallet.register_wallet(request).await }
            });
            registered.await.context("RegisterWallet")?;
        }
        Ok(())
    }

    async fn fund_wallets(&mut self) -> Result<()> {
        let mut outputs = vec![];
        for (wallet, coins) in COINS {
            let script = self.address(wallet, v1::Keychain::External).await?;
            outputs.extend(vec![(script, Amount::from_sat(COIN_SAT)); coins]);
        }
        let (funds, bitcoind) = self.cluster.funds()?;
        funds.fan_out(bitcoind, &outputs)?;
        self.mine(1).await?;
        for (wallet, coins) in COINS {
            let found = self.coins(wallet).await?.len();
            ensure!(found == coins, "{wallet} has {found} coins instead of {coins}");
        }
        Ok(())
    }

    /// Runs one check. What it finds is noted; one that cannot go on is a finding too.
    pub async fn run(&mut self, name: &str, check: impl AsyncFnOnce(&mut Self) -> Result<()>) {
        let (started, faults, asked) = (Instant::now(), self.faults.len(), self.asked);
        name.clone_into(&mut self.check);
        if let Err(error) = check(self).await {
            self.fault("could not go on", &format!("{error:#}"));
        }
        let ended = if self.faults.len() == faults { "ok" } else { "FAILED" };
        let (asked, took) = (self.asked - asked, started.elapsed().as_millis());
        say(&format!("{ended:>6}  {name} ({asked} requests refused as they should, {took} ms)"));
        for fault in self.faults.iter().skip(faults) {
            say(&format!("        {fault}"));
        }
    }

    /// Notes what is wrong.
    pub fn fault(&mut self, what: &str, why: &str) {
        let text = format!("{}: {what}: {why}", self.check);
        self.faults.push(text.chars().take(MAX_FAULT_CHARS).collect());
    }

    /// Notes it unless `holds`.
    pub fn check(&mut self, what: &str, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.fault(what, &why());
        }
    }

    /// All findings.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The leader's services.
    pub fn leader(&self, who: Who) -> Clients {
        self.doors[0].clients(who)
    }

    /// The leader and a replica.
    pub fn doors(&self) -> &[Door; 2] {
        &self.doors
    }

    /// Asks the leader and a replica. Both must refuse as documented, and nothing may be changed by it.
    pub async fn refuses<T>(
        &mut self,
        who: Who,
        what: &str,
        refusal: &Refusal,
        ask: impl AsyncFn(Clients) -> Result<Response<T>, Status>,
    ) where
        T: Debug,
    {
        let before = self.ledger().await;
        self.refuses_now(who, what, refusal, ask).await;
        self.unchanged(what, before).await;
    }

    /// The same while other things change.
    pub async fn refuses_now<T>(
        &mut self,
        who: Who,
        what: &str,
        refusal: &Refusal,
        ask: impl AsyncFn(Clients) -> Result<Response<T>, Status>,
    ) where
        T: Debug,
    {
        for at in 0..self.doors.len() {
            let (name, clients) = (self.doors[at].name, self.doors[at].clients(who));
            let fault = match Box::pin(ask(clients)).await {
                Ok(answer) => Some(format!("was accepted: {:?}", answer.into_inner())),
                Err(status) => refusal.fault(&status),
            };
            self.note(&format!("{what} ({name})"), fault);
        }
    }

    /// Asks the leader. It must refuse for a documented reason, whichever, and in the documented form.
    pub async fn refuses_somehow<T>(
        &mut self,
        what: &str,
        ask: impl AsyncFn(Clients) -> Result<Response<T>, Status>,
    ) -> Option<Status>
    where
        T: Debug,
    {
        let (fault, status) = match Box::pin(ask(self.leader(Who::Client))).await {
            Ok(answer) => (Some(format!("was accepted: {:?}", answer.into_inner())), None),
            Err(status) => (form_fault(&status), Some(status)),
        };
        self.note(what, fault);
        status
    }

    fn note(&mut self, what: &str, fault: Option<String>) {
        match fault {
            Some(why) => self.fault(what, &why),
            None => self.asked += 1,
        }
    }

    /// The state as callers see it.
    pub async fn ledger(&mut self) -> Option<Ledger> {
        match Ledger::read(&mut self.leader(Who::Operator)).await {
            Ok(ledger) => Some(ledger),
            Err(error) => {
                self.fault("the state cannot be read", &format!("{error:#}"));
                None
            }
        }
    }

    /// Notes what is not as it was.
    pub async fn unchanged(&mut self, what: &str, before: Option<Ledger>) {
        let after = self.ledger().await;
        if let (Some(before), Some(after)) = (before, after) {
            for difference in before.differences(&after) {
                self.fault(what, &format!("changed {difference}"));
            }
        }
    }

    /// A new address.
    pub async fn address(&mut self, wallet: &str, keychain: v1::Keychain) -> Result<ScriptBuf> {
        let request =
            v1::NewAddressRequest { request_id: id(), wallet_id: wallet.to_owned(), keychain: keychain.into() };
        let answer = self.leader(Who::Client).wallet.new_address(request).await.context("NewAddress")?;
        Ok(ScriptBuf::from_bytes(answer.into_inner().script.to_vec()))
    }

    /// The coins of a wallet that are free to be reserved.
    pub async fn coins(&mut self, wallet: &str) -> Result<Vec<v1::Utxo>> {
        self.coins_in(wallet, v1::UtxoState::Available).await
    }

    /// The coins of a wallet in a state.
    pub async fn coins_in(&mut self, wallet: &str, state: v1::UtxoState) -> Result<Vec<v1::Utxo>> {
        let request = v1::ListUtxosRequest {
            wallet_id: wallet.to_owned(),
            states: vec![state.into()],
            page_size: 1000,
            ..Default::default()
        };
        Ok(self.leader(Who::Client).wallet.list_utxos(request).await.context("ListUtxos")?.into_inner().utxos)
    }

    /// What the coins of a wallet that are free are worth.
    pub async fn free_sat(&mut self, wallet: &str) -> Result<i64> {
        Ok(self.coins(wallet).await?.iter().map(|coin| coin.value_sat).sum())
    }

    /// Reserves coins for `client/payouts`.
    pub async fn reserve(&mut self, request: v1::ReserveUtxosRequest) -> Result<v1::Reservation> {
        let answer = self.leader(Who::Client).reservation.reserve_utxos(request).await.context("ReserveUtxos")?;
        answer.into_inner().reservation.context("no reservation in the answer")
    }

    /// Gives a reservation back.
    pub async fn release(&mut self, reservation: &v1::Reservation) -> Result<()> {
        let request = v1::ReleaseReservationRequest {
            request_id: id(),
            reservation_id: reservation.reservation_id.clone(),
            fence: reservation.fence,
        };
        self.leader(Who::Client).reservation.release_reservation(request).await.context("ReleaseReservation")?;
        Ok(())
    }

    /// Mines so many blocks and waits until the cluster has followed.
    pub async fn mine(&mut self, blocks: u32) -> Result<()> {
        let script = self.cluster.funds()?.0.script().clone();
        self.mine_to(blocks, &script).await
    }

    /// The same, with the coinbase to a script.
    pub async fn mine_to(&mut self, blocks: u32, script: &ScriptBuf) -> Result<()> {
        let bitcoind = self.cluster.bitcoinds().first().context("no bitcoind")?;
        bitcoind.mine(blocks, script)?;
        wait_for_same_tip(self.cluster.bitcoinds())?;
        let wanted = self.cluster.bitcoinds()[0].height()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tip = self.leader(Who::Client).chain.get_tip(v1::GetTipRequest::default()).await?.into_inner().tip;
            if tip.as_ref().is_some_and(|tip| tip.height == wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the cluster is at {tip:?}, bitcoind at {wanted}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the bitcoind that mines knows a transaction.
    pub async fn wait_for_mempools(&mut self, txid: Txid) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let bitcoind = self.cluster.bitcoinds().first().context("no bitcoind")?;
        loop {
            let known: Vec<Txid> = bitcoind.call("getrawmempool", &[])?;
            if known.contains(&txid) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{txid} reaches no mempool");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a payment is in a state.
    pub async fn wait_for_payment(
        &mut self,
        wallet: &str,
        payment: &str,
        state: v1::PaymentState,
    ) -> Result<v1::Payment> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = v1::GetPaymentRequest { wallet_id: wallet.to_owned(), payment_id: payment.to_owned() };
            let found = self.leader(Who::Client).payment.get_payment(request).await?.into_inner().payment;
            let found = found.context("no payment in the answer")?;
            if found.state() == state {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "{payment} is in {:?}, not in {state:?}", found.state());
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A request id that nobody used before.
pub fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// An outpoint as `bitcoin` has it.
pub fn outpoint(utxo: &v1::Utxo) -> Result<OutPoint> {
    let outpoint = utxo.outpoint.as_ref().context("a coin without an outpoint")?;
    Ok(OutPoint::new(outpoint.txid.parse::<Txid>()?, outpoint.vout))
}

/// An outpoint as the wire has it.
pub fn on_wire(outpoint: &OutPoint) -> v1::Outpoint {
    v1::Outpoint { txid: outpoint.txid.to_string(), vout: outpoint.vout }
}

/// Somebody who is paid: a script of nobody's.
pub fn recipient(number: u8, amount_sat: i64) -> v1::Recipient {
    let script = keys::stranger(number).to_bytes().into();
    v1::Recipient { destination: Some(v1::recipient::Destination::Script(script)), amount_sat }
}

/// Past the test runner's capture, so that a person sees how far it is.
pub fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
}
