//! Callers without a certificate, with the wrong one, and with a right one that does not allow what they ask.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use onespend_proto::peer::v1 as peer;
use onespend_proto::peer::v1::raft_service_client::RaftServiceClient;
use onespend_proto::{CALLER_METADATA_KEY, CLUSTER_METADATA_KEY, v1};
use onespend_testnet::cluster::{CLUSTER_ID, Credentials};
use onespend_testnet::grpc::channel;
use onespend_testnet::programs;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::door::{Clients, Who};
use crate::draft::{PAYEE, reserve};
use crate::refusal::{invalid, refusal};
use crate::stage::{HOT, Stage, id, outpoint, recipient};

const TIMEOUT: Duration = Duration::from_secs(3);

fn ask_tip(channel: Channel) -> impl Future<Output = Result<Response<v1::GetTipResponse>, Status>> {
    let mut clients = Clients::new(channel);
    async move { clients.chain.get_tip(v1::GetTipRequest::default()).await }
}

/// Certificates that TLS does not let pass. The connection ends by an alert that names the reason; no request gets in.
pub async fn handshakes(stage: &mut Stage) -> Result<()> {
    let mint = Mint::open(stage)?;
    let control = stage.doors()[0].addresses.control;
    let data = stage.doors()[0].addresses.data;
    let stranger = other_cluster(stage, "client", "payouts")?;
    let trusting = Credentials { ca: stage.cluster.client().ca.clone(), ..stranger };
    let day = time::Duration::days(1);
    let payouts = uri("client/payouts");
    let expired = mint.issue("expired", &[&payouts], -2 * day, -day)?;
    let early = mint.issue("early", &[&payouts], day, 2 * day)?;
    let client = stage.cluster.client().clone();
    let cases: [(&str, SocketAddr, Option<&Credentials>, &[&str]); 6] = [
        ("no certificate", data, None, &["CertificateRequired"]),
        ("no certificate on the control port", control, None, &["CertificateRequired"]),
        ("a certificate of another authority", data, Some(&trusting), &["UnknownCA", "DecryptError"]),
        ("the same on the control port", control, Some(&trusting), &["UnknownCA", "DecryptError"]),
        ("an expired certificate", data, Some(&expired), &["CertificateExpired"]),
        ("a certificate of tomorrow", data, Some(&early), &["CertificateExpired", "BadCertificate"]),
    ];
    for (what, address, own, alerts) in cases {
        let told = handshake(address, &client.ca, own)?;
        let named = alerts.iter().any(|alert| told.contains(&format!("AlertReceived({alert})")));
        stage.check(what, named, || format!("{told} instead of an alert {alerts:?}"));
        let asked = match own {
            Some(own) => ask_tip(channel(address, own)?).await,
            None => ask_tip(without_certificate(&client, address)?).await,
        };
        stage.check(what, asked.is_err(), || format!("was answered: {asked:?}"));
    }
    let told = handshake(data, &client.ca, Some(&client))?;
    stage.check("a good certificate", told == "is served", || told);
    let plain = Endpoint::from_shared(format!("http://{data}"))?.connect_timeout(TIMEOUT).timeout(TIMEOUT);
    let told = ask_tip(plain.connect_lazy()).await;
    stage.check("no TLS at all", told.is_err(), || format!("was answered: {told:?}"));
    Ok(())
}

/// Certificates of the cluster's authority that name no caller of this cluster.
pub async fn identities(stage: &mut Stage) -> Result<()> {
    let mint = Mint::open(stage)?;
    let now = time::Duration::ZERO;
    let hour = time::Duration::hours(1);
    let good = mint.issue("good", &[&uri("client/minted")], now, hour)?;
    let doors = stage.doors().each_ref().map(|door| door.addresses.data);
    ask_tip(channel(doors[0], &good)?).await.context("a certificate as pki makes it")?;
    let uris: [(&str, &[&str]); 8] = [
        ("another cluster", &["spiffe://other/client/payouts"]),
        ("nobody", &[]),
        ("two callers", &["spiffe://demo/client/payouts", "spiffe://demo/operator/alice"]),
        ("another scheme", &["https://demo/client/payouts"]),
        ("no known kind", &["spiffe://demo/root/alice"]),
        ("no name", &["spiffe://demo/client/"]),
        ("a longer path", &["spiffe://demo/client/payouts/operator"]),
        ("capitals", &["spiffe://demo/client/Payouts"]),
    ];
    for (number, (what, uris)) in uris.iter().enumerate() {
        let credentials = mint.issue(&format!("minted-{number}"), uris, now, hour)?;
        for address in doors {
            let wanted = refusal("CALLER_UNKNOWN").saying("client certificate");
            let fault = match ask_tip(channel(address, &credentials)?).await {
                Ok(answer) => Some(format!("was answered: {answer:?}")),
                Err(status) => wanted.fault(&status),
            };
            stage.check(what, fault.is_none(), || fault.unwrap_or_default());
        }
    }
    Ok(())
}

