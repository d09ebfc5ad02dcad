//! `onespend signer`: looking at what a signer remembers, and letting a frozen one sign again.

use std::path::PathBuf;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Txid};
use onespend_adapters::signer::memory::{Memory, Owner};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, CreatePayment, Entry, Received, Recipient, RegisterWallet, Request};
use onespend_core::ids::{
    AttemptNo, CallerId, Height, LogIndex, Millis, PaymentId, PaymentKey, RequestId, RequestKey, WalletId,
};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};
use tempfile::TempDir;

use crate::files::write_config;
use crate::run::{Authority, Ended, with_environment};

const DESCRIPTOR: &str = "wpkh(tpubD6NzVbkrYhZ4XHndKkuB8FifXm8r5FQHwrN6oZuWCz13qb93rtgKvD4PQsqC4HP4yhV3tA2fqr2RbY5mNXfM7RxXUoeABoDtsFUq2zJq6YK/<0;1>/*)";

/// A stopped node with a signer whose key file is not even there.
struct Stopped {
    _authority: Authority,
    config: PathBuf,
    _data: TempDir,
    memory: PathBuf,
}

impl Stopped {
    fn new() -> Self {
        let authority = Authority::new();
        let config = write_config(authority.path(), [1, 2, 3].map(|port| format!("127.0.0.1:{port}")), "127.0.0.1:9");
        let data = tempfile::tempdir().unwrap();
        let memory = data.path().join("hot.db");
        let text = std::fs::read_to_string(&config).unwrap();
        let signer = format!(
            "[[signers]]\nname = 'hot'\nkind = 'software'\nfile = 'missing'\nmemory = '{}'\n",
            memory.display()
        );
        std::fs::write(&config, text + &signer).unwrap();
        Self { _authority: authority, config, _data: data, memory }
    }

    fn run(&self, command: &str, more: &[&str]) -> Ended {
        let config = self.config.to_str().unwrap();
        let args = [&["-o", "json", "signer", command, "--config", config], more].concat();
        with_environment(&[("USER", "alice")], &args)
    }

    fn open(&self) -> Memory {
        let owner = Owner { cluster_id: "demo".to_owned(), network: Network::Regtest, signer: "hot".to_owned() };
        Memory::open(&self.memory, owner).unwrap()
    }
}

fn put(state: &mut State, index: u64, command: Command) -> Outcome {
    let caller = CallerId::parse("client/test").unwrap();
    let key = RequestKey { caller, request: RequestId::parse(&format!("r{index}")).unwrap() };
    let request = Some(Request { key, digest: [0; 32], for_others: false });
    apply(state, LogIndex(index), &Entry { at: Millis(index), wall_ms: 0, request, command })
}

/// A wallet with one coin.
fn wallet() -> (State, OutPoint) {
    let mut state = State::default();
    let tip = BlockRef { height: Height(200), hash: BlockHash::hash(b"tip") };
    let outpoint = OutPoint { txid: Txid::hash(b"coin"), vout: 0 };
    let descriptor = WalletDescriptor::parse(DESCRIPTOR, Network::Regtest).unwrap();
    let wallet = WalletId::parse("w").unwrap();
    let found = Received {
        outpoint,
        wallet: wallet.clone(),
        value_sat: 1_000_000,
        script: descriptor.script(Keychain::External, 0).unwrap(),
        keychain: Keychain::External,
        index: 0,
        coinbase: false,
        height: Height(100),
    };
    let register = RegisterWallet {
        wallet,
        descriptor: DESCRIPTOR.to_owned(),
        signer: SignerRef::Named("hot".to_owned()),
        limits: WalletLimits { max_fee_percent: 100, ..WalletLimits::default() },
        basis: tip,
        found: vec![found],
        fence_key: None,
    };
    assert_eq!(put(&mut state, 1, Command::Start { network: Network::Regtest, tip }), Outcome::Recorded);
    assert_eq!(put(&mut state, 2, Command::RegisterWallet(register)), Outcome::WalletChanged);
    (state, outpoint)
}

/// The permit of a payment whose intent is at this log index.
fn permit_at(index: u64) -> SigningPermit {
    let (mut state, outpoint) = wallet();
    let (wallet, payment) = (WalletId::parse("w").unwrap(), PaymentId::parse("p").unwrap());
    let key = PaymentKey { wallet, payment };
    let script = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::hash(b"somebody"));
    let recipients = vec![Recipient { script, amount_sat: 500_000 }];
    let create = CreatePayment { key: key.clone(), recipients, outpoints: vec![outpoint], fee_sat: 1_000 };
    let outcome = put(&mut state, index, Command::CreatePayment(create));
    assert!(matches!(outcome, Outcome::Permitted { .. }), "{outcome:?}");
    SigningPermit::for_attempt(&state, &key, AttemptNo(1)).unwrap()
}

