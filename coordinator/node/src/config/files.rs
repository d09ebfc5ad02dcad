//! What the configuration names on disk: present, readable, private, and meant for this node.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use onespend_adapters::backup::S3Credentials;
use onespend_adapters::signer::SignerError;

use super::reader::Reading;
use super::{BitcoindLogin, Config, Severity, SignerKeys};
use crate::backup::Place;
use crate::identity::{Identity, Party};
use crate::tls;

/// Read, write or search by anyone but the owner.
const OTHERS_AND_GROUP: u32 = 0o077;
/// Read, write or search by users outside the owner's group.
const OTHERS: u32 = 0o007;

/// A certificate with less than this left is warned about.
const RENEW_WITHIN_DAYS: i64 = 30;

/// Looks at every file and folder that the configuration names. `dispensable` is how grave it is that one lacks which a node can
/// do without.
pub(crate) fn check(config: &Config, environment: &[(String, String)], dispensable: Severity, reading: &mut Reading) {
    data_dir(config, reading);
    certificates(config, reading);
    bitcoind(config, reading);
    backups(config, environment, dispensable, reading);
    for (at, signer) in config.signers.iter().enumerate() {
        match &signer.keys {
            Some(keys @ SignerKeys::File(file)) => {
                let key = format!("signers[{at}].file");
                let missing = "write the private descriptors into it, one per line, for its owner alone (0600)";
                if private(&key, file, OTHERS_AND_GROUP, missing, reading)
                    && let Err(error) = keys.software(&signer.name, config.cluster.network)
                {
                    let why = if matches!(error, SignerError::KeyFile { .. }) {
                        "the node reads its keys from it, and nobody else may"
                    } else {
                        "one private descriptor per line, such as wpkh(xprv.../84h/0h/0h/<0;1>/*)"
                    };
                    reading.refuse(&key, &[], error.to_string(), why);
                }
            }
            Some(SignerKeys::Environment(name)) => {
                let set = environment.iter().any(|(known, value)| known == name && !value.trim().is_empty());
                if !set {
                    let what = format!("the variable {name} is not set");
                    let why = "the signer would have no keys";
                    reading.refuse(&format!("signers[{at}].env"), &[], what, why);
                }
            }
            None => {}
        }
        if let Some(memory) = &signer.memory {
            folder_of(&format!("signers[{at}].memory"), memory, reading);
        }
        if let Some(log) = &signer.audit_log {
            folder_of(&format!("signers[{at}].audit_log"), log, reading);
        }
    }
}

fn backups(config: &Config, environment: &[(String, String)], dispensable: Severity, reading: &mut Reading) {
    match &config.backup.place {
        Some(Place::Folder(folder)) => backup_folder(config, folder, dispensable, reading),
        Some(Place::S3(settings)) => storage_keys(&settings.credentials, environment, reading),
        None => {}
    }
}

/// The storage itself is not asked: a node starts also when it cannot be reached.
fn storage_keys(credentials: &S3Credentials, environment: &[(String, String)], reading: &mut Reading) {
    let (key, why) = match credentials {
        S3Credentials::File(file) => {
            let key = "backup.s3_credentials_file";
            let why = "it needs lines aws_access_key_id = … and aws_secret_access_key = …";
            if !private(key, file, OTHERS_AND_GROUP, why, reading) {
                return;
            }
            (key, why)
        }
        S3Credentials::Environment => {
            ("backup.s3_bucket", "the keys come from such variables, or from s3_credentials_file")
        }
    };
    let set = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    if let Err(what) = credentials.check(set) {
        reading.refuse(key, &[], what, why);
    }
}

/// The folder is not made, see [`onespend_adapters::backup::FolderDepot::new`]. A node starts without it, as it goes on when
/// the folder goes away later: the schedule counts what fails.
fn backup_folder(config: &Config, folder: &Path, dispensable: Severity, reading: &mut Reading) {
    if !folder.is_dir() {
        let what = format!("{} is not a folder", folder.display());
        let why = "no backup is made; nor is the folder, because a disk that should be mounted there may be missing";
        match dispensable {
            Severity::Error => reading.refuse("backup.folder", &[], what, why),
            Severity::Warning => reading.warn("backup.folder", &[], what, why),
        }
    } else if folder.starts_with(&config.node.data_dir) {
        let what = format!("{} is in the data folder", folder.display());
        let why = "what takes the one takes the other: put backups on another disk, best on another machine";
        reading.warn("backup.folder", &["node.data_dir"], what, why);
    }
}

