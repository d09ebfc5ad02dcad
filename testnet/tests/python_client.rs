//! A client in another language, generated from `proto/` alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onespend_testnet::ports::free_port;
use onespend_testnet::programs;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pay.py")
}

fn pay(endpoint: &str, pem: &Path) -> Output {
    let pem = pem.to_str().unwrap();
    let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    Command::new(programs::python().unwrap())
        .arg(script())
        .args(["--endpoint", endpoint, "--ca", pem, "--cert", pem, "--key", pem])
        .args(["--wallet", "hot", "--payment-id", "p1", "--to", to, "--amount-sat", "10000"])
        .output()
        .unwrap()
}

/// The client is generated and calls; only the other side is missing.
#[test]
fn the_client_is_generated_and_says_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("none.pem");
    std::fs::write(&pem, "").unwrap();
    let output = pay(&format!("localhost:{}", free_port().unwrap()), &pem);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("UNAVAILABLE"), "{said}");
}
