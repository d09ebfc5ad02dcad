//! Three nodes in containers, by the files of `docs/deploy/container`, where there is an engine: they elect a leader, a
//! wallet is registered, a payment settles, and another node leads once the leader is killed. Nothing is pulled and
//! nothing is compiled: the images hold this machine's programs and libraries.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use onespend_testnet::progress::say;
use onespend_testnet::{health, programs};
use serde_json::Value;

use crate::images::FOLDER;
use crate::{read, root};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const NO_COMPOSE: &str = "neither docker compose nor docker-compose is installed";
const CLI: &str = "/usr/bin/onespend";
/// Somebody else's address.
const STRANGER: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
/// A coin that is mined can be spent after so many further blocks.
const MATURITY: u32 = 100;
/// An engine that is there answers at once; one whose daemon is gone may hang.
const ENGINE_S: u32 = 20;
/// Building images, starting containers and ending them, on a machine that does other work as well.
const COMMAND_S: u32 = 240;
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(200);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a program, but not for longer than so many seconds.
fn bounded(seconds: u32, program: &[&str], variables: &[(String, String)]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &seconds.to_string()]).args(program).current_dir(root());
    command.envs(variables.iter().cloned()).output().unwrap()
}

/// How Compose is called here, or why nothing can be run.
fn compose_program() -> Result<Vec<&'static str>, String> {
    if programs::in_path("docker").is_err() {
        return Err("docker is not installed".to_owned());
    }
    if std::env::var_os("DOCKER_HOST").is_some() {
        return Err("DOCKER_HOST is set: the engine may be on another machine, which has none of our files".to_owned());
    }
    let info = bounded(ENGINE_S, &["docker", "info"], &[]);
    if !info.status.success() {
        let why = String::from_utf8_lossy(&info.stderr).trim().replace('\n', "; ");
        return Err(format!("docker info: {why} ({})", info.status));
    }
    composes().into_iter().next().ok_or_else(|| NO_COMPOSE.to_owned())
}

/// The ways of calling Compose that work here, the newer one first.
fn composes() -> Vec<Vec<&'static str>> {
    let known = [vec!["docker", "compose"], vec!["docker-compose"]];
    let answers = |program: &Vec<&str>| {
        let version = [&program[..], &["version"]].concat();
        programs::in_path(program[0]).is_ok() && bounded(ENGINE_S, &version, &[]).status.success()
    };
    known.into_iter().filter(answers).collect()
}

/// The cluster of this test. Dropping it takes everything away: containers, volumes, networks, images.
struct Scene {
    program: Vec<&'static str>,
    project: String,
    /// The names of the images, for compose.yaml and images.sh.
    variables: Vec<(String, String)>,
}

impl Scene {
    fn new(program: Vec<&'static str>) -> Self {
        let project = format!("onespend-test-{}", std::process::id());
        let image = |name: &str, what: &str| (name.to_owned(), format!("{project}-{what}:test"));
        let variables = vec![
            image("ONESPEND_IMAGE", "node"),
            image("ONESPEND_PKI_IMAGE", "pki"),
            image("BITCOIND_IMAGE", "bitcoind"),
        ];
        Self { program, project, variables }
    }

    fn try_compose(&self, args: &[&str], more: &[(&str, &str)]) -> Output {
        let file = format!("{FOLDER}/compose.yaml");
        let own = ["--file", &file, "--project-name", &self.project];
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: Vec<_> = self.variables.iter().cloned().chain(more).collect();
        bounded(COMMAND_S, &[&self.program, &own[..], args].concat(), &variables)
    }

    /// What Compose says to these arguments, without the space around it.
    fn compose(&self, args: &[&str]) -> String {
        said(args, &self.try_compose(args, &[]))
    }

    fn images(&self) {
        let script = format!("{FOLDER}/images.sh");
        let [onespend, bitcoind] = [programs::onespend().unwrap(), programs::bitcoind().unwrap()];
        let [onespend, bitcoind] = [onespend.to_str().unwrap(), bitcoind.to_str().unwrap()];
        let args = [script.as_str(), onespend, bitcoind];
        said(&args, &bounded(COMMAND_S, &args, &self.variables));
    }

    /// Blocks to this address, by the bitcoind beside a node.
    fn mine(&self, node: &str, blocks: u32, address: &str) {
        let bitcoind = node.replace("node", "bitcoind");
        let cli = ["/usr/bin/bitcoin-cli", "-conf=/etc/bitcoind/bitcoin.conf", "generatetoaddress"];
        let rest = [&blocks.to_string(), address];
        self.compose(&[&["exec", "-T", &bitcoind][..], &cli[..], &rest[..]].concat());
    }

    /// The command line of the service `onespend`, as this caller.
    fn try_onespend(&self, caller: &str, args: &[&str]) -> Output {
        let run = ["run", "--rm", "--no-deps", "-T", "onespend", "--output", "json"];
        self.try_compose(&[&run[..], args].concat(), &[("ONESPEND_AS", caller)])
    }

