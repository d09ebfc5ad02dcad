//! What is accepted, and that everything doubtful is not.
#![allow(clippy::unwrap_used)]

use super::*;

const TXID: &str = "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456";
const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";

#[test]
fn amounts_are_whole_satoshi() {
    assert_eq!(amount_sat("1"), Ok(1));
    assert_eq!(amount_sat("2100000000000000"), Ok(MAX_SAT));
    for text in [
        "",
        "0",
        "-1",
        "+1",
        "1.0",
        "1e5",
        "50_000",
        "50,000",
        " 1",
        "1 ",
        "0x10",
        "1sat",
        "2100000000000001",
        "99999999999999999999",
    ] {
        assert!(amount_sat(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_amount_in_bitcoin_is_refused_with_what_it_would_be() {
    for text in ["0.5", "0.5BTC", "0.5 BTC"] {
        let why = amount_sat(text).unwrap_err();
        assert!(why.contains("digits only") && why.contains("50000000 satoshi"), "{text:?}: {why}");
    }
    assert_eq!(amount_sat("1e5").unwrap_err(), "amounts are whole satoshi, digits only");
}

#[test]
fn feerates_are_positive_and_plain() {
    assert_eq!(feerate_sat_vb("1.5"), Ok(1.5));
    assert_eq!(feerate_sat_vb("12"), Ok(12.0));
    for text in ["", "0", "0.0", "-1", "nan", "inf", "1e3", "100001", "1,5", "."] {
        assert!(feerate_sat_vb(text).is_err(), "{text:?}");
    }
}

#[test]
fn outpoints_have_one_spelling() {
    let good = outpoint(&format!("{TXID}:7")).unwrap();
    assert_eq!((good.txid.as_str(), good.vout), (TXID, 7));
    for text in [
        TXID.to_owned(),
        format!("{TXID}:"),
        format!("{TXID}:01"),
        format!("{TXID}:-1"),
        format!("{TXID}:4294967296"),
        format!("{}:0", &TXID[1..]),
        String::new(),
    ] {
        assert!(outpoint(&text).is_err(), "{text:?}");
    }
}

#[test]
fn recipients_are_an_address_or_a_script_and_an_amount() {
    let good = recipient(&format!("{ADDRESS}=50000")).unwrap();
    assert_eq!(good.amount_sat, 50_000);
    assert_eq!(good.destination, Some(v1::recipient::Destination::Address(ADDRESS.to_owned())));
    let script = recipient("script:0014d0ee19a0b9636099ccf18f6a9ab3327f61cd36d4=600").unwrap();
    assert!(matches!(script.destination, Some(v1::recipient::Destination::Script(script)) if script.len() == 22));
    // A letter of the address changed: the checksum tells.
    let typo = ADDRESS.replace("6rhp", "6rhq");
    assert!(recipient(&format!("{typo}=1")).unwrap_err().contains("(bech32)"));
    for text in [
        ADDRESS.to_owned(),
        format!("{ADDRESS}="),
        format!("{ADDRESS}=0.1"),
        format!("{typo}=1"),
        "=1".to_owned(),
        "script:0=1".to_owned(),
    ] {
        assert!(recipient(&text).is_err(), "{text:?}");
    }
}

#[test]
fn durations_need_a_unit_and_ids_no_spaces() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
    assert!(duration("10").is_err() && duration("0s").is_err() && duration("").is_err());
    assert!(request_id(&"x".repeat(64)).is_ok() && request_id(&"x".repeat(65)).is_err());
    assert!(request_id("a b").is_err() && request_id("ü").is_err() && request_id("").is_err());
    assert!(payment_id(&"x".repeat(128)).is_ok() && wallet_id("hot.1_a-B").is_ok() && wallet_id("a/b").is_err());
}

#[test]
fn psbts_come_as_base64_or_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (binary, text) = (folder.path().join("a.psbt"), folder.path().join("a.txt"));
    let bytes = b"psbt\xff\x01\x02";
    let base64 = BASE64_STANDARD.encode(bytes);
    std::fs::write(&binary, bytes).unwrap();
    std::fs::write(&text, format!("{base64}\n")).unwrap();
    for source in [base64.as_str(), binary.to_str().unwrap(), text.to_str().unwrap()] {
        assert_eq!(psbt(source).unwrap(), bytes, "{source}");
    }
    std::fs::write(&text, "bm8gcHNidA==").unwrap();
    for source in [text.to_str().unwrap(), "cHNidP8!", "/no/such/file"] {
        assert_eq!(psbt(source).unwrap_err().exit, crate::cli::exit::Exit::Usage, "{source}");
    }
}
