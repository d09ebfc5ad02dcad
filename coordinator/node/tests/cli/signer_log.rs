//! `onespend signer log`: what a signer has signed, by its audit log.

use std::fs;

use crate::files::write_config;
use crate::run::{Authority, onespend};

const TXID: &str = "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456";
/// Log index 7 of epoch 1.
const LATER: u64 = (1 << 48) + 7;

fn line(payment: &str, fence: u64) -> String {
    format!(r#"{{"signer":"hot","wallet":"w","payment_id":"{payment}","attempt":1,"fence":{fence},"txid":"{TXID}","#)
        + r#""digest":"00","sighashes":["00"],"outpoints":["00:0"]}"#
}

#[test]
fn the_lines_of_an_audit_log_are_listed_also_those_of_an_earlier_version() {
    let authority = Authority::new();
    let config = write_config(authority.path(), [1, 2, 3].map(|port| format!("127.0.0.1:{port}")), "127.0.0.1:9");
    let log = authority.file("signatures.jsonl");
    let signer =
        |name: &str, more: &str| format!("[[signers]]\nname = '{name}'\nkind = 'software'\nfile = 'none'\n{more}");
    let text = fs::read_to_string(&config).unwrap();
    let with_log = signer("hot", &format!("audit_log = '{}'\n", log.display()));
    fs::write(&config, text + &with_log + &signer("cold", "")).unwrap();
    let run = |name: &str, more: &[&str]| {
        let args = ["signer", "log", "--config", config.to_str().unwrap(), "--name", name];
        onespend(&[&args[..], more].concat())
    };
    let missing = run("hot", &[]).code(1);
    assert!(missing.err.contains("signatures.jsonl"), "{missing:?}");
    let none = run("cold", &[]).code(2);
    assert!(none.err.contains("signer cold has no audit_log"), "{none:?}");

    let torn = &line("order-8", 82)[..40];
    fs::write(&log, format!("{}\n{torn}\n{}\n", line("order-7", 81), line("order-9", LATER))).unwrap();
    let listed = run("hot", &[]).code(0);
    assert!(listed.out.contains("order-7") && listed.out.contains(" 1/7 ") && listed.out.contains(TXID), "{listed:?}");
    assert!(listed.err.contains("1 line was skipped, the first is line 2"), "{listed:?}");
    let json = run("hot", &["-o", "json", "--since-fence", "1/0"]).code(0).json();
    assert_eq!((&json["signer"], &json["skipped_lines"]), (&"hot".into(), &1.into()));
    let signatures = json["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 1, "{json}");
    for (field, value) in [("payment_id", "order-9"), ("wallet", "w"), ("txid", TXID)] {
        assert_eq!(signatures[0][field], value, "{json}");
    }
    for (field, value) in [("fence", LATER), ("epoch", 1), ("index", 7), ("attempt", 1)] {
        assert_eq!(signatures[0][field], value, "{json}");
    }
    assert!(["at_unix_ms", "transaction", "outputs"].iter().all(|field| signatures[0][field].is_null()), "{json}");
    let wrong = run("hot", &["--since-fence", "yesterday"]).code(2);
    assert!(wrong.err.contains("EPOCH/INDEX"), "{wrong:?}");
}
