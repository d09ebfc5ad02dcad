//! SetLimits, FreezeWallet, UnfreezeWallet: the three ways to change a wallet.

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::{RequestId, WalletId};
use onespend_core::limits::WalletLimits;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::wallet_view;
use crate::raft::Applied;

/// Longest note that an operator may leave at a frozen wallet, in characters.
const MAX_NOTE: usize = 256;

pub(super) async fn set_limits(
    api: Arc<Api>,
    call: Call,
    message: v1::SetLimitsRequest,
) -> Result<v1::SetLimitsResponse, Status> {
    let ((request, wallet), limits) = parse_limits(&message, api.settings.finality_depth)?;
    let command = Command::SetLimits { wallet: wallet.clone(), limits };
    let (wallet, applied) = change(&api, &call, request, &wallet, command).await?;
    Ok(v1::SetLimitsResponse { wallet, applied_index: applied.index.0, term: applied.term })
}

pub(super) async fn freeze_wallet(
    api: Arc<Api>,
    call: Call,
    message: v1::FreezeWalletRequest,
) -> Result<v1::FreezeWalletResponse, Status> {
    let (request, wallet) = parse_freeze(&message)?;
    let why = format!("{}, by {}", if message.note.is_empty() { "frozen" } else { &message.note }, call.caller);
    let command = Command::FreezeWallet { wallet: wallet.clone(), why };
    let (wallet, applied) = change(&api, &call, request, &wallet, command).await?;
    Ok(v1::FreezeWalletResponse { wallet, applied_index: applied.index.0, term: applied.term })
}

pub(super) async fn unfreeze_wallet(
    api: Arc<Api>,
    call: Call,
    message: v1::UnfreezeWalletRequest,
) -> Result<v1::UnfreezeWalletResponse, Status> {
    let (request, wallet) = parse_unfreeze(&message)?;
    let command = Command::UnfreezeWallet { wallet: wallet.clone() };
    let (wallet, applied) = change(&api, &call, request, &wallet, command).await?;
    Ok(v1::UnfreezeWalletResponse { wallet, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse_limits(
    message: &v1::SetLimitsRequest,
    finality_depth: u32,
) -> Result<((RequestId, WalletId), WalletLimits), Status> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &message.request_id, &message.wallet_id);
    let limits = fields.limits(message.limits.as_ref(), finality_depth);
    fields.finish(names.zip(limits))
}

pub(super) fn parse_freeze(message: &v1::FreezeWalletRequest) -> Result<(RequestId, WalletId), Status> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &message.request_id, &message.wallet_id);
    if message.note.chars().count() > MAX_NOTE {
        fields.fault("note", format!("must not be longer than {MAX_NOTE} characters"));
    }
    fields.finish(names)
}

pub(super) fn parse_unfreeze(message: &v1::UnfreezeWalletRequest) -> Result<(RequestId, WalletId), Status> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &message.request_id, &message.wallet_id);
    fields.finish(names)
}

fn names(fields: &mut Fields, request: &str, wallet: &str) -> Option<(RequestId, WalletId)> {
    let request = fields.request_id(request);
    request.zip(fields.wallet_id(wallet))
}

async fn change(
    api: &Arc<Api>,
    call: &Call,
    request: RequestId,
    id: &WalletId,
    command: Command,
) -> Result<(Option<v1::Wallet>, Applied), Status> {
    let applied = api.decide_plain(call, call.request(request), command).await?;
    let wallet = api.replica.read(|state| state.wallet(id).ok().map(|wallet| wallet_view::wallet(id, wallet)));
    Ok((wallet, applied))
}
