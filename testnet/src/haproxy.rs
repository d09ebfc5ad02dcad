//! A real HAProxy in front of the nodes: TCP pass-through (TLS ends in the nodes), routed by the health port.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ports::free_port;
use crate::process::Process;
use crate::programs;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// One node, as HAProxy sees it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in HAProxy's log.
    pub name: String,
    /// Where connections go.
    pub data: SocketAddr,
    /// Where health is asked; the same host as `data`.
    pub health: SocketAddr,
}

/// A running HAProxy. Dropping it ends it.
#[derive(Debug)]
pub struct Haproxy {
    primary: SocketAddr,
    read_only: SocketAddr,
    config: PathBuf,
    process: Process,
}

impl Haproxy {
    /// Writes `haproxy.cfg` into `folder`, has HAProxy check it, and starts it.
    ///
    /// # Errors
    /// HAProxy is not installed, refuses the file, or does not listen.
    pub fn start(folder: &Path, backends: &[Backend]) -> Result<Self> {
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))) };
        let (primary, read_only) = (listen()?, listen()?);
        let config = folder.join("haproxy.cfg");
        fs::write(&config, configuration(primary, read_only, backends)).context("cannot write haproxy.cfg")?;
        let program = programs::in_path("haproxy")?;
        check(&program, &config)?;
        let args = ["-db".to_owned(), "-f".to_owned(), config.display().to_string()];
        let process = Process::spawn("haproxy", &program, &args, &folder.join("haproxy.log"))?;
        let mut haproxy = Self { primary, read_only, config, process };
        haproxy.wait_until_it_listens()?;
        Ok(haproxy)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.primary).is_err() {
            self.process.must_run()?;
            if Instant::now() >= deadline {
                bail!("haproxy does not listen after {START_TIMEOUT:?}\n{}", self.process.log_tail());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The front end that leads to whoever may take spends.
    pub fn primary(&self) -> SocketAddr {
        self.primary
    }

    /// The front end that leads to anyone who may answer reads.
    pub fn read_only(&self) -> SocketAddr {
        self.read_only
    }

    /// The file that it runs with.
    pub fn config(&self) -> &Path {
        &self.config
    }
}

/// `haproxy -c`: whether it would start with this file.
fn check(program: &Path, config: &Path) -> Result<()> {
    let output = Command::new(program).arg("-c").arg("-f").arg(config).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("[WARNING]") {
        bail!("haproxy does not like {}:\n{said}", config.display());
    }
    Ok(())
}

/// The whole file. A node that stops being primary loses its connections at once, so no caller keeps talking to a
/// deposed leader; a check that fails once is enough, because the endpoint itself has the hysteresis.
fn configuration(primary: SocketAddr, read_only: SocketAddr, backends: &[Backend]) -> String {
    let mut text = String::from(
        "global
    maxconn 4096

defaults
    mode tcp
    timeout connect 200ms
    timeout check 400ms
    # Streams (WatchPayments) may be silent for long; HTTP/2 keepalive finds dead peers.
    timeout client 1h
    timeout server 1h
    option redispatch 1
    retries 3
    default-server check check-proto h1 inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
",
    );
    for (name, listen) in [("primary", primary), ("read-only", read_only)] {
        let _infallible = write!(
            text,
            "
frontend {name}
    bind {listen}
    default_backend {name}

backend {name}
    balance roundrobin
    option httpchk
    http-check send meth GET uri /{name} ver HTTP/1.1 hdr Host onespend
    http-check expect status 200
"
        );
        for Backend { name, data, health } in backends {
            let _infallible = writeln!(text, "    server {name} {data} port {}", health.port());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_haproxy_refuses_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("haproxy.cfg");
        fs::write(&config, "global\n    no-such-keyword 1\n").unwrap();
        let program = programs::in_path("haproxy").unwrap();
        let error = check(&program, &config).unwrap_err().to_string();
        assert!(error.contains("no-such-keyword"), "{error}");
    }
}
