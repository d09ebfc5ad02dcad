//! The form of a PSBT: its version, its unsigned transaction, one map for each input and output.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::Decodable;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, OutPoint, Transaction};

use super::PsbtLimits;
use super::fault::{Place, PsbtFault};
use super::layout::{MAGIC, Map, Reader};

/// Key of PSBT_GLOBAL_UNSIGNED_TX.
const UNSIGNED_TX: &[u8] = &[0x00];
/// Key of PSBT_GLOBAL_VERSION.
const VERSION: &[u8] = &[0xfb];
/// Characters of the parser's words that a fault shows.
const MAX_WHY_CHARS: usize = 200;
/// Where BIP-144 puts its marker and flag: behind the transaction's version.
const WITNESS_MARKER: std::ops::Range<usize> = 4..6;
/// A transaction with one input and one output, for reading a map on its own.
const SMALL_GLOBAL: &[u8] = &{
    // Key 0x00, 60 bytes: version 2, one input of 41 bytes (all zero), one output of 9 bytes (all zero), lock time 0.
    let mut map = [0_u8; 64];
    map[0] = 1;
    map[2] = 60;
    map[3] = 2;
    map[7] = 1;
    map[49] = 1;
    map
};

/// Refuses other versions than 0, absent or written out.
pub(super) fn check_version(global: &Map<'_>) -> Result<(), PsbtFault> {
    let Some(field) = global.fields.iter().find(|field| field.key == VERSION) else { return Ok(()) };
    let bytes: [u8; 4] = field.value.try_into().map_err(|_| PsbtFault::Malformed {
        place: Place::Global,
        why: "PSBT_GLOBAL_VERSION must have 4 bytes".to_owned(),
    })?;
    match u32::from_le_bytes(bytes) {
        0 => Ok(()),
        version => Err(PsbtFault::UnsupportedVersion { version }),
    }
}

/// Refuses what BIP-370 excludes from version 0.
fn check_fields(map: &Map<'_>) -> Result<(), PsbtFault> {
    let named = |key: &[u8]| match (map.place, key) {
        (Place::Global, [0x02]) => Some("PSBT_GLOBAL_TX_VERSION"),
        (Place::Global, [0x03]) => Some("PSBT_GLOBAL_FALLBACK_LOCKTIME"),
        (Place::Global, [0x04]) => Some("PSBT_GLOBAL_INPUT_COUNT"),
        (Place::Global, [0x05]) => Some("PSBT_GLOBAL_OUTPUT_COUNT"),
        (Place::Global, [0x06]) => Some("PSBT_GLOBAL_TX_MODIFIABLE"),
        (Place::Input(_), [0x0e]) => Some("PSBT_IN_PREVIOUS_TXID"),
        (Place::Input(_), [0x0f]) => Some("PSBT_IN_OUTPUT_INDEX"),
        (Place::Input(_), [0x10]) => Some("PSBT_IN_SEQUENCE"),
        (Place::Input(_), [0x11]) => Some("PSBT_IN_REQUIRED_TIME_LOCKTIME"),
        (Place::Input(_), [0x12]) => Some("PSBT_IN_REQUIRED_HEIGHT_LOCKTIME"),
        (Place::Output(_), [0x03]) => Some("PSBT_OUT_AMOUNT"),
        (Place::Output(_), [0x04]) => Some("PSBT_OUT_SCRIPT"),
        _ => None,
    };
    match map.fields.iter().find_map(|field| named(field.key)) {
        Some(field) => Err(PsbtFault::OtherVersionField { place: map.place, field }),
        None => Ok(()),
    }
}

/// The transaction to sign. It is never in the form of BIP-144, so that one without inputs can be told apart.
pub(super) fn unsigned_transaction(global: &Map<'_>) -> Result<Transaction, PsbtFault> {
    check_fields(global)?;
    let field = global.fields.iter().find(|field| field.key == UNSIGNED_TX);
    let bytes = field.ok_or(PsbtFault::NoUnsignedTransaction)?.value;
    let fault = |why: String| PsbtFault::Malformed { place: Place::Global, why };
    let mut rest = bytes;
    let decoded = decode_without_witness(&mut rest);
    match decoded {
        Ok(transaction) if rest.is_empty() => Ok(transaction),
        _ if bytes.get(WITNESS_MARKER) == Some(&[0, 1]) => {
            Err(fault("the unsigned transaction is in the format for witnesses (BIP-144), or has no inputs".to_owned()))
        }
        Ok(_) => Err(fault(format!("{} bytes follow the unsigned transaction", rest.len()))),
        Err(error) => Err(fault(format!("the unsigned transaction cannot be read: {error}"))),
    }
}

