//! Who is at the other end of a connection: a certificate becomes an [`Identity`].
//!
//! The one name that counts is the URI subject alternative name, `spiffe://<cluster>/node/<id>`,
//! `…/client/<name>` or `…/operator/<name>` (the form of SPIFFE-ID, one URI per certificate).
//! Whether the certificate may be believed at all is TLS's business, which comes before.

use std::fmt;

use onespend_policies::Role;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest cluster, client, operator or signer name in bytes.
pub const MAX_NAME_BYTES: usize = 32;
/// Largest node id: it must fit SQLite's and TOML's signed 64 bits.
pub const MAX_NODE_ID: u64 = i64::MAX as u64;

const SCHEME: &str = "spiffe://";

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster that the certificate was issued for.
    pub cluster: String,
    /// Who it is within the cluster.
    pub party: Party,
}

/// A party of a cluster. Its text, such as `client/payouts`, is the caller id everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A member, by id.
    Node(u64),
    /// A wallet back end, by name.
    Client(String),
    /// A person or job that administers, by name.
    Operator(String),
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate is not X.509 or one of its extensions is broken.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// There is no URI subject alternative name.
    #[error("the certificate has no URI subject alternative name")]
    NoUri,
    /// There are several, and nothing says which counts.
    #[error("the certificate has {0} URI subject alternative names; it must have one")]
    ManyUris(usize),
    /// The URI is not of the form that this service issues.
    #[error("{uri:?} names no party of a cluster: {why}")]
    Uri {
        /// The URI, or caller id.
        uri: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The certificate belongs to another cluster.
    #[error("the certificate is of cluster {found:?}, this is {expected:?}")]
    OtherCluster {
        /// The certificate's cluster.
        found: String,
        /// This cluster.
        expected: String,
    },
}

impl Identity {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Every [`IdentityError`] but `OtherCluster`.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |error: String| IdentityError::Malformed(error);
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("it is followed by other bytes".to_owned()));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| malformed(error.to_string()))?
            .ok_or(IdentityError::NoUri)?;
        let uris: Vec<&str> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [] => Err(IdentityError::NoUri),
            [uri] => Self::from_uri(uri),
            many => Err(IdentityError::ManyUris(many.len())),
        }
    }

    /// Reads a certificate and insists on this cluster.
    ///
    /// # Errors
    /// Every [`IdentityError`].
    pub fn of_member(der: &[u8], cluster: &str) -> Result<Self, IdentityError> {
        let identity = Self::from_certificate(der)?;
        if identity.cluster != cluster {
            return Err(IdentityError::OtherCluster { found: identity.cluster, expected: cluster.to_owned() });
        }
        Ok(identity)
    }

    /// Reads `spiffe://<cluster>/<party>`.
    ///
    /// # Errors
    /// [`IdentityError::Uri`].
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let refuse = |why| IdentityError::Uri { uri: uri.to_owned(), why };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| refuse("it must begin with spiffe://"))?;
        let (cluster, path) = rest.split_once('/').ok_or_else(|| refuse("it has no path"))?;
        check_name(cluster).map_err(|_| refuse("the cluster's name is malformed"))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            party: Party::from_caller_id(path).map_err(|error| match error {
                IdentityError::Uri { why, .. } => refuse(why),
                other => other,
            })?,
        })
    }

    /// The URI that a certificate of this identity carries.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.cluster, self.party)
    }
}

impl Party {
    /// Reads a caller id such as `client/payouts`.
    ///
    /// # Errors
    /// [`IdentityError::Uri`].
    pub fn from_caller_id(path: &str) -> Result<Self, IdentityError> {
        let refuse = |why| IdentityError::Uri { uri: path.to_owned(), why };
        let (kind, name) = path.split_once('/').ok_or_else(|| refuse("it must be node/…, client/… or operator/…"))?;
        match kind {
            "node" => node_id(name).map(Self::Node).ok_or_else(|| refuse("a node's id is a number from 1")),
            "client" | "operator" => {
                check_name(name).map_err(|_| refuse("the name is malformed"))?;
                Ok(if kind == "client" { Self::Client(name.to_owned()) } else { Self::Operator(name.to_owned()) })
            }
            _ => Err(refuse("it must be node/…, client/… or operator/…")),
        }
    }
}

