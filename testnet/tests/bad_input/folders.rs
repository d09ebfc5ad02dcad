//! Data folders that a node must not touch: of others, from the future, damaged, in use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use onespend_testnet::cluster::Addresses;
use onespend_testnet::process::Process;
use onespend_testnet::programs;

use crate::callers::other_cluster;
use crate::stage::Stage;

/// A node that refuses says so at once.
const END: Duration = Duration::from_secs(20);
/// The lock is taken before anything is looked at, and its file is empty.
const LOCK_FILE: &str = "onespend.lock";
const DATABASES: [&str; 2] = ["raft.db", "state.db"];

/// A node that is stopped, and copies of its folder to spoil.
struct Specimen {
    node: usize,
    config: String,
    original: PathBuf,
    folder: PathBuf,
    next: usize,
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(folder: &Path) -> Result<Files> {
    let mut found = Files::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.file_name().is_some_and(|name| name != LOCK_FILE) {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

impl Specimen {
    fn new(stage: &mut Stage, node: usize) -> Result<Self> {
        stage.cluster.node(node)?.stop()?;
        let folder = stage.cluster.folder().join("spoilt");
        fs::create_dir_all(&folder)?;
        let home = stage.cluster.folder().join(format!("node-{}", node + 1));
        let config = fs::read_to_string(home.join("config.toml"))?;
        Ok(Self { node, config, original: home.join("data"), folder, next: 0 })
    }

    /// A fresh copy of the data folder, and a configuration that names it.
    fn copy(&mut self) -> Result<(PathBuf, String)> {
        self.next += 1;
        let copy = self.folder.join(format!("{}-data", self.next));
        copy_folder(&self.original, &copy)?;
        // What is left in a write-ahead log would hide the damage that is done to the database.
        for database in DATABASES {
            let database = rusqlite::Connection::open(copy.join(database))?;
            database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?;
        }
        let config = replaced(&self.config, &self.original.display().to_string(), &copy.display().to_string())?;
        Ok((copy, config))
    }

    /// Starts a node with this configuration; it must end by itself. Gives its exit code and what it said.
    fn start(&self, config: &str) -> Result<(Option<i32>, String)> {
        let file = self.folder.join(format!("{}.toml", self.next));
        fs::write(&file, config)?;
        end_of(&file, &file.with_extension("log"))
    }

    /// Starts a node on a folder that was spoilt. It must refuse, say all of this, and leave the folder as it is.
    fn refused(&self, stage: &mut Stage, what: &str, folder: &Path, config: &str, says: &[&str]) -> Result<()> {
        let before = files(folder)?;
        let (code, told) = self.start(config)?;
        stage.check(what, code == Some(1), || format!("exit code {code:?}: {told}"));
        for text in says {
            stage.check(what, told.contains(text), || format!("does not say {text:?}: {told}"));
        }
        stage.check(what, !told.contains("panicked"), || told.clone());
        let after = files(folder)?;
        let names: Vec<&PathBuf> = before.keys().chain(after.keys()).collect();
        for name in names {
            stage.check(what, before.get(name) == after.get(name), || format!("changed {}", name.display()));
        }
        Ok(())
    }
}

/// Runs `onespend serve` until it ends by itself.
pub fn end_of(config: &Path, log: &Path) -> Result<(Option<i32>, String)> {
    let args = ["serve", "--config", &config.display().to_string()].map(str::to_owned);
    let _of_a_run_before = fs::remove_file(log);
    let mut process = Process::spawn("spoilt", &programs::onespend()?, &args, log)?;
    let ended = process.wait(END)?;
    Ok((ended.code(), fs::read_to_string(log)?))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        if path.is_dir() { copy_folder(&path, &to.join(name))? } else { fs::copy(&path, to.join(name)).map(drop)? }
    }
    Ok(())
}

/// The text with one part replaced, which must be there.
pub fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "no {from:?} in the configuration");
    Ok(text.replace(from, to))
}

/// Changes a file in place.
fn spoil(file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(file)?;
    change(&mut bytes);
    fs::write(file, bytes)?;
    Ok(())
}

/// All of it, on copies of one node's folder. The node itself comes back at the end.
pub async fn check(stage: &mut Stage) -> Result<()> {
    let leader = stage.cluster.wait_for_primary(END)?;
    let node = (leader + 2) % 3;
    let mut specimen = Specimen::new(stage, node)?;
    owners(stage, &mut specimen)?;
    formats(stage, &mut specimen)?;
    for database in DATABASES {
        damage(stage, &mut specimen, database)?;
    }
    missing(stage, &mut specimen)?;
    in_use(stage, &specimen, leader)?;
    stage.cluster.node(specimen.node)?.restart()?;
    wait_until_ready(stage, specimen.node).await
}

