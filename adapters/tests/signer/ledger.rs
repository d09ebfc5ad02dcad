//! A wallet's life in the real core, so that permits come from where they come from in production.

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use onespend_core::apply::apply;
use onespend_core::command::{
    BlockRef, Command, CreatePayment, Entry, PayReserved, Received, Recipient, RegisterWallet, Replace, Request,
    Reserve, Spent,
};
use onespend_core::ids::{
    AttemptNo, CallerId, Height, LogIndex, Millis, PaymentId, PaymentKey, RequestId, RequestKey, WalletId,
};
use onespend_core::limits::{DEFAULT_RESERVATION_TTL, WalletLimits};
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};

pub const NETWORK: Network = Network::Regtest;
pub const COIN_SAT: u64 = 1_000_000;
const TIP: u32 = 200;

/// A key of the test, in the forms in which people write it.
pub struct Account {
    /// `wpkh(tprv.../84h/1h/0h/<0;1>/*)`: the master key and the whole path.
    pub private: String,
    /// `wpkh([fp/84h/1h/0h]tprv.../<0;1>/*)`: the account's key with its origin.
    pub private_with_origin: String,
    /// `wpkh([fp/84h/1h/0h]tpub.../<0;1>/*)`: what a wallet is registered with.
    pub public: String,
    /// `wpkh(tpub.../<0;1>/*)`: the same without its origin.
    pub public_bare: String,
}

/// `kind` is `wpkh` or `tr`.
pub fn account(kind: &str, seed: u8) -> Account {
    account_on(NETWORK, kind, seed)
}

pub fn account_on(network: Network, kind: &str, seed: u8) -> Account {
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(network, &[seed; 32]).unwrap();
    let path = if kind == "tr" { "86h/1h/0h" } else { "84h/1h/0h" };
    let account = master.derive_priv(&secp, &path.parse::<DerivationPath>().unwrap()).unwrap();
    let public = Xpub::from_priv(&secp, &account);
    let origin = format!("[{}/{path}]", master.fingerprint(&secp));
    Account {
        private: format!("{kind}({master}/{path}/<0;1>/*)"),
        private_with_origin: format!("{kind}({origin}{account}/<0;1>/*)"),
        public: format!("{kind}({origin}{public}/<0;1>/*)"),
        public_bare: format!("{kind}({public}/<0;1>/*)"),
    }
}

#[derive(Clone)]
pub struct Ledger {
    state: State,
    index: u64,
}

impl Ledger {
    pub fn start() -> Self {
        let mut ledger = Self { state: State::default(), index: 0 };
        assert_eq!(ledger.apply(Command::Start { network: NETWORK, tip: tip() }), Outcome::Recorded);
        ledger
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let key = RequestKey {
            caller: CallerId::parse("client/test").unwrap(),
            request: RequestId::parse(&format!("r{}", self.index)).unwrap(),
        };
        let request = Some(Request { key, digest: [0; 32], for_others: false });
        let entry = Entry { at: Millis(self.index), wall_ms: 0, request, command };
        apply(&mut self.state, LogIndex(self.index), &entry)
    }

    /// Registers a wallet that has `coins` coins, on both chains alternately.
    pub fn register(&mut self, name: &str, descriptor: &str, signer: &str, coins: u32) -> Vec<OutPoint> {
        let parsed = WalletDescriptor::parse(descriptor, NETWORK).unwrap();
        let wallet = WalletId::parse(name).unwrap();
        let found: Vec<Received> = (0..coins)
            .map(|at| {
                let keychain = if at % 2 == 0 { Keychain::External } else { Keychain::Internal };
                Received {
                    outpoint: outpoint(name, at),
                    wallet: wallet.clone(),
                    value_sat: COIN_SAT + u64::from(at),
                    script: parsed.script(keychain, at / 2).unwrap(),
                    keychain,
                    index: at / 2,
                    coinbase: false,
                    height: Height(100),
                }
            })
            .collect();
        let outpoints = found.iter().map(|coin| coin.outpoint).collect();
        let register = RegisterWallet {
            wallet,
            descriptor: descriptor.to_owned(),
            signer: SignerRef::Named(signer.to_owned()),
            limits: WalletLimits { max_fee_percent: 100, ..WalletLimits::default() },
            basis: tip(),
            found,
            fence_key: None,
        };
        assert_eq!(self.apply(Command::RegisterWallet(register)), Outcome::WalletChanged);
        outpoints
    }

    /// Pays half of the coins' worth to somebody, and returns the permit to sign it.
    pub fn pay(&mut self, wallet: &str, payment: &str, outpoints: &[OutPoint]) -> SigningPermit {
        let key = payment_key(wallet, payment);
        let amount_sat = COIN_SAT * outpoints.len() as u64 / 2;
        let create = CreatePayment {
            key: key.clone(),
            recipients: vec![Recipient { script: recipient(), amount_sat }],
            outpoints: outpoints.to_vec(),
            fee_sat: 1_000 * outpoints.len() as u64,
        };
        let outcome = self.apply(Command::CreatePayment(create));
        let Outcome::Permitted { attempt, .. } = outcome else { panic!("{outcome:?}") };
        SigningPermit::for_attempt(&self.state, &key, attempt).expect("the intent is applied")
    }

    /// Gives the coins of a payment back to the wallet, and returns the permit to sign that.
    pub fn cancel(&mut self, newest: &SigningPermit, fee_sat: u64) -> SigningPermit {
        self.replace(Command::CancelPayment, newest, &[], fee_sat)
    }

