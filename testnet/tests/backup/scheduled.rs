//! Backups that nodes make by themselves, in a folder and in a bucket: those that follow make them, each keeps its latest,
//! and its metrics say when it made the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onespend_testnet::cluster::CLUSTER_ID;
use onespend_testnet::health;
use serde_json::Value;

use crate::scene::{Scene, eventually, onespend_or_refusal};
use crate::server::Server;

/// The shortest interval that a configuration may name.
const EVERY_MS: u64 = 1_000;
/// Longer than a test takes.
const A_DAY_MS: u64 = 86_400_000;
const KEEP: usize = 2;
/// Backups of a node that are waited for: more than it keeps.
const MADE: usize = 3;
/// Nodes that make some: all but the leader, which leaves it to those that are in sync.
const MAKERS: usize = 2;
const ASK: Duration = Duration::from_secs(2);
const BUCKET: &str = "backups";
const PREFIX: &str = "onespend/demo";
const LAST_SUCCESS: &str = "onespend_backup_last_success_timestamp_seconds";
const FAILURES: &str = "onespend_backup_failures_total";

#[tokio::test(flavor = "multi_thread")]
async fn nodes_back_up_by_their_schedule_keep_the_latest_and_wait_for_their_time() {
    let mut scene = Scene::start("scheduled").await;
    let place = Place::folder(&scene);
    let makers = nodes_back_up(&mut scene, &place).await;
    a_node_that_was_away_waits_for_its_time(&mut scene, &place, makers[0]).await;
    a_folder_that_hangs_is_a_failure_until_it_answers(&mut scene, &place, makers[0]).await;
    scene.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_back_up_by_their_schedule_to_a_bucket_and_keep_the_latest() {
    let server = Server::start();
    let mut scene = Scene::start("scheduled-s3").await;
    let place = Place::bucket(&scene, &server);
    nodes_back_up(&mut scene, &place).await;
    scene.finish();
}

/// By node, the names of its backups in order of time.
type Kept = BTreeMap<u64, Vec<String>>;

/// Where backups go.
struct Place {
    /// A folder or a part of a bucket, as the command line takes it.
    address: String,
    /// What the command line has to know beside that.
    options: Vec<String>,
    /// The same as keys of a node's configuration.
    keys: String,
}

impl Place {
    fn folder(scene: &Scene) -> Self {
        let folder = scene.cluster.folder().join("backups");
        fs::create_dir(&folder).unwrap();
        let address = folder.to_str().unwrap().to_owned();
        Self { keys: format!("folder = '{address}'\n"), options: Vec::new(), address }
    }

    fn bucket(scene: &Scene, server: &Server) -> Self {
        server.make_bucket(BUCKET);
        let secrets = scene.cluster.folder().join("s3-credentials");
        fs::write(&secrets, "aws_access_key_id = testing\naws_secret_access_key = testing\n").unwrap();
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
        let (endpoint, secrets) = (server.endpoint(), secrets.to_str().unwrap());
        let options = ["--s3-endpoint", &endpoint, "--s3-credentials", secrets, "--s3-allow-http"];
        Self {
            address: format!("s3://{BUCKET}/{PREFIX}"),
            options: options.map(str::to_owned).to_vec(),
            keys: format!(
                "s3_bucket = '{BUCKET}'\ns3_prefix = '{PREFIX}'\ns3_endpoint = '{endpoint}'\n\
                 s3_credentials_file = '{secrets}'\ns3_allow_http = true\n"
            ),
        }
    }

    fn section(&self, every_ms: u64) -> String {
        format!("\n[backup]\n{}every_ms = {every_ms}\nkeep = {KEEP}\n", self.keys)
    }

    /// What the command line says of a place or a backup. It is refused where a backup has gone meanwhile.
    fn say(&self, verb: &str, at: &str) -> Result<Value, String> {
        let options = self.options.iter().map(String::as_str);
        let args: Vec<&str> = ["-o", "json", "backup", verb, at].into_iter().chain(options).collect();
        onespend_or_refusal(&args).map(|said| serde_json::from_str(&said).unwrap())
    }

    fn kept(&self) -> Result<Kept, String> {
        let listed = self.say("list", &self.address)?;
        let mut names: Vec<&str> =
            listed["backups"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let mut kept = Kept::new();
        for name in names {
            kept.entry(maker_and_time(name).0).or_default().push(name.to_owned());
        }
        Ok(kept)
    }

    /// What a node's newest backup is, once every part of it is checked.
    fn newest(&self, node: u64) -> Result<Value, String> {
        let kept = self.kept()?;
        let name = kept.get(&node).and_then(|names| names.last()).ok_or("there is none")?;
        self.say("verify", &format!("{}/{name}", self.address))
    }
}

/// The node that made a backup, and when, in Unix milliseconds, as the name says.
fn maker_and_time(name: &str) -> (u64, u64) {
    let rest = name.strip_prefix(&format!("onespend-{CLUSTER_ID}-n"));
    let parts: Vec<&str> = rest.unwrap_or_else(|| panic!("{name} is no scheduled backup's name")).split('-').collect();
    (parts[0].parse().unwrap(), parts[1].parse().unwrap())
}

/// Gives every node the schedule, and looks at what comes of it; the nodes that made backups.
async fn nodes_back_up(scene: &mut Scene, place: &Place) -> Vec<u64> {
    scene.pay("before").await;
    for index in 0..scene.cluster.nodes().len() {
        configure(scene, index, &place.section(EVERY_MS)).await;
    }
    let makers = made_and_retired(place).await;
    for node in &makers {
        the_newest_is_whole_and_the_metrics_say_so(scene, place, *node).await;
    }
    makers
}

/// Restarts a node with this section, and waits until it is back.
async fn configure(scene: &mut Scene, index: usize, section: &str) {
    scene.cluster.node(index).unwrap().reconfigure(section).unwrap();
    let health = scene.cluster.nodes()[index].addresses().health;
    eventually("the node is back", async || match health::status(health, "/readyz", ASK) {
        200 => Ok(()),
        status => Err(format!("/readyz says {status}")),
    })
    .await;
}

/// Waits until nodes have made more backups than they keep, and kept the latest of them; these nodes.
async fn made_and_retired(place: &Place) -> Vec<u64> {
    let mut seen: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    eventually("nodes have made backups, and kept the latest", async || {
        let kept = place.kept()?;
        for (node, names) in &kept {
            // The oldest goes when the newest was read back.
            assert!(names.len() <= KEEP + 1, "node {node} keeps {names:?}");
            seen.entry(*node).or_default().extend(names.iter().cloned());
        }
        let has_only_the_latest = |(node, names): &(&u64, &Vec<String>)| {
            let made = &seen[*node];
            made.len() >= MADE && made.iter().skip(made.len() - KEEP).eq(names.iter())
        };
        let makers: Vec<u64> = kept.iter().filter(has_only_the_latest).map(|(node, _)| *node).collect();
        if makers.len() >= MAKERS { Ok(makers) } else { Err(format!("kept {kept:?}, seen {seen:?}")) }
    })
    .await
}

async fn the_newest_is_whole_and_the_metrics_say_so(scene: &Scene, place: &Place, node: u64) {
    // By the time that it is looked at it may have gone already, and one of a node that lags may lack the payment.
    let newest = eventually("the newest backup is whole and holds the payment", async || {
        let newest = place.newest(node)?;
        if newest["payments"] == 1 { Ok(newest) } else { Err(newest.to_string()) }
    })
    .await;
    assert_eq!((&newest["cluster_id"], &newest["node_id"]), (&CLUSTER_ID.into(), &node.into()), "{newest}");
    let made_s = newest["made_unix_ms"].as_u64().unwrap() / 1_000;
    eventually("the metrics tell of it", async || {
        let last_s = last_success_s(scene, node)?;
        if last_s >= made_s { Ok(()) } else { Err(format!("{last_s}, and it was made at {made_s}")) }
    })
    .await;
    assert_eq!(metric(scene, node, FAILURES).unwrap(), "0");
}

/// Its schedule goes on from the last backup that it has there, as if it had never been down.
async fn a_node_that_was_away_waits_for_its_time(scene: &mut Scene, place: &Place, node: u64) {
    let index = index_of(scene, node);
    scene.cluster.node(index).unwrap().stop().unwrap();
    let before = place.kept().unwrap();
    configure(scene, index, &place.section(A_DAY_MS)).await;
    let (_, made_ms) = maker_and_time(before[&node].last().unwrap());
    eventually("the node knows when it made the last one", async || {
        let last_s = last_success_s(scene, node)?;
        if last_s == made_ms / 1_000 { Ok(()) } else { Err(format!("{last_s}, and it was made at {made_ms} ms")) }
    })
    .await;
    // Meanwhile it would have made one, too.
    let known: BTreeSet<&String> = before.values().flatten().collect();
    let mut more: BTreeSet<String> = BTreeSet::new();
    eventually("others have made more", async || {
        let kept = place.kept()?;
        let others = kept.iter().filter(|(maker, _)| **maker != node).flat_map(|(_, names)| names);
        more.extend(others.filter(|name| !known.contains(name)).cloned());
        if more.len() >= MADE { Ok(()) } else { Err(format!("{more:?}")) }
    })
    .await;
    assert_eq!(place.kept().unwrap()[&node], before[&node]);
}

/// Whoever opens a pipe to read waits for somebody who writes: so the folder hangs for all who list it.
async fn a_folder_that_hangs_is_a_failure_until_it_answers(scene: &mut Scene, place: &Place, node: u64) {
    let (index, pipe) = (index_of(scene, node), Path::new(&place.address).join("hangs.backup"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    configure(scene, index, &place.section(EVERY_MS)).await;
    eventually("the failure is counted", async || {
        let failures = metric(scene, node, FAILURES)?;
        if failures == "0" { Err(failures) } else { Ok(()) }
    })
    .await;
    let log = fs::read_to_string(scene.cluster.nodes()[index].log_file()).unwrap();
    assert_eq!(log.matches("may hang").count(), 1, "it is said once");

    let answered_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let answers = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    drop(answers);
    eventually("it makes backups again", async || {
        let last_s = last_success_s(scene, node)?;
        if last_s >= answered_s { Ok(()) } else { Err(format!("{last_s}, and the folder answers since {answered_s}")) }
    })
    .await;
}

fn index_of(scene: &Scene, node: u64) -> usize {
    scene.cluster.nodes().iter().position(|known| known.id() == node).unwrap()
}

/// The value of a node's metric that has no labels.
fn metric(scene: &Scene, node: u64, name: &str) -> Result<String, String> {
    let health = scene.cluster.nodes()[index_of(scene, node)].addresses().health;
    let text = health::get(health, "/metrics", ASK).map_err(|error| error.to_string())?.body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(str::to_owned).ok_or_else(|| format!("{name} is not shown"))
}

/// When a node last made a backup, in whole seconds since 1970.
fn last_success_s(scene: &Scene, node: u64) -> Result<u64, String> {
    let value = metric(scene, node, LAST_SUCCESS)?;
    let whole = value.split('.').next().and_then(|whole| whole.parse().ok());
    whole.ok_or_else(|| format!("{LAST_SUCCESS} is {value}"))
}
