//! Certificates, made by the command line as an operator would make them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::CLUSTER_ID;
use crate::programs;

/// Who a caller is: its certificate and key, and the authority that it trusts.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// PEM of the authority.
    pub ca: PathBuf,
    /// PEM of the certificate.
    pub cert: PathBuf,
    /// PEM of the private key.
    pub key: PathBuf,
}

impl Credentials {
    /// What the command line says to these control ports: the whole output, if the command succeeds.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn run(&self, control: &[SocketAddr], args: &[&str]) -> Result<String> {
        let control: Vec<String> = control.iter().map(SocketAddr::to_string).collect();
        let files = [&self.ca, &self.cert, &self.key].map(|file| file.display().to_string());
        let mut all: Vec<&str> = args.to_vec();
        for (flag, file) in ["--ca", "--cert", "--key"].iter().zip(&files) {
            all.extend([flag, file.as_str()]);
        }
        for address in &control {
            all.extend(["--control", address.as_str()]);
        }
        run(&all)
    }
}

/// Makes the authority in `folder`.
///
/// # Errors
/// There is no `onespend`, or it refuses.
pub fn init(folder: &Path) -> Result<()> {
    run(&["pki", "init", "--dir", &folder.display().to_string(), "--cluster", CLUSTER_ID])?;
    ensure!(folder.join("ca.pem").is_file(), "pki init made no ca.pem");
    Ok(())
}

/// Issues a certificate: `kind` is node, client or operator. Everybody is reached as localhost or 127.0.0.1.
///
/// # Errors
/// There is no `onespend`, or it refuses.
pub fn issue(folder: &Path, kind: &str, name: &str) -> Result<Credentials> {
    let dir = folder.display().to_string();
    let mut args = vec!["pki", "issue", "--dir", &dir];
    if kind == "node" {
        args.extend(["--host", "127.0.0.1"]);
    }
    args.extend([kind, name]);
    run(&args)?;
    known(folder, kind, name).with_context(|| format!("pki issue made no certificate for {kind} {name}"))
}

/// The certificate that was issued, if it was.
pub fn known(folder: &Path, kind: &str, name: &str) -> Option<Credentials> {
    let credentials = Credentials {
        ca: folder.join("ca.pem"),
        cert: folder.join(format!("{kind}-{name}.pem")),
        key: folder.join(format!("{kind}-{name}.key")),
    };
    (credentials.cert.is_file() && credentials.key.is_file()).then_some(credentials)
}

/// What the command line says when it succeeds.
pub(super) fn run(args: &[&str]) -> Result<String> {
    let program = programs::onespend()?;
    let output =
        Command::new(&program).args(args).output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("onespend {}: {}\n{}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
