//! A certificate authority for one cluster, in a folder.
//!
//! ECDSA P-256 throughout. Files are written completely and synchronised under another name and
//! then linked to their own, which fails if that exists: nothing is overwritten or half written.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use crate::config::is_dns_name;
use crate::identity::{self, Identity, Party};
use crate::tls;

/// Validity of an authority: ten years.
pub const CA_DAYS: i64 = 3_652;
/// Validity of a certificate unless said otherwise.
pub const DEFAULT_DAYS: u32 = 365;
/// Longest validity of a certificate that is not the authority's.
pub const MAX_DAYS: u32 = 3_650;
/// Most host names and addresses in one certificate.
pub const MAX_HOSTS: usize = 64;
/// Certificates are valid from a little before now, since clocks differ.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A member: serves and calls.
    Node,
    /// One who administers: calls only.
    Operator,
    /// A wallet back end: calls only.
    Client,
}

impl Kind {
    /// The word in file names and URIs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl std::str::FromStr for Kind {
    type Err = PkiError;

    fn from_str(word: &str) -> Result<Self, PkiError> {
        [Self::Node, Self::Operator, Self::Client].into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            PkiError::Name { name: word.to_owned(), why: "it must be node, operator or client".to_owned() }
        })
    }
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub key: PathBuf,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A cluster, node, client or operator name is malformed.
    #[error("{name:?} is not acceptable: {why}")]
    Name {
        /// The name.
        name: String,
        /// What it must be.
        why: String,
    },
    /// A host is neither an IP address nor a DNS name, or there are too many.
    #[error("{0:?} is neither an IP address nor a DNS name, or one of more than {MAX_HOSTS}")]
    Host(String),
    /// The validity is out of bounds.
    #[error("{days} days is not within 1..={MAX_DAYS}, or outlives the authority, which has {left}")]
    Days {
        /// What was asked for.
        days: u32,
        /// Whole days that the authority is still valid.
        left: i64,
    },
    /// A file is there already; it stays as it is.
    #[error("{0} exists already and is not overwritten")]
    Exists(PathBuf),
    /// The authority's files are not what `pki init` writes.
    #[error("{file}: {why}")]
    Authority {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Keys or certificates cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes a certificate authority for a cluster: `ca.pem` and `ca.key` in `dir`, which is created
/// if missing.
///
/// # Errors
/// If either file exists, the name is malformed or the folder cannot be written.
pub fn init(dir: &Path, cluster: &str) -> Result<Issued, PkiError> {
    check_name(cluster)?;
    std::fs::create_dir_all(dir).map_err(|error| io(dir, error))?;
    let files = files(dir, "ca");
    refuse_existing(&files)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = authority(cluster)?.self_signed(&key)?;
    write_pair(&files, &certificate.pem(), &key.serialize_pem())?;
    Ok(files)
}

/// Issues a certificate from the authority in `dir`, into `dir`: `node-1.pem` and `node-1.key`,
/// `client-payouts.pem` … `name` is a node's id, or a name. `hosts` are IP addresses and DNS names
/// by which a node is reached besides `localhost`; others take none.
///
/// # Errors
/// If a file exists, an argument is out of bounds, or the authority cannot be read.
pub fn issue(dir: &Path, kind: Kind, name: &str, hosts: &[String], days: u32) -> Result<Issued, PkiError> {
    let party = party(kind, name)?;
    let files = files(dir, &format!("{kind}-{name}"));
    refuse_existing(&files)?;
    let authority = Authority::open(dir)?;
    if !(1..=MAX_DAYS).contains(&days) || i64::from(days) > authority.days_left {
        let left = authority.days_left;
        return Err(PkiError::Days { days, left });
    }
    let params = leaf(&authority.cluster, party, hosts, days)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    write_pair(&files, &certificate.pem(), &key.serialize_pem())?;
    Ok(files)
}

/// The authority of a folder, opened for signing.
struct Authority {
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
    days_left: i64,
}

impl Authority {
    fn open(dir: &Path) -> Result<Self, PkiError> {
        let files = files(dir, "ca");
        let key_pem = read(&files.key)?;
        let cert_pem = read(&files.cert)?;
        let wrong = |file: &Path, why: String| PkiError::Authority { file: file.to_owned(), why };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| wrong(&files.key, error.to_string()))?;
        let (cluster, public, days_left) = inspect(&cert_pem).map_err(|why| wrong(&files.cert, why))?;
        if public != key.public_key_raw() {
            let why = "it is not the key of ca.pem".to_owned();
            return Err(wrong(&files.key, why));
        }
        // rcgen signs from parameters; the subject and the key are all that ends up in a
        // certificate that is issued, and both have been checked against ca.pem.
        Ok(Self { issuer: Issuer::new(authority(&cluster)?, key), cluster, days_left })
    }
}

