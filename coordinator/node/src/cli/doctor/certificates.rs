//! This node's certificate and its authority: days left, and the names that it is good for.

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use super::findings::{Area, Findings};
use crate::config::Config;
use crate::tls::{Material, SERVER_NAME};

/// An authority with less than this left is warned about: replacing it touches every party.
const AUTHORITY_DAYS: i64 = 180;

/// Looks at what loads; what does not load is a fault of the configuration already.
pub fn check(config: &Config, material: Option<&Material>, findings: &mut Findings) {
    let Some(material) = material else { return };
    if let Ok(identity) = material.identity() {
        let what = format!("{} is signed by the authority and valid for {} days", identity.uri(), material.days_left());
        findings.ok(Area::Certificates, what);
    }
    if let Some(days) = inspect(&config.tls.ca, days_left) {
        let what = format!("the authority is valid for {days} days");
        if days < AUTHORITY_DAYS {
            findings.warn(
                Area::Certificates,
                what,
                "plan a new authority: `onespend pki init`, and certificates for all",
            );
        } else {
            findings.ok(Area::Certificates, what);
        }
    }
    if let Some(names) = inspect(&config.tls.cert, names) {
        judge_names(config, &names, findings);
    }
}

fn judge_names(config: &Config, names: &[String], findings: &mut Findings) {
    let has = |name: &str| names.iter().any(|known| known == name);
    if !has(SERVER_NAME) {
        let what = format!("the certificate lacks the name {SERVER_NAME:?}, by which callers verify nodes");
        findings.fail(Area::Certificates, what, "issue it with `onespend pki issue node ID --dir DIR --host HOST`");
        return;
    }
    let advertised = config.this_peer().map(|peer| [peer.control.host.clone(), peer.data.host.clone()]);
    let absent: Vec<String> = advertised.into_iter().flatten().filter(|host| !has(host)).collect();
    if let Some(host) = absent.first() {
        let what = format!(
            "the certificate does not name {host}, where this node is reached; clients that verify by address refuse it"
        );
        findings.warn(
            Area::Certificates,
            what,
            format!("issue it with --host {host}, or have clients verify the name {SERVER_NAME:?}"),
        );
    } else {
        findings.ok(Area::Certificates, format!("names: {}", names.join(", ")));
    }
}

/// Reads something from the first certificate of a file.
fn inspect<T>(file: &std::path::Path, look: fn(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let text = std::fs::read(file).ok()?;
    let pem = Pem::iter_from_buffer(&text).next()?.ok()?;
    look(&pem.parse_x509().ok()?)
}

fn days_left(certificate: &X509Certificate<'_>) -> Option<i64> {
    certificate.validity().time_to_expiration().map(time::Duration::whole_days)
}

fn names(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let alternatives = certificate.subject_alternative_name().ok()??;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    Some(alternatives.value.general_names.iter().filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_| sixteen()).ok().map(|address| address.to_string())
}
