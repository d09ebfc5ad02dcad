//! Real load balancers in front of the nodes, each with the very file that `docs/deploy` has for it: only addresses and
//! paths of certificates are put in.

mod deployed;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::Credentials;
use crate::ports::free_port;
use crate::process::Process;
use crate::programs;

use deployed::Places;

/// Envoy is the slowest to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A file in `docs/deploy`, and the program that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HAProxy, by HTTP health checks.
    Haproxy,
    /// HAProxy, by the agent check.
    HaproxyAgent,
    /// HAProxy, by `grpc.health.v1`.
    HaproxyGrpc,
    /// Envoy, by HTTP health checks.
    Envoy,
    /// Envoy, by `grpc.health.v1`.
    EnvoyGrpc,
    /// nginx, which has passive checks only.
    Nginx,
}

impl Kind {
    /// Every file.
    pub const ALL: [Self; 6] =
        [Self::Haproxy, Self::HaproxyAgent, Self::HaproxyGrpc, Self::Envoy, Self::EnvoyGrpc, Self::Nginx];

    /// What it is called in reports, on the command line and in names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::HaproxyAgent => "haproxy_agent",
            Self::HaproxyGrpc => "haproxy_grpc",
            Self::Envoy => "envoy",
            Self::EnvoyGrpc => "envoy_grpc",
            Self::Nginx => "nginx",
        }
    }

    /// The file, from the root of the project.
    pub fn file(self) -> &'static str {
        match self {
            Self::Haproxy => "docs/deploy/haproxy/tcp.cfg",
            Self::HaproxyAgent => "docs/deploy/haproxy/agent.cfg",
            Self::HaproxyGrpc => "docs/deploy/haproxy/grpc.cfg",
            Self::Envoy => "docs/deploy/envoy/http.yaml",
            Self::EnvoyGrpc => "docs/deploy/envoy/grpc.yaml",
            Self::Nginx => "docs/deploy/nginx/nginx.conf",
        }
    }

    /// Where the file lies.
    pub fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(self.file())
    }

    /// Whether it leads to the primary alone; nginx cannot know which that is.
    pub fn knows_the_primary(self) -> bool {
        self != Self::Nginx
    }

    /// The program.
    ///
    /// # Errors
    /// It is not installed; the message says how to get it.
    pub fn program(self) -> Result<PathBuf> {
        match self {
            Self::Haproxy | Self::HaproxyAgent | Self::HaproxyGrpc => programs::in_path("haproxy"),
            Self::Envoy | Self::EnvoyGrpc => programs::envoy(),
            Self::Nginx => programs::in_path("nginx"),
        }
    }

    /// What makes the program read `config` and do no more, and what makes it run, in the foreground.
    fn arguments(self, config: &Path, folder: &Path) -> (Vec<String>, Vec<String>) {
        let config = config.display().to_string();
        let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Haproxy | Self::HaproxyAgent | Self::HaproxyGrpc => {
                (words(&["-c", "-f", &config]), words(&["-db", "-f", &config]))
            }
            Self::Envoy | Self::EnvoyGrpc => {
                // Several on one machine share nothing.
                let quiet = ["--disable-hot-restart", "--log-level", "warning", "--concurrency", "2"];
                let run = words(&["-c", &config]).into_iter().chain(words(&quiet)).collect::<Vec<_>>();
                (words(&["--mode", "validate"]).into_iter().chain(run.clone()).collect(), run)
            }
            Self::Nginx => {
                let pid = folder.join("nginx.pid");
                let own = format!("daemon off; pid {};", pid.display());
                let run = words(&["-c", &config, "-e", "stderr", "-g", &own]);
                (run.iter().cloned().chain(words(&["-t"])).collect(), run)
            }
        }
    }
}

/// One node, as a load balancer sees it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `node-1` …
    pub name: String,
    /// Where connections go.
    pub data: SocketAddr,
    /// Where health is asked over HTTP; the same host as `data`.
    pub health: SocketAddr,
    /// Where HAProxy's agent check is answered; the same host as `data`.
    pub agent: SocketAddr,
}

/// A running load balancer. Dropping it ends it.
#[derive(Debug)]
pub struct Balancer {
    kind: Kind,
    primary: SocketAddr,
    read_only: SocketAddr,
    config: PathBuf,
    process: Process,
}

impl Balancer {
    /// Puts these nodes into the file of `docs/deploy` and the result into `folder`, has the program check it, and starts
    /// it. `own` is who the balancer is to the nodes; only checks by gRPC need it.
    ///
    /// # Errors
    /// The program is not installed, refuses the file, or does not listen; or the file does not name what is put in.
    pub fn start(kind: Kind, folder: &Path, backends: &[Backend], own: Option<&Credentials>) -> Result<Self> {
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))) };
        let (primary, read_only) = (listen()?, listen()?);
        let name = kind.name();
        let source = kind.path();
        let config = folder.join(name).with_extension(source.extension().unwrap_or_default());
        let both = folder.join(name).with_extension("pem");
        if let Some(own) = own {
            // HAProxy wants certificate and key in one file.
            fs::write(&both, [fs::read(&own.cert)?, fs::read(&own.key)?].concat())?;
        }
        let places = Places { primary, read_only, backends, own, both: &both };
        let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", kind.file()))?;
        let filled = deployed::fill(&text, &places).with_context(|| kind.file().to_owned())?;
        fs::write(&config, filled).with_context(|| format!("cannot write {}", config.display()))?;
        let program = kind.program()?;
        let (check_args, args) = kind.arguments(&config, folder);
        check(&program, &check_args)?;
        let process = Process::spawn(name, &program, &args, &folder.join(format!("{name}.log")))?;
        let mut balancer = Self { kind, primary, read_only, config, process };
        balancer.wait_until_it_listens()?;
        Ok(balancer)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.primary).is_err() {
            self.process.must_run()?;
            if Instant::now() >= deadline {
                let (name, tail) = (self.process.name(), self.process.log_tail());
                bail!("{name} does not listen after {START_TIMEOUT:?}\n{tail}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Which file it runs with.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The front end that leads to whoever may take spends; nginx's leads to any node.
    pub fn primary(&self) -> SocketAddr {
        self.primary
    }

    /// The front end that leads to anyone who may answer reads. nginx has none.
    pub fn read_only(&self) -> SocketAddr {
        self.read_only
    }

    /// The filled-in file that it runs with.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// It has; the message has the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }
}

/// Whether the program would start with its file. A warning of HAProxy's is a fault of the file.
fn check(program: &Path, args: &[String]) -> Result<()> {
    let output = Command::new(program).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("[WARNING]") {
        bail!("{} {} says no:\n{said}", program.display(), args.join(" "));
    }
    Ok(())
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
        let (args, _) = Kind::Haproxy.arguments(&config, folder.path());
        let error = check(&Kind::Haproxy.program().unwrap(), &args).unwrap_err().to_string();
        assert!(error.contains("no-such-keyword"), "{error}");
    }

    #[test]
    fn every_file_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Kind::ALL.iter().flat_map(|kind| [kind.name(), kind.file()]).collect();
        assert_eq!(names.len(), 2 * Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.path().is_file()));
    }
}