fn decode_without_witness(rest: &mut &[u8]) -> Result<Transaction, bitcoin::consensus::encode::Error> {
    Ok(Transaction {
        version: Decodable::consensus_decode(rest)?,
        input: Decodable::consensus_decode(rest)?,
        output: Decodable::consensus_decode(rest)?,
        lock_time: Decodable::consensus_decode(rest)?,
    })
}

pub(super) fn check_counts(transaction: &Transaction, limits: &PsbtLimits) -> Result<(), PsbtFault> {
    let counts = [
        ("inputs", transaction.input.len(), limits.max_inputs),
        ("outputs", transaction.output.len(), limits.max_outputs),
    ];
    for (what, got, max) in counts {
        if got == 0 || got > max {
            return Err(PsbtFault::Count { what, got, max });
        }
    }
    Ok(())
}

pub(super) fn check_unsigned(transaction: &Transaction) -> Result<(), PsbtFault> {
    match transaction.input.iter().position(|input| !input.script_sig.is_empty()) {
        Some(input) => Err(PsbtFault::NotUnsigned { input }),
        None => Ok(()),
    }
}

/// All maps, the global one first.
pub(super) fn read_maps<'a>(
    reader: &mut Reader<'a>,
    global: Map<'a>,
    transaction: &Transaction,
) -> Result<Vec<Map<'a>>, PsbtFault> {
    let mut maps = vec![global];
    let inputs = (0..transaction.input.len()).map(Place::Input);
    let outputs = (0..transaction.output.len()).map(Place::Output);
    for place in inputs.chain(outputs) {
        let map = reader.next_map(place)?;
        check_fields(&map)?;
        maps.push(map);
    }
    reader.finish()?;
    Ok(maps)
}

/// Finds the map that a parser stumbled over, by reading each on its own.
pub(super) fn locate(maps: &[Map<'_>], transaction: &Transaction, error: &bitcoin::psbt::Error) -> PsbtFault {
    for map in maps {
        let alone = match map.place {
            Place::Global => {
                let empty = vec![0; transaction.input.len() + transaction.output.len()];
                [MAGIC, map.bytes, &empty].concat()
            }
            Place::Input(_) => [MAGIC, SMALL_GLOBAL, map.bytes, &[0]].concat(),
            Place::Output(_) => [MAGIC, SMALL_GLOBAL, &[0], map.bytes].concat(),
        };
        if let Err(error) = Psbt::deserialize(&alone) {
            return PsbtFault::Malformed { place: map.place, why: shorten(&error) };
        }
    }
    PsbtFault::Malformed { place: Place::Global, why: shorten(error) }
}

/// The parser quotes keys whole, and a key may be as large as the PSBT.
fn shorten(error: &bitcoin::psbt::Error) -> String {
    error.to_string().chars().take(MAX_WHY_CHARS).collect()
}

/// What no transaction may have, whatever it spends.
pub(super) fn transaction_faults(transaction: &Transaction) -> Vec<PsbtFault> {
    let mut faults = Vec::new();
    let mut first_use: BTreeMap<OutPoint, usize> = BTreeMap::new();
    for (input, spent) in transaction.input.iter().enumerate() {
        let outpoint = spent.previous_output;
        let first = *first_use.entry(outpoint).or_insert(input);
        if first != input {
            faults.push(PsbtFault::DuplicateInput { input, first, outpoint });
        }
    }
    let mut total_sat = 0_u64;
    for (output, paid) in transaction.output.iter().enumerate() {
        total_sat = total_sat.saturating_add(paid.value.to_sat());
        if total_sat > Amount::MAX_MONEY.to_sat() {
            faults.push(PsbtFault::OutputInvalid { output, rule: "pays more than there can ever be, in all" });
            break;
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_small_transaction_is_one() {
        let bytes = [MAGIC, SMALL_GLOBAL, &[0, 0]].concat();
        let psbt = Psbt::deserialize(&bytes).unwrap();
        assert_eq!((psbt.inputs.len(), psbt.outputs.len()), (1, 1));
        assert_eq!(psbt.serialize(), bytes);
    }
}
