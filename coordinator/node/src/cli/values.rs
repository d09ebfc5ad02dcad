//! Values of the command line. What is doubtful is refused here, before anything is sent: an amount that is read
//! in the wrong unit is lost.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::base64::prelude::{BASE64_STANDARD, Engine as _};
use bitcoin::hex::FromHex;
use onespend_proto::v1;

use super::failure::Failure;
use crate::grpc::fields::address_fault;
use crate::identity::Party;

/// All bitcoin there will ever be, in satoshi.
const MAX_SAT: i64 = 2_100_000_000_000_000;
/// No feerate above this was ever sensible; the wallet's own limit is far lower.
const MAX_FEERATE_SAT_VB: f64 = 100_000.0;
/// Longest request id.
const MAX_REQUEST_ID: usize = 64;
/// Longest payment id.
const MAX_PAYMENT_ID: usize = 128;
/// Longest wallet id.
const MAX_WALLET_ID: usize = 64;
/// Before the hex of a script pubkey in a recipient.
const SCRIPT_PREFIX: &str = "script:";
/// Largest file that is read: twice the largest PSBT in base64.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A positive amount in satoshi: digits and nothing else.
pub fn amount_sat(text: &str) -> Result<i64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(format!("amounts are whole satoshi, digits only{}", meant(text)));
    }
    text.parse()
        .ok()
        .filter(|sat| (1..=MAX_SAT).contains(sat))
        .ok_or_else(|| format!("it must be 1 to {MAX_SAT} satoshi"))
}

/// If it looks like an amount in bitcoin, what that would be.
fn meant(text: &str) -> String {
    let number = text.trim().trim_end_matches("BTC").trim_end_matches("btc").trim();
    match bitcoin::Amount::from_str_in(number, bitcoin::Denomination::Bitcoin) {
        Ok(amount) if number.contains('.') => format!(" ({number} BTC would be {} satoshi)", amount.to_sat()),
        _ => String::new(),
    }
}

/// A limit in satoshi; 0 means the service's default.
pub fn limit_sat(text: &str) -> Result<i64, String> {
    if text == "0" { Ok(0) } else { amount_sat(text) }
}

/// A feerate in satoshi per virtual byte.
pub fn feerate_sat_vb(text: &str) -> Result<f64, String> {
    let wrong = || format!("it must be a number of satoshi per virtual byte above 0, at most {MAX_FEERATE_SAT_VB}");
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let rate: f64 = text.parse().map_err(|_| wrong())?;
    if plain && rate > 0.0 && rate <= MAX_FEERATE_SAT_VB { Ok(rate) } else { Err(wrong()) }
}

/// `txid:vout`.
pub fn outpoint(text: &str) -> Result<v1::Outpoint, String> {
    let outpoint = bitcoin::OutPoint::from_str(text).map_err(|error| format!("it must be txid:vout ({error})"))?;
    Ok(v1::Outpoint { txid: outpoint.txid.to_string(), vout: outpoint.vout })
}

/// `address=sat`, or `script:hex=sat`.
pub fn recipient(text: &str) -> Result<v1::Recipient, String> {
    let (destination, amount) =
        text.split_once('=').ok_or("it must be ADDRESS=SAT, such as bc1q…=50000, with the amount in satoshi")?;
    let destination = if let Some(hex) = destination.strip_prefix(SCRIPT_PREFIX) {
        let script = Vec::<u8>::from_hex(hex).map_err(|error| format!("the script is not hex: {error}"))?;
        v1::recipient::Destination::Script(script.into())
    } else {
        bitcoin::Address::<NetworkUnchecked>::from_str(destination)
            .map_err(|error| format!("{destination:?} is no address: {}", address_fault(destination, &error)))?;
        v1::recipient::Destination::Address(destination.to_owned())
    };
    Ok(v1::Recipient { destination: Some(destination), amount_sat: amount_sat(amount)? })
}

/// A time with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "it must be a number with a unit, such as 500ms, 10s, 5m or 2h".to_owned())
}

/// A request id.
pub fn request_id(text: &str) -> Result<String, String> {
    printable(text, MAX_REQUEST_ID)
}

/// A payment id.
pub fn payment_id(text: &str) -> Result<String, String> {
    printable(text, MAX_PAYMENT_ID)
}

/// A party of the cluster, such as `client/payouts`.
pub fn caller(text: &str) -> Result<Party, String> {
    Party::from_caller_id(text).map_err(|_| "it must be client/NAME or operator/NAME".to_owned())
}

/// A wallet id.
pub fn wallet_id(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if letters && (1..=MAX_WALLET_ID).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("it must be 1 to {MAX_WALLET_ID} of A-Z, a-z, 0-9, '.', '_' and '-'"))
    }
}

fn printable(text: &str, most: usize) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) && (1..=most).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("it must be 1 to {most} printable ASCII characters without spaces"))
    }
}

/// The text of a file, or of standard input for `-`.
pub fn read_text(file: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let unread = |error: std::io::Error| {
        Failure::usage(format!("{}: {error}", file.display()))
            .remedy("name a file that can be read, or - for standard input")
    };
    let source: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(unread)?)
    };
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{} has more than {MAX_FILE_BYTES} bytes", file.display())));
    }
    Ok(bytes)
}

/// Bytes that were given in hex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A BIP-340 signature.
pub fn proof(text: &str) -> Result<Bytes, String> {
    hex_of(text, 64)
}

/// An x-only public key (BIP-340).
pub fn fence_key(text: &str) -> Result<Bytes, String> {
    hex_of(text, 32)
}

fn hex_of(text: &str, bytes: usize) -> Result<Bytes, String> {
    let given = Vec::from_hex(text).ok().filter(|given| given.len() == bytes);
    given.map(Bytes).ok_or_else(|| format!("it must be {} hexadecimal digits", 2 * bytes))
}

/// A signed transaction: hex, or a file (`-` for standard input) that holds it in hex or in binary.
pub fn transaction(source: &str) -> Result<Vec<u8>, Failure> {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let given = if is_hex(source) { source.as_bytes().to_vec() } else { read_text(Path::new(source))? };
    let text: String = String::from_utf8_lossy(&given).split_whitespace().collect();
    let bytes = if is_hex(&text) { Vec::from_hex(&text).unwrap_or_default() } else { given };
    match bitcoin::consensus::deserialize::<bitcoin::Transaction>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::usage(format!("that is no transaction, in hex or in binary: {error}"))),
    }
}

/// A PSBT: base64, or a file (`-` for standard input) that holds it in base64 or in binary.
pub fn psbt(source: &str) -> Result<Vec<u8>, Failure> {
    /// Every PSBT begins so (BIP174); in base64, `cHNidP8`.
    const MAGIC: &[u8] = b"psbt\xff";
    const MAGIC_BASE64: &str = "cHNidP8";
    let given =
        if source.starts_with(MAGIC_BASE64) { source.as_bytes().to_vec() } else { read_text(Path::new(source))? };
    if given.starts_with(MAGIC) {
        return Ok(given);
    }
    let text: Vec<u8> = given.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64_STANDARD
        .decode(text)
        .ok()
        .filter(|bytes| bytes.starts_with(MAGIC))
        .ok_or_else(|| Failure::usage("that is no PSBT: neither base64 that begins with cHNidP8 nor a binary file"))
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
