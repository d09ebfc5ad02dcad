//! Who is paid and how much, by CreatePayment and by SignPsbt.

use anyhow::Result;
use onespend_proto::v1;
use onespend_proto::v1::create_payment_request::Fee;
use onespend_proto::v1::recipient::Destination;

use crate::door::Who;
use crate::draft::{Draft, PAYEE};
use crate::refusal::{Refusal, invalid, refusal, too_many_to_name};
use crate::stage::{HOT, Stage, id, recipient};

/// 21 million bitcoin.
const ALL_MONEY_SAT: i64 = 2_100_000_000_000_000;
const MAX_RECIPIENTS: usize = 1000;

fn order(recipients: Vec<v1::Recipient>) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: "order".to_owned(),
        recipients,
        fee: Some(Fee::FeerateSatVb(2.0)),
        ..Default::default()
    }
}

/// Recipients that nobody can be, by both ways to pay.
pub async fn check(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "recipients").await?;
    let mut cases = addresses();
    cases.extend(amounts());
    cases.extend(scripts());
    for (what, recipients, wanted) in cases {
        let request = order(recipients.clone());
        stage
            .refuses(Who::Client, what, &wanted, async |mut to| to.payment.create_payment(request.clone()).await)
            .await;
        let request = v1::SignPsbtRequest { recipients, ..draft.request() };
        let what = format!("{what}, by PSBT");
        stage.refuses(Who::Client, &what, &wanted, async |mut to| to.payment.sign_psbt(request.clone()).await).await;
    }
    stage.release(&draft.reservation).await
}

