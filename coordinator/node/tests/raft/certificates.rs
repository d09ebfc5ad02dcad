//! An authority of the test's own, and what it issues.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tonic::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

pub struct Issued {
    identity: Identity,
    ca: Certificate,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `party`, such as `node/1`.
    pub fn issue(&self, cluster: &str, party: &str) -> Issued {
        let mut params = CertificateParams::new(vec!["onespend".to_owned()]).unwrap();
        let uri = format!("spiffe://{cluster}/{party}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            identity: Identity::from_pem(certificate.pem(), key.serialize_pem()),
            ca: Certificate::from_pem(&self.pem),
        }
    }
}

impl Issued {
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().identity(self.identity.clone()).ca_certificate(self.ca.clone()).domain_name("onespend")
    }

    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.ca.clone())
    }
}

/// The node that a request's certificate names.
pub fn node_of(extensions: &Extensions) -> Result<u64, String> {
    let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().ok_or("no TLS")?;
    let certificates = info.peer_certs().ok_or("no certificate")?;
    let (_, certificate) = X509Certificate::from_der(&certificates[0]).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or("no name")?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let path = uri.and_then(|uri| uri.strip_prefix("spiffe://")?.split_once('/')).ok_or("no URI")?.1;
    path.strip_prefix("node/").and_then(|id| id.parse().ok()).ok_or_else(|| format!("{path} is not a node"))
}
