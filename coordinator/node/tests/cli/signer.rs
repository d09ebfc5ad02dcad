//! `onespend signer`: making a key, looking at what a signer remembers, letting it sign again, and giving it to other nodes.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Txid};
use onespend_adapters::signer::SignerError;
use onespend_adapters::signer::memory::{Memory, Owner};
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{self, RowBatch, RowChange, StateStore as _};
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
use crate::run::{Authority, Ended, RETRY, TRIES, with_environment};

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

    /// Gives it the state of a log that was recovered to this epoch.
    fn recover(&self, epoch: u32) {
        let (mut state, _) = wallet();
        let basis = state.tip().unwrap();
        let entries = [
            Command::EnterRecovery { why: "a copy was put back".to_owned() },
            Command::Reconcile { basis, spent_outside: vec![] },
            Command::ConfirmRecovery { epoch, note: "looked".to_owned() },
        ];
        for (index, command) in (3..).zip(entries) {
            assert_eq!(put(&mut state, index, command), Outcome::Recorded);
        }
        let data = self.config.with_file_name("data");
        let owner = store::Owner { cluster_id: "demo".to_owned(), node_id: 1 };
        let store = SqliteState::open(&DataFolder::open(&data, &owner).unwrap()).unwrap();
        let rows = state.drain_changes().into_iter();
        let rows = rows.map(|row| RowChange { table: row.table, key: row.key, value: row.value }).collect();
        store.write(&RowBatch { marker: Vec::new(), rows }).unwrap();
    }

    fn open(&self) -> Memory {
        let owner = Owner { cluster_id: "demo".to_owned(), network: Network::Regtest, signer: "hot".to_owned() };
        let mut opened = Memory::open(&self.memory, owner.clone());
        // As `with_input` has it.
        for _ in 1..TRIES {
            if !matches!(opened, Err(SignerError::MemoryInUse { .. })) {
                break;
            }
            std::thread::sleep(RETRY);
            opened = Memory::open(&self.memory, owner.clone());
        }
        opened.unwrap()
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
    assert!(shown.out.contains("FROZEN: the log stood at 0/40"), "{shown:?}");
    assert!(shown.out.contains("1 attempt that spends 1 coin\n"), "{shown:?}");
    stopped.run("unfreeze", &["--name", "hot"]).code(2);
    assert!(table("show").out.contains("FROZEN"), "not without the operator's word");

    let lifted = stopped.run("unfreeze", &["--name", "hot", "--i-have-checked"]).code(0);
    assert!(lifted.err.contains("reached 0/40"), "{lifted:?}");
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
    let flat = foreign.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("hand it on with onespend signer adopt --from lost"), "{foreign:?}");
    stopped.run("adopt", &checked[..4]).code(2);
    let wrong = stopped.run("adopt", &["--name", "hot", "--from", "another", "--i-have-checked"]).code(1);
    assert!(wrong.err.contains("belongs to signer hot of cluster lost"), "{wrong:?}");
    let itself = stopped.run("adopt", &["--name", "hot", "--from", "demo", "--i-have-checked"]).code(2);
    assert!(itself.err.contains("--from names demo"), "{itself:?}");

    let shown = stopped.run("adopt", &checked).code(0).json();
    assert_eq!((&shown["cluster_id"], &shown["attempts"]), (&"demo".into(), &1.into()));
    assert_eq!((&shown["audit"][0]["what"], &shown["audit"][0]["recorded"]), (&"adopted".into(), &50.into()));
    stopped.open().check_and_record(&permit_at(40)).unwrap_err();
    assert!(Memory::open(&stopped.memory, old).is_err(), "it is nobody else's any more");
}

