//! Paying, waiting, following, and PSBTs.

use onespend_proto::reason;
use onespend_proto::v1::{self, PaymentState as S};
use tonic::Code;

use crate::node::{ADDRESS, TXID, Told, payment};
use crate::run::{Cluster, Ended};

fn pay(cluster: &Cluster, more: &[&str]) -> Ended {
    let to = format!("{ADDRESS}=50000");
    cluster.run(&[&["pay", "--wallet", "hot", "--payment-id", "order-7", "--to", &to][..], more].concat())
}

fn created(state: S) -> v1::CreatePaymentResponse {
    v1::CreatePaymentResponse { payment: Some(payment(state, 80)), applied_index: 80, term: 2 }
}

#[test]
fn a_payment_is_ordered() {
    use v1::create_payment_request::Fee;
    let cluster = Cluster::start();
    let done = pay(&cluster, &["--feerate", "5", "--max-fee-sat", "1000"]).code(0);
    assert!(done.out.contains("50,000 sat") && done.out.contains("705 sat") && done.out.contains(TXID), "{}", done.out);
    assert!(done.lines().iter().all(|line| line.chars().count() <= 100), "{}", done.out);
    let asked: v1::CreatePaymentRequest = cluster.node.last();
    assert_eq!((asked.payment_id.as_str(), asked.recipients[0].amount_sat), ("order-7", 50_000));
    assert_eq!((asked.fee, asked.max_fee_sat, asked.min_depth), (Some(Fee::FeerateSatVb(5.0)), 1_000, 1));

    let json = pay(&cluster, &["--target-blocks", "2", "-o", "json"]).code(0).json();
    assert_eq!((json["state"].as_str(), json["txid"].as_str()), (Some("broadcast"), Some(TXID)));
    assert_eq!(json["attempts"][0]["inputs"][0], format!("{TXID}:1"));
    assert_eq!(json["recipients"][0]["address"], ADDRESS);
    assert_eq!(cluster.node.last::<v1::CreatePaymentRequest>().fee, Some(Fee::ConfirmTargetBlocks(2)));
    assert_eq!(json["request_id"], cluster.node.last::<v1::CreatePaymentRequest>().request_id.as_str());
}

#[test]
fn amounts_that_are_not_whole_satoshi_are_never_sent() {
    let cluster = Cluster::start();
    for amount in ["0.0005", "5e4", "50,000", "-5", "0", ""] {
        let to = format!("{ADDRESS}={amount}");
        let refused = cluster.run(&["pay", "--wallet", "hot", "--payment-id", "x", "--to", &to]).code(2);
        assert!(refused.err.contains("satoshi"), "{refused:?}");
    }
    pay(&cluster, &["--feerate", "1", "--target-blocks", "2"]).code(2);
    assert!(cluster.node.all::<v1::CreatePaymentRequest>().is_empty());
}

#[test]
fn a_payment_that_is_not_signed_yet_is_no_failure() {
    let cluster = Cluster::start();
    cluster.node.answer(created(S::Signing));
    let done = pay(&cluster, &[]).code(0);
    assert!(done.out.contains("signing") && done.err.contains("if this lasts, the leader's log says why"), "{done:?}");
}

#[test]
fn waiting_ends_when_the_payment_is_far_enough() {
    let cluster = Cluster::start();
    cluster.node.answer(Told(vec![S::Broadcast, S::Confirming, S::Settled]));
    let done = pay(&cluster, &["--wait", "settled", "-o", "json"]).code(0);
    assert_eq!(done.json()["state"], "settled");
    assert_eq!(cluster.node.last::<v1::WatchPaymentsRequest>().from_index, 80, "nothing may be missed in between");
    assert!(done.err.is_empty(), "no progress line where nobody watches: {}", done.err);

    let already = pay(&cluster, &["--wait", "broadcast"]).code(0);
    assert!(already.out.contains("broadcast"), "{already:?}");
    assert_eq!(cluster.node.all::<v1::WatchPaymentsRequest>().len(), 1, "there was nothing to wait for");
}

#[test]
fn waiting_tells_when_it_will_never_be_paid_or_takes_too_long() {
    let cluster = Cluster::start();
    cluster.node.answer(Told(vec![S::Conflicted, S::Dead]));
    let dead = pay(&cluster, &["--wait", "confirmed"]).code(1);
    assert!(dead.err.contains("not paid: the payment is dead") && dead.out.contains("dead"), "{dead:?}");

    cluster.node.answer(Told(vec![S::Confirming]));
    let slow = pay(&cluster, &["--wait", "settled", "--wait-timeout", "700ms"]).code(3);
    assert!(slow.err.contains("payment watch --wallet hot --payment-id order-7"), "{slow:?}");
    assert!(slow.out.contains("confirming"), "{slow:?}");
}

