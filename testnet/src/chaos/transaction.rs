//! Transactions that callers build on their reservations, true ones and lies.

use anyhow::{Context, Result, ensure};
use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use onespend_proto::v1::Utxo;

use super::operation::Lie;

/// What an input and an output of a wallet of this kind weigh at most, in virtual bytes, rounded up.
const INPUT_VB: u64 = 69;
const OUTPUT_VB: u64 = 44;
const OVERHEAD_VB: u64 = 12;
/// What a recipient is cheated of.
const CHEATED_SAT: u64 = 1_000;

/// A transaction that pays one recipient from all coins of a reservation.
#[derive(Clone, Debug)]
pub struct Spend {
    /// What is to be signed.
    pub psbt: Psbt,
    /// What the recipient gets.
    pub amount_sat: u64,
}

impl Spend {
    /// Pays `wanted_sat` and returns the rest to `change`; without that the recipient gets all but the fee.
    ///
    /// # Errors
    /// The coins are worth too little.
    pub fn new(
        coins: &[Utxo],
        recipient: &ScriptBuf,
        wanted_sat: u64,
        change: Option<&ScriptBuf>,
        feerate_sat_vb: u64,
    ) -> Result<Self> {
        let total_sat = coins.iter().map(|coin| u64::try_from(coin.value_sat).unwrap_or(0)).sum::<u64>();
        let fee_sat = feerate_sat_vb * (OVERHEAD_VB + INPUT_VB * u64::try_from(coins.len())? + OUTPUT_VB * 2);
        let spendable_sat = total_sat.checked_sub(fee_sat).context("the coins do not pay the fee")?;
        ensure!(spendable_sat > wanted_sat, "{spendable_sat} sat are too little for {wanted_sat}");
        let pay =
            |value_sat, script: &ScriptBuf| TxOut { value: Amount::from_sat(value_sat), script_pubkey: script.clone() };
        let rest_sat = spendable_sat - wanted_sat;
        let change = change.filter(|script| Amount::from_sat(rest_sat) >= script.minimal_non_dust());
        let amount_sat = if change.is_some() { wanted_sat } else { spendable_sat };
        let mut output = vec![pay(amount_sat, recipient)];
        output.extend(change.map(|script| pay(rest_sat, script)));
        let unsigned = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect::<Result<_>>()?,
            output,
        };
        let mut psbt = Psbt::from_unsigned_tx(unsigned)?;
        for (field, coin) in psbt.inputs.iter_mut().zip(coins) {
            field.witness_utxo = Some(known(coin)?);
        }
        Ok(Self { psbt, amount_sat })
    }

    /// Makes a lie of it. `stranger` is a coin that the reservation does not hold.
    ///
    /// # Errors
    /// The coin cannot be read.
    pub fn lie(&mut self, lie: Lie, stranger: &Utxo) -> Result<()> {
        let outputs = &mut self.psbt.unsigned_tx.output;
        match lie {
            Lie::ForeignInput => {
                self.psbt.unsigned_tx.input.push(input(stranger)?);
                let field = bitcoin::psbt::Input { witness_utxo: Some(known(stranger)?), ..Default::default() };
                self.psbt.inputs.push(field);
            }
            Lie::WrongAmount => {
                let paid = outputs.first_mut().context("a transaction without outputs")?;
                paid.value = paid.value.checked_sub(Amount::from_sat(CHEATED_SAT)).context("too small a payment")?;
            }
            Lie::StolenChange => {
                // Either there is change, which now goes elsewhere, or one more output takes it from the fee.
                let thief = ScriptBuf::from_bytes([&[0x00, 0x14][..], &[0x7e; 20]].concat());
                if let Some(change) = outputs.get_mut(1) {
                    change.script_pubkey = thief;
                } else {
                    outputs.push(TxOut { value: thief.minimal_non_dust(), script_pubkey: thief });
                    self.psbt.outputs.push(bitcoin::psbt::Output::default());
                }
            }
            Lie::FalseValue => {
                let field = self.psbt.inputs.first_mut().and_then(|input| input.witness_utxo.as_mut());
                field.context("a transaction without inputs")?.value += Amount::from_sat(CHEATED_SAT);
            }
        }
        Ok(())
    }
}

fn input(coin: &Utxo) -> Result<TxIn> {
    let outpoint = coin.outpoint.as_ref().context("a coin without outpoint")?;
    Ok(TxIn {
        previous_output: OutPoint::new(outpoint.txid.parse()?, outpoint.vout),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    })
}

fn known(coin: &Utxo) -> Result<TxOut> {
    let value = Amount::from_sat(u64::try_from(coin.value_sat)?);
    Ok(TxOut { value, script_pubkey: ScriptBuf::from_bytes(coin.script.to_vec()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use onespend_proto::v1::Outpoint;

    fn coin(byte: &str, value_sat: i64) -> Utxo {
        let outpoint = Some(Outpoint { txid: byte.repeat(32), vout: 0 });
        Utxo { outpoint, value_sat, script: vec![0x51].into(), ..Utxo::default() }
    }

    fn script(byte: u8) -> ScriptBuf {
        ScriptBuf::from_bytes([&[0x00, 0x14][..], &[byte; 20]].concat())
    }

    fn spend(change: Option<&ScriptBuf>) -> Spend {
        Spend::new(&[coin("aa", 60_000), coin("bb", 40_000)], &script(1), 50_000, change, 2).unwrap()
    }

    #[test]
    fn everything_is_paid_out_but_the_fee() {
        for change in [None, Some(script(2))] {
            let spend = spend(change.as_ref());
            let paid: u64 = spend.psbt.unsigned_tx.output.iter().map(|output| output.value.to_sat()).sum();
            assert_eq!(100_000 - paid, 2 * (12 + 2 * 69 + 2 * 44));
            assert_eq!(spend.psbt.unsigned_tx.output[0].value.to_sat(), spend.amount_sat);
            assert_eq!(spend.psbt.unsigned_tx.output.len(), 1 + usize::from(change.is_some()));
        }
        assert!(Spend::new(&[coin("aa", 50_100)], &script(1), 50_000, None, 2).is_err());
    }

    #[test]
    fn every_lie_changes_the_transaction_or_what_is_said_of_it() {
        for lie in [Lie::ForeignInput, Lie::WrongAmount, Lie::StolenChange, Lie::FalseValue] {
            for change in [None, Some(script(2))] {
                let honest = spend(change.as_ref());
                let mut false_one = honest.clone();
                false_one.lie(lie, &coin("cc", 9)).unwrap();
                assert_ne!(honest.psbt, false_one.psbt, "{lie:?}");
                assert_eq!(false_one.psbt.outputs.len(), false_one.psbt.unsigned_tx.output.len());
                assert_eq!(false_one.psbt.inputs.len(), false_one.psbt.unsigned_tx.input.len());
            }
        }
    }
}