/// safety 30: the operator's word, where no other memory is left that knows more.
#[test]
fn an_operator_who_has_checked_accepts_an_epoch_and_is_written_down() {
    let stopped = Stopped::new();
    let accept = |epoch: &str| stopped.run("accept", &["--name", "hot", "--epoch", epoch, "--i-have-checked"]);
    let missing = accept("1").code(1);
    assert!(missing.err.contains("hot.db"), "{missing:?}");
    stopped.recover(2);
    let memory = stopped.open();
    let used = accept("1").code(1);
    assert!(used.err.contains("in use by another process") && used.err.contains("stop the node"), "{used:?}");
    drop(memory);
    stopped.run("accept", &["--name", "hot", "--epoch", "1"]).code(2);
    stopped.run("accept", &["--name", "hot", "--i-have-checked"]).code(2);
    for above in ["3", "65535", "65536"] {
        let refused = accept(above).code(1);
        assert!(refused.err.contains("above that of this node's state, which is 2"), "{refused:?}");
    }
    assert_eq!(stopped.run("show", &["--name", "hot"]).code(0).json()["accepted_epoch"], 0);

    let shown = accept("2").code(0).json();
    let event = &shown["audit"][0];
    assert_eq!((&shown["accepted_epoch"], &event["what"]), (&2.into(), &"accepted".into()));
    assert!(event["who"].as_str().unwrap().starts_with("alice (uid "), "{event}");
    let again = accept("1").code(0);
    assert!(again.err.contains("epoch 2 was accepted already; nothing was changed"), "{again:?}");
    assert_eq!(again.json()["accepted_epoch"], 2);
    let config = stopped.config.to_str().unwrap();
    let table = with_environment(&[], &["signer", "show", "--config", config, "--name", "hot"]).code(0).out;
    let line = table.lines().find(|line| line.starts_with("accepted epoch")).unwrap();
    assert_eq!(line.split_whitespace().last(), Some("2"), "{table}");
    assert!(table.contains("by alice (uid ") && table.contains(": epoch 2"), "{table}");
    assert_eq!(stopped.open().accepted_epoch(), 2);
}