fn owners(stage: &mut Stage, specimen: &mut Specimen) -> Result<()> {
    let id = specimen.node + 1;
    let pki = stage.cluster.folder().join("pki");
    let (folder, config) = specimen.copy()?;
    let theirs = other_cluster(stage, "node", &id.to_string())?;
    let config = replaced(&config, "id = 'demo'", "id = 'other'")?;
    let config =
        replaced(&config, &pki.display().to_string(), &theirs.ca.parent().context("a folder")?.display().to_string())?;
    let says = ["identity.json", "belongs to", "\"demo\"", "\"other\""];
    specimen.refused(stage, "a folder of another cluster", &folder, &config, &says)?;

    let (folder, config) = specimen.copy()?;
    let other = if id == 1 { 2 } else { 1 };
    let config = replaced(&config, &format!("[node]\nid = {id}\n"), &format!("[node]\nid = {other}\n"))?;
    let config = replaced(&config, &format!("pki/node-{id}."), &format!("pki/node-{other}."))?;
    let (found, expected) = (format!("node {id} of"), format!("node {other} of"));
    let says = ["identity.json", "belongs to", &found, &expected];
    specimen.refused(stage, "a folder of another node", &folder, &config, &says)?;

    Ok(())
}

/// Bytes of an SQLite header that hold the version of the schema (SQLite file format, section 1.3.12).
const USER_VERSION_AT: usize = 60;

fn formats(stage: &mut Stage, specimen: &mut Specimen) -> Result<()> {
    let (folder, config) = specimen.copy()?;
    let identity = folder.join("identity.json");
    let text = fs::read_to_string(&identity)?;
    fs::write(&identity, replaced(&text, "\"format_version\": 1", "\"format_version\": 2")?)?;
    let says = ["identity.json", "format 2", "reads up to format 1"];
    specimen.refused(stage, "a folder of a newer format", &folder, &config, &says)?;

    for text in ["", "{", "[]", "{\"format_version\": -1}", "\u{0}\u{0}\u{0}"] {
        let (folder, config) = specimen.copy()?;
        fs::write(folder.join("identity.json"), text)?;
        specimen.refused(stage, "an identity that is none", &folder, &config, &["identity.json", "damaged"])?;
    }
    for database in DATABASES {
        let (folder, config) = specimen.copy()?;
        spoil(&folder.join(database), |bytes| {
            bytes[USER_VERSION_AT..USER_VERSION_AT + 4].copy_from_slice(&[0, 0, 0, 99]);
        })?;
        let what = format!("a {database} of a newer format");
        specimen.refused(stage, &what, &folder, &config, &[database, "format 99"])?;
    }
    Ok(())
}

fn damage(stage: &mut Stage, specimen: &mut Specimen, database: &str) -> Result<()> {
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let kinds: [Damage; 7] = [
        ("another file's header", |bytes| bytes[..16].copy_from_slice(b"PNG or something")),
        ("zeros in the middle", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0);
        }),
        ("noise in the middle", |bytes| {
            let middle = bytes.len() / 2;
            for byte in bytes.iter_mut().skip(middle).take(4096) {
                *byte ^= 0x5a;
            }
        }),
        ("half of it", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a few bytes less", |bytes| bytes.truncate(bytes.len() - 100)),
        ("nothing", Vec::clear),
        ("text", |bytes| *bytes = b"I was a database once".to_vec()),
    ];
    for (kind, change) in kinds {
        let (folder, config) = specimen.copy()?;
        spoil(&folder.join(database), change)?;
        let what = format!("{database}: {kind}");
        specimen.refused(stage, &what, &folder, &config, &[database, "damaged"])?;
    }
    mixed(stage, specimen, database)?;
    // SQLite itself sees nothing wrong in this: only the checksum of the row does. Everywhere, because what a row was
    // before may still lie in the file.
    let (folder, config) = specimen.copy()?;
    let needle: &[u8] = if database == "raft.db" { b"client/payouts" } else { b"operator/alice" };
    let mut found = 0;
    spoil(&folder.join(database), |bytes| {
        let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle));
        for at in places.collect::<Vec<_>>() {
            bytes[at] ^= 1;
            found += 1;
        }
    })?;
    ensure!(found > 0, "{database} does not hold {:?}", String::from_utf8_lossy(needle));
    specimen.refused(stage, &format!("{database}: one bit"), &folder, &config, &[database, "checksum"])
}