/// An answer with a payment whose coins are on their way back.
fn cancelling(state: S) -> v1::CreatePaymentResponse {
    let mut answer = created(state);
    answer.payment.as_mut().unwrap().attempts[0].purpose = v1::AttemptPurpose::Cancel.into();
    answer
}

/// safety 10.
#[test]
fn a_confirmed_cancellation_is_no_confirmed_payment() {
    let cluster = Cluster::start();
    cluster.node.answer(cancelling(S::Confirming));
    cluster.node.answer(Told(vec![S::Cancelled]));
    let waited = pay(&cluster, &["--wait", "broadcast"]).code(1);
    assert!(waited.err.contains("not paid: the payment is cancelled"), "{waited:?}");

    // An older attempt is the one that confirms after all.
    cluster.node.answer(cancelling(S::Broadcast));
    cluster.node.answer(Told(vec![S::Confirming]));
    let paid = pay(&cluster, &["--wait", "confirmed", "-o", "json"]).code(0).json();
    assert_eq!((paid["state"].as_str(), paid["purpose"].as_str()), (Some("confirming"), Some("pay")));
}

/// safety 10.
#[test]
fn an_order_that_is_being_cancelled_is_not_said_to_be_done() {
    let cluster = Cluster::start();
    cluster.node.answer(cancelling(S::Confirming));
    let undecided = pay(&cluster, &[]).code(3);
    assert!(
        undecided.out.contains("cancelling") && undecided.err.contains("payment watch --wallet hot"),
        "{undecided:?}"
    );
    cluster.node.answer(cancelling(S::Signing));
    let json = pay(&cluster, &["-o", "json"]).code(3).json();
    assert_eq!((json["state"].as_str(), json["purpose"].as_str()), (Some("signing"), Some("cancel")));
    cluster.node.answer(cancelling(S::Cancelled));
    let over = pay(&cluster, &[]).code(1);
    assert!(over.err.contains("not paid: the payment is cancelled") && over.out.contains("cancelled"), "{over:?}");
}

#[test]
fn payments_are_shown_listed_and_followed() {
    let cluster = Cluster::start();
    let shown = cluster.run(&["payment", "show", "--wallet", "hot", "order-7"]).code(0);
    assert!(shown.out.contains("ATTEMPT") && shown.out.contains("confirming"), "{}", shown.out);
    let list = cluster.run(&["payment", "list", "--wallet", "hot", "--state", "confirming"]).code(0);
    assert!(list.out.ends_with("1 payment\n"), "{}", list.out);
    assert!(list.lines().iter().all(|line| line.chars().count() <= 100), "{}", list.out);

    cluster.node.answer(Told(vec![S::Broadcast, S::Settled]));
    let watch = ["payment", "watch", "--wallet", "hot", "--payment-id", "order-7", "--from-index", "5", "-o", "json"];
    let followed = cluster.run(&watch).code(0);
    let lines: Vec<serde_json::Value> =
        followed.lines().into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "one document per line, and it ends when the payment is final");
    assert_eq!((lines[0]["applied_index"].as_u64(), lines[1]["applied_index"].as_u64()), (Some(6), Some(7)));
    assert_eq!(lines[1]["payment"]["state"], "settled");
}

#[test]
fn a_line_that_says_nothing_new_is_for_programs_alone() {
    let cluster = Cluster::start();
    let watch = ["payment", "watch", "--wallet", "hot", "--payment-id", "order-7"];
    for (format, lines) in [("table", 2), ("json", 4)] {
        cluster.node.answer(Told(vec![S::Confirming, S::Confirming, S::Confirming, S::Settled]));
        let followed = cluster.run(&[&watch[..], &["-o", format]].concat()).code(0);
        assert_eq!(followed.lines().len(), lines, "{followed:?}");
    }
}