/// safety 30: a word about a log that the node has never seen could be one in advance, and nothing takes it back.
#[test]
fn a_node_that_has_no_state_yet_is_not_given_a_word_about_the_log() {
    let stopped = Stopped::new();
    drop(stopped.open());
    let refused = stopped.run("accept", &["--name", "hot", "--epoch", "1", "--i-have-checked"]).code(1);
    for said in ["no state yet", "let it join", "signer merge"] {
        assert!(refused.err.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(stopped.open().accepted_epoch(), 0);
}

#[test]
fn root_writes_nothing_where_the_files_are_those_of_the_nodes_user() {
    let stopped = Stopped::new();
    drop(stopped.open());
    let folder = stopped.memory.parent().unwrap();
    // Only root can give files away, and nobody else is refused.
    if chown(&stopped.memory, Some(12_345), None).is_err() {
        return;
    }
    chown(folder, Some(12_345), None).unwrap();
    let checked = ["--name", "hot", "--i-have-checked"];
    let refused = |command: &str, more: &[&str]| {
        let refused = stopped.run(command, &[&checked[..2], more].concat()).code(2);
        assert!(refused.err.contains("belongs to user 12345, and this process runs as user 0"), "{refused:?}");
    };
    let copy = folder.join("copy.db");
    refused("unfreeze", &checked[2..]);
    refused("accept", &["--epoch", "0", "--i-have-checked"]);
    refused("adopt", &["--from", "lost", "--i-have-checked"]);
    refused("copy", &[copy.to_str().unwrap()]);
    std::fs::remove_file(&stopped.memory).unwrap();
    refused("merge", &[copy.to_str().unwrap()]);
    assert!(!copy.exists() && !stopped.memory.exists());
    let mark = with_environment(&[], &["recovery", "mark", "--data-dir", folder.to_str().unwrap()]).code(2);
    assert!(mark.err.contains("belongs to user 12345"), "{mark:?}");
}

#[test]
fn whoever_marks_a_folder_is_told_that_memories_are_put_together_before_a_node_starts() {
    let stopped = Stopped::new();
    stopped.recover(1);
    let data = stopped.config.with_file_name("data");
    let marked = with_environment(&[], &["recovery", "mark", "--data-dir", data.to_str().unwrap()]).code(0);
    assert!(marked.out.contains("put together what the signers remember, then start all nodes"), "{marked:?}");
}

/// safety 8: from a node that runs, to one that joined after the recovery and knows nothing.
#[test]
fn a_stopped_node_takes_in_a_copy_of_what_another_ones_signer_remembers() {
    let (theirs, ours) = (Stopped::new(), Stopped::new());
    let memory = theirs.open();
    memory.check_and_record(&permit_at(50)).unwrap();
    memory.accept(2, "alice").unwrap();
    let copy = theirs.memory.with_file_name("copy.db");
    let file = copy.to_str().unwrap();
    let made = theirs.run("copy", &["--name", "hot", file]).code(0).json();
    assert_eq!((&made["file"], &made["attempts"], &made["accepted_epoch"]), (&file.into(), &1.into(), &2.into()));
    let twice = theirs.run("copy", &["--name", "hot", file]).code(1);
    assert!(twice.err.contains("copy.db") && twice.err.contains("is there already"), "{twice:?}");

    let merged = ours.run("merge", &["--name", "hot", file]).code(0);
    assert!(merged.err.contains("added 1 attempt; known before: 0"), "{merged:?}");
    let shown = merged.json();
    assert_eq!((&shown["attempts"], &shown["accepted_epoch"]), (&1.into(), &2.into()));
    let event = &shown["audit"][0];
    assert_eq!((&event["what"], &event["position"], &event["recorded"]), (&"merged".into(), &50.into(), &0.into()));
    assert!(event["who"].as_str().unwrap().starts_with("alice (uid "), "{event}");
    let again = ours.run("merge", &["--name", "hot", file]).code(0);
    assert!(again.err.contains("added 0 attempts; known before: 1"), "{again:?}");
    ours.open().check_and_record(&permit_at(40)).unwrap_err();
}

/// After a restore: each memory of the lost cluster that is left may know something of its own.
#[test]
fn the_memory_of_another_cluster_is_merged_where_it_is_named() {
    let (theirs, ours) = (Stopped::new(), Stopped::new());
    let lost = Owner { cluster_id: "lost".to_owned(), network: Network::Regtest, signer: "hot".to_owned() };
    let memory = Memory::open(&theirs.memory, lost).unwrap();
    memory.check_and_record(&permit_at(50)).unwrap();
    memory.accept(2, "alice").unwrap();
    drop(memory);
    let file = theirs.memory.to_str().unwrap();
    let foreign = ours.run("merge", &["--name", "hot", file]).code(1);
    assert!(foreign.err.contains("belongs to signer hot of cluster lost"), "{foreign:?}");
    let itself = ours.run("merge", &["--name", "hot", file, "--from", "demo"]).code(2);
    assert!(itself.err.contains("--from names demo"), "{itself:?}");
    assert!(!ours.memory.exists());
    let shown = ours.run("merge", &["--name", "hot", file, "--from", "lost"]).code(0).json();
    let told = (&shown["cluster_id"], &shown["attempts"], &shown["accepted_epoch"]);
    assert_eq!(told, (&"demo".into(), &1.into(), &0.into()), "an epoch of the lost cluster is not one of this one");
}

#[test]
fn a_new_key_is_made_once_for_its_owner_alone_and_read_by_the_signer() {
    let stopped = Stopped::new();
    let file = stopped.config.with_file_name("missing"); // which the configuration names
    let new = |file: &Path, more: &[&str]| {
        let args = [&["-o", "json", "signer", "new", file.to_str().unwrap()], more].concat();
        with_environment(&[], &args)
    };
    let regtest = ["--network", "regtest"];
    let nothing: &[&str] = &[];
    for wrong in [nothing, &["--network", "main"], &["--network", "regtest", "--kind", "pkh"]] {
        new(&file, wrong).code(2);
        assert!(!file.exists());
    }
    let made = new(&file, &regtest).code(0).json();
    assert_eq!((&made["file"], &made["network"]), (&file.to_str().unwrap().into(), &"regtest".into()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let public = made["descriptor"].as_str().unwrap();
    assert!(public.starts_with("wpkh([") && public.contains("]tpub") && !public.contains("prv"), "{public}");
    WalletDescriptor::parse(public, Network::Regtest).unwrap();
    let signer = SoftwareSigner::from_file("hot", &file, Network::Regtest).unwrap();
    assert_eq!(signer.public_descriptors().collect::<Vec<_>>(), [public]);
    let shown = stopped.run("descriptors", &["--name", "hot"]).code(0).json();
    assert_eq!(shown["descriptors"], serde_json::json!([public]));

    let before = std::fs::read(&file).unwrap();
    let again = new(&file, &regtest).code(1);
    assert!(again.err.contains("is there already") && again.out.is_empty(), "{again:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let other = new(&file.with_file_name("other"), &regtest).code(0).json();
    assert_ne!(other["descriptor"], made["descriptor"]);

    let taproot = file.with_file_name("taproot");
    let args = ["signer", "new", taproot.to_str().unwrap(), "--network", "bitcoin", "--kind", "tr"];
    let told = with_environment(&[], &args).code(0);
    assert!(told.out.lines().next_back().unwrap().starts_with("tr(["), "{told:?}");
    for said in ["taproot (secret)", "Back it up", "onespend signer descriptors"] {
        assert!(told.out.contains(said), "{said}: {told:?}");
    }
    assert!(!told.out.contains("prv"), "the secret is in the file alone");
}