/// The cluster's name, public key and days left of an authority's certificate.
fn inspect(pem: &str) -> Result<(String, Vec<u8>, i64), String> {
    let der =
        Pem::iter_from_buffer(pem.as_bytes()).next().ok_or("it holds no PEM")?.map_err(|error| error.to_string())?;
    let certificate = der.parse_x509().map_err(|error| error.to_string())?;
    let cluster = certificate
        .subject()
        .iter_organization()
        .next()
        .and_then(|name| name.as_str().ok())
        .filter(|name| identity::check_name(name).is_ok())
        .ok_or("its subject names no cluster: it was not made by pki init")?
        .to_owned();
    let days = certificate.validity().time_to_expiration().ok_or("it is not valid now")?.whole_days();
    let public = certificate.public_key().subject_public_key.data.to_vec();
    Ok((cluster, public, days))
}

fn authority(cluster: &str) -> Result<CertificateParams, PkiError> {
    let mut params = dated(CA_DAYS)?;
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, cluster);
    name.push(DnType::CommonName, format!("onespend cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(cluster: &str, party: Party, hosts: &[String], days: u32) -> Result<CertificateParams, PkiError> {
    let mut params = dated(i64::from(days))?;
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, cluster);
    name.push(DnType::CommonName, party.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let is_node = matches!(party, Party::Node(_));
    let identity = Identity { cluster: cluster.to_owned(), party };
    params.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
    if is_node {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.extend(names(hosts)?);
    } else if let Some(host) = hosts.first() {
        return Err(PkiError::Host(host.clone()));
    }
    Ok(params)
}

fn names(hosts: &[String]) -> Result<Vec<SanType>, PkiError> {
    let mut names = vec![SanType::DnsName(tls::SERVER_NAME.try_into()?), SanType::DnsName("localhost".try_into()?)];
    for (at, host) in hosts.iter().enumerate() {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_dns_name(host) => SanType::DnsName(host.as_str().try_into()?),
            Err(_) => return Err(PkiError::Host(host.clone())),
        };
        if at >= MAX_HOSTS {
            return Err(PkiError::Host(host.clone()));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn dated(days: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days);
    Ok(params)
}

fn party(kind: Kind, name: &str) -> Result<Party, PkiError> {
    let id = || {
        identity::node_id(name).ok_or_else(|| PkiError::Name {
            name: name.to_owned(),
            why: "a node's name is its id, a number from 1".to_owned(),
        })
    };
    match kind {
        Kind::Node => Ok(Party::Node(id()?)),
        Kind::Operator => check_name(name).map(|()| Party::Operator(name.to_owned())),
        Kind::Client => check_name(name).map(|()| Party::Client(name.to_owned())),
    }
}

fn check_name(name: &str) -> Result<(), PkiError> {
    identity::check_name(name).map_err(|why| PkiError::Name { name: name.to_owned(), why })
}

fn files(dir: &Path, stem: &str) -> Issued {
    Issued { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) }
}

fn refuse_existing(files: &Issued) -> Result<(), PkiError> {
    match [&files.cert, &files.key].iter().find(|file| file.exists()) {
        Some(file) => Err(PkiError::Exists((*file).clone())),
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(file).map_err(|error| io(file, error))
}

fn io(file: &Path, error: std::io::Error) -> PkiError {
    PkiError::Io { file: file.to_owned(), error }
}

/// Both files or neither. A crash in between leaves the key alone, which harms nobody and is
/// named by the next attempt.
fn write_pair(files: &Issued, cert: &str, key: &str) -> Result<(), PkiError> {
    write_new(&files.key, key, 0o600)?;
    write_new(&files.cert, cert, 0o644).inspect_err(|_| {
        let _ = std::fs::remove_file(&files.key);
    })
}

/// Writes under a temporary name, synchronises, and links to the final name if that is free.
fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    // A name of its own for each attempt: two issuers must not write into one draft.
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = file.with_extension(format!("draft-{}-{number}", std::process::id()));
    write_draft(&draft, text, mode).map_err(|error| io(&draft, error))?;
    let linked = std::fs::hard_link(&draft, file).and_then(|()| synchronise_folder(file));
    let _ = std::fs::remove_file(&draft);
    linked.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists(file.to_owned()),
        _ => io(file, error),
    })
}

fn write_draft(draft: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).inspect_err(|_| {
        let _ = std::fs::remove_file(draft);
    })
}

fn synchronise_folder(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
