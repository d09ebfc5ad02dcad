//! Wire to domain types. A [`Fields`] collects every fault of a message, so a caller learns of all of them at once.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::address::{NetworkUnchecked, ParseError};
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Txid};
use onespend_core::command::Recipient;
use onespend_core::ids::{InvalidName, Millis, PaymentId, PaymentKey, RequestId, ReservationId, WalletId};
use onespend_core::limits::{
    MAX_FEE_PERCENT, MAX_FINALITY_DEPTH, MAX_NOTE_LEN, MAX_OUTPOINTS, MAX_RECIPIENTS, MAX_VELOCITY_WINDOW,
    MIN_FEERATE_SAT_KVB, MIN_VELOCITY_WINDOW, Velocity, WalletLimits,
};
use onespend_core::transaction::is_payable;
use onespend_proto::v1;
use tonic::Status;
use tonic_types::FieldViolation;

use super::expiry::{Expiration, Expiry, whole_millis};
use super::status;

/// Most rows of one page.
const MAX_PAGE: usize = 1000;
/// Rows of a page when the caller names no number.
const DEFAULT_PAGE: usize = 100;
/// Blocks within which a transaction should confirm when the caller does not say.
pub(crate) const DEFAULT_TARGET_BLOCKS: u16 = 6;
/// Longest script of a recipient (`MAX_SCRIPT_SIZE` of Bitcoin Core).
const MAX_SCRIPT_BYTES: usize = 10_000;
/// Highest feerate that is read at all, in sat/vB: above it, it is a mistake of units.
const MAX_FEERATE_SAT_VB: f64 = 1_000_000.0;

/// Reads fields and collects what is wrong with them.
#[derive(Default)]
pub(crate) struct Fields {
    faults: Vec<FieldViolation>,
}

impl Fields {
    /// Notes a fault.
    pub(crate) fn fault(&mut self, field: &str, what: impl Into<String>) {
        self.faults.push(FieldViolation::new(field, what));
    }

