//! What the signer did, from its own log: one JSON line per signature, synchronised before the signature is given out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One signature.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Signature {
    /// Whose coins.
    pub wallet: String,
    /// What for.
    pub payment_id: String,
    /// Which attempt of the payment.
    pub attempt: u32,
    /// Which transaction. A segwit transaction has the same id before and after signing.
    pub txid: String,
    /// What was signed: a hash over the hashes that the signatures commit to.
    pub digest: String,
    /// Log index of the grant.
    pub fence: u64,
    /// What it spends, each as `txid:vout`.
    pub outpoints: Vec<String>,
}

/// What the logs of all signers say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerVerdict {
    /// Signatures, repetitions included.
    pub signatures: usize,
    /// Attempts that were signed more than once, with the same bytes: allowed, a failover does that.
    pub repeated: usize,
    /// Payments that were signed.
    pub payments: BTreeSet<String>,
    /// Outpoints signed away for more than one payment.
    pub outpoints_for_two_payments: BTreeSet<String>,
    /// Attempts with more than one transaction, digest or fence.
    pub attempts_with_two_transactions: BTreeSet<String>,
    /// Payments of which two attempts share no outpoint: both could confirm.
    pub payments_without_anchor: BTreeSet<String>,
}

impl SignerVerdict {
    /// Whether nothing was signed that never may be.
    pub fn is_clean(&self) -> bool {
        self.outpoints_for_two_payments.is_empty()
            && self.attempts_with_two_transactions.is_empty()
            && self.payments_without_anchor.is_empty()
    }
}

/// Reads one signer's log. No file means that it never signed. A kill can leave a line without its end (the next start
/// begins a new line): its signature was never given out, since the line was not synchronised.
///
/// # Errors
/// A whole line is not what a signer writes.
pub fn read(path: &Path) -> Result<Vec<Signature>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // The line is an object without objects in it, so only a whole one ends like this.
    let whole = text.lines().enumerate().filter(|(_, line)| line.ends_with('}'));
    whole
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}: {line}", path.display(), number + 1))
        })
        .collect()
}

/// Wallet, payment, number of the attempt.
type AttemptKey<'a> = (&'a str, &'a str, u32);

