//! Where the programs lie that the harness starts.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

/// Fails, before anything is started, when a program that a cluster needs is missing.
///
/// # Errors
/// One is; the message says how to get it.
pub fn check_all() -> Result<()> {
    onespend()?;
    bitcoind()?;
    in_path("haproxy")?;
    Ok(())
}

/// The `onespend` binary: `$ONESPEND_EXE`, else the one that was built beside this program.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn onespend() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("ONESPEND_EXE") {
        return existing(PathBuf::from(chosen), "ONESPEND_EXE");
    }
    beside_this("onespend", "make build").context("or set ONESPEND_EXE")
}

fn beside_this(name: &str, built_by: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("cannot tell where this program lies")?;
    // A test lies one folder deeper, in deps/.
    let mut beside = this.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| anyhow!("no {name} beside {}: build it with `{built_by}`", this.display()))
}

/// The binary whose faults the harness can switch on, built by `make build-failpoints`.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn onespend_failpoints() -> Result<PathBuf> {
    beside_this("onespend-failpoints", "make build-failpoints")
}

/// The binary whose guards can be taken away, built by `make chaos-selftest`.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn onespend_sabotage() -> Result<PathBuf> {
    beside_this("onespend-sabotage", "make chaos-selftest")
}

/// A bitcoind: `$BITCOIND_EXE`, else what `testnet/bitcoind.sh` finds (or builds: minutes, once per machine).
///
/// # Errors
/// None can be had.
pub fn bitcoind() -> Result<PathBuf> {
    static FOUND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    if let Some(chosen) = env::var_os("BITCOIND_EXE") {
        return existing(PathBuf::from(chosen), "BITCOIND_EXE");
    }
    let found = FOUND.get_or_init(|| from_script("bitcoind.sh").map_err(|error| format!("{error:#}")));
    found.clone().map_err(|message| anyhow!(message))
}

/// A Python with grpcio and grpcio-tools: `$ONESPEND_PYTHON`, else what `testnet/python.sh` makes.
///
/// # Errors
/// None can be had.
pub fn python() -> Result<PathBuf> {
    match env::var_os("ONESPEND_PYTHON") {
        Some(chosen) => existing(PathBuf::from(chosen), "ONESPEND_PYTHON"),
        None => from_script("python.sh"),
    }
}

/// An Envoy: `$ONESPEND_ENVOY`, else what `testnet/envoy.sh` makes.
///
/// # Errors
/// None can be had.
pub fn envoy() -> Result<PathBuf> {
    match env::var_os("ONESPEND_ENVOY") {
        Some(chosen) => existing(PathBuf::from(chosen), "ONESPEND_ENVOY"),
        None => from_script("envoy.sh"),
    }
}

/// A program by its name, from `PATH` (and `/usr/sbin`, where Debian puts HAProxy).
///
/// # Errors
/// It is not installed.
pub fn in_path(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| anyhow!("{name} is not installed: run testnet/setup.sh test"))
}

fn existing(path: PathBuf, named_by: &str) -> Result<PathBuf> {
    if path.is_file() { Ok(path) } else { bail!("{named_by}={} is not a file", path.display()) }
}

/// Runs a script of this crate that prints one path. Its progress goes to our stderr.
fn from_script(name: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let output = Command::new(&script)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), output.status);
    }
    let path = String::from_utf8(output.stdout).context("its answer is not text")?;
    existing(PathBuf::from(path.trim()), name)
}
