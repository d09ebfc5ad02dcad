//! `onespend pki`: a certificate authority for one cluster, in a folder.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, Show};
use crate::pki::{self, DEFAULT_DAYS, Issued, Kind, MAX_DAYS, PkiError};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the certificate authority of a new cluster: ca.pem and ca.key. Keep ca.key off the nodes
    Init {
        /// Name of the cluster: 1 to 32 of a-z, 0-9 and inner hyphens
        #[arg(long, value_name = "ID")]
        cluster: String,
        /// Folder to write to; created if missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Issue a certificate: node-1.pem and node-1.key, client-NAME.…, operator-NAME.…
    Issue {
        /// Whom it is for
        #[arg(value_enum)]
        kind: Party,
        /// A node's id, or a name: 1 to 32 of a-z, 0-9 and inner hyphens
        name: String,
        /// Folder with ca.pem and ca.key
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// IP address or DNS name by which a node is reached, besides localhost; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Days of validity
        #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
        days: u32,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Party {
    /// A member of the cluster
    Node,
    /// A person or job that administers
    Operator,
    /// A wallet back end
    Client,
}

impl From<Party> for Kind {
    fn from(party: Party) -> Self {
        match party {
            Party::Node => Self::Node,
            Party::Operator => Self::Operator,
            Party::Client => Self::Client,
        }
    }
}

/// The files that were written.
#[derive(Debug, Serialize)]
struct Written {
    cert: PathBuf,
    key: PathBuf,
}

impl Show for Written {
    fn text(&self) -> String {
        format!("wrote {}\nwrote {} (secret)", self.cert.display(), self.key.display())
    }
}

impl Command {
    /// Makes the files.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        let issued = match self {
            Self::Init { cluster, dir } => pki::init(&dir, &cluster),
            Self::Issue { kind, name, dir, hosts, days } => pki::issue(&dir, kind.into(), &name, &hosts, days),
        };
        let Issued { cert, key } = issued.map_err(|error| refuse(&error))?;
        output.show(&Written { cert, key })?;
        Ok(Exit::Done)
    }
}

fn refuse(error: &PkiError) -> Failure {
    let failure = Failure::usage(format!("nothing was issued: {error}"));
    match error {
        PkiError::Exists(_) => failure.remedy("choose another name or folder, or move the old files away"),
        PkiError::Host(_) => failure.remedy("--host takes IP addresses and DNS names, and only for a node"),
        PkiError::Io { file, .. } if file.ends_with("ca.key") || file.ends_with("ca.pem") => {
            failure.remedy("--dir must be the folder that `onespend pki init` wrote to")
        }
        _ => failure,
    }
}
