//! Where the cluster is and who calls: options, environment, and a profile folder, in this order.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use onespend_proto::client::{Client, ClientConfig, TlsConfig};

use super::failure::Failure;
use super::profile::{Choice, Profile};
use super::values;
use crate::config::HostPort;
use crate::identity::Party;
use crate::tls;

/// Over the options in the help; whoever has it says how to reach a cluster.
pub const HEADING: &str = "Connection";
/// How long one call may take, all tries included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct Connection {
    /// Data port of a node or load balancer; repeat it, or separate several by commas
    #[arg(long = "endpoint", value_name = "HOST:PORT", env = "ONESPEND_ENDPOINTS", value_delimiter = ',', global = true, help_heading = HEADING)]
    endpoints: Vec<HostPort>,
    /// Control port of a node, for status and cluster commands; likewise
    #[arg(long, value_name = "HOST:PORT", env = "ONESPEND_CONTROL", value_delimiter = ',', global = true, help_heading = HEADING)]
    control: Vec<HostPort>,
    /// Certificate of the cluster's authority, PEM
    #[arg(long, value_name = "FILE", env = "ONESPEND_CA", global = true, help_heading = HEADING)]
    ca: Option<PathBuf>,
    /// Certificate to call with, PEM
    #[arg(long, value_name = "FILE", env = "ONESPEND_CERT", global = true, help_heading = HEADING)]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "ONESPEND_KEY", global = true, help_heading = HEADING)]
    key: Option<PathBuf>,
    /// Folder with ca.pem, one client's or operator's certificate and key, and the file `endpoints`
    #[arg(long, value_name = "DIR", env = "ONESPEND_PROFILE", global = true, help_heading = HEADING)]
    profile: Option<PathBuf>,
    /// Which certificate of the profile to call with, such as operator/alice
    #[arg(long = "as", value_name = "CALLER", env = "ONESPEND_AS", value_parser = values::caller, global = true, help_heading = HEADING)]
    caller: Option<Party>,
    /// How long one call may take, all tries included [default: 10s; registering a wallet, confirming a recovery: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::duration, global = true, help_heading = HEADING)]
    timeout: Option<Duration>,
}

/// Which ports a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Data ports.
    Data,
    /// Control ports.
    Control,
    /// Either.
    Any,
}

impl Connection {
    /// A client, which connects when it is first used. Needs a Tokio runtime.
    ///
    /// # Errors
    /// What is missing, and how to set it; or a file that is not what it should be.
    pub fn client(&self, need: Need) -> Result<Client, Failure> {
        Client::connect(self.settings(need)?).map_err(Failure::of_read)
    }

    /// The same, as settings.
    ///
    /// # Errors
    /// As [`Connection::client`].
    pub fn settings(&self, need: Need) -> Result<ClientConfig, Failure> {
        let profile = self.profile()?;
        let endpoints = first(&self.endpoints, profile.data);
        let control = first(&self.control, profile.control);
        let files =
            [self.ca.clone().or(profile.ca), self.cert.clone().or(profile.cert), self.key.clone().or(profile.key)];
        let missing = missing(need, &endpoints, &control, &files);
        let [Some(ca), Some(cert), Some(key)] = files else {
            return Err(unset(&missing));
        };
        if !missing.is_empty() {
            return Err(unset(&missing));
        }
        let tls = material(tls::Config { ca, cert, key })?;
        let mut config = ClientConfig::new(endpoints).with_control_endpoints(control).with_tls(tls);
        config.deadline = self.timeout.unwrap_or(TIMEOUT);
        config.long_deadline = self.timeout.unwrap_or(config.long_deadline);
        config.try_timeout = config.try_timeout.min(config.deadline);
        Ok(config)
    }

    /// How long a call may take, if it was said.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let choice = match &self.caller {
            _ if self.cert.is_some() && self.key.is_some() => Choice::Elsewhere,
            Some(caller) => Choice::Of(caller),
            None => Choice::Only,
        };
        match &self.profile {
            Some(folder) => Profile::open(folder, choice),
            None if self.caller.is_some() => {
                Err(Failure::usage("--as (ONESPEND_AS) chooses a certificate of a profile, but there is no profile")
                    .remedy("set --profile DIR or ONESPEND_PROFILE"))
            }
            None => Ok(Profile::default()),
        }
    }
}

fn first(given: &[HostPort], else_from_profile: Vec<HostPort>) -> Vec<String> {
    let chosen = if given.is_empty() { else_from_profile } else { given.to_vec() };
    chosen.iter().map(ToString::to_string).collect()
}

fn missing(need: Need, data: &[String], control: &[String], files: &[Option<PathBuf>; 3]) -> Vec<&'static str> {
    const DATA: &str = "data ports: --endpoint HOST:PORT or ONESPEND_ENDPOINTS";
    const CONTROL: &str = "control ports: --control HOST:PORT or ONESPEND_CONTROL";
    const EITHER: &str = "control ports (--control HOST:PORT or ONESPEND_CONTROL), or data ports (--endpoint HOST:PORT or ONESPEND_ENDPOINTS)";
    const FILES: [&str; 3] = [
        "authority: --ca FILE or ONESPEND_CA",
        "certificate: --cert FILE or ONESPEND_CERT",
        "private key: --key FILE or ONESPEND_KEY",
    ];
    let ports = match need {
        Need::Data => data.is_empty().then_some(DATA),
        Need::Control => control.is_empty().then_some(CONTROL),
        Need::Any => (data.is_empty() && control.is_empty()).then_some(EITHER),
    };
    let files = files.iter().zip(FILES).filter_map(|(file, how)| file.is_none().then_some(how));
    ports.into_iter().chain(files).collect()
}

fn unset(missing: &[&str]) -> Failure {
    let mut failure = Failure::usage("it is not set how to reach the cluster");
    for how in missing {
        failure = failure.with("missing", how);
    }
    failure.remedy("set these, or --profile DIR (ONESPEND_PROFILE): a folder with ca.pem, a client's or operator's certificate and key, and the file `endpoints`")
}

/// Reads the files, which must belong together and be valid now.
fn material(files: tls::Config) -> Result<TlsConfig, Failure> {
    tls::Material::load(&files).map_err(|error| {
        Failure::usage(format!("the certificate cannot be used: {error}"))
            .remedy("issue one with `onespend pki issue client NAME --dir DIR`, or `… operator NAME …`")
    })?;
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
    };
    Ok(TlsConfig { ca: read(files.ca)?, cert: read(files.cert)?, key: read(files.key)? })
}
