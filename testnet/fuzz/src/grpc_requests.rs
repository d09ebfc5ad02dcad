//! Messages of every rpc. The first byte says which rpc, by its place in `Action::ALL`; the rest is the message.

use bitcoin::Network;
use onespend::intake::{Reading, read_request};
use onespend_policies::Action;
use onespend_proto::peer::v1 as peer;
use onespend_proto::{reason, v1};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{history, psbt_intake};

const FINALITY_DEPTH: u32 = 6;
/// What gRPC clients take of trailers (`GRPC_ARG_MAX_METADATA_SIZE`); an answer above it is lost.
const MAX_TRAILERS: usize = 8 * 1024;
/// Room for the trailers' names and for what else is in them.
const OTHER_TRAILERS: usize = 128;

/// Characters of a message in the trailers: percent-encoded as tonic does it.
fn message_len(message: &str) -> usize {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b" \"#<>`?{}%".contains(&byte);
    message.bytes().map(|byte| if plain(byte) { 1 } else { 3 }).sum()
}

/// A refusal is one: it names a known reason, does not sound as if the outcome were unknown (safety 27), and fits into
/// the trailers.
fn check_refusal(action: Action, refused: &Status) {
    let named = refused.get_details_error_info().unwrap_or_else(|| panic!("{action:?}: {refused:?} has no reason"));
    assert!(reason::parse(&named.reason).is_some(), "{action:?}: {} is no reason", named.reason);
    let decided = matches!(
        refused.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::NotFound
    );
    assert!(decided, "{action:?}: {refused:?} does not say that nothing was applied");
    let bytes = message_len(refused.message()) + refused.details().len().div_ceil(3) * 4 + OTHER_TRAILERS;
    assert!(bytes <= MAX_TRAILERS, "{action:?}: {bytes} bytes of trailers");
}

/// Feeds one input.
pub fn feed(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let action = Action::ALL[usize::from(*first) % Action::ALL.len()];
    if let Reading::Refused(refused) = read_request(action, bytes, Network::Regtest, FINALITY_DEPTH) {
        check_refusal(action, &refused);
    }
}

fn seed(action: Action, message: &impl Message) -> Vec<u8> {
    let place = Action::ALL.iter().position(|one| *one == action).unwrap();
    [&[u8::try_from(place).unwrap()], message.encode_to_vec().as_slice()].concat()
}

fn id() -> String {
    "0190b2c4-demo".to_owned()
}

fn hot() -> String {
    "hot".to_owned()
}

fn order() -> String {
    "order-7".to_owned()
}

fn consistency() -> v1::ReadConsistency {
    let level = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 500 });
    v1::ReadConsistency { level: Some(level) }
}

fn outpoint() -> v1::Outpoint {
    v1::Outpoint { txid: "b7".repeat(32), vout: 1 }
}

fn recipients() -> Vec<v1::Recipient> {
    use v1::recipient::Destination;
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned();
    let script = [&[0x51, 0x20][..], &[7; 32]].concat();
    [Destination::Address(address), Destination::Script(script.into())]
        .map(|to| v1::Recipient { destination: Some(to), amount_sat: 20_000 })
        .into()
}

fn limits() -> v1::WalletLimits {
    let window = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let velocity = Some(v1::Velocity { window, max_sat: 1_000_000 });
    v1::WalletLimits { max_fee_sat: 9, max_feerate_sat_vb: 2.5, velocity, ..v1::WalletLimits::default() }
}

/// A right message of every rpc that has fields, a wrong one, and an empty one of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..Action::ALL.len()).map(|place| vec![u8::try_from(place).unwrap()]).collect();
    seeds.extend(wallets());
    seeds.extend(reservations());
    seeds.extend(payments());
    seeds.extend(replacements());
    seeds.extend(reads());
    seeds.extend(peers());
    let faults = v1::Outpoint { txid: "\u{1f4b8}".repeat(40), vout: 1 };
    let outpoints = vec![faults; 60];
    let wrong = v1::RegisterOutpointsRequest { request_id: "\n".repeat(99), wallet_id: "\u{e9}".repeat(99), outpoints };
    seeds.push(seed(Action::RegisterOutpoints, &wrong));
    seeds
}