    fn onespend(&self, caller: &str, args: &[&str]) -> Value {
        serde_json::from_str(&said(args, &self.try_onespend(caller, args))).unwrap()
    }

    fn is_primary(&self, node: &str) -> bool {
        let port = self.try_compose(&["port", node, "7802"], &[]);
        let address = String::from_utf8_lossy(&port.stdout).trim().parse::<SocketAddr>();
        address.is_ok_and(|address| health::status(address, "/primary", HEALTH_TIMEOUT) == 200)
    }

    /// The one of these nodes that takes spends, once there is one.
    fn primary(&self, among: &[&'static str]) -> &'static str {
        until("no node is /primary", || among.iter().copied().find(|node| self.is_primary(node)))
    }

    fn logs(&self) -> String {
        let output = self.try_compose(&["logs", "--no-color", "--tail=40"], &[]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How the engine judges a container, by the image's own health check.
    fn health(&self, service: &str) -> String {
        let id = self.compose(&["ps", "--quiet", service]);
        let args = ["docker", "inspect", "--format", "{{.State.Health.Status}}", &id];
        said(&args, &bounded(ENGINE_S, &args, &[]))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            say(&self.logs());
        }
        // Also what is half made.
        let _gone = self.try_compose(&["down", "--volumes", "--remove-orphans", "--timeout", "5"], &[]);
        let images: Vec<&str> = self.variables.iter().map(|(_, image)| image.as_str()).collect();
        let _none = bounded(COMMAND_S, &[&["docker", "image", "rm"][..], &images[..]].concat(), &[]);
    }
}

/// Looks again and again until there is something.
fn until<T>(otherwise: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{otherwise} after {PATIENCE:?}");
        thread::sleep(POLL);
    }
}

/// What a command wrote, if it ended well.
fn said(args: &[&str], output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{error}", args.join(" "), output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn compose_takes_the_file() {
    let programs = composes();
    if programs.is_empty() {
        say(&format!("SKIPPED: {NO_COMPOSE}"));
    }
    let file = format!("{FOLDER}/compose.yaml");
    for program in programs {
        let args = [&program[..], &["--file", &file, "config", "--services"]].concat();
        let services = said(&args, &bounded(ENGINE_S, &args, &[]));
        for name in NODES.iter().chain(&["pki", "bitcoind-1", "bitcoind-2", "bitcoind-3"]) {
            assert!(services.lines().any(|service| service == *name), "{program:?} sees no {name}: {services}");
        }
    }
}

#[test]
fn three_nodes_in_containers_pay_and_outlive_their_leader() {
    let program = match compose_program() {
        Ok(program) => program,
        Err(why) => {
            say(&format!("SKIPPED: {why}"));
            return;
        }
    };
    let scene = Scene::new(program);
    scene.images();
    scene.compose(&["up", "--detach", "--no-build"]);
    // Nodes take spends without it on regtest; bitcoinds tell each other of transactions once they have a recent block.
    scene.mine("node-1", 1, STRANGER);
    let leader = scene.primary(&NODES);

    let signer = ["signer", "descriptors", "--config", "/etc/onespend/node.toml", "--name", "hot"];
    let descriptor = scene.compose(&[&["exec", "-T", leader, CLI][..], &signer[..]].concat());
    let named = read(&format!("{FOLDER}/compose.yaml")).contains(&format!("\n# {descriptor}\n"));
    assert!(named, "compose.yaml names another wallet than {descriptor}");
    let operator = |args: &[&str]| scene.onespend("operator/alice", args);
    operator(&["wallet", "register", "hot", "--signer", "hot", "--descriptor", &descriptor]);
    let address = operator(&["wallet", "address", "hot"]);
    scene.mine(leader, 1, address["address"].as_str().unwrap());
    scene.mine(leader, MATURITY, STRANGER);
    pay(&scene, leader);

    let status = operator(&["status"]);
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(NODES.len()), "{status}");
    for node in NODES {
        until(&format!("{node} is not healthy"), || (scene.health(node) == "healthy").then_some(()));
    }
    scene.compose(&["kill", leader]);
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != leader).collect();
    scene.primary(&others);
    let still = scene.onespend("client/payouts", &["payment", "show", "order-1", "--wallet", "hot"]);
    assert_eq!(still["state"], "settled", "{still}");
}

/// Orders a payment and mines until it is settled. Until the coin is seen to be mature there is nothing to pay with;
/// the same order is the same payment, so it may be repeated.
fn pay(scene: &Scene, leader: &str) {
    let order = format!("{STRANGER}=10000");
    let order = ["pay", "--wallet", "hot", "--payment-id", "order-1", "--to", &order, "--feerate", "2"];
    let order = [&order[..], &["--wait", "broadcast", "--wait-timeout", "30s"][..]].concat();
    let client = "client/payouts";
    until("the payment is not taken", || scene.try_onespend(client, &order).status.success().then_some(()));
    until("the payment does not settle", || {
        scene.mine(leader, 1, STRANGER);
        let payment = scene.onespend(client, &["payment", "show", "order-1", "--wallet", "hot"]);
        (payment["state"] == "settled").then_some(())
    });
}
