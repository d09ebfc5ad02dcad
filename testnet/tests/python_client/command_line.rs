//! The command line against a cluster kept by `up`, as a person at a shell or a script has it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use onespend_testnet::cluster::{CLUSTER_ID, FINALITY_DEPTH};
use onespend_testnet::programs;
use serde_json::Value;
use tempfile::TempDir;

use crate::{AMOUNT_SAT, TO, Up};

/// A folder in which lines that begin with `target/release/onespend` or `testnet/` do what they do in the project's, and
/// who sits there.
pub struct Desk {
    folder: TempDir,
    /// How each command reaches the cluster, and as whom.
    client: String,
}

impl Desk {
    pub fn at(up: &Up) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("target/release");
        fs::create_dir_all(&release).unwrap();
        symlink(programs::onespend().unwrap().canonicalize().unwrap(), release.join("onespend")).unwrap();
        symlink(env!("CARGO_MANIFEST_DIR"), folder.path().join("testnet")).unwrap();
        let client = format!("--profile {}/pki --as client/payouts", up.dir.display());
        Self { folder, client }
    }

    fn run(&self, line: &str) -> Output {
        Command::new("sh").args(["-c", line]).current_dir(self.folder.path()).output().unwrap()
    }

    /// What a line prints that does its work.
    fn says(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for a program.
    fn document(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(&format!("{line} -o json"))).unwrap()
    }

    /// What the client is told by one command.
    fn told(&self, command: &str) -> Value {
        self.document(&format!("target/release/onespend {command} {}", self.client))
    }

    /// The reason of a refusal, which is the end of the command.
    fn refused(&self, command: &str) -> String {
        let output = self.run(&format!("target/release/onespend {command} {} -o json", self.client));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        let error: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let details = list(&error["error"], "details");
        let reason = details.iter().find(|detail| detail["name"] == "reason").unwrap_or_else(|| panic!("{said}"));
        reason["value"].as_str().unwrap().to_owned()
    }
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().unwrap_or_else(|| panic!("no list {name} in {document:#}"))
}

/// Each line as `up` prints it, by a shell.
pub fn the_lines_that_up_prints_do_what_they_say(up: &Up, desk: &Desk) {
    let look = up.printed("Look at the cluster:");
    let screen = desk.says(&look);
    let status = desk.document(&look);
    assert_eq!((&status["cluster_id"], &status["network"]), (&CLUSTER_ID.into(), &"regtest".into()), "{status:#}");
    assert!(screen.contains(CLUSTER_ID), "{screen}");
    assert!((1..=3).contains(&status["leader_id"].as_u64().unwrap()), "{status:#}");
    let nodes = list(&status, "nodes");
    let ids: Vec<u64> = nodes.iter().filter_map(|node| node["status"]["node_id"].as_u64()).collect();
    assert_eq!(ids, [1, 2, 3], "{status:#}");
    assert_eq!(list(&status, "alarms"), &[] as &[Value], "{status:#}");

    let pay = up.printed("Pay by the command line:");
    let screen = desk.says(&pay);
    // The very same order once more is the same payment.
    let paid = desk.document(&pay);
    let txid = paid["txid"].as_str().unwrap();
    assert!(screen.contains(txid), "{screen}");
    assert_eq!((&paid["payment_id"], &paid["owner"]), (&"first".into(), &"client/payouts".into()), "{paid:#}");
    assert_eq!((list(&paid, "attempts").len(), &paid["amount_sat"]), (1, &AMOUNT_SAT.into()), "{paid:#}");
    assert_eq!(list(&paid, "recipients")[0]["address"], TO, "{paid:#}");

    let python = desk.says(&up.printed("Pay from Python (grpcio, generated from proto/ alone):"));
    let second = desk.told("payment show --wallet hot second");
    assert!(python.starts_with(second["txid"].as_str().unwrap()), "{python}: {second:#}");
}