impl Party {
    /// The role that policy judges by.
    pub fn role(&self) -> Role {
        match self {
            Self::Node(_) => Role::Node,
            Self::Client(_) => Role::Client,
            Self::Operator(_) => Role::Operator,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(formatter, "node/{id}"),
            Self::Client(name) => write!(formatter, "client/{name}"),
            Self::Operator(name) => write!(formatter, "operator/{name}"),
        }
    }
}

/// Reads a node id as it is written in certificates: a number from 1, with one spelling only.
pub(crate) fn node_id(text: &str) -> Option<u64> {
    let id: u64 = text.parse().ok()?;
    ((1..=MAX_NODE_ID).contains(&id) && id.to_string() == text).then_some(id)
}

/// Names of clusters, clients, operators and signers: 1 to 32 of `a-z 0-9 -`, no `-` at the ends.
///
/// # Errors
/// What a name must be.
pub fn check_name(name: &str) -> Result<(), String> {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let ends = name.starts_with('-') || name.ends_with('-');
    if letters && !ends && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err("it must be 1 to 32 of a-z, 0-9 and inner hyphens".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["onespend".to_owned()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn every_kind_of_party_survives_a_certificate() {
        for (uri, party) in [
            ("spiffe://demo/node/1", Party::Node(1)),
            ("spiffe://demo/client/payouts", Party::Client("payouts".into())),
            ("spiffe://demo/operator/alice-2", Party::Operator("alice-2".into())),
        ] {
            let identity = Identity::of_member(&certificate(&[uri]), "demo").unwrap();
            assert_eq!((identity.party.clone(), identity.uri().as_str()), (party, uri));
            let caller = identity.party.to_string();
            assert!(caller.starts_with(&format!("{}/", identity.party.role())));
            assert_eq!(Party::from_caller_id(&caller).unwrap(), identity.party);
        }
    }

    #[test]
    fn certificates_that_name_nobody_are_told_apart() {
        let parse = |uris: &[&str]| Identity::from_certificate(&certificate(uris)).unwrap_err();
        assert_eq!(parse(&[]), IdentityError::NoUri);
        let two = parse(&["spiffe://demo/node/1", "spiffe://demo/node/2"]);
        assert_eq!(two, IdentityError::ManyUris(2));
        let error = Identity::of_member(&certificate(&["spiffe://other/node/1"]), "demo");
        assert!(matches!(error, Err(IdentityError::OtherCluster { .. })));
        for der in [&b""[..], b"\x30\x03\x02\x01", &[0xff; 40]] {
            let error = Identity::from_certificate(der).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed(_)), "{error}");
        }
        let mut trailing = certificate(&["spiffe://demo/node/1"]);
        trailing.push(0);
        let error = Identity::from_certificate(&trailing).unwrap_err();
        assert!(matches!(error, IdentityError::Malformed(_)), "{error}");
    }

    #[test]
    fn only_one_spelling_of_a_uri_is_accepted() {
        for uri in [
            "",
            "demo/node/1",
            "https://demo/node/1",
            "spiffe://demo",
            "spiffe://demo/",
            "spiffe:///node/1",
            "spiffe://demo/node/0",
            "spiffe://demo/node/01",
            "spiffe://demo/node/+1",
            "spiffe://demo/node/1/",
            "spiffe://demo/node/x",
            "spiffe://demo/node/9223372036854775808",
            "spiffe://demo/client/",
            "spiffe://demo/client/A",
            "spiffe://demo/client/a/b",
            "spiffe://demo/client/-a",
            "spiffe://demo/root/a",
            "spiffe://DEMO/node/1",
            "spiffe://demo/client/a?b",
            "SPIFFE://demo/node/1",
            "spiffe://demo@x/node/1",
            "spiffe://demo/client/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            let error = Identity::from_uri(uri).unwrap_err();
            assert!(matches!(error, IdentityError::Uri { .. }), "{uri}");
        }
    }
}
