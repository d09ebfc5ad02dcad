//! The cluster that begins with the backup, or with what one node is left with: nodes of its own, with certificates of its
//! own, beside the bitcoinds of the cluster that was lost. Made by the command line, as the operations book says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use onespend_proto::client::Client;
use onespend_proto::{reason, v1};
use onespend_testnet::cluster::{Addresses, CLUSTER_ID, Cluster, Credentials, FINALITY_DEPTH, Node, SIGNER};
use onespend_testnet::hot::WALLET;
use onespend_testnet::process::Process;
use onespend_testnet::{health, programs};
use serde_json::Value;
use uuid::Uuid;

use crate::scene::{ASK, eventually, following, give_lead, onespend, signed};

/// The new cluster's name.
pub const SECOND_ID: &str = "demo-2";
const NODES: usize = 3;
const STOP_GRACE: Duration = Duration::from_secs(20);
/// A certificate that is not let in is refused at once; the client tries again for so long.
const STRANGERS_DEADLINE: Duration = Duration::from_secs(3);

pub struct Second {
    folder: PathBuf,
    ids: [u64; NODES],
    /// The first node's data folder, where it is one of the old cluster's.
    survivor: Option<PathBuf>,
    addresses: Vec<Addresses>,
    processes: Vec<Option<Process>>,
    client: Credentials,
    operator: Credentials,
}

impl Second {
    /// Certificates, configurations and empty folders.
    pub fn prepare(first: &Cluster) -> Result<Self> {
        Self::of(first, [1, 2, 3], None)
    }

    /// The same with a node of the old cluster and its data as the first one; the others have ids that are new.
    pub fn after(first: &Cluster, survivor: &Node) -> Result<Self> {
        Self::of(first, [survivor.id(), 4, 5], Some(survivor.data_folder()))
    }

    fn of(first: &Cluster, ids: [u64; NODES], survivor: Option<PathBuf>) -> Result<Self> {
        let folder = first.folder().join("second");
        let pki = folder.join("pki");
        let dir = pki.to_str().unwrap();
        fs::create_dir_all(&folder)?;
        onespend(&["pki", "init", "--cluster", SECOND_ID, "--dir", dir]);
        onespend(&["pki", "issue", "client", "payouts", "--dir", dir]);
        onespend(&["pki", "issue", "operator", "alice", "--dir", dir]);
        let addresses = (0..NODES).map(|_| Addresses::free()).collect::<Result<Vec<_>>>()?;
        let credentials = |name: &str| Credentials {
            ca: pki.join("ca.pem"),
            cert: pki.join(format!("{name}.pem")),
            key: pki.join(format!("{name}.key")),
        };
        let second = Self {
            addresses,
            processes: (0..NODES).map(|_| None).collect(),
            client: credentials("client-payouts"),
            operator: credentials("operator-alice"),
            folder,
            ids,
            survivor,
        };
        for (index, bitcoind) in first.bitcoinds().iter().enumerate() {
            onespend(&["pki", "issue", "node", &ids[index].to_string(), "--host", "127.0.0.1", "--dir", dir]);
            fs::create_dir_all(second.node(index))?;
            fs::create_dir_all(second.data_folder(index))?;
            first.wallet().write_signer_file(&second.node(index).join("hot.xprv"))?;
            let (url, cookie) = (format!("http://{}", bitcoind.rpc_address()), bitcoind.cookie_file());
            fs::write(second.config(index), second.text(index, SECOND_ID, &[index], &url, &cookie))?;
        }
        // Two that must not be restored with.
        let bitcoind = &first.bitcoinds()[0];
        let (url, cookie) = (format!("http://{}", bitcoind.rpc_address()), bitcoind.cookie_file());
        let old = second.text(0, CLUSTER_ID, &[0], &url, &cookie);
        let (own, old_pki) = (pki.display().to_string(), first.folder().join("pki").display().to_string());
        fs::write(second.node(0).join("old-cluster.toml"), old.replace(&own, &old_pki))?;
        let many = second.text(0, SECOND_ID, &[0, 1, 2], &url, &cookie);
        fs::write(second.node(0).join("other-members.toml"), many)?;
        Ok(second)
    }

    fn node(&self, index: usize) -> PathBuf {
        self.folder.join(format!("node-{}", index + 1))
    }

    fn data_folder(&self, index: usize) -> PathBuf {
        let survivor = self.survivor.clone().filter(|_| index == 0);
        survivor.unwrap_or_else(|| self.node(index).join("data"))
    }

    /// A node's configuration file.
    pub fn config(&self, index: usize) -> PathBuf {
        self.node(index).join("config.toml")
    }