/// Wallets, coins, a reservation from its grant to its end, and payments, as a script reads them.
pub fn each_resource_is_shown_as_a_document(desk: &Desk) {
    let wallets = desk.told("wallet list");
    let names: Vec<&Value> = list(&wallets, "wallets").iter().map(|wallet| &wallet["wallet_id"]).collect();
    assert_eq!((names, &wallets["more"]), (vec![&"hot".into()], &false.into()), "{wallets:#}");
    let wallet = desk.told("wallet show hot");
    assert!(wallet["descriptor"].as_str().unwrap().starts_with("wpkh("), "{wallet:#}");
    assert_eq!((&wallet["signer"], &wallet["frozen"]), (&"hot".into(), &false.into()), "{wallet:#}");
    assert_eq!(wallet["limits"]["finality_depth"], FINALITY_DEPTH, "{wallet:#}");

    let available = desk.told("utxo list --wallet hot --state available");
    let coin = list(&available, "utxos").first().unwrap_or_else(|| panic!("{available:#}"));
    let outpoint = coin["outpoint"].as_str().unwrap();
    assert_eq!((&coin["state"], &coin["reservation_id"]), (&"available".into(), &Value::Null), "{coin:#}");
    let held = desk.told(&format!("reserve coins {outpoint} --wallet hot --ttl 5m"));
    let (id, fence) = (held["reservation_id"].as_str().unwrap(), held["fence"].as_u64().unwrap());
    assert_eq!((&held["state"], &list(&held, "utxos")[0]["outpoint"]), (&"active".into(), &coin["outpoint"]));
    assert!(held["applied_index"].as_u64().is_some() && held["remaining_ms"].as_u64() > Some(0), "{held:#}");
    assert_eq!(desk.refused(&format!("reserve coins {outpoint} --wallet hot")), "OUTPOINT_RESERVED");
    let reserved = desk.told("utxo list --wallet hot --state reserved");
    let reserved: Vec<_> =
        list(&reserved, "utxos").iter().map(|coin| (&coin["outpoint"], &coin["reservation_id"])).collect();
    assert_eq!(reserved, [(&coin["outpoint"], &held["reservation_id"])]);
    assert_eq!(desk.told(&format!("reserve show {id}"))["fence"], fence);
    let released = desk.told(&format!("reserve release {id} --fence {fence}"));
    assert_eq!((&released["state"], &released["reservation_id"]), (&"released".into(), &held["reservation_id"]));
    let none = desk.told("utxo list --wallet hot --state reserved");
    assert_eq!(list(&none, "utxos"), &[] as &[Value], "given back");

    let payment = desk.told("payment show --wallet hot first");
    let attempt = &list(&payment, "attempts")[0];
    assert_eq!((&attempt["txid"], &attempt["number"]), (&payment["txid"], &1.into()), "{payment:#}");
    let inputs: Vec<&Value> = list(attempt, "inputs").iter().collect();
    assert!(inputs.contains(&&payment["anchor"]), "{payment:#}");
    let payments = desk.told("payment list --wallet hot");
    assert!(list(&payments, "payments").iter().any(|one| one["payment_id"] == "first"), "{payments:#}");
    assert_eq!(desk.refused("payment show --wallet hot never-ordered"), "PAYMENT_UNKNOWN");
    let other = format!("pay --wallet hot --payment-id first --to {TO}={}", AMOUNT_SAT + 1);
    assert_eq!(desk.refused(&other), "PAYMENT_ID_REUSED");
}

/// Beside a node that runs.
pub fn the_doctor_finds_nothing_that_fails(up: &Up, desk: &Desk) {
    let file = up.dir.join("node-1/config.toml");
    let output = desk.run(&format!("target/release/onespend doctor --config {} -o json", file.display()));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // A small disk or an unsteady clock is a warning, and the machine's own matter.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{report:#}");
    assert_eq!(report["failures"], 0, "{report:#}");
    let of = |area: &str| -> Vec<&Value> {
        list(&report, "findings").iter().filter(|one| one["area"] == area).map(|one| &one["level"]).collect()
    };
    assert_eq!(of("ports"), ["ok"; 4], "the node itself holds them: {report:#}");
    assert_eq!(of("peers"), ["ok"; 2], "{report:#}");
}