    /// Does the same again for more fees, and returns the permit to sign that.
    pub fn bump(&mut self, newest: &SigningPermit, fee_sat: u64) -> SigningPermit {
        self.bump_with(newest, &[], fee_sat)
    }

    /// The same with more coins.
    pub fn bump_with(&mut self, newest: &SigningPermit, more: &[OutPoint], fee_sat: u64) -> SigningPermit {
        self.replace(Command::BumpFee, newest, more, fee_sat)
    }

    fn replace(
        &mut self,
        how: fn(Replace) -> Command,
        newest: &SigningPermit,
        more: &[OutPoint],
        fee_sat: u64,
    ) -> SigningPermit {
        let (key, previous) = (newest.key().clone(), newest.attempt());
        let outcome = self.apply(how(Replace { key: key.clone(), previous, more: more.to_vec(), fee_sat }));
        let Outcome::Permitted { attempt, .. } = outcome else { panic!("{outcome:?}") };
        SigningPermit::for_attempt(&self.state, &key, attempt).expect("the intent is applied")
    }

    /// What this log lacks is given up: an operator puts it to use as it is.
    pub fn recover(&mut self, epoch: u32) {
        let basis = self.state.tip().unwrap();
        for command in [
            Command::EnterRecovery { why: "a copy was put back".to_owned() },
            Command::Reconcile { basis, spent_outside: vec![] },
            Command::ConfirmRecovery { epoch, note: "looked".to_owned() },
        ] {
            assert_eq!(self.apply(command), Outcome::Recorded);
        }
    }

    /// The permit as it is made now, with the proof of what became of an earlier payment of the same wallet.
    pub fn again(&self, permit: &SigningPermit, earlier: &str) -> SigningPermit {
        let fresh = SigningPermit::for_attempt(&self.state, permit.key(), permit.attempt()).expect("not signed yet");
        fresh.with_dead(&self.state, &payment_key(permit.key().wallet.as_str(), earlier))
    }

    /// Lets the log grow by as many entries, which are blocks without anything of ours.
    pub fn grow(&mut self, entries: u32) {
        (0..entries).for_each(|_| self.mine(vec![]));
    }

    /// Somebody else spends the coin, and the block is buried as deep as "final" means.
    pub fn spend_elsewhere(&mut self, coin: OutPoint) {
        self.mine(vec![Spent { outpoint: coin, txid: Txid::hash(b"elsewhere") }]);
        self.grow(WalletLimits::default().finality_depth);
    }

    fn mine(&mut self, spent: Vec<Spent>) {
        let tip = self.state.tip().unwrap();
        let height = Height(tip.height.0 + 1);
        let block = BlockRef { height, hash: BlockHash::hash(&height.0.to_be_bytes()) };
        let wallets = self.state.wallet_count();
        let (previous, received) = (tip.hash, vec![]);
        let connect = Command::ConnectBlock { block, previous, received, spent, wallets, followed: None };
        assert_eq!(self.apply(connect), Outcome::Recorded);
    }

    /// Reserves the coins and asks to have a caller's own transaction signed.
    pub fn pay_reserved(
        &mut self,
        wallet: &str,
        payment: &str,
        outpoints: &[OutPoint],
        transaction: &Transaction,
    ) -> SigningPermit {
        let key = payment_key(wallet, payment);
        let (wallet, outpoints, ttl) = (key.wallet.clone(), outpoints.to_vec(), DEFAULT_RESERVATION_TTL);
        let reserved = self.apply(Command::Reserve(Reserve { wallet, outpoints, ttl, payment: None, selected: false }));
        let Outcome::Reserved { reservation, .. } = reserved else { panic!("{reserved:?}") };
        let recipients = transaction.output.iter();
        let pay = PayReserved {
            key: key.clone(),
            recipients: recipients
                .map(|output| Recipient { script: output.script_pubkey.clone(), amount_sat: output.value.to_sat() })
                .collect(),
            reservation: Some(reservation),
            fence: reservation.fence(),
            transaction: transaction.clone(),
            change: None,
        };
        let outcome = self.apply(Command::PayReserved(pay));
        assert!(matches!(outcome, Outcome::Permitted { .. }), "{outcome:?}");
        SigningPermit::for_attempt(&self.state, &key, AttemptNo(1)).expect("the intent is applied")
    }

    /// Our own view of a coin.
    pub fn coin(&self, outpoint: &OutPoint) -> Option<TxOut> {
        let utxo = self.state.utxo(outpoint)?;
        Some(TxOut { value: Amount::from_sat(utxo.value_sat), script_pubkey: utxo.script.clone() })
    }

    /// Whether the core takes this as the signed form of the permitted transaction.
    pub fn record(&mut self, permit: &SigningPermit, transaction: &Transaction) -> Outcome {
        let transaction = transaction.clone();
        self.apply(Command::RecordSignature { key: permit.key().clone(), attempt: permit.attempt(), transaction })
    }
}

fn payment_key(wallet: &str, payment: &str) -> PaymentKey {
    PaymentKey { wallet: WalletId::parse(wallet).unwrap(), payment: PaymentId::parse(payment).unwrap() }
}

fn tip() -> BlockRef {
    BlockRef { height: Height(TIP), hash: BlockHash::hash(b"tip") }
}

fn outpoint(wallet: &str, at: u32) -> OutPoint {
    OutPoint { txid: Txid::hash(format!("{wallet} {}", at / 3).as_bytes()), vout: at }
}

pub fn recipient() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::hash(b"somebody"))
}