/// Judges the signatures of all nodes together: the order between nodes does not matter.
pub fn judge(signatures: &[Signature]) -> SignerVerdict {
    let mut verdict = SignerVerdict { signatures: signatures.len(), ..SignerVerdict::default() };
    let mut owners: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    let mut attempts: BTreeMap<AttemptKey, BTreeSet<(&str, &str, u64)>> = BTreeMap::new();
    let mut common: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for signature in signatures {
        let payment = (signature.wallet.as_str(), signature.payment_id.as_str());
        let outpoints: BTreeSet<&str> = signature.outpoints.iter().map(String::as_str).collect();
        for outpoint in &outpoints {
            owners.entry(outpoint).or_default().insert(payment);
        }
        let attempt = attempts.entry((payment.0, payment.1, signature.attempt)).or_default();
        verdict.repeated += usize::from(!attempt.insert((&signature.txid, &signature.digest, signature.fence)));
        let shared = common.entry(payment).or_insert_with(|| outpoints.clone());
        *shared = &*shared & &outpoints;
        verdict.payments.insert(signature.payment_id.clone());
    }
    let name = |wallet: &str, payment: &str| format!("{wallet}/{payment}");
    verdict.outpoints_for_two_payments =
        owners.into_iter().filter(|(_, by)| by.len() > 1).map(|(outpoint, _)| outpoint.to_owned()).collect();
    verdict.attempts_with_two_transactions = attempts
        .into_iter()
        .filter(|(_, transactions)| transactions.len() > 1)
        .map(|((wallet, payment, attempt), _)| format!("{}#{attempt}", name(wallet, payment)))
        .collect();
    verdict.payments_without_anchor = common
        .into_iter()
        .filter(|(_, shared)| shared.is_empty())
        .map(|((wallet, payment), _)| name(wallet, payment))
        .collect();
    verdict
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn signature(payment: &str, attempt: u32, txid: &str, outpoints: &[&str]) -> Signature {
        Signature {
            wallet: "hot".into(),
            payment_id: payment.into(),
            attempt,
            txid: txid.into(),
            digest: format!("d{txid}"),
            fence: u64::from(attempt) * 10,
            outpoints: outpoints.iter().map(|outpoint| (*outpoint).to_owned()).collect(),
        }
    }

    #[test]
    fn a_repeated_signature_of_the_same_bytes_is_allowed() {
        let one = signature("p1", 1, "aa", &["c:0", "d:1"]);
        let verdict = judge(&[one.clone(), one, signature("p2", 1, "bb", &["e:0"])]);
        assert!(verdict.is_clean());
        assert_eq!((verdict.signatures, verdict.repeated, verdict.payments.len()), (3, 1, 2));
    }

    #[test]
    fn a_replacement_with_the_same_anchor_is_allowed() {
        let bump = signature("p1", 2, "bb", &["c:0", "e:0"]);
        assert!(judge(&[signature("p1", 1, "aa", &["c:0"]), bump]).is_clean());
    }

    #[test]
    fn an_outpoint_for_two_payments_is_caught() {
        let verdict = judge(&[signature("p1", 1, "aa", &["c:0"]), signature("p2", 1, "bb", &["c:0"])]);
        assert_eq!(verdict.outpoints_for_two_payments, BTreeSet::from(["c:0".to_owned()]));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn the_same_payment_id_in_two_wallets_is_two_payments() {
        let mut other = signature("p1", 1, "bb", &["c:0"]);
        other.wallet = "cold".into();
        assert!(!judge(&[signature("p1", 1, "aa", &["c:0"]), other.clone()]).is_clean());
        other.outpoints = vec!["d:0".into()];
        assert!(judge(&[signature("p1", 1, "aa", &["c:0"]), other]).is_clean());
    }

    #[test]
    fn two_transactions_fences_or_digests_of_one_attempt_are_caught() {
        let one = signature("p1", 1, "aa", &["c:0"]);
        let mut other_fence = one.clone();
        other_fence.fence += 1;
        let mut other_digest = one.clone();
        other_digest.digest.push('0');
        for other in [signature("p1", 1, "bb", &["c:0"]), other_fence, other_digest] {
            let verdict = judge(&[one.clone(), other]);
            assert_eq!(verdict.attempts_with_two_transactions, BTreeSet::from(["hot/p1#1".to_owned()]));
        }
    }

    #[test]
    fn attempts_that_could_both_confirm_are_caught() {
        // 1 and 2 share c, 1 and 3 share d, but 2 and 3 share nothing.
        let verdict = judge(&[
            signature("p1", 1, "aa", &["c:0", "d:0"]),
            signature("p1", 2, "bb", &["c:0"]),
            signature("p1", 3, "cc", &["d:0"]),
        ]);
        assert_eq!(verdict.payments_without_anchor, BTreeSet::from(["hot/p1".to_owned()]));
    }

    #[test]
    fn torn_lines_are_skipped_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signer.log");
        assert_eq!(read(&path).unwrap(), Vec::new());
        // As the signer writes it, with members that this oracle does not need.
        let line = concat!(
            r#"{"signer":"hot","wallet":"hot","payment_id":"p1","attempt":1,"fence":10,"txid":"aa","#,
            r#""digest":"daa","sighashes":["00"],"outpoints":["c:0"]}"#
        );
        let torn = &line[..40];
        fs::write(&path, format!("{line}\n{torn}\n{line}\n{torn}")).unwrap();
        assert_eq!(read(&path).unwrap(), vec![signature("p1", 1, "aa", &["c:0"]); 2]);
        fs::write(&path, "{\"wallet\":\"hot\"}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }
}
