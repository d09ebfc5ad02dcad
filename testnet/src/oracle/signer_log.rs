//! What the signer did, from its own log: one JSON line per signature, synchronised before the signature is given out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::deaths::{Inputs, Spends};

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
    /// Payments that were signed.
    pub payments: BTreeSet<String>,
    /// Outpoints signed away for more than one payment, though what was signed for an earlier one could confirm.
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

/// Judges the signatures of all nodes together: the order between nodes does not matter. `spends` is what the blocks
/// say; they must have been read after the signatures.
pub fn judge(signatures: &[Signature], spends: &Spends) -> SignerVerdict {
    let mut verdict = SignerVerdict { signatures: signatures.len(), ..SignerVerdict::default() };
    let inputs = signatures.iter().map(|one| (one.txid.as_str(), one.outpoints.as_slice())).collect();
    let mut owners: BTreeMap<&str, Vec<&Signature>> = BTreeMap::new();
    let mut attempts: BTreeMap<AttemptKey, BTreeSet<(&str, &str, u64)>> = BTreeMap::new();
    let mut common: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for signature in signatures {
        let payment = (signature.wallet.as_str(), signature.payment_id.as_str());
        let outpoints: BTreeSet<&str> = signature.outpoints.iter().map(String::as_str).collect();
        for outpoint in &outpoints {
            owners.entry(outpoint).or_default().push(signature);
        }
        let attempt = attempts.entry((payment.0, payment.1, signature.attempt)).or_default();
        attempt.insert((&signature.txid, &signature.digest, signature.fence));
        let shared = common.entry(payment).or_insert_with(|| outpoints.clone());
        *shared = &*shared & &outpoints;
        verdict.payments.insert(signature.payment_id.clone());
    }
    let name = |wallet: &str, payment: &str| format!("{wallet}/{payment}");
    let twice = owners.into_iter().filter(|(outpoint, by)| is_signed_away_twice(outpoint, by, spends, &inputs));
    verdict.outpoints_for_two_payments = twice.map(|(outpoint, _)| outpoint.to_owned()).collect();
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

/// Attempts that the signers of several nodes signed, from the log of each: allowed, and what a failover does between an
/// intent and its signature.
pub fn signed_by_several(logs: &[Vec<Signature>]) -> usize {
    let mut nodes: BTreeMap<AttemptKey<'_>, BTreeSet<usize>> = BTreeMap::new();
    for (node, log) in logs.iter().enumerate() {
        for one in log {
            nodes.entry((&one.wallet, &one.payment_id, one.attempt)).or_default().insert(node);
        }
    }
    nodes.values().filter(|nodes| nodes.len() > 1).count()
}

/// Whether a coin was signed away for a payment, and for another one later (fences rise), though the first can confirm.
/// It cannot where another of its coins was spent by a transaction that is final: then the service has freed this one.
/// What became of this coin itself excuses nothing, since that is the later payment.
fn is_signed_away_twice(outpoint: &str, by: &[&Signature], spends: &Spends, inputs: &Inputs<'_>) -> bool {
    let follows = |later: &Signature, one: &Signature| {
        (&later.wallet, &later.payment_id) != (&one.wallet, &one.payment_id) && later.fence >= one.fence
    };
    let succeeded = by.iter().filter(|one| by.iter().any(|later| follows(later, one)));
    let mut alive = succeeded.filter(|one| spends.death_of(&one.txid, inputs, Some(outpoint)).is_none());
    alive.next().is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::oracle::specimen::block;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, Transaction, TxIn, Txid};

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

    fn judge_without_blocks(signatures: &[Signature]) -> SignerVerdict {
        judge(signatures, &Spends::default())
    }

    #[test]
    fn a_repeated_signature_of_the_same_bytes_is_allowed() {
        let one = signature("p1", 1, "aa", &["c:0", "d:1"]);
        let verdict = judge_without_blocks(&[one.clone(), one, signature("p2", 1, "bb", &["e:0"])]);
        assert!(verdict.is_clean());
        assert_eq!((verdict.signatures, verdict.payments.len()), (3, 2));
    }

    #[test]
    fn only_what_two_nodes_signed_is_signed_by_several() {
        let [one, other] = [signature("p1", 1, "aa", &["c:0"]), signature("p1", 2, "bb", &["c:0"])];
        let (both, first) = (vec![one.clone(), other.clone()], vec![one]);
        assert_eq!(signed_by_several(&[both.clone(), Vec::new(), first.clone()]), 1);
        assert_eq!(signed_by_several(&[both.clone(), both]), 2);
        assert_eq!(signed_by_several(&[[first.clone(), first].concat(), vec![other]]), 0, "one of them twice");
    }

    #[test]
    fn a_replacement_with_the_same_anchor_is_allowed() {
        let bump = signature("p1", 2, "bb", &["c:0", "e:0"]);
        assert!(judge_without_blocks(&[signature("p1", 1, "aa", &["c:0"]), bump]).is_clean());
    }

    #[test]
    fn an_outpoint_for_two_payments_is_caught() {
        let verdict = judge_without_blocks(&[signature("p1", 1, "aa", &["c:0"]), signature("p2", 1, "bb", &["c:0"])]);
        assert_eq!(verdict.outpoints_for_two_payments, BTreeSet::from(["c:0".to_owned()]));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn the_same_payment_id_in_two_wallets_is_two_payments() {
        let mut other = signature("p1", 1, "bb", &["c:0"]);
        other.wallet = "cold".into();
        assert!(!judge_without_blocks(&[signature("p1", 1, "aa", &["c:0"]), other.clone()]).is_clean());
        other.outpoints = vec!["d:0".into()];
        assert!(judge_without_blocks(&[signature("p1", 1, "aa", &["c:0"]), other]).is_clean());
    }

    #[test]
    fn two_transactions_fences_or_digests_of_one_attempt_are_caught() {
        let one = signature("p1", 1, "aa", &["c:0"]);
        let mut other_fence = one.clone();
        other_fence.fence += 1;
        let mut other_digest = one.clone();
        other_digest.digest.push('0');
        for other in [signature("p1", 1, "bb", &["c:0"]), other_fence, other_digest] {
            let verdict = judge_without_blocks(&[one.clone(), other]);
            assert_eq!(verdict.attempts_with_two_transactions, BTreeSet::from(["hot/p1#1".to_owned()]));
        }
    }

    #[test]
    fn attempts_that_could_both_confirm_are_caught() {
        // 1 and 2 share c, 1 and 3 share d, but 2 and 3 share nothing.
        let verdict = judge_without_blocks(&[
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
            r#""digest":"daa","sighashes":["00"],"outpoints":["c:0"],"at_unix_ms":1,"transaction":"0200"}"#
        );
        let torn = &line[..40];
        fs::write(&path, format!("{line}\n{torn}\n{line}\n{torn}")).unwrap();
        assert_eq!(read(&path).unwrap(), vec![signature("p1", 1, "aa", &["c:0"]); 2]);
        fs::write(&path, "{\"wallet\":\"hot\"}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }

    fn coin(number: u8) -> OutPoint {
        OutPoint::new(Txid::from_byte_array([number; 32]), 0)
    }

    fn transaction(coins: &[u8]) -> Transaction {
        let input = coins.iter().map(|number| TxIn { previous_output: coin(*number), ..TxIn::default() }).collect();
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output: Vec::new() }
    }

    fn signed(payment: &str, attempt: u32, fence: u64, transaction: &Transaction) -> Signature {
        let coins: Vec<String> = transaction.input.iter().map(|input| input.previous_output.to_string()).collect();
        let coins: Vec<&str> = coins.iter().map(String::as_str).collect();
        Signature { fence, ..signature(payment, attempt, &transaction.compute_txid().to_string(), &coins) }
    }

    /// Blocks that end with one that holds these transactions, if finality depth is 1.
    fn final_spends(transactions: &[&Transaction]) -> Spends {
        let txdata = transactions.iter().copied().cloned().collect();
        Spends::read(&[block(txdata)], 1, |_| 0)
    }

    /// A payment of coin 1 is bumped with coin 2. The first attempt confirms, which frees coin 2 for the next payment.
    #[test]
    fn a_coin_that_a_dead_attempt_would_have_spent_may_be_signed_away_again() {
        let (first, bumped, next) = (transaction(&[1]), transaction(&[1, 2]), transaction(&[2]));
        let lines = [signed("p1", 1, 10, &first), signed("p1", 2, 20, &bumped), signed("p2", 1, 30, &next)];
        let clean = |spends: &Spends| judge(&lines, spends).is_clean();
        assert!(clean(&final_spends(&[&first])));
        assert!(clean(&final_spends(&[&first, &next])));
        assert!(!clean(&Spends::default()), "the bump may confirm yet");
        assert!(!clean(&final_spends(&[&next])), "what was signed away kills what it was taken from");
    }

    #[test]
    fn a_coin_is_taken_only_from_an_earlier_payment_that_is_dead() {
        // Coin 2 went from a payment that lives to one that is dead: the other way round it would have been right.
        let (first, bumped, other) = (transaction(&[1]), transaction(&[1, 2]), transaction(&[2, 3]));
        let lines = [signed("p2", 1, 5, &other), signed("p1", 1, 10, &first), signed("p1", 2, 20, &bumped)];
        let verdict = judge(&lines, &final_spends(&[&first]));
        assert_eq!(verdict.outpoints_for_two_payments, BTreeSet::from([coin(2).to_string()]));
    }
}
