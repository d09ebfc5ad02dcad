//! A cluster in miniature: two nodes that apply the same log, one from the bytes of its entries; a store behind the
//! first; a chain; and an oracle that believes none of them. After each entry everything is compared.
#![allow(dead_code)] // Each test that includes this module uses its own part of it.

pub mod chain;
pub mod oracle;
pub mod wallets;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Network, OutPoint, ScriptBuf, Transaction, Witness};
use onespend_core::apply::{apply, skip};
use onespend_core::command::{AbortAttempt, Command, Entry, RegisterWallet, Request};
use onespend_core::ids::{AttemptNo, CallerId, LogIndex, Millis, PaymentKey, RequestId, RequestKey};
use onespend_core::invariant;
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::signing::{SigningPermit, abort_message};
use onespend_core::state::{State, StoredHash};

use chain::{Block, Chain};
use oracle::Oracle;
use wallets::fixtures;

/// Numbers of the tables that any entry may touch: facts about the whole, and remembered results.
const TABLES_OF_EVERY_ENTRY: [u8; 2] = [0, 6];

/// The cluster.
pub struct World {
    pub state: State,
    pub chain: Chain,
    pub oracle: Oracle,
    pub registered: BTreeSet<usize>,
    /// The log: each entry with its bytes.
    pub log: Vec<(LogIndex, Entry, Vec<u8>)>,
    pub now: u64,
    replica: State,
    store: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    index: u64,
    requests: u64,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            chain: Chain::new(),
            oracle: Oracle::default(),
            registered: BTreeSet::new(),
            log: Vec::new(),
            now: 1_000,
            replica: State::default(),
            store: BTreeMap::new(),
            index: 0,
            requests: 0,
        };
        let start = Command::Start { network: Network::Regtest, tip: world.chain.tip() };
        assert_eq!(world.duty(start), Outcome::Recorded);
        world.oracle.connected(&world.chain);
        world
    }

    /// The log index that the next entry will have.
    pub fn next_index(&self) -> u64 {
        self.index + 1
    }

    /// A new request of a caller.
    pub fn request(&mut self, caller: &str, command: &Command) -> Request {
        self.requests += 1;
        let request = RequestId::parse(&format!("q{}", self.requests)).unwrap();
        let caller = CallerId::parse(caller).unwrap();
        let digest = sha256::Hash::hash(&minicbor::to_vec(command).unwrap()).to_byte_array();
        Request { key: RequestKey { caller, request }, digest, for_others: false }
    }

    /// An entry that a caller asked for.
    pub fn ask(&mut self, caller: &str, command: Command) -> Outcome {
        let request = self.request(caller, &command);
        self.run(Some(request), command)
    }

    /// An entry that is the leader's duty.
    pub fn duty(&mut self, command: Command) -> Outcome {
        self.run(None, command)
    }

    /// Applies one entry on both nodes, stores what changed, and checks all there is to check.
    pub fn run(&mut self, request: Option<Request>, command: Command) -> Outcome {
        self.index += 1;
        let index = LogIndex(self.index);
        let entry = Entry { at: Millis(self.now), wall_ms: 1_700_000_000_000 + self.now, request, command };
        let bytes = entry.to_bytes();
        let read = Entry::from_bytes(&bytes).unwrap();
        assert_eq!(read, entry);

        let outcome = apply(&mut self.state, index, &entry);
        assert_eq!(apply(&mut self.replica, index, &read), outcome, "safety 15");
        assert_eq!(self.state.hash(), self.replica.hash(), "safety 15");
        self.store_changes(&outcome);
        if let Err(violation) = invariant::check(&self.state) {
            panic!("{violation} after {entry:?}");
        }
        self.oracle.observe(&entry, self.index, &outcome, &self.state, &self.chain);
        self.log.push((index, entry, bytes));
        outcome
    }

    /// What the store is told. A refusal changes nothing but the time and what is remembered of the request.
    fn store_changes(&mut self, outcome: &Outcome) {
        for row in self.state.drain_changes() {
            let is_refusal = matches!(outcome, Outcome::Rejected(_));
            assert!(!is_refusal || TABLES_OF_EVERY_ENTRY.contains(&row.table), "{outcome:?} changed {row:?}");
            match row.value {
                Some(value) => self.store.insert((row.table, row.key), value),
                None => self.store.remove(&(row.table, row.key)),
            };
        }
    }

    /// An entry without a command.
    pub fn skip(&mut self) {
        self.index += 1;
        skip(&mut self.state, LogIndex(self.index));
        skip(&mut self.replica, LogIndex(self.index));
        self.store_changes(&Outcome::Recorded);
        assert_eq!(self.state.hash(), self.replica.hash());
    }

    /// The second node starts again from what the first one stored (safety 25).
    pub fn reload(&mut self) {
        let mut loaded = State::default();
        for ((table, key), value) in &self.store {
            loaded.load_row(*table, key, value).unwrap();
        }
        loaded.finish_loading();
        invariant::check(&loaded).unwrap();
        let mut of_rows = StoredHash::default();
        self.store.iter().for_each(|((table, key), value)| of_rows.add(*table, key, value));
        assert_eq!(of_rows.finish(), loaded.hash());
        assert_eq!(loaded.hash(), self.state.hash());
        assert_eq!(loaded.applied(), self.state.applied());
        assert_eq!(loaded.now(), self.state.now());
        assert_eq!(loaded.open_payments(), self.state.open_payments());
        self.replica = loaded;
    }

    /// What the oracle has to say of the state as it is. Not while the chain is ahead of the log.
    pub fn check(&self) {
        self.oracle.check(&self.state, &self.chain, &self.registered);
    }

    pub fn register(&mut self, caller: &str, wallet: usize, limits: WalletLimits) -> Outcome {
        let fixture = &fixtures()[wallet];
        let command = Command::RegisterWallet(RegisterWallet {
            wallet: fixture.id.clone(),
            descriptor: fixture.descriptor.clone(),
            signer: fixture.signer.clone(),
            limits,
            basis: self.chain.tip(),
            found: if fixture.follows_single_coins() { vec![] } else { self.chain.found(wallet) },
            fence_key: fixture.fence_key,
        });
        let outcome = self.ask(caller, command);
        if outcome == Outcome::WalletChanged {
            self.registered.insert(wallet);
        }
        outcome
    }

    /// The command that tells of the chain's tip.
    pub fn connecting(&self, block: &Block) -> Command {
        let (received, spent) = self.chain.facts(block, &self.registered, &self.oracle.followed);
        let (wallets, followed) = (self.state.wallet_count(), self.state.followed());
        Command::ConnectBlock { block: block.at, previous: block.previous, received, spent, wallets, followed }
    }

    /// Mines a block and tells the log of it.
    pub fn mine(&mut self, coinbase: Option<(ScriptBuf, u64)>, wanted: impl Fn(usize) -> bool) -> Outcome {
        let block = self.chain.mine(coinbase, wanted);
        self.connect(&block)
    }

    /// Tells the log of the chain's tip.
    pub fn connect(&mut self, block: &Block) -> Outcome {
        let command = self.connecting(block);
        let outcome = self.duty(command);
        if outcome == Outcome::Recorded {
            self.oracle.connected(&self.chain);
        }
        outcome
    }

    /// Takes the tip away and tells the log of it.
    pub fn disconnect(&mut self) -> Outcome {
        let before = self.chain.clone();
        let block = self.chain.disconnect();
        let outcome = self.duty(Command::DisconnectBlock { block: block.at });
        assert_eq!(outcome, Outcome::Recorded);
        self.oracle.disconnected(&block, &before, &self.registered);
        outcome
    }

    /// The transaction of an attempt as a signer would return it: true keys, and signatures of the right form only.
    pub fn signed(&self, key: &PaymentKey, number: AttemptNo) -> Option<Transaction> {
        let permit = SigningPermit::for_attempt(&self.state, key, number)?;
        let mut signed = permit.transaction().clone();
        for (input, coin) in signed.input.iter_mut().zip(permit.inputs()) {
            assert_eq!(input.previous_output, coin.outpoint);
            let (wallet, ..) = wallets::address_of(&coin.txout.script_pubkey).unwrap();
            input.witness = if coin.txout.script_pubkey.is_p2tr() {
                Witness::from_slice(&[vec![7; 64]])
            } else {
                let mut signature = vec![0x30; 70];
                signature.push(1);
                Witness::from_slice(&[signature, fixtures()[wallet].key(coin.keychain, coin.index).to_bytes()])
            };
        }
        Some(signed)
    }

    /// The word of the signer outside that it has fenced an attempt.
    pub fn abort(&self, key: &PaymentKey, number: AttemptNo) -> Option<AbortAttempt> {
        let attempt = self.state.payment(key)?.attempt(number)?;
        let message = abort_message(Network::Regtest, key, number, attempt);
        let secp = bitcoin::secp256k1::Secp256k1::new();
        let message = bitcoin::secp256k1::Message::from_digest(message);
        let proof = secp.sign_schnorr_no_aux_rand(&message, &wallets::fence_keypair()).serialize().to_vec();
        Some(AbortAttempt { key: key.clone(), attempt: number, proof })
    }

    /// The coins of a wallet that the chain holds, spent or not.
    pub fn coins(&self, wallet: usize) -> Vec<OutPoint> {
        self.chain.coins.iter().filter(|(_, coin)| coin.wallet == wallet).map(|(outpoint, _)| *outpoint).collect()
    }
}