#[test]
fn a_psbt_is_sent_with_its_reservation() {
    let cluster = Cluster::start();
    let to = format!("{ADDRESS}=50000");
    let file = cluster.authority.file("order.psbt");
    std::fs::write(&file, b"psbt\xff\x00").unwrap();
    let names = ["--wallet", "hot", "--payment-id", "order-7", "--reservation", "r-77", "--fence", "77", "--to", &to];
    for psbt in ["cHNidP8A", file.to_str().unwrap()] {
        let args = [&["payment", "sign-psbt", psbt, "-o", "json"][..], &names].concat();
        assert_eq!(cluster.run(&args).code(0).json()["attempt_number"], 1);
        let asked: v1::SignPsbtRequest = cluster.node.last();
        assert_eq!((&asked.psbt[..], asked.reservation_id.as_str(), asked.fence), (&b"psbt\xff\x00"[..], "r-77", 77));
        assert_eq!(asked.recipients.len(), 1);
    }
    let own = ["payment", "sign-psbt", "cHNidP8A", "--wallet", "hot", "--payment-id", "order-7", "--to", &to];
    cluster.run(&own).code(0);
    let asked: v1::SignPsbtRequest = cluster.node.last();
    assert_eq!((asked.reservation_id.as_str(), asked.fence), ("", 0), "a replacement needs no reservation");
    let wrong = cluster.run(&[&["payment", "sign-psbt", "/no/such/file"][..], &names].concat()).code(2);
    assert!(wrong.err.contains("/no/such/file"), "{wrong:?}");
}

#[test]
fn a_payment_is_bumped_cancelled_and_helped_by_a_child() {
    use v1::{bump_fee_cpfp_request as cpfp, bump_fee_request as bump};
    let cluster = Cluster::start();
    let payment = |command: &'static str| ["payment", command, "order-7", "--wallet", "hot"];
    let bumped =
        cluster.run(&[&payment("bump")[..], &["--feerate", "9.5", "--max-fee-sat", "5000", "-o", "json"]].concat());
    assert_eq!(bumped.code(0).json()["attempt_number"], 2);
    let asked: v1::BumpFeeRequest = cluster.node.last();
    assert_eq!((asked.payment_id.as_str(), asked.max_fee_sat), ("order-7", 5_000));
    assert_eq!(asked.fee, Some(bump::Fee::FeerateSatVb(9.5)));

    let cancelled = cluster.run(&payment("cancel")).code(0);
    assert!(cancelled.out.contains("FOR"), "what each attempt is for: {}", cancelled.out);
    let asked: v1::CancelPaymentRequest = cluster.node.last();
    assert_eq!((asked.wallet_id.as_str(), asked.fee), ("hot", None));

    assert!(cancelled.err.is_empty(), "{cancelled:?}");

    let child =
        cluster.run(&[&payment("cpfp")[..], &["--child-id", "child-7", "--target-blocks", "2"]].concat()).code(0);
    assert!(child.out.contains("child-7") && child.out.contains("pays fees for"), "{}", child.out);
    let asked: v1::BumpFeeCpfpRequest = cluster.node.last();
    assert_eq!((asked.child_payment_id.as_str(), asked.fee), ("child-7", Some(cpfp::Fee::ConfirmTargetBlocks(2))));
    assert!(cluster.run(&payment("cpfp")).code(2).err.contains("--child-id"));
}

#[test]
fn a_replacement_that_is_not_signed_says_so_but_an_older_attempt_does_not() {
    let cluster = Cluster::start();
    let payment = |number| {
        let mut payment = payment(S::Broadcast, 80);
        payment.attempts[0].number = number;
        payment.attempts[0].state = v1::AttemptState::Signing.into();
        Some(payment)
    };
    let says = |command: &[&str]| {
        let ended = cluster.run(&[&["payment"][..], command, &["order-7", "--wallet", "hot"]].concat()).code(0);
        ended.err.contains("not signed yet") && ended.err.contains("the leader's log says why")
    };
    for (number, told) in [(2, true), (1, false)] {
        let (applied_index, term) = (80, 2);
        let made = v1::BumpFeeResponse { payment: payment(number), attempt_number: 2, applied_index, term };
        cluster.node.answer(made);
        assert_eq!(says(&["bump"]), told);
        let made = v1::CancelPaymentResponse { payment: payment(number), attempt_number: 2, applied_index, term };
        cluster.node.answer(made);
        assert_eq!(says(&["cancel"]), told);
    }
    let child = v1::Payment { payment_id: "child-7".to_owned(), ..self::payment(S::Signing, 80) };
    cluster.node.answer(v1::BumpFeeCpfpResponse { payment: Some(child), applied_index: 80, term: 2 });
    assert!(says(&["cpfp", "--child-id", "child-7"]));
}