/// Only a node may name another caller.
pub async fn impostors(stage: &mut Stage) -> Result<()> {
    let wanted = refusal("CALLER_UNKNOWN").saying("only a node");
    for named in ["client/other", "operator/alice", "client/payouts", "node/1", "", "root"] {
        for who in [Who::Client, Who::Operator] {
            let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
            let ask = async |mut to: Clients| {
                let mut request = Request::new(reserve(HOT, &coin));
                request.metadata_mut().insert(CALLER_METADATA_KEY, named.parse().expect("plain text"));
                to.reservation.reserve_utxos(request).await
            };
            stage.refuses(who, &format!("{who:?} as {named:?}"), &wanted, ask).await;
        }
    }
    let pki = stage.cluster.folder().join("pki");
    let node = Credentials { ca: pki.join("ca.pem"), cert: pki.join("node-1.pem"), key: pki.join("node-1.key") };
    let control = stage.doors()[0].addresses.control;
    for named in ["", "root", "client/", "client/A", "client/a b", "operator"] {
        let mut clients = Clients::new(channel(control, &node)?);
        let mut request = Request::new(v1::GetTipRequest::default());
        request.metadata_mut().insert(CALLER_METADATA_KEY, named.parse().expect("plain text"));
        let refused = clients.chain.get_tip(request).await.err();
        let wanted = refusal("CALLER_UNKNOWN").saying("forwarded caller");
        let fault = refused.map_or(Some("was answered".to_owned()), |status| wanted.fault(&status));
        stage.check("a node in the name of nobody", fault.is_none(), || fault.unwrap_or_default());
    }
    let mut clients = Clients::new(channel(control, &node)?);
    let refused = clients.chain.get_tip(v1::GetTipRequest::default()).await.err();
    let wanted = refusal("ROLE").with("caller", "node/1").with("action", "GetTip");
    let fault = refused.map_or(Some("was answered".to_owned()), |status| wanted.fault(&status));
    stage.check("a node in its own name", fault.is_none(), || fault.unwrap_or_default());
    Ok(())
}

/// Those who administer cannot spend, and those who spend cannot administer.
pub async fn roles(stage: &mut Stage) -> Result<()> {
    let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    let held = stage.reserve(reserve(HOT, &coin)).await?;
    let operator = |action: &str| refusal("ROLE").with("caller", "operator/alice").with("action", action);
    let ask = async |mut to: Clients| {
        let request = v1::CreatePaymentRequest {
            request_id: id(),
            wallet_id: HOT.to_owned(),
            payment_id: "operator".to_owned(),
            recipients: vec![recipient(PAYEE, 10_000)],
            ..Default::default()
        };
        to.payment.create_payment(request).await
    };
    stage.refuses(Who::Operator, "an operator who pays", &operator("CreatePayment"), ask).await;
    let ask = async |mut to: Clients| to.payment.sign_psbt(v1::SignPsbtRequest::default()).await;
    stage.refuses(Who::Operator, "an operator who signs", &operator("SignPsbt"), ask).await;
    let ask = async |mut to: Clients| to.reservation.reserve_utxos(reserve(HOT, &coin)).await;
    stage.refuses(Who::Operator, "an operator who reserves", &operator("ReserveUtxos"), ask).await;
    let ask = async |mut to: Clients| {
        let (reservation_id, fence) = (held.reservation_id.clone(), held.fence);
        let request = v1::RenewReservationRequest { request_id: id(), reservation_id, fence, expiration: None };
        to.reservation.renew_reservation(request).await
    };
    stage.refuses(Who::Operator, "an operator who renews", &operator("RenewReservation"), ask).await;

    let client = |action: &str| refusal("ROLE").with("caller", "client/payouts").with("action", action);
    let descriptor = stage.keys.wpkh("new");
    let ask = async |mut to: Clients| {
        let (wallet_id, descriptor) = ("new".to_owned(), descriptor.clone());
        let request = v1::RegisterWalletRequest { request_id: id(), wallet_id, descriptor, ..Default::default() };
        to.wallet.register_wallet(request).await
    };
    stage.refuses(Who::Client, "a client who registers a wallet", &client("RegisterWallet"), ask).await;
    let ask = async |mut to: Clients| {
        let request = v1::SetLimitsRequest { request_id: id(), wallet_id: HOT.to_owned(), limits: None };
        to.wallet.set_limits(request).await
    };
    stage.refuses(Who::Client, "a client who sets limits", &client("SetLimits"), ask).await;
    let ask = async |mut to: Clients| {
        let (wallet_id, note) = (HOT.to_owned(), String::new());
        to.wallet.freeze_wallet(v1::FreezeWalletRequest { request_id: id(), wallet_id, note }).await
    };
    stage.refuses(Who::Client, "a client who freezes", &client("FreezeWallet"), ask).await;
    let ask = async |mut to: Clients| {
        to.wallet.unfreeze_wallet(v1::UnfreezeWalletRequest { request_id: id(), wallet_id: HOT.to_owned() }).await
    };
    stage.refuses(Who::Client, "a client who unfreezes", &client("UnfreezeWallet"), ask).await;
    stage.release(&held).await
}