#[test]
fn shows_what_a_signer_remembers_also_while_it_is_in_use() {
    let stopped = Stopped::new();
    let missing = stopped.run("show", &["--name", "hot"]).code(1);
    assert!(missing.err.contains("hot.db"), "{missing:?}");
    let memory = stopped.open();
    memory.check_and_record(&permit_at(50)).unwrap();
    let shown = stopped.run("show", &["--name", "hot"]).code(0).json();
    for (field, value) in [("attempts", 1), ("outpoints", 1), ("highest_fence", 50), ("log_must_reach", 50)] {
        assert_eq!(shown[field], value, "{shown}");
    }
    assert_eq!((&shown["frozen"], &shown["signer"]), (&false.into(), &"hot".into()));
    let unknown = stopped.run("show", &["--name", "cold"]).code(2);
    assert!(unknown.err.contains("no signer cold"), "{unknown:?}");
}

#[test]
fn an_operator_who_has_checked_unfreezes_and_is_written_down() {
    let stopped = Stopped::new();
    stopped.open().check_and_record(&permit_at(50)).unwrap();
    let config = stopped.config.to_str().unwrap();
    let table = |what: &str| with_environment(&[], &["signer", what, "--config", config, "--name", "hot"]);
    let memory = stopped.open();
    memory.check_and_record(&permit_at(40)).unwrap_err();
    let refused = stopped.run("unfreeze", &["--name", "hot", "--i-have-checked"]).code(1);
    assert!(refused.err.contains("in use by another process") && refused.err.contains("stop the node"), "{refused:?}");
    drop(memory);

    let shown = table("show").code(0);
    assert!(shown.out.contains("FROZEN: the log stood at 40"), "{shown:?}");
    stopped.run("unfreeze", &["--name", "hot"]).code(2);
    assert!(table("show").out.contains("FROZEN"), "not without the operator's word");

    let lifted = stopped.run("unfreeze", &["--name", "hot", "--i-have-checked"]).code(0);
    assert!(lifted.err.contains("reached 40"), "{lifted:?}");
    let shown = lifted.json();
    assert_eq!((&shown["frozen"], &shown["log_must_reach"]), (&false.into(), &40.into()));
    let event = &shown["audit"][1];
    assert_eq!((&event["what"], &event["position"], &event["recorded"]), (&"unfrozen".into(), &40.into(), &50.into()));
    assert!(event["who"].as_str().unwrap().starts_with("alice (uid "), "{event}");
    let again = stopped.run("unfreeze", &["--name", "hot", "--i-have-checked"]).code(0);
    assert!(again.err.contains("was not frozen"), "{again:?}");
}

/// After a restore: the new cluster has another name, and must not forget what was signed for the old one.
#[test]
fn a_memory_is_handed_on_to_a_restored_cluster_with_all_that_it_remembers() {
    let stopped = Stopped::new();
    let old = Owner { cluster_id: "lost".to_owned(), network: Network::Regtest, signer: "hot".to_owned() };
    let memory = Memory::open(&stopped.memory, old.clone()).unwrap();
    memory.check_and_record(&permit_at(50)).unwrap();
    let checked = ["--name", "hot", "--from", "lost", "--i-have-checked"];
    let used = stopped.run("adopt", &checked).code(1);
    assert!(used.err.contains("in use by another process"), "{used:?}");
    drop(memory);
    let foreign = stopped.run("show", &["--name", "hot"]).code(1);
    assert!(foreign.err.contains("belongs to signer hot of cluster lost"), "{foreign:?}");
    stopped.run("adopt", &checked[..4]).code(2);
    let wrong = stopped.run("adopt", &["--name", "hot", "--from", "another", "--i-have-checked"]).code(1);
    assert!(wrong.err.contains("belongs to signer hot of cluster lost"), "{wrong:?}");

    let shown = stopped.run("adopt", &checked).code(0).json();
    assert_eq!((&shown["cluster_id"], &shown["attempts"]), (&"demo".into(), &1.into()));
    assert_eq!((&shown["audit"][0]["what"], &shown["audit"][0]["recorded"]), (&"adopted".into(), &50.into()));
    stopped.open().check_and_record(&permit_at(40)).unwrap_err();
    assert!(Memory::open(&stopped.memory, old).is_err(), "it is nobody else's any more");
}