#[test]
fn a_second_cancellation_says_that_it_changes_nothing() {
    let cluster = Cluster::start();
    let cancel = |state, fence| {
        let mut payment = cancelling(state).payment.unwrap();
        payment.attempts[0].fence = fence;
        payment.attempts[0].confirmed_height = 120;
        let answer =
            v1::CancelPaymentResponse { payment: Some(payment), attempt_number: 1, applied_index: 80, term: 2 };
        cluster.node.answer(answer);
        cluster.run(&["payment", "cancel", "order-7", "--wallet", "hot", "--feerate", "20"]).code(0).err
    };
    let said = cancel(S::Broadcast, 70);
    assert!(said.contains("already being cancelled, by attempt 1 at 5"), "{said}");
    assert!(said.contains("`onespend payment bump`"), "{said}");
    for (state, said) in [
        (S::Confirming, "already being cancelled, by attempt 1 in block 120"),
        (S::Cancelled, "already cancelled, by attempt 1 in block 120"),
    ] {
        let told = cancel(state, 70);
        assert!(told.contains(said) && !told.contains("payment bump"), "{state:?}: {told}");
    }
    let later_epoch = (1 << 48) + 80;
    for (state, fence) in [(S::Broadcast, 80), (S::Signing, later_epoch), (S::Cancelled, 80)] {
        assert_eq!(cancel(state, fence), "", "{state:?} {fence}");
    }
}

#[test]
fn who_bumps_or_cancels_what_is_paid_is_told_that_it_is_paid() {
    let cluster = Cluster::start();
    cluster.node.refuse_only::<v1::BumpFeeRequest>(Code::FailedPrecondition, reason::PAYMENT_UNRESOLVED);
    cluster.node.refuse_only::<v1::CancelPaymentRequest>(Code::FailedPrecondition, reason::PAYMENT_UNRESOLVED);
    let refused = |command, state| {
        let mut paid = payment(state, 80);
        paid.attempts[0].confirmed_height = 120;
        cluster.node.answer(v1::GetPaymentResponse { payment: Some(paid), read_info: None });
        cluster.run(&["payment", command, "order-7", "--wallet", "hot"]).code(1).err
    };
    for command in ["bump", "cancel"] {
        let said = refused(command, S::Settled);
        assert!(said.contains("refused: the payment is settled, by attempt 1 in block 120\n"), "{said}");
        assert!(said.contains("reason: PAYMENT_UNRESOLVED"), "{said}");
        let said = refused(command, S::Conflicted);
        assert!(said.contains("not this, said the node") && said.contains("remedy: "), "{said}");
    }
}

#[test]
fn what_an_external_signer_says_is_passed_on() {
    let cluster = Cluster::start();
    let which = ["order-7", "--wallet", "hot"];
    let raw = bitcoin::consensus::serialize(
        &bitcoin::blockdata::constants::genesis_block(bitcoin::Network::Regtest).txdata[0],
    );
    let hex = bitcoin::hex::DisplayHex::to_lower_hex_string(&raw);
    let file = cluster.authority.file("signed.bin");
    std::fs::write(&file, &raw).unwrap();
    for transaction in [hex.as_str(), file.to_str().unwrap()] {
        let args = [&["payment", "submit"][..], &which, &[transaction, "-o", "json"]].concat();
        assert_eq!(cluster.run(&args).code(0).json()["attempt_number"], 1);
        assert_eq!(cluster.node.last::<v1::SubmitSignedTransactionRequest>().raw_transaction, raw);
    }
    assert!(
        cluster.run(&[&["payment", "submit"][..], &which, &["00ff"]].concat()).code(2).err.contains("no transaction")
    );

    let proof = "ab".repeat(64);
    let abort = [&["payment", "abort"][..], &which, &["--attempt", "1", "--proof"]].concat();
    let aborted = cluster.run(&[&abort[..], &[&proof]].concat()).code(0);
    assert!(aborted.out.contains("dead"), "{}", aborted.out);
    let asked: v1::AbortAttemptRequest = cluster.node.last();
    assert_eq!((asked.attempt_number, &asked.proof[..]), (1, &[0xab; 64][..]));
    cluster.run(&[&abort[..], &["abab"]].concat()).code(2);
}

#[test]
fn the_permit_of_an_external_wallet_is_shown() {
    let cluster = Cluster::start();
    let mut permitted = payment(S::Signing, 80);
    permitted.attempts[0].psbt = b"psbt\xff\x00".to_vec().into();
    permitted.attempts[0].abort_message = vec![7; 32].into();
    cluster.node.answer(v1::GetPaymentResponse { payment: Some(permitted), read_info: None });
    let json = cluster.run(&["payment", "show", "--wallet", "hot", "order-7", "-o", "json"]).code(0).json();
    assert_eq!(json["attempts"][0]["psbt"], "cHNidP8A");
    assert_eq!(json["attempts"][0]["abort_message"], "07".repeat(32));
    assert_eq!(json["attempts"][0]["purpose"], "pay");
}