/// The control port is for nodes and operators.
pub async fn control_port(stage: &mut Stage) -> Result<()> {
    let client = stage.cluster.client().clone();
    let operator = stage.cluster.operator().clone();
    for door in [0, 1] {
        let control = stage.doors()[door].addresses.control;
        let wanted = refusal("CALLER_UNKNOWN").saying("data port");
        let mut clients = Clients::new(channel(control, &client)?);
        let status = clients.cluster.get_status(v1::GetStatusRequest {}).await.err();
        let transfer = v1::TransferLeadershipRequest { request_id: id(), node_id: 0 };
        let transfer = clients.cluster.transfer_leadership(transfer).await.err();
        let tip = clients.chain.get_tip(v1::GetTipRequest::default()).await.err();
        let address = v1::NewAddressRequest { request_id: id(), wallet_id: HOT.to_owned(), keychain: 0 };
        let address = clients.wallet.new_address(address).await.err();
        for (action, refused) in
            [("GetStatus", status), ("TransferLeadership", transfer), ("GetTip", tip), ("NewAddress", address)]
        {
            let fault = refused.map_or(Some("was answered".to_owned()), |status| wanted.fault(&status));
            stage.check(&format!("a client who asks {action}"), fault.is_none(), || fault.unwrap_or_default());
        }
        let strangers =
            [("a client", &client, Code::Unauthenticated), ("an operator", &operator, Code::PermissionDenied)];
        for (name, credentials, code) in strangers {
            for (rpc, told) in raft_calls(control, credentials).await? {
                let denied = told.as_ref().is_err_and(|status| status.code() == code);
                stage.check(&format!("{name} who calls Raft's {rpc}"), denied, || format!("{told:?}"));
            }
        }
        let mut clients = Clients::new(channel(control, &operator)?);
        clients.cluster.get_status(v1::GetStatusRequest {}).await.context("an operator may")?;
    }
    // Raft and administration are not served on the data port at all.
    let data = stage.doors()[0].addresses.data;
    let mut clients = Clients::new(channel(data, &operator)?);
    let told = clients.cluster.get_status(v1::GetStatusRequest {}).await.map(drop);
    let absent = told.as_ref().is_err_and(|status| status.code() == Code::Unimplemented);
    stage.check("administration on the data port", absent, || format!("{told:?}"));
    for (rpc, told) in raft_calls(data, &client).await? {
        let absent = told.as_ref().is_err_and(|status| status.code() == Code::Unimplemented);
        stage.check(&format!("Raft's {rpc} on the data port"), absent, || format!("{told:?}"));
    }
    // The field that nothing reads is still refused before anything is done.
    let ask = async |mut to: Clients| to.wallet.new_address(v1::NewAddressRequest::default()).await;
    stage.refuses(Who::Client, "nothing at all", &invalid(&["request_id", "wallet_id"]), ask).await;
    Ok(())
}

fn uri(party: &str) -> String {
    format!("spiffe://{CLUSTER_ID}/{party}")
}