    /// The value, unless anything was wrong with any field.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(status::invalid_fields(self.faults)),
        }
    }

    fn name<T>(&mut self, field: &str, parsed: Result<T, InvalidName>) -> Option<T> {
        parsed.map_err(|error| self.fault(field, error.to_string())).ok()
    }

    pub(crate) fn wallet_id(&mut self, text: &str) -> Option<WalletId> {
        self.name("wallet_id", WalletId::parse(text))
    }

    /// A name that may be left out: nothing where the text is empty, a fault where it is malformed.
    pub(crate) fn optional_wallet_id(&mut self, text: &str) -> Option<WalletId> {
        if text.is_empty() { None } else { self.wallet_id(text) }
    }

    pub(crate) fn payment_id(&mut self, text: &str) -> Option<PaymentId> {
        self.name("payment_id", PaymentId::parse(text))
    }

    /// A payment's full name.
    pub(crate) fn payment_key(&mut self, wallet: &str, payment: &str) -> Option<PaymentKey> {
        let wallet = self.wallet_id(wallet);
        let payment = self.payment_id(payment);
        Some(PaymentKey { wallet: wallet?, payment: payment? })
    }

    pub(crate) fn child_payment_id(&mut self, text: &str) -> Option<PaymentId> {
        self.name("child_payment_id", PaymentId::parse(text))
    }

    pub(crate) fn request_id(&mut self, text: &str) -> Option<RequestId> {
        self.name("request_id", RequestId::parse(text))
    }

    pub(crate) fn reservation_id(&mut self, text: &str) -> Option<ReservationId> {
        self.name("reservation_id", ReservationId::parse(text))
    }

    /// What an operator says that was checked, and that it was.
    pub(crate) fn checked(&mut self, note: &str, i_have_checked: bool) {
        if note.trim().is_empty() || note.len() > MAX_NOTE_LEN {
            self.fault("note", format!("must say what was checked, in 1 to {MAX_NOTE_LEN} bytes"));
        }
        if !i_have_checked {
            self.fault("i_have_checked", "must be set, once you have checked what the rpc's comment says");
        }
    }

    /// A name that may be left out: nothing where the text is empty, a fault where it is malformed.
    pub(crate) fn optional_reservation_id(&mut self, text: &str) -> Option<ReservationId> {
        if text.is_empty() { None } else { self.reservation_id(text) }
    }

    /// A name that may be left out: nothing where the text is empty, a fault where it is malformed.
    pub(crate) fn optional_payment_id(&mut self, text: &str) -> Option<PaymentId> {
        if text.is_empty() { None } else { self.payment_id(text) }
    }

    /// A value of an enum. Proto3 passes on numbers that nobody knows, such as those of a later version; taking them for
    /// the default would do something else than the caller asked for.
    pub(crate) fn known<E: TryFrom<i32>>(&mut self, field: &str, number: i32) -> Option<E> {
        let value = E::try_from(number).ok();
        if value.is_none() {
            self.fault(field, format!("{number} is no value that this version knows"));
        }
        value
    }

    /// States to filter by; `UNSPECIFIED`, which is 0, is none.
    pub(crate) fn states<E: TryFrom<i32>>(&mut self, numbers: &[i32]) {
        for (position, number) in numbers.iter().enumerate() {
            if *number == 0 || E::try_from(*number).is_err() {
                self.fault(&format!("states[{position}]"), format!("{number} is no state that this version knows"));
            }
        }
    }

    /// Blocks within which a transaction should confirm: what Bitcoin Core estimates for.
    pub(crate) fn target_blocks(&mut self, blocks: u32) -> Option<u16> {
        let target = u16::try_from(blocks).ok().filter(|blocks| (1..=1008).contains(blocks));
        if target.is_none() {
            self.fault("confirm_target_blocks", format!("{blocks} blocks: must be 1 to 1008"));
        }
        target
    }

    /// An amount that must be at least 1 sat.
    pub(crate) fn positive_sat(&mut self, field: &str, value: i64) -> Option<u64> {
        match u64::try_from(value) {
            Ok(sat) if (1..=Amount::MAX_MONEY.to_sat()).contains(&sat) => Some(sat),
            _ => {
                self.fault(field, format!("{value} sat: must be 1 to 21 million bitcoin"));
                None
            }
        }
    }

    /// A feerate from sat/vB to sat per 1000 vB, rounded up.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Checked against bounds first.
    pub(crate) fn feerate_sat_kvb(&mut self, field: &str, sat_vb: f64) -> Option<u64> {
        if !(0.1..=MAX_FEERATE_SAT_VB).contains(&sat_vb) {
            self.fault(field, format!("{sat_vb} sat/vB: must be 0.1 to {MAX_FEERATE_SAT_VB}"));
            return None;
        }
        Some(((sat_vb * 1000.0).ceil() as u64).max(MIN_FEERATE_SAT_KVB))
    }

    /// A list of coins: not empty, not too long, each well formed. Doubles are the state machine's to refuse.
    pub(crate) fn outpoints(&mut self, field: &str, list: &[v1::Outpoint]) -> Option<Vec<OutPoint>> {
        if list.is_empty() || list.len() > MAX_OUTPOINTS {
            self.fault(field, format!("{} outpoints: must be 1 to {MAX_OUTPOINTS}", list.len()));
            return None;
        }
        let mut parsed = Vec::with_capacity(list.len());
        for (position, outpoint) in list.iter().enumerate() {
            match Txid::from_str(&outpoint.txid) {
                Ok(txid) => parsed.push(OutPoint { txid, vout: outpoint.vout }),
                Err(error) => self.fault(
                    &format!("{field}[{position}].txid"),
                    format!("{:?} is not a txid of 64 hexadecimal digits: {error}", clip(&outpoint.txid)),
                ),
            }
        }
        (parsed.len() == list.len()).then_some(parsed)
    }

    /// One coin.
    pub(crate) fn outpoint(&mut self, field: &str, given: Option<&v1::Outpoint>) -> Option<OutPoint> {
        let Some(given) = given else {
            self.fault(field, "names no coin");
            return None;
        };
        let txid = self.hash::<Txid>(&format!("{field}.txid"), &given.txid)?;
        Some(OutPoint { txid, vout: given.vout })
    }

    /// The hash of a transaction or of a block, as people write it.
    pub(crate) fn hash<T>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        let parsed = text.parse::<T>().map_err(|error| {
            self.fault(field, format!("{:?} is not a hash of 64 hexadecimal digits: {error}", clip(text)));
        });
        parsed.ok()
    }

    /// When a reservation ends: as a duration, or as a time of the wall clock, which is not looked at here.
    pub(crate) fn expiry(&mut self, asked: Option<Expiration>) -> Option<Expiry> {
        Expiry::read(asked).map_err(|(field, why)| self.fault(field, why)).ok()
    }

    /// Recipients by address or by script.
    pub(crate) fn recipients(
        &mut self,
        list: &[v1::Recipient],
        network: Network,
    ) -> Result<Option<Vec<Recipient>>, Status> {
        if list.is_empty() || list.len() > MAX_RECIPIENTS {
            self.fault("recipients", format!("{} recipients: must be 1 to {MAX_RECIPIENTS}", list.len()));
            return Ok(None);
        }
        let mut parsed = Vec::with_capacity(list.len());
        for (position, recipient) in list.iter().enumerate() {
            let field = format!("recipients[{position}]");
            let script = match &recipient.destination {
                Some(v1::recipient::Destination::Address(text)) => Some(address(&field, text, network)?),
                Some(v1::recipient::Destination::Script(bytes)) if (1..=MAX_SCRIPT_BYTES).contains(&bytes.len()) => {
                    Some(payable(position, bytes)?)
                }
                Some(v1::recipient::Destination::Script(_)) => {
                    self.fault(&format!("{field}.script"), format!("must be 1 to {MAX_SCRIPT_BYTES} bytes"));
                    None
                }
                None => {
                    self.fault(&field, "names neither an address nor a script");
                    None
                }
            };
            let amount_sat = self.positive_sat(&format!("{field}.amount_sat"), recipient.amount_sat);
            parsed.extend(script.zip(amount_sat).map(|(script, amount_sat)| Recipient { script, amount_sat }));
        }
        Ok((parsed.len() == list.len()).then_some(parsed))
    }

    /// A wallet's caps; zero and absent mean the default.
    pub(crate) fn limits(&mut self, limits: Option<&v1::WalletLimits>, finality_depth: u32) -> Option<WalletLimits> {
        let default = WalletLimits { finality_depth, ..WalletLimits::default() };
        let Some(given) = limits else { return Some(default) };
        let max_fee_sat = match given.max_fee_sat {
            0 => Some(default.max_fee_sat),
            sat => self.positive_sat("limits.max_fee_sat", sat),
        };
        let max_feerate = if given.max_feerate_sat_vb == 0.0 {
            Some(default.max_feerate_sat_kvb)
        } else {
            self.feerate_sat_kvb("limits.max_feerate_sat_vb", given.max_feerate_sat_vb)
        };
        let max_fee_percent =
            self.up_to("limits.max_fee_percent", given.max_fee_percent, default.max_fee_percent, MAX_FEE_PERCENT);
        let finality_depth =
            self.up_to("limits.finality_depth", given.finality_depth, finality_depth, MAX_FINALITY_DEPTH);
        let max_reservations =
            self.up_to("limits.max_reservations", given.max_reservations, default.max_reservations, u32::MAX);
        let max_reserved_percent = self.up_to("limits.max_reserved_percent", given.max_reserved_percent, 0, 100);
        let velocity = match &given.velocity {
            None => Some(None),
            Some(velocity) => self.velocity(velocity).map(Some),
        };
        Some(WalletLimits {
            max_fee_sat: max_fee_sat?,
            max_feerate_sat_kvb: max_feerate?,
            max_fee_percent: max_fee_percent?,
            finality_depth: finality_depth?,
            max_reservations: max_reservations?,
            max_reserved_percent: Some(max_reserved_percent?).filter(|percent| *percent > 0),
            velocity: velocity?,
            spend_unconfirmed_change: given.spend_unconfirmed_change.then_some(true),
        })
    }

    fn velocity(&mut self, given: &v1::Velocity) -> Option<Velocity> {
        let bounds = MIN_VELOCITY_WINDOW..=MAX_VELOCITY_WINDOW;
        let window = given.window.as_ref().and_then(whole_millis).filter(|window| bounds.contains(window));
        if window.is_none() {
            self.fault("limits.velocity.window", "must be 1 second to 31 days");
        }
        let max_sat = self.positive_sat("limits.velocity.max_sat", given.max_sat);
        Some(Velocity { window: window?, max_sat: max_sat? })
    }

    /// A number up to a bound, where 0 means the default.
    fn up_to(&mut self, field: &str, value: u32, default: u32, max: u32) -> Option<u32> {
        if value > max {
            self.fault(field, format!("{value}: must be 1 to {max}, or 0 for the default"));
            return None;
        }
        Some(if value == 0 { default } else { value })
    }

    /// How many rows a page has.
    pub(crate) fn page_size(&mut self, size: i32) -> Option<usize> {
        match usize::try_from(size) {
            Ok(0) => Some(DEFAULT_PAGE),
            Ok(size) => Some(size.min(MAX_PAGE)),
            Err(_) => {
                self.fault("page_size", "must not be negative");
                None
            }
        }
    }
}