fn wallets() -> Vec<Vec<u8>> {
    let [wpkh, _, sortedmulti] = psbt_intake::descriptors();
    let (request_id, wallet_id, note) = (id(), hot(), "checked".to_owned());
    let register = v1::RegisterWalletRequest {
        request_id: id(),
        wallet_id: hot(),
        descriptor: wpkh,
        signer: "external".to_owned(),
        limits: Some(limits()),
        fence_key: vec![2; 32].into(),
    };
    let several = v1::RegisterWalletRequest { descriptor: sortedmulti, ..register.clone() };
    let outpoints = vec![outpoint()];
    let released = v1::ReleaseQuarantinedRequest {
        request_id: id(),
        wallet_id: hot(),
        outpoints: outpoints.clone(),
        note: note.clone(),
        i_have_checked: true,
    };
    let deposit = psbt_intake::spending();
    let made = v1::Outpoint { txid: deposit.compute_txid().to_string(), vout: 0 };
    let lost = v1::DeclareLostRequest {
        request_id: id(),
        wallet_id: hot(),
        outpoint: Some(made.clone()),
        raw_deposit: bitcoin::consensus::serialize(&deposit).into(),
        conflicting_txid: made.txid.clone(),
        block_hash: made.txid,
        note: note.clone(),
    };
    let joining = v1::AddLearnerRequest {
        request_id: id(),
        node_id: 4,
        control_address: "10.0.0.4:7801".to_owned(),
        data_address: "[::1]:7800".to_owned(),
    };
    let moving = v1::MoveNodeRequest {
        request_id: id(),
        node_id: 2,
        control_address: "10.0.0.5:7801".to_owned(),
        data_address: "node-5:7800".to_owned(),
    };
    let follow = v1::RegisterOutpointsRequest { request_id: id(), wallet_id: hot(), outpoints };
    vec![
        seed(Action::RegisterWallet, &register),
        seed(Action::RegisterWallet, &several),
        seed(Action::NewAddress, &v1::NewAddressRequest { request_id: id(), wallet_id: hot(), keychain: 2 }),
        seed(Action::SetLimits, &v1::SetLimitsRequest { request_id: id(), wallet_id: hot(), limits: Some(limits()) }),
        seed(Action::FreezeWallet, &v1::FreezeWalletRequest { request_id: id(), wallet_id: hot(), note: note.clone() }),
        seed(Action::UnfreezeWallet, &v1::UnfreezeWalletRequest { request_id, wallet_id }),
        seed(Action::RegisterOutpoints, &follow),
        seed(Action::ReleaseQuarantined, &released),
        seed(Action::DeclareLost, &lost),
        seed(Action::ConfirmRecovery, &v1::ConfirmRecoveryRequest { request_id: id(), note, i_have_checked: true }),
        seed(Action::DrainNode, &v1::DrainNodeRequest { request_id: id(), node_id: 2 }),
        seed(Action::UndrainNode, &v1::UndrainNodeRequest { request_id: id(), node_id: 2 }),
        seed(Action::MoveNode, &moving),
        seed(Action::TransferLeadership, &v1::TransferLeadershipRequest { request_id: id(), node_id: 2 }),
        seed(Action::AddLearner, &joining),
        seed(Action::PromoteLearner, &v1::PromoteLearnerRequest { request_id: id(), node_id: 4 }),
        seed(Action::RemoveNode, &v1::RemoveNodeRequest { request_id: id(), node_id: 2 }),
        seed(Action::CreateBackup, &v1::CreateBackupRequest { request_id: id() }),
    ]
}