    /// Where all of it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn id(&self, index: usize) -> u64 {
        self.ids[index]
    }

    pub fn health(&self, index: usize) -> SocketAddr {
        self.addresses[index].health
    }

    fn log(&self, index: usize) -> PathBuf {
        self.node(index).join("node.log")
    }

    /// A configuration file. The first node joins nobody; the others join it.
    fn text(&self, index: usize, cluster: &str, members: &[usize], url: &str, cookie: &Path) -> String {
        let (id, join) = (self.ids[index], index > 0);
        let (node, pki, cookie) = (self.node(index), self.folder.join("pki"), cookie.display());
        let (node, pki, data_dir) = (node.display(), pki.display(), self.data_folder(index));
        let data_dir = data_dir.display();
        let Addresses { data, control, health, .. } = self.addresses[index];
        let peer = |member: &usize| {
            let Addresses { data, control, .. } = self.addresses[*member];
            format!("[[peers]]\nid = {}\ncontrol = '{control}'\ndata = '{data}'\n", self.ids[*member])
        };
        let peers: String = members.iter().map(peer).collect();
        format!(
            "[cluster]
id = '{cluster}'
network = 'regtest'
finality_depth = {FINALITY_DEPTH}

[node]
id = {id}
join = {join}
data_dir = '{data_dir}'

{peers}
[listen]
data = '{data}'
control = '{control}'
health = '{health}'

[tls]
ca = '{pki}/ca.pem'
cert = '{pki}/node-{id}.pem'
key = '{pki}/node-{id}.key'

[bitcoind]
url = '{url}'
cookie_file = '{cookie}'
min_peers = 0

[[signers]]
name = '{SIGNER}'
kind = 'software'
file = '{node}/hot.xprv'
audit_log = '{node}/signer.log'
"
        )
    }

    fn args(&self, config: &str, backup: &Path) -> [String; 5] {
        let config = self.node(0).join(config).display().to_string();
        ["restore".to_owned(), "--backup".to_owned(), backup.display().to_string(), "--config".to_owned(), config]
    }

    /// What restores a backup into the first node.
    pub fn restore_args(&self, backup: &Path) -> [String; 5] {
        self.args("config.toml", backup)
    }

    pub fn restore_args_as_old_cluster(&self, backup: &Path) -> [String; 5] {
        self.args("old-cluster.toml", backup)
    }

    pub fn restore_args_with_other_members(&self, backup: &Path) -> [String; 5] {
        self.args("other-members.toml", backup)
    }

    pub fn restore(&mut self, backup: &Path) -> Value {
        let args = self.restore_args(backup);
        let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().map(String::as_str)).collect();
        serde_json::from_str(&onespend(&args)).unwrap()
    }

    /// What makes of the first node's data this cluster, or looks whether it could.
    pub fn recover_args(&self, config: &str, how: &str) -> [String; 6] {
        let config = self.node(0).join(config).display().to_string();
        ["cluster", "recover", "--from-this-node", "--config", &config, how].map(str::to_owned)
    }

    /// Hands on what lies in the node's data folder.
    pub fn adopt_on(&self, index: usize) {
        let config = self.config(index).display().to_string();
        let adopt =
            ["signer", "adopt", "--config", &config, "--name", SIGNER, "--from", CLUSTER_ID, "--i-have-checked"];
        let shown = onespend(&adopt);
        assert!(shown.contains(SECOND_ID) && shown.contains("adopted"), "{shown}");
    }

    pub fn start(&mut self, index: usize) {
        let args = ["serve".to_owned(), "--config".to_owned(), self.config(index).display().to_string()];
        let name = format!("second-{}", index + 1);
        let process = Process::spawn(&name, &programs::onespend().unwrap(), &args, &self.log(index)).unwrap();
        self.processes[index] = Some(process);
    }

    pub fn stop(&mut self, index: usize) {
        self.processes[index].take().unwrap().stop(STOP_GRACE).unwrap();
    }

    /// Starts an empty node, adds it, and gives it its vote once it has caught up.
    pub fn take_in(&mut self, index: usize) {
        self.start(index);
        let Addresses { data, control, .. } = self.addresses[index];
        let (id, control, data) = (self.ids[index].to_string(), control.to_string(), data.to_string());
        self.insist(&["cluster", "add", &id, "--control-address", &control, "--data-address", &data]);
        self.insist(&["cluster", "promote", &id]);
    }

    /// Asks again until it is done.
    fn insist(&self, args: &[&str]) {
        let ports = [self.addresses[0].control];
        let deadline = std::time::Instant::now() + Duration::from_mins(2);
        while let Err(error) = self.operator.run(&ports, args) {
            assert!(std::time::Instant::now() < deadline, "{args:?}: {error:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the cluster says when a node is to be added that it must not take.
    pub fn add_refused(&self, id: u64) -> String {
        let (control, data) = (self.addresses[1].control.to_string(), self.addresses[1].data.to_string());
        let (id, ports) = (id.to_string(), [self.addresses[0].control]);
        let args = ["cluster", "add", &id, "--control-address", &control, "--data-address", &data];
        self.operator.run(&ports, &args).unwrap_err().to_string()
    }

    /// Who pays.
    pub fn client(&self) -> Client {
        following(&self.addresses, &self.client)
    }

    /// Somebody else.
    pub fn client_with(&self, credentials: &Credentials) -> Client {
        following(&self.addresses, credentials).with_deadline(STRANGERS_DEADLINE)
    }

    /// Who administers.
    pub fn operator(&self) -> Client {
        following(&self.addresses, &self.operator)
    }

    /// Waits until the state was compared with bitcoind.
    pub async fn wait_for_comparison(&self) -> v1::Recovery {
        let operator = self.operator();
        eventually("the state is compared with bitcoind", async || {
            let request = v1::GetRecoveryRequest::default();
            let answer = operator.get_recovery(request).await.map_err(|error| error.to_string())?;
            let recovery = answer.recovery.unwrap();
            if recovery.active && recovery.reconciled.is_some() { Ok(recovery) } else { Err(format!("{recovery:?}")) }
        })
        .await
    }

    /// Waits until every node votes, has the state, and says that it is not confirmed.
    pub async fn wait_for_recovery_on_all(&self) {
        let operator = self.operator();
        for address in &self.addresses {
            let control = address.control.to_string();
            eventually("the node has the state", async || {
                let status = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
                let voters = status.members.iter().filter(|member| member.voter).count();
                let active = status.recovery.as_ref().is_some_and(|recovery| recovery.active);
                if active && voters == NODES { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
        }
    }

    /// Waits until these nodes, and no others, have a vote, and each of them knows.
    pub async fn wait_for_voters(&self, ids: [u64; NODES]) {
        let operator = self.operator();
        for address in &self.addresses {
            let control = address.control.to_string();
            eventually("the node knows who votes", async || {
                let status = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
                let voters: Vec<u64> =
                    status.members.iter().filter(|member| member.voter).map(|member| member.node_id).collect();
                if voters == ids { Ok(()) } else { Err(format!("{voters:?}")) }
            })
            .await;
        }
    }

    /// Gives a node the lead, and waits until its health port says yes on this path.
    pub async fn lead(&self, index: usize, path: &str) {
        give_lead(&self.operator(), self.ids[index], self.health(index), path).await;
    }

    /// An operator's word, given to a node that leads: its signer accepts the new epoch, which is answered.
    pub async fn confirm(&self, index: usize) -> u32 {
        self.lead(index, "/leader").await;
        let operator = self.operator();
        // What was taken, though its answer was lost, is answered under its id alone; and so is a refusal, for ever.
        let mut request_id = Uuid::new_v4().to_string();
        eventually("the operator's word is taken", async || {
            let request = v1::ConfirmRecoveryRequest {
                request_id: request_id.clone(),
                note: "this test knows what was ordered after the backup".to_owned(),
                i_have_checked: true,
            };
            let answer = operator.confirm_recovery(request).await;
            if answer.as_ref().is_err_and(|error| error.is(reason::RECOVERY_REFUSED)) {
                request_id = Uuid::new_v4().to_string();
            }
            let answer = answer.map_err(|error| error.to_string())?;
            assert_eq!((answer.node_id, answer.accepted_signers), (self.ids[index], vec![SIGNER.to_owned()]));
            let recovery = answer.recovery.unwrap();
            if recovery.active { Err(format!("{recovery:?}")) } else { Ok(recovery.epoch) }
        })
        .await
    }

    /// What the first node calls its cluster.
    pub async fn cluster_id(&self) -> String {
        self.operator().get_status_of(&self.addresses[0].control.to_string()).await.unwrap().cluster_id
    }

    /// Waits until a node has logged that its signer refuses a payment.
    pub async fn refuses(&self, index: usize, payment_id: &str) {
        let of = format!("{WALLET}/{payment_id}");
        eventually("the signer refuses", async || {
            let log = fs::read_to_string(self.log(index)).map_err(|error| error.to_string())?;
            let told = |line: &str| line.contains("the signer refuses") && line.contains(&of);
            if log.lines().any(told) {
                Ok(())
            } else {
                Err(format!("it is not in the log of node {}", self.ids[index]))
            }
        })
        .await;
    }

    /// How often the nodes' signers signed for a payment.
    pub fn signed(&self, payment_id: &str) -> usize {
        self.signer_logs().iter().map(|log| signed(log, payment_id)).sum()
    }

    /// How often the memories of the nodes' signers have refused for other rules than this one.
    pub fn refusals_but_for(&self, rule: &str) -> Result<u64, String> {
        let mut refusals = 0;
        for address in &self.addresses {
            let by_rule = health::memory_refusals(address.health, ASK).map_err(|error| error.to_string())?;
            refusals += by_rule.iter().filter(|(other, _)| *other != rule).map(|(_, count)| count).sum::<u64>();
        }
        Ok(refusals)
    }

    pub fn signer_logs(&self) -> Vec<PathBuf> {
        (0..NODES).map(|index| self.node(index).join("signer.log")).collect()
    }

    pub fn finish(mut self) {
        for process in self.processes.iter_mut().flatten() {
            process.stop(STOP_GRACE).unwrap();
        }
    }
}