type Case = (&'static str, Vec<v1::Recipient>, Refusal);

fn to_address(address: &str) -> v1::Recipient {
    v1::Recipient { destination: Some(Destination::Address(address.to_owned())), amount_sat: 10_000 }
}

fn to_script(script: Vec<u8>) -> v1::Recipient {
    v1::Recipient { destination: Some(Destination::Script(script.into())), amount_sat: 10_000 }
}

fn addresses() -> Vec<Case> {
    let other_network = [
        ("P2WPKH of the main network", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("P2TR of the main network", "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
        ("P2PKH of the main network", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
        ("P2SH of the main network", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
        ("P2WPKH of a test network", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
    ];
    let none = [
        ("no address", ""),
        ("a word", "satoshi"),
        ("a wrong checksum", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081"),
        ("an address cut short", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5"),
        ("an address with a space", " bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
        ("an IBAN", "DE89370400440532013000"),
        ("a control character", "\u{7}\0"),
        ("a book", include_str!("../../README.md")),
    ];
    let wrong = refusal("WRONG_NETWORK").field("recipients[1].address").with("network", "regtest");
    let malformed = refusal("ADDRESS_INVALID").field("recipients[1].address");
    let second = |address: &str| vec![recipient(1, 10_000), to_address(address)];
    let other_network = other_network.into_iter().map(|(what, address)| (what, second(address), wrong.clone()));
    let none = none.into_iter().map(|(what, address)| (what, second(address), malformed.clone()));
    other_network.chain(none).collect()
}

fn amounts() -> Vec<Case> {
    let field = "recipients[0].amount_sat";
    let too_much = |position: usize| {
        let field = format!("recipients[{position}].amount_sat");
        refusal("OUTPUT_INVALID").with("vout", position).field(&field).saying("21 million")
    };
    let half = ALL_MONEY_SAT / 2;
    vec![
        ("nothing", vec![recipient(PAYEE, 0)], invalid(&[field])),
        ("less than nothing", vec![recipient(PAYEE, -1)], invalid(&[field])),
        ("the least number", vec![recipient(PAYEE, i64::MIN)], invalid(&[field])),
        ("the greatest number", vec![recipient(PAYEE, i64::MAX)], invalid(&[field])),
        ("one satoshi more than there can be", vec![recipient(PAYEE, ALL_MONEY_SAT + 1)], invalid(&[field])),
        (
            "more than there can be in all",
            vec![recipient(1, half), recipient(2, half), recipient(3, half)],
            too_much(2),
        ),
        ("a sum that overflows", vec![recipient(PAYEE, ALL_MONEY_SAT); MAX_RECIPIENTS], too_much(1)),
        (
            "a thousand faults",
            vec![recipient(PAYEE, 0); MAX_RECIPIENTS],
            too_many_to_name("FIELD_INVALID", MAX_RECIPIENTS),
        ),
        (
            "dust",
            vec![recipient(PAYEE, 10_000), recipient(PAYEE, 293)],
            refusal("OUTPUT_INVALID").with("vout", 1).field("recipients[1].amount_sat").saying("dust"),
        ),
        ("nobody", vec![], invalid(&["recipients"])),
        ("too many", vec![recipient(PAYEE, 1_000); MAX_RECIPIENTS + 1], invalid(&["recipients"])),
        (
            "several faults, all named",
            vec![recipient(1, 0), v1::Recipient { destination: None, amount_sat: -5 }],
            invalid(&["recipients[0].amount_sat", "recipients[1]", "recipients[1].amount_sat"]),
        ),
    ]
}

/// Scripts that nobody can spend, or that no mempool takes: the coins of such a payment would be stuck.
fn scripts() -> Vec<Case> {
    let unpayable = || refusal("OUTPUT_INVALID").with("vout", 0).field("recipients[0].script");
    let multisig = [&[0x51][..], &[&[33][..], &[2; 33]].concat().repeat(20), &[0x01, 20, 0xae]].concat();
    vec![
        (
            "neither address nor script",
            vec![v1::Recipient { destination: None, amount_sat: 10_000 }],
            invalid(&["recipients[0]"]),
        ),
        ("an empty script", vec![to_script(vec![])], invalid(&["recipients[0].script"])),
        ("a script above the limit", vec![to_script(vec![0x51; 10_001])], invalid(&["recipients[0].script"])),
        ("OP_RETURN with money", vec![to_script(vec![0x6a, 1, 7])], unpayable()),
        ("a script that anybody can spend", vec![to_script(vec![0x51])], unpayable()),
        ("a large script of no known kind", vec![to_script(vec![0x51; 10_000])], unpayable()),
        ("a program of version 0 of no known length", vec![to_script(vec![0, 3, 1, 2, 3])], unpayable()),
        ("a script cut in the middle of a push", vec![to_script(vec![0x4c, 200, 1])], unpayable()),
        ("a bare multisig of twenty", vec![to_script(multisig)], unpayable()),
    ]
}

/// Everything else that an order says.
pub async fn orders(stage: &mut Stage) -> Result<()> {
    let good = order(vec![recipient(PAYEE, 10_000)]);
    let feerate = |rate: f64| v1::CreatePaymentRequest { fee: Some(Fee::FeerateSatVb(rate)), ..good.clone() };
    let target = |blocks| v1::CreatePaymentRequest { fee: Some(Fee::ConfirmTargetBlocks(blocks)), ..good.clone() };
    let mut cases = vec![
        ("a negative bound of the fee", v1::CreatePaymentRequest { max_fee_sat: -1, ..good.clone() }, "max_fee_sat"),
        ("a target of no block", target(0), "confirm_target_blocks"),
        ("a target of 1009 blocks", target(1009), "confirm_target_blocks"),
        ("a target of all blocks", target(u32::MAX), "confirm_target_blocks"),
        ("an unknown strategy", v1::CreatePaymentRequest { strategy: 99, ..good.clone() }, "strategy"),
    ];
    for rate in [0.0, -1.0, 0.09, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e7, f64::MAX, f64::MIN_POSITIVE] {
        cases.push(("a feerate out of bounds", feerate(rate), "feerate_sat_vb"));
    }
    for (what, request, field) in cases {
        let wanted = invalid(&[field]);
        stage
            .refuses(Who::Client, what, &wanted, async |mut to| to.payment.create_payment(request.clone()).await)
            .await;
    }
    let rich = order(vec![recipient(PAYEE, ALL_MONEY_SAT)]);
    let deep = v1::CreatePaymentRequest { min_depth: 1_000_000, request_id: id(), ..good.clone() };
    let short = [
        ("all the money there is", rich, "with at least 1 confirmation that"),
        (
            "coins of great depth",
            deep,
            " 0 sat can be spent now: by one transaction, of free coins with at least 1000000 ",
        ),
    ];
    for (what, request, says) in short {
        let wanted = refusal("INSUFFICIENT_FUNDS").saying(says);
        stage
            .refuses(Who::Client, what, &wanted, async |mut to| to.payment.create_payment(request.clone()).await)
            .await;
    }
    let short = order(vec![recipient(PAYEE, 50_000_000)]);
    let wanted = refusal("INSUFFICIENT_FUNDS").with("available_sat", stage.free_sat(HOT).await?);
    stage
        .refuses(Who::Client, "more than the wallet has", &wanted, async |mut to| {
            to.payment.create_payment(short.clone()).await
        })
        .await;
    let strange = v1::CreatePaymentRequest { wallet_id: "nobody".into(), request_id: id(), ..good };
    let wanted = refusal("WALLET_UNKNOWN");
    stage
        .refuses(Who::Client, "no such wallet", &wanted, async |mut to| {
            to.payment.create_payment(strange.clone()).await
        })
        .await;
    Ok(())
}