fn reservations() -> Vec<Vec<u8>> {
    use v1::{renew_reservation_request as renewal, reserve_utxos_request as reserve};
    let list = v1::OutpointList { outpoints: vec![outpoint(), outpoint()] };
    let selection = v1::Selection { target_sat: 5_000, feerate_sat_vb: 1.5, min_depth: 1, strategy: 2 };
    let ttl = prost_types::Duration { seconds: 60, nanos: 5 };
    let until = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 5 };
    let by_name = v1::ReserveUtxosRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        what: Some(reserve::What::Outpoints(list)),
        expiration: Some(reserve::Expiration::Ttl(ttl)),
    };
    let by_amount = v1::ReserveUtxosRequest {
        what: Some(reserve::What::Selection(selection)),
        expiration: Some(reserve::Expiration::ExpireTime(until)),
        ..by_name.clone()
    };
    let renew = v1::RenewReservationRequest {
        request_id: id(),
        reservation_id: "r-17".to_owned(),
        fence: 17,
        expiration: Some(renewal::Expiration::Ttl(ttl)),
    };
    let release = v1::ReleaseReservationRequest { request_id: id(), reservation_id: "r-17".to_owned(), fence: 17 };
    vec![
        seed(Action::ReserveUtxos, &by_name),
        seed(Action::ReserveUtxos, &by_amount),
        seed(Action::RenewReservation, &renew),
        seed(Action::ReleaseReservation, &release),
    ]
}

fn payments() -> Vec<Vec<u8>> {
    let create = v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        recipients: recipients(),
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(2.5)),
        max_fee_sat: 10_000,
        min_depth: 1,
        strategy: 1,
    };
    let sign = v1::SignPsbtRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        recipients: recipients(),
        reservation_id: "r-17".to_owned(),
        fence: 17,
        psbt: psbt_intake::full().serialize().into(),
    };
    let submit = v1::SubmitSignedTransactionRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        raw_transaction: bitcoin::consensus::serialize(&psbt_intake::spending()).into(),
    };
    vec![
        seed(Action::CreatePayment, &create),
        seed(Action::SignPsbt, &sign),
        seed(Action::SubmitSignedTransaction, &submit),
    ]
}

fn replacements() -> Vec<Vec<u8>> {
    let bump = v1::BumpFeeRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        fee: Some(v1::bump_fee_request::Fee::ConfirmTargetBlocks(3)),
        max_fee_sat: 10_000,
    };
    let by_child = v1::BumpFeeCpfpRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        child_payment_id: "child".to_owned(),
        fee: Some(v1::bump_fee_cpfp_request::Fee::PackageFeerateSatVb(3.0)),
        max_fee_sat: 0,
    };
    let cancel = v1::CancelPaymentRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        fee: Some(v1::cancel_payment_request::Fee::FeerateSatVb(3.0)),
        max_fee_sat: 1,
    };
    let abort = v1::AbortAttemptRequest {
        request_id: id(),
        wallet_id: hot(),
        payment_id: order(),
        attempt_number: 1,
        proof: vec![3; 64].into(),
    };
    vec![
        seed(Action::BumpFee, &bump),
        seed(Action::BumpFeeCpfp, &by_child),
        seed(Action::CancelPayment, &cancel),
        seed(Action::AbortAttempt, &abort),
    ]
}

