//! The vectors that BIP-174 and BIP-371 publish. They are not part of the project: see `shared/vectors`.

use std::path::{Path, PathBuf};

use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use onespend_adapters::psbt::{PsbtLimits, check_claims, intake};

#[derive(serde::Deserialize)]
pub struct Vector {
    pub group: String,
    pub case: String,
    pub base64: String,
}

/// `None`, and a word about it, where the folder is not there.
pub fn published(file: &str) -> Option<Vec<Vector>> {
    let folder: Option<PathBuf> = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/vectors"))
        .find(|folder| folder.is_dir());
    let Some(folder) = folder else {
        eprintln!("skipped: there is no folder shared/vectors beside the checkout");
        return None;
    };
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

fn check(file: &str, refused_at_least: usize, accepted: &[usize]) {
    let Some(vectors) = published(file) else { return };
    let (mut refused, mut found) = (0, Vec::new());
    for (number, Vector { group, case, base64 }) in vectors.iter().enumerate() {
        let answer = intake(base64.as_bytes(), &PsbtLimits::default());
        let must_refuse = group.contains("invalid") || group.contains("Fails Signer");
        if must_refuse {
            assert!(answer.is_err(), "{file}: {group} {case}");
            refused += 1;
        }
        if let Ok(bytes) = BASE64_STANDARD.decode(base64)
            && bytes.starts_with(b"psbt\xff")
        {
            assert_eq!(intake(&bytes, &PsbtLimits::default()), answer, "{case}: raw and base64 are the same");
        }
        if let Ok(proposal) = answer {
            found.push(number);
            assert!(check_claims(&proposal, |_| None).is_err(), "{case}: none of these coins is ours");
        }
    }
    assert!(refused >= refused_at_least, "{refused} vectors must be refused; the file holds fewer than it did");
    assert_eq!(found, accepted, "{file}");
}

#[test]
fn bip174_vectors_that_are_invalid_or_fail_signer_checks_are_refused() {
    // Those that intake lets through, because nothing in them contradicts itself: a P2WSH input with its own script, an
    // input of which nothing is said but an unknown field (four times), and what a creator makes.
    check("bip0174.json", 24, &[25, 26, 34, 41, 42, 43]);
}

#[test]
fn bip371_vectors_that_are_invalid_are_refused() {
    // One taproot input by key path without a signature, with different outputs.
    check("bip0371.json", 11, &[11, 13, 15]);
}
