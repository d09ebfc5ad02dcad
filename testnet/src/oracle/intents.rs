//! Signatures, intents and blocks held against each other: what a signer signed was permitted by the log before, and what
//! a block confirms was signed.

use std::collections::{BTreeMap, BTreeSet};

use super::signer_log::Signature;
use crate::history::{AttemptSeen, PaymentSeen};

/// Signatures of one wallet that no committed intent explains, in words. The payments must have been read after the
/// signatures: an intent comes first, so its payment is there whenever its signature is.
pub fn judge(signatures: &[Signature], payments: &[PaymentSeen]) -> Vec<String> {
    let attempts: BTreeMap<(&str, u32), &AttemptSeen> = payments
        .iter()
        .flat_map(|payment| payment.attempts.iter().map(|one| ((payment.payment_id.as_str(), one.number), one)))
        .collect();
    let mut faults = BTreeSet::new();
    for signature in signatures {
        let name = format!("{}#{}", signature.payment_id, signature.attempt);
        let Some(intent) = attempts.get(&(signature.payment_id.as_str(), signature.attempt)) else {
            faults.insert(format!("{name} was signed ({}) and has no intent", signature.txid));
            continue;
        };
        if (&intent.txid, intent.fence) != (&signature.txid, signature.fence) {
            let (signed, fence) = (&signature.txid, signature.fence);
            let (permitted, of) = (&intent.txid, intent.fence);
            faults.insert(format!(
                "{name} was signed as {signed} under fence {fence}; the intent is {permitted} of {of}"
            ));
        }
        let (signed, permitted): (BTreeSet<_>, BTreeSet<_>) =
            (signature.outpoints.iter().collect(), intent.inputs.iter().collect());
        if signed != permitted {
            faults.insert(format!("{name} was signed for {signed:?}; the intent is for {permitted:?}"));
        }
    }
    faults.into_iter().collect()
}

/// Transactions in blocks that pay an order, by payment, and that no signer's line explains, in words.
pub fn unsigned(confirmed: &BTreeMap<String, BTreeSet<String>>, signatures: &[Signature]) -> Vec<String> {
    let signed: BTreeSet<(&str, &str)> =
        signatures.iter().map(|one| (one.payment_id.as_str(), one.txid.as_str())).collect();
    let all =
        confirmed.iter().flat_map(|(payment, txids)| txids.iter().map(move |txid| (payment.as_str(), txid.as_str())));
    all.filter(|one| !signed.contains(one))
        .map(|(payment, txid)| format!("{payment} is paid by {txid}, which is in no signer's log"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        Signature {
            wallet: "hot".into(),
            payment_id: "p1".into(),
            attempt: 1,
            txid: "aa".into(),
            digest: "d".into(),
            fence: 10,
            outpoints: vec!["c:0".into(), "d:1".into()],
        }
    }

    fn payment() -> PaymentSeen {
        let attempt = AttemptSeen {
            number: 1,
            fence: 10,
            txid: "aa".into(),
            inputs: vec!["d:1".into(), "c:0".into()],
            ..AttemptSeen::default()
        };
        PaymentSeen { payment_id: "p1".into(), attempts: vec![attempt], ..PaymentSeen::default() }
    }

    #[test]
    fn a_signature_that_the_log_permitted_is_fine() {
        assert_eq!(judge(&[signature(), signature()], &[payment()]), Vec::<String>::new());
        assert_eq!(judge(&[], &[payment()]), Vec::<String>::new(), "not signed yet");
    }

    #[test]
    fn a_signature_without_its_intent_is_caught() {
        assert_eq!(judge(&[signature()], &[]).len(), 1);
        let changes: [fn(&mut Signature); 4] = [
            |one| one.attempt = 2,
            |one| one.txid = "bb".into(),
            |one| one.fence = 11,
            |one| one.outpoints.truncate(1),
        ];
        for change in changes {
            let mut wrong = signature();
            change(&mut wrong);
            assert_eq!(judge(&[wrong], &[payment()]).len(), 1);
        }
    }

    #[test]
    fn a_confirmed_transaction_that_nobody_signed_is_caught() {
        let confirmed = |txid: &str| BTreeMap::from([("p1".to_owned(), BTreeSet::from([txid.to_owned()]))]);
        assert_eq!(unsigned(&confirmed("aa"), &[signature()]), Vec::<String>::new());
        assert_eq!(unsigned(&confirmed("bb"), &[signature()]).len(), 1);
    }
}