type RaftAnswer = (&'static str, Result<(), Status>);

fn to_node<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CLUSTER_METADATA_KEY, CLUSTER_ID.parse().expect("plain text"));
    request
}

async fn raft_calls(address: SocketAddr, credentials: &Credentials) -> Result<Vec<RaftAnswer>> {
    let mut raft = RaftServiceClient::new(channel(address, credentials)?);
    Ok(vec![
        ("Vote", raft.vote(to_node(peer::VoteRequest::default())).await.map(drop)),
        ("PreVote", raft.pre_vote(to_node(peer::PreVoteRequest::default())).await.map(drop)),
        ("TransferLeader", raft.transfer_leader(to_node(peer::TransferLeaderRequest::default())).await.map(drop)),
        ("GetNodeView", raft.get_node_view(to_node(peer::GetNodeViewRequest {})).await.map(drop)),
        ("AppendStream", raft.append_stream(to_node(tokio_stream::empty())).await.map(drop)),
        ("InstallSnapshot", raft.install_snapshot(to_node(tokio_stream::empty())).await.map(drop)),
    ])
}

/// A channel that shows no certificate.
fn without_certificate(credentials: &Credentials, address: SocketAddr) -> Result<Channel> {
    let authority = Certificate::from_pem(fs::read(&credentials.ca)?);
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port()))?;
    Ok(endpoint.tls_config(tls)?.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy())
}

/// What the node says to somebody who only listens: its first frame, or the alert that ends the connection. (An HTTP/2
/// client writes at once, and the alert is lost when its connection breaks under it.)
fn handshake(address: SocketAddr, authority: &Path, own: Option<&Credentials>) -> Result<String> {
    let certificates = |file: &Path| -> Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_slice_iter(&fs::read(file)?).collect::<Result<_, _>>()?)
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(&fs::read(&own.key)?)?;
            config.with_client_auth_cert(certificates(&own.cert)?, key)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut tls = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let told = rustls::Stream::new(&mut tls, &mut socket).read(&mut [0; 1]);
    Ok(match told {
        Ok(1) => "is served".to_owned(),
        told => format!("{told:?}"),
    })
}

/// Issues a certificate of a cluster that is not this one.
pub fn other_cluster(stage: &Stage, kind: &str, name: &str) -> Result<Credentials> {
    let folder = stage.cluster.folder().join("other-pki");
    let dir = folder.display().to_string();
    if !folder.exists() {
        run(&["pki", "init", "--dir", &dir, "--cluster", "other"])?;
    }
    let cert = folder.join(format!("{kind}-{name}.pem"));
    if !cert.exists() {
        run(&["pki", "issue", "--dir", &dir, kind, name])?;
    }
    Ok(Credentials { ca: folder.join("ca.pem"), key: cert.with_extension("key"), cert })
}

fn run(args: &[&str]) -> Result<()> {
    let output = Command::new(programs::onespend()?).args(args).output()?;
    ensure!(output.status.success(), "onespend {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Makes certificates of the cluster's authority that `onespend pki issue` would not make.
struct Mint {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    ca: PathBuf,
}

impl Mint {
    fn open(stage: &Stage) -> Result<Self> {
        let pki = stage.cluster.folder().join("pki");
        let folder = stage.cluster.folder().join("minted");
        fs::create_dir_all(&folder)?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name = rcgen::DistinguishedName::new();
        // As `pki init` names it.
        authority.distinguished_name.push(DnType::OrganizationName, CLUSTER_ID);
        authority.distinguished_name.push(DnType::CommonName, format!("onespend cluster {CLUSTER_ID}"));
        let key = KeyPair::from_pem(&fs::read_to_string(pki.join("ca.key"))?)?;
        Ok(Self { issuer: Issuer::new(authority, key), folder, ca: pki.join("ca.pem") })
    }

    fn issue(&self, name: &str, uris: &[&str], from: time::Duration, to: time::Duration) -> Result<Credentials> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::now_utc() + from;
        params.not_after = OffsetDateTime::now_utc() + to;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let write = |path: &Path, text: String| fs::write(path, text);
        let (cert, key_file) = (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}.key")));
        write(&cert, certificate.pem())?;
        write(&key_file, key.serialize_pem())?;
        Ok(Credentials { ca: self.ca.clone(), cert, key: key_file })
    }
}