fn reads() -> Vec<Vec<u8>> {
    let hex = |text: &str| bitcoin::hex::DisplayHex::to_lower_hex_string(text.as_bytes());
    let coins = v1::ListUtxosRequest {
        wallet_id: hot(),
        states: vec![1, 2],
        min_value_sat: 5,
        page_size: 10,
        page_token: hex(&format!("{}:1", "b7".repeat(32))),
        consistency: Some(consistency()),
        ..v1::ListUtxosRequest::default()
    };
    let payments = v1::ListPaymentsRequest {
        wallet_id: hot(),
        states: vec![1],
        page_token: hex("hot/order-7"),
        consistency: Some(consistency()),
        ..v1::ListPaymentsRequest::default()
    };
    let reservations = v1::ListReservationsRequest {
        wallet_id: hot(),
        payment_id: order(),
        states: vec![1],
        page_token: hex("17"),
        ..v1::ListReservationsRequest::default()
    };
    let events = v1::ListAuditEventsRequest { page_token: hex("9"), wallet_id: hot(), ..Default::default() };
    let wallets = v1::ListWalletsRequest { page_size: 3, page_token: hex("hot"), consistency: Some(consistency()) };
    let standing = v1::WatchReservationsRequest { wallet_id: hot(), reservation_id: "r-17".to_owned(), from_index: 9 };
    let watch = v1::WatchPaymentsRequest { wallet_id: hot(), payment_id: order(), ..Default::default() };
    vec![
        seed(Action::ListUtxos, &coins),
        seed(Action::ListPayments, &payments),
        seed(Action::ListReservations, &reservations),
        seed(Action::ListAuditEvents, &events),
        seed(Action::ListWallets, &wallets),
        seed(Action::WatchPayments, &watch),
        seed(Action::WatchReservations, &standing),
        seed(Action::GetBalance, &v1::GetBalanceRequest { wallet_id: hot(), min_depth: 1, consistency: None }),
        seed(
            Action::GetReservation,
            &v1::GetReservationRequest { reservation_id: "r-17".to_owned(), consistency: None },
        ),
        seed(Action::GetWallet, &v1::GetWalletRequest { wallet_id: hot(), consistency: Some(consistency()) }),
        seed(Action::GetPayment, &v1::GetPaymentRequest { wallet_id: hot(), payment_id: order() }),
        seed(Action::EstimateFee, &v1::EstimateFeeRequest { confirm_target_blocks: 6 }),
    ]
}

fn peers() -> Vec<Vec<u8>> {
    let log_id = |index| Some(peer::LogId { term: 3, index });
    let vote = || Some(peer::Vote { term: 3, node_id: 2, committed: true });
    let ballot = || Some(peer::Ballot { vote: vote(), last_log_id: log_id(9), leadership_transfer: true });
    let node = peer::Node { control_address: "10.0.0.1:7801".to_owned(), data_address: "10.0.0.1:7800".to_owned() };
    let membership =
        peer::Membership { configs: vec![peer::VoterSet { node_ids: vec![1] }], nodes: [(1, node)].into() };
    let command = history::entries()[2].1.clone();
    let payloads = [
        peer::entry::Payload::Blank(peer::Blank {}),
        peer::entry::Payload::Normal(command.into()),
        peer::entry::Payload::Membership(membership.clone()),
    ];
    let entries = (10..).zip(payloads);
    let entries = entries.map(|(index, payload)| peer::Entry { log_id: log_id(index), payload: Some(payload) });
    let append = peer::AppendStreamRequest {
        vote: vote(),
        prev_log_id: log_id(9),
        entries: entries.collect(),
        leader_commit: log_id(8),
        heard_moment: 1 << 40,
        quorum_age_us: 40_000,
    };
    let stored = peer::StoredMembership { log_id: log_id(1), membership: Some(membership) };
    let header = peer::SnapshotHeader {
        cluster_id: "demo".to_owned(),
        vote: vote(),
        meta: Some(peer::SnapshotMeta {
            last_log_id: log_id(9),
            last_membership: Some(stored),
            highest_removed_id: Some(3),
        }),
        total_bytes: 7,
        sha256: vec![1; 32].into(),
    };
    let part = peer::InstallSnapshotRequest { part: Some(peer::install_snapshot_request::Part::Header(header)) };
    let transfer = peer::TransferLeaderRequest { from_leader: vote(), to_node_id: 1, last_log_id: log_id(9) };
    vec![
        seed(Action::AppendStream, &append),
        seed(Action::Vote, &peer::VoteRequest { ballot: ballot() }),
        seed(Action::PreVote, &peer::PreVoteRequest { ballot: ballot() }),
        seed(Action::InstallSnapshot, &part),
        seed(Action::TransferLeader, &transfer),
    ]
}