/// Reads a script and checks that somebody can be paid by it.
fn payable(position: usize, bytes: &[u8]) -> Result<ScriptBuf, Status> {
    let script = ScriptBuf::from_bytes(bytes.to_vec());
    if is_payable(&script) {
        return Ok(script);
    }
    // There are at most MAX_RECIPIENTS.
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    Err(status::unpayable(position, "script", "nobody could spend an output of this script, or no mempool takes it"))
}

/// Reads an address and checks its network.
fn address(field: &str, text: &str, network: Network) -> Result<ScriptBuf, Status> {
    use onespend_proto::v1::ErrorReason::{AddressInvalid, WrongNetwork};
    let field = format!("{field}.address");
    let parsed: Address<NetworkUnchecked> = text.parse().map_err(|error| {
        let rule = format!("{:?} is not an address: {}", clip(text), address_fault(text, &error));
        status::invalid(AddressInvalid, &field, &rule, vec![])
    })?;
    parsed.require_network(network).map(|address| address.script_pubkey()).map_err(|_| {
        let rule = format!("{:?} is not an address of {network}", clip(text));
        status::invalid(WrongNetwork, &field, &rule, vec![("network", network.to_string())])
    })
}

/// What is wrong with an address. The parser takes for base58 whatever is no bech32, also a bech32 address with one wrong
/// character.
pub(crate) fn address_fault(address: &str, error: &ParseError) -> String {
    let lower = address.to_ascii_lowercase();
    let looks_like_bech32 = ["bc1", "tb1", "bcrt1"].iter().any(|prefix| lower.starts_with(prefix));
    if looks_like_bech32 {
        return "its checksum or a character of it is wrong (bech32)".to_owned();
    }
    error.to_string()
}

/// Whole milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}
