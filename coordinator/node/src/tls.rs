//! TLS for both gRPC listeners and for the calls between nodes: always mutual.
//!
//! All nodes' certificates carry the DNS name [`SERVER_NAME`], so a caller that dials an IP
//! address, or through a load balancer that passes TLS through, can still verify that it talks to
//! a member of its cluster. Clients' certificates are not fit for servers (extended key usage).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};

use crate::config::Section;
use crate::identity::{Identity, IdentityError};

/// Longest TLS handshake: whoever connects and says nothing is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The DNS name that every node's certificate carries besides its own.
pub const SERVER_NAME: &str = "onespend";

/// HTTP/2 in the TLS handshake (ALPN); gRPC speaks nothing else.
const ALPN_H2: &[u8] = b"h2";

/// `[tls]`: the files of this node, or of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The cluster's certificate authority, PEM.
    pub ca: PathBuf,
    /// This party's certificate, PEM, issued by `ca`.
    pub cert: PathBuf,
    /// Its private key, PEM; not readable by others.
    pub key: PathBuf,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self { ca: section.path("ca"), cert: section.path("cert"), key: section.path("key") }
    }
}

/// Why TLS cannot be set up. Nothing here gets better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The key of `[tls]` that names the file.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file}: {error}")]
    Pem {
        /// The key of `[tls]` that names the file.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The key is another certificate's.
    #[error("{key} is not the key of {cert}")]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The certificate is another authority's.
    #[error("{cert} was not issued by {ca}")]
    Issuer {
        /// The certificate's file.
        cert: PathBuf,
        /// The authority's file.
        ca: PathBuf,
    },
    /// The certificate is of no use for another reason: it has expired, for instance.
    #[error("{file}: {error}")]
    Unfit {
        /// The certificate's file.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
}

impl TlsError {
    /// The configuration key to blame.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Read { key, .. } | Self::Pem { key, .. } => key,
            Self::Key { .. } => "tls.key",
            Self::Issuer { .. } | Self::Unfit { .. } => "tls.cert",
        }
    }

    /// What rustls says of these files, in words of ours where an operator mixed them up.
    fn of(error: &rustls::Error, config: &Config) -> Self {
        use rustls::CertificateError::{BadSignature, UnknownIssuer};
        let (ca, cert) = (config.ca.clone(), config.cert.clone());
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
                Self::Key { key: config.key.clone(), cert }
            }
            // The latter where both authorities have one name.
            rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => Self::Issuer { cert, ca },
            other => Self::unfit(other, config),
        }
    }

    fn unfit(error: &impl ToString, config: &Config) -> Self {
        Self::Unfit { file: config.cert.clone(), error: error.to_string() }
    }
}

/// The files of `[tls]`, read and known to belong together.
#[derive(Clone)]
pub struct Material {
    ca_pem: Vec<u8>,
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
    client: Arc<ClientConfig>,
}

/// Shows whose it is and nothing of the key.
impl std::fmt::Debug for Material {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identity = self.identity().map(|identity| identity.uri());
        formatter.debug_struct("Material").field("identity", &identity).finish_non_exhaustive()
    }
}

impl Material {
    /// Reads the files and checks that the key fits the certificate, that the authority issued
    /// it, and that it is valid now.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file.
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        let ca_pem = read("tls.ca", &config.ca)?;
        let cert_pem = read("tls.cert", &config.cert)?;
        let key_pem = read("tls.key", &config.key)?;
        let roots = roots(&config.ca, &ca_pem)?;
        let chain = certificates("tls.cert", &config.cert, &cert_pem)?;
        let key =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| pem("tls.key", &config.key, error.to_string()))?;
        let (_, client) = pair_up(roots, &chain, &key, config)?;
        Ok(Self { ca_pem, cert_pem, key_pem, chain, client: Arc::new(client) })
    }

    /// Whose certificate it is.
    ///
    /// # Errors
    /// If the certificate names no party of a cluster.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::from_certificate(self.chain.first().map_or(&[], |leaf| leaf.as_ref()))
    }

    /// Whole days until the certificate expires.
    pub fn days_left(&self) -> i64 {
        self.chain
            .first()
            .and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok())
            .and_then(|(_, leaf)| leaf.validity().time_to_expiration())
            .map_or(0, time::Duration::whole_days)
    }

    /// When this node's certificate (`node`) and its authority's (`ca`) end, in seconds since 1970; of several, the
    /// first that does.
    pub fn expiries(&self) -> Vec<(&'static str, i64)> {
        let authorities: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&self.ca_pem).filter_map(Result::ok).collect();
        let first = |certificates: &[CertificateDer<'static>]| certificates.iter().filter_map(|one| ends_at(one)).min();
        [("node", first(&self.chain)), ("ca", first(&authorities))]
            .into_iter()
            .filter_map(|(certificate, at)| Some((certificate, at?)))
            .collect()
    }

    /// For a tonic server. Callers without a certificate of this cluster's authority never get
    /// past the handshake.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.tonic_identity())
            .client_ca_root(Certificate::from_pem(&self.ca_pem))
            .client_auth_optional(false)
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// For a tonic channel to any node of the cluster.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.tonic_identity())
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .domain_name(SERVER_NAME)
    }

    /// For a connector of our own, with HTTP/2 as the only protocol.
    pub fn rustls_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    fn tonic_identity(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.cert_pem, &self.key_pem)
    }
}

/// Builds both ends, which proves that certificate, key and authority belong together.
fn pair_up(
    roots: RootCertStore,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    config: &Config,
) -> Result<(ServerConfig, ClientConfig), TlsError> {
    let refuse = |error: rustls::Error| TlsError::of(&error, config);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::unfit(&error, config))?;
    let (leaf, rest) = chain.split_first().ok_or_else(|| TlsError::unfit(&"it holds no certificate", config))?;
    verifier.verify_client_cert(leaf, rest, UnixTime::now()).map_err(refuse)?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(refuse)?;
    server.alpn_protocols = vec![ALPN_H2.to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(refuse)?;
    client.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok((server, client))
}

/// When a certificate ends, in seconds since 1970.
fn ends_at(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Read { key, file: file.to_owned(), error })
}

fn pem(key: &'static str, file: &Path, error: String) -> TlsError {
    TlsError::Pem { key, file: file.to_owned(), error }
}

fn certificates(key: &'static str, file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(pem(key, file, "no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(pem(key, file, error.to_string())),
    }
}

fn roots(file: &Path, text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca", file, text)? {
        roots.add(certificate).map_err(|error| pem("tls.ca", file, error.to_string()))?;
    }
    Ok(roots)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
