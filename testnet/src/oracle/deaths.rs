//! Which transactions can never confirm any more, by the blocks alone, and since when at the earliest. What such a
//! transaction would have spent may be given to somebody else; before that it may not.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Block;

use crate::history::{AttemptSeen, Nanos, PaymentSeen};

/// Attempts that are dead by the blocks, as (payment, number), each with a moment before which it certainly was not.
pub type Deaths = BTreeMap<(String, u32), Nanos>;

/// What transactions spend, each coin as `txid:vout`, by transaction.
pub type Inputs<'a> = BTreeMap<&'a str, &'a [String]>;

/// Most unconfirmed transactions that hang together: the limit of a cluster in Bitcoin Core 31.
const MAX_GENERATIONS: usize = 64;

/// What the blocks of one chain spend, by coin.
#[derive(Clone, Debug, Default)]
pub struct Spends(BTreeMap<String, Spend>);

#[derive(Clone, Debug)]
struct Spend {
    by: String,
    /// A moment before which it certainly was not final; `None`: it is not.
    final_since: Option<Nanos>,
}

impl Spends {
    /// Reads the blocks of one chain, the lowest first and the tip last. `mined_ns` says of a place among them when a
    /// block can have been there at the earliest.
    pub fn read(blocks: &[Block], finality_depth: usize, mined_ns: impl Fn(usize) -> Nanos) -> Self {
        let mut spends = BTreeMap::new();
        for (place, block) in blocks.iter().enumerate() {
            let buried_by = place + finality_depth.saturating_sub(1);
            let final_since = (buried_by < blocks.len()).then(|| mined_ns(buried_by));
            for transaction in block.txdata.iter().filter(|transaction| !transaction.is_coinbase()) {
                let by = transaction.compute_txid().to_string();
                for input in &transaction.input {
                    spends.insert(input.previous_output.to_string(), Spend { by: by.clone(), final_since });
                }
            }
        }
        Self(spends)
    }

    /// The earliest moment at which a transaction can have been dead; `None`: by these blocks it is not. It is dead when
    /// another one that spends one of its coins is final, or when it spends what a dead one would have made. What became
    /// of the coin `but` does not count: whoever asks about a coin wants to know why it was free.
    pub fn death_of(&self, txid: &str, inputs: &Inputs<'_>, but: Option<&str>) -> Option<Nanos> {
        self.death(txid, inputs, but, MAX_GENERATIONS)
    }

    fn death(&self, txid: &str, inputs: &Inputs<'_>, but: Option<&str>, generations: usize) -> Option<Nanos> {
        let (coins, generations) = (inputs.get(txid)?, generations.checked_sub(1)?);
        let by_coin = |coin: &String| match self.0.get(coin) {
            Some(spend) if spend.by == txid => None,
            Some(spend) => spend.final_since,
            None => self.death(parent(coin), inputs, but, generations),
        };
        coins.iter().filter(|coin| but != Some(coin.as_str())).filter_map(by_coin).min()
    }

    /// Whether an attempt is in a block that is final.
    fn is_final(&self, attempt: &AttemptSeen) -> bool {
        let own = |coin| self.0.get(coin).filter(|spend| spend.by == attempt.txid);
        attempt.inputs.iter().filter_map(own).any(|spend| spend.final_since.is_some())
    }
}

/// The transaction that made a coin.
fn parent(coin: &str) -> &str {
    coin.rsplit_once(':').map_or(coin, |(txid, _)| txid)
}

fn inputs_of(payments: &[PaymentSeen]) -> Inputs<'_> {
    let attempts = payments.iter().flat_map(|payment| &payment.attempts);
    attempts.map(|attempt| (attempt.txid.as_str(), attempt.inputs.as_slice())).collect()
}

/// Every attempt that is dead by the blocks, whatever the service says of it.
pub fn of(payments: &[PaymentSeen], spends: &Spends) -> Deaths {
    let inputs = inputs_of(payments);
    let mut deaths = Deaths::new();
    for payment in payments {
        for attempt in &payment.attempts {
            if let Some(since) = spends.death_of(&attempt.txid, &inputs, None) {
                deaths.insert((payment.payment_id.clone(), attempt.number), since);
            }
        }
    }
    deaths
}

/// What the service calls ended and should not, in words, where nobody else has the keys and nobody aborts: an attempt
/// that no final transaction kills, one that is settled and in no final block, a payment that is cancelled though no
/// cancellation of it is in a final block (safety 10), and one that is dead as a whole. Of a payment's attempts one
/// confirms in the end, unless they spend the change of another payment's attempt and another attempt of that payment
/// confirmed instead. The blocks must have been read after the payments.
pub fn unexplained(payments: &[PaymentSeen], spends: &Spends) -> Vec<String> {
    let inputs = inputs_of(payments);
    let replaced = replaced(payments, spends);
    let mut faults = Vec::new();
    for payment in payments {
        let id = &payment.payment_id;
        faults.extend(payment.attempts.iter().filter_map(|attempt| undue_end(id, attempt, &inputs, spends)));
        let is_back = |attempt: &AttemptSeen| attempt.purpose == "CANCEL" && spends.is_final(attempt);
        if payment.state == "CANCELLED" && !payment.attempts.iter().any(is_back) {
            faults.push(format!("{id} is CANCELLED, and by the blocks no cancellation of it is final"));
        }
        let orphaned = |attempt: &AttemptSeen| is_orphan(&attempt.txid, &inputs, &replaced, MAX_GENERATIONS);
        let explained = !payment.attempts.is_empty() && payment.attempts.iter().all(orphaned);
        if payment.state == "DEAD" && !explained {
            faults.push(format!("{id} is DEAD, though nobody else spends its coins"));
        }
    }
    faults
}

/// An attempt that the service says has ended, and that has not by the blocks.
fn undue_end(id: &str, attempt: &AttemptSeen, inputs: &Inputs<'_>, spends: &Spends) -> Option<String> {
    let number = attempt.number;
    match attempt.state.as_str() {
        "DEAD" if spends.death_of(&attempt.txid, inputs, None).is_none() => {
            Some(format!("{id}#{number} is DEAD, and by the blocks nothing that kills it is final"))
        }
        "SETTLED" if !spends.is_final(attempt) => {
            Some(format!("{id}#{number} is SETTLED, and by the blocks it is not final"))
        }
        _ => None,
    }
}

/// Attempts instead of which another attempt of the same payment is final.
fn replaced<'a>(payments: &'a [PaymentSeen], spends: &Spends) -> BTreeSet<&'a str> {
    let mut replaced = BTreeSet::new();
    for payment in payments {
        let (winners, others): (Vec<_>, Vec<_>) = payment.attempts.iter().partition(|one| spends.is_final(one));
        if !winners.is_empty() {
            replaced.extend(others.into_iter().map(|attempt| attempt.txid.as_str()));
        }
    }
    replaced
}

/// Whether a transaction spends what a replaced attempt would have made, or an orphan of one.
fn is_orphan(txid: &str, inputs: &Inputs<'_>, replaced: &BTreeSet<&str>, generations: usize) -> bool {
    let (Some(coins), Some(generations)) = (inputs.get(txid), generations.checked_sub(1)) else { return false };
    let lost = |parent: &str| replaced.contains(parent) || is_orphan(parent, inputs, replaced, generations);
    coins.iter().any(|coin| lost(parent(coin)))
}

#[cfg(test)]
#[path = "deaths_tests.rs"]
mod tests;