fn data_dir(config: &Config, reading: &mut Reading) {
    let folder = &config.node.data_dir;
    if folder.exists() && !folder.is_dir() {
        let what = format!("{} is not a folder", folder.display());
        reading.refuse("node.data_dir", &[], what, "the databases live in it");
    }
}

fn certificates(config: &Config, reading: &mut Reading) {
    let files = &config.tls;
    let issue = format!(
        "`onespend pki issue node {} --dir DIR --host HOST` makes it, where the authority is kept",
        config.node.id
    );
    let init = "`onespend pki init` makes the authority of a new cluster; of one that is there, copy its ca.pem";
    let present = exists("tls.ca", &files.ca, init, reading)
        & exists("tls.cert", &files.cert, &issue, reading)
        & private("tls.key", &files.key, OTHERS, &issue, reading);
    if !present {
        return;
    }
    match tls::Material::load(files) {
        Err(error) => {
            let why = "peers and callers could not connect";
            reading.refuse(error.key(), &[], error.to_string(), why);
        }
        Ok(material) => match material.identity() {
            Err(error) => {
                let why = "a node's certificate names its cluster and id: onespend pki issue node";
                reading.refuse("tls.cert", &[], error.to_string(), why);
            }
            Ok(identity) => {
                holder(config, &identity, reading);
                let left = material.days_left();
                if left < RENEW_WITHIN_DAYS {
                    let why = "without it the node is cut off: onespend pki issue node";
                    reading.warn("tls.cert", &[], format!("the certificate expires in {left} days"), why);
                }
            }
        },
    }
}

fn holder(config: &Config, identity: &Identity, reading: &mut Reading) {
    if identity.cluster != config.cluster.id {
        let what = format!("is of cluster {:?}", identity.cluster);
        let why = format!("this is cluster {:?}", config.cluster.id);
        reading.refuse("tls.cert", &["cluster.id"], what, &why);
    } else if identity.party != Party::Node(config.node.id) {
        let what = format!("is for {}", identity.party);
        let why = format!("this is node/{}", config.node.id);
        reading.refuse("tls.cert", &["node.id"], what, &why);
    }
}

fn bitcoind(config: &Config, reading: &mut Reading) {
    match &config.bitcoind.login {
        Some(BitcoindLogin::Cookie(file)) => {
            let Err(error) = std::fs::File::open(file) else { return };
            let (what, why) = if error.kind() == std::io::ErrorKind::NotFound {
                ("does not exist".to_owned(), "bitcoind writes it at its start; until then this node is out of sync")
            } else {
                (format!("cannot be read: {error}"), "until the node's user may read it this node is out of sync")
            };
            reading.warn("bitcoind.cookie_file", &[], format!("{} {what}", file.display()), why);
        }
        Some(BitcoindLogin::User { password_file, .. }) => {
            let missing = "write the password of bitcoind's user into it, for the node's user alone (0600)";
            private("bitcoind.password_file", password_file, OTHERS, missing, reading);
        }
        None => {}
    }
}

/// `missing` is what an operator does about a file that is not there.
fn exists(key: &str, file: &Path, missing: &str, reading: &mut Reading) -> bool {
    match std::fs::File::open(file).and_then(|open| open.metadata()) {
        Ok(metadata) if metadata.is_file() => true,
        Ok(_) => {
            let what = format!("{} is not a file", file.display());
            reading.refuse(key, &[], what, "it must be a plain file");
            false
        }
        Err(error) => {
            let what = format!("{}: {error}", file.display());
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            reading.refuse(key, &[], what, if is_missing { missing } else { "the node must be able to read it" });
            false
        }
    }
}

/// As [`exists`], and nobody of `forbidden` may use it.
fn private(key: &str, file: &Path, forbidden: u32, missing: &str, reading: &mut Reading) -> bool {
    if !exists(key, file, missing, reading) {
        return false;
    }
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & forbidden != 0 {
        let what = format!("{} has mode {:04o}", file.display(), mode & 0o7777);
        let why = format!("others could read a secret: chmod 600 {}", file.display());
        reading.refuse(key, &[], what, &why);
        return false;
    }
    true
}

fn folder_of(key: &str, file: &Path, reading: &mut Reading) {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.is_dir() {
        let what = format!("{} is not a folder", folder.display());
        reading.refuse(key, &[], what, "the file is created in it");
    }
}