/// A database that belongs to somebody else, or to another life of this folder, and one with a hole.
fn mixed(stage: &mut Stage, specimen: &mut Specimen, database: &str) -> Result<()> {
    let table = if database == "raft.db" { ("entry", "idx") } else { ("state", "key") };
    let hole =
        format!("DELETE FROM {0} WHERE {1} = (SELECT {1} FROM {0} ORDER BY {1} LIMIT 1 OFFSET 3)", table.0, table.1);
    let mut cases = vec![
        ("of another node", "UPDATE identity SET node_id = 9".to_owned(), "belongs to node 9"),
        ("of another cluster", "UPDATE identity SET cluster_id = 'other'".to_owned(), "belongs to"),
        ("of another life of the folder", "UPDATE identity SET instance = 'other'".to_owned(), "instance other"),
        ("of a newer format", "UPDATE identity SET format_version = 2".to_owned(), "format 2"),
        ("of nobody", "DELETE FROM identity".to_owned(), "whose it is"),
    ];
    if database == "raft.db" {
        cases.push(("with a hole", hole, "is missing"));
    }
    for (what, change, says) in cases {
        let (folder, config) = specimen.copy()?;
        let open = rusqlite::Connection::open(folder.join(database))?;
        ensure!(open.execute(&change, [])? == 1, "{change} changes nothing");
        open.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?;
        drop(open);
        specimen.refused(stage, &format!("a {database} {what}"), &folder, &config, &[database, says])?;
    }
    Ok(())
}

fn missing(stage: &mut Stage, specimen: &mut Specimen) -> Result<()> {
    for file in ["raft.db", "state.db", "identity.json"] {
        let (folder, config) = specimen.copy()?;
        fs::remove_file(folder.join(file))?;
        specimen.refused(stage, &format!("no {file}"), &folder, &config, &[file, "is missing"])?;
    }
    let (folder, config) = specimen.copy()?;
    fs::copy(folder.join("raft.db"), folder.join("state.db"))?;
    specimen.refused(stage, "one database in place of the other", &folder, &config, &["state.db", "not a state.db"])?;
    let file = specimen.folder.join("a-file");
    fs::write(&file, "")?;
    let config = replaced(&config, &folder.display().to_string(), &file.display().to_string())?;
    let (code, told) = specimen.start(&config)?;
    let named = told.contains("a-file is not a folder");
    stage.check("a file for a folder", code == Some(2) && named, || format!("exit code {code:?}: {told}"));
    Ok(())
}

/// The leader's own folder, while it runs.
fn in_use(stage: &mut Stage, specimen: &Specimen, leader: usize) -> Result<()> {
    let home = stage.cluster.folder().join(format!("node-{}", leader + 1));
    let mut config = fs::read_to_string(home.join("config.toml"))?;
    let (own, free) = (stage.cluster.nodes()[leader].addresses(), Addresses::free()?);
    let pairs =
        [(own.data, free.data), (own.control, free.control), (own.health, free.health), (own.agent, free.agent)];
    for (own, free) in pairs {
        config = replaced(&config, &own.to_string(), &free.to_string())?;
    }
    let (code, told) = specimen.start(&config)?;
    stage.check("a second process", code == Some(1), || format!("exit code {code:?}: {told}"));
    let folder = home.join("data").display().to_string();
    for text in [folder.as_str(), LOCK_FILE, "in use by another process"] {
        stage.check("a second process", told.contains(text), || format!("does not say {text:?}: {told}"));
    }
    let still_runs = stage.cluster.node(leader)?.is_running();
    stage.check("the first process", still_runs, || "ended".to_owned());
    let taken = fs::read_to_string(home.join("config.toml"))?;
    let (code, told) = specimen.start(&taken)?;
    let named = code == Some(1) && told.contains("listen.data");
    stage.check("ports that are taken", named, || format!("exit code {code:?}: {told}"));
    Ok(())
}

async fn wait_until_ready(stage: &mut Stage, node: usize) -> Result<()> {
    let address = stage.cluster.nodes()[node].addresses().health;
    for _ in 0..1000 {
        if onespend_testnet::health::status(address, "/readyz", Duration::from_millis(500)) == 200 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("node {} does not come back", node + 1)
}
