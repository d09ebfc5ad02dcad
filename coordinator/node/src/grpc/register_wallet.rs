//! RegisterWallet: scans the chain for the wallet's coins, and commits the result on the tip that it is true for.

use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::XOnlyPublicKey;
use onespend_core::command::{Command, FenceKey, RegisterWallet};
use onespend_core::ids::{RequestId, WalletId};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Rejection;
use onespend_core::wallet::{SignerRef, WalletDescriptor};
use onespend_proto::v1::{self, ErrorReason};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::status;
use super::wallet_view::{self, EXTERNAL_SIGNER};

pub(super) struct Parsed {
    request: RequestId,
    wallet: WalletId,
    limits: WalletLimits,
    signer: SignerRef,
    descriptor: WalletDescriptor,
    fence_key: Option<FenceKey>,
}

pub(super) async fn register_wallet(
    api: Arc<Api>,
    call: Call,
    message: v1::RegisterWalletRequest,
) -> Result<v1::RegisterWalletResponse, Status> {
    let parsed = parse(&message, api.settings.network, api.settings.finality_depth)?;
    let request = call.request(parsed.request.clone());
    let applied = api.decide(&call, request, || draft(&api, &parsed)).await?;
    let wallet =
        api.replica.read(|state| state.wallet(&parsed.wallet).ok().map(|w| wallet_view::wallet(&parsed.wallet, w)));
    Ok(v1::RegisterWalletResponse { wallet, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(
    message: &v1::RegisterWalletRequest,
    network: Network,
    finality_depth: u32,
) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let limits = fields.limits(message.limits.as_ref(), finality_depth);
    let fence_key = fence_key(&mut fields, message);
    let (request, wallet, limits) = fields.finish(request.zip(wallet).zip(limits).map(|((r, w), l)| (r, w, l)))?;
    let descriptor = WalletDescriptor::parse(&message.descriptor, network)
        .map_err(|fault| status::rejected(&Rejection::DescriptorInvalid(fault)))?;
    let signer = match message.signer.as_str() {
        "" => SignerRef::WatchOnly,
        EXTERNAL_SIGNER => SignerRef::External,
        name => SignerRef::Named(name.to_owned()),
    };
    Ok(Parsed { request, wallet, limits, signer, descriptor, fence_key })
}

/// The key of a signer outside, if it has one.
fn fence_key(fields: &mut Fields, message: &v1::RegisterWalletRequest) -> Option<FenceKey> {
    if message.fence_key.is_empty() {
        return None;
    }
    if message.signer != EXTERNAL_SIGNER {
        fields.fault("fence_key", format!("is for wallets whose signer is {EXTERNAL_SIGNER:?} alone"));
    }
    let key = XOnlyPublicKey::from_slice(&message.fence_key);
    key.map(|key| FenceKey(key.serialize()))
        .map_err(|_| fields.fault("fence_key", "is no x-only public key of 32 bytes (BIP-340)"))
        .ok()
}

/// Whether this node can sign for the wallet. Another leader may have other signers, so this is no fault of the
/// message, which every leader answers alike.
fn check_signer(api: &Api, parsed: &Parsed) -> Result<(), Status> {
    let SignerRef::Named(name) = &parsed.signer else { return Ok(()) };
    if !api.signing.knows(name) {
        let rule = format!("no signer {name:?} is configured on the leader");
        return Err(status::invalid(ErrorReason::SignerUnknown, "signer", &rule, vec![("signer", name.clone())]));
    }
    api.signing.holds(name, &parsed.descriptor).map_err(|rule| {
        status::invalid(ErrorReason::DescriptorInvalid, "descriptor", &rule.clone(), vec![("rule", rule)])
    })
}

async fn draft(api: &Arc<Api>, parsed: &Parsed) -> Result<Draft, Status> {
    check_signer(api, parsed)?;
    api.demand_synced_chain()?;
    let found = api
        .bitcoind
        .scan(&parsed.wallet, &parsed.descriptor)
        .await
        .map_err(|error| status::chain_not_synced(&error.to_string()))?;
    Ok(Draft::of(Command::RegisterWallet(RegisterWallet {
        wallet: parsed.wallet.clone(),
        descriptor: parsed.descriptor.as_str().to_owned(),
        signer: parsed.signer.clone(),
        limits: parsed.limits.clone(),
        basis: found.basis,
        found: found.coins,
        fence_key: parsed.fence_key,
    })))
}
