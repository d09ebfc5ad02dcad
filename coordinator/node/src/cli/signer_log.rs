//! `onespend signer log`: what a signer has signed, from its audit log. Reads the file, also of an earlier version, and
//! asks nobody.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, Network, Transaction, TxOut, Txid};
use clap::Args;
use onespend_core::ids::{Fence, LogIndex, PaymentId, WalletId};
use serde::{Deserialize, Serialize};

use super::exit::Exit;
use super::failure::Failure;
use super::format::counted;
use super::output::{Output, Show, note};
use super::signer::Which;
use super::table::{self, Column};

#[derive(Debug, Args)]
pub struct Log {
    #[command(flatten)]
    which: Which,
    /// Only what was signed under this fence or a later one: EPOCH/INDEX, or the fence's number
    #[arg(long, value_name = "FENCE", value_parser = fence)]
    since_fence: Option<Fence>,
}

impl Log {
    /// Shows the lines.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let (config, signer) = self.which.read()?;
        let Some(file) = signer.audit_log else {
            let failure = Failure::usage(format!("signer {} has no audit_log in the configuration", signer.name));
            return Err(failure.remedy("set audit_log of [[signers]]; what is signed from then on has a line there"));
        };
        let read = Lines::read(&file, self.since_fence.unwrap_or_default(), config.cluster.network);
        let lines = read.map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", file.display())))?;
        lines.tell();
        let Lines { signatures, skipped, .. } = lines;
        output.show(&View { signer: signer.name, audit_log: file, signatures, skipped_lines: skipped.len() })
    }
}

/// `EPOCH/INDEX`, or the number that a fence is.
fn fence(text: &str) -> Result<Fence, String> {
    let wrong = || format!("it must be EPOCH/INDEX, such as 1/10523, with an epoch up to {}", Fence::MAX_EPOCH);
    let Some((epoch, index)) = text.split_once('/') else {
        return text.parse().map(Fence).map_err(|_| wrong());
    };
    let (epoch, index): (u32, u64) = epoch.parse().ok().zip(index.parse().ok()).ok_or_else(wrong)?;
    let fence = Fence::of(epoch, LogIndex(index));
    // An index that is too large for its bits would be another epoch's.
    if (fence.epoch(), fence.index().0) == (epoch, index) { Ok(fence) } else { Err(wrong()) }
}

/// A line as a signer writes it (`adapters/src/signer/audit.rs`).
#[derive(Debug, Deserialize)]
struct Line {
    signer: String,
    wallet: String,
    payment_id: String,
    attempt: u32,
    fence: u64,
    txid: String,
    outpoints: Vec<String>,
    /// Not there in lines of earlier versions.
    at_unix_ms: Option<u64>,
    /// Likewise.
    transaction: Option<String>,
}

/// One signature. The names are those of the line.
#[derive(Debug, Serialize)]
struct Signature {
    /// Null in lines of earlier versions.
    at_unix_ms: Option<u64>,
    fence: u64,
    /// The fence in two parts.
    epoch: u32,
    index: u64,
    signer: String,
    wallet: String,
    payment_id: String,
    attempt: u32,
    txid: String,
    outpoints: Vec<String>,
    /// All outputs, change among them; null where the line has no transaction that has the txid.
    outputs: Option<Vec<Paid>>,
    transaction: Option<String>,
}

/// An output.
#[derive(Debug, Serialize)]
struct Paid {
    /// Null where the script has no address.
    address: Option<String>,
    script: String,
    amount_sat: u64,
}

impl Paid {
    fn of(output: &TxOut, network: Network) -> Self {
        Self {
            address: Address::from_script(&output.script_pubkey, network).ok().map(|address| address.to_string()),
            script: output.script_pubkey.as_bytes().to_lower_hex_string(),
            amount_sat: output.value.to_sat(),
        }
    }

    fn text(&self) -> String {
        match &self.address {
            Some(address) => format!("{address}={}", self.amount_sat),
            None => format!("script:{}={}", self.script, self.amount_sat),
        }
    }
}

impl Signature {
    /// `None` for a line that no signer writes.
    fn of(line: Line, network: Network) -> Option<Self> {
        let txid = Txid::from_str(&line.txid).ok()?;
        let (wallet, payment) = (WalletId::parse(&line.wallet).ok()?, PaymentId::parse(&line.payment_id).ok()?);
        let signed = line.transaction.as_deref().and_then(|hex| deserialize_hex::<Transaction>(hex).ok());
        let signed = signed.filter(|signed| signed.compute_txid() == txid);
        let fence = Fence(line.fence);
        Some(Self {
            at_unix_ms: line.at_unix_ms,
            fence: line.fence,
            epoch: fence.epoch(),
            index: fence.index().0,
            signer: line.signer,
            wallet: wallet.to_string(),
            payment_id: payment.to_string(),
            attempt: line.attempt,
            txid: txid.to_string(),
            outpoints: line.outpoints,
            outputs: signed.map(|signed| signed.output.iter().map(|output| Paid::of(output, network)).collect()),
            transaction: line.transaction,
        })
    }

    fn row(&self) -> [String; 5] {
        let time = |ms: u64| {
            let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
            prost_types::Timestamp { seconds, nanos: 0 }.to_string()
        };
        [
            self.at_unix_ms.map(time).unwrap_or_default(),
            Fence(self.fence).spelled(),
            self.wallet.clone(),
            self.payment_id.clone(),
            self.attempt.to_string(),
        ]
    }

    /// What stands below the row: too wide to stand beside it.
    fn below(&self) -> impl Iterator<Item = String> {
        let pays = self.outputs.iter().flatten().map(|paid| format!("  pays  {}", paid.text()));
        std::iter::once(format!("  txid  {}", self.txid)).chain(pays)
    }
}

/// What a file holds.
#[derive(Debug, Default)]
struct Lines {
    signatures: Vec<Signature>,
    /// Numbers of the lines that are none of a signer, from 1.
    skipped: Vec<usize>,
    /// Numbers of the lines whose transaction cannot be read, or is not that of their txid.
    contradictory: Vec<usize>,
}

impl Lines {
    fn read(file: &Path, since: Fence, network: Network) -> io::Result<Self> {
        let mut lines = Self::default();
        for (number, line) in (1..).zip(BufReader::new(File::open(file)?).split(b'\n')) {
            lines.add(number, &line?, since, network);
        }
        Ok(lines)
    }

    fn add(&mut self, number: usize, line: &[u8], since: Fence, network: Network) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let line = serde_json::from_slice(line).ok();
        match line.and_then(|line| Signature::of(line, network)) {
            None => self.skipped.push(number),
            Some(signature) if Fence(signature.fence) < since => {}
            Some(signature) => {
                if signature.transaction.is_some() && signature.outputs.is_none() {
                    self.contradictory.push(number);
                }
                self.signatures.push(signature);
            }
        }
    }

    /// Says beside the answer what is not in it.
    fn tell(&self) {
        if let Some(first) = self.skipped.first() {
            let count = counted(self.skipped.len(), "line was", "lines were");
            let why = "no whole line of a signer; a crash leaves one, and so does a look while one is written";
            note(&format!("{count} skipped, the first is line {first}: {why}"));
        }
        if let Some(first) = self.contradictory.first() {
            let count = counted(self.contradictory.len(), "line has", "lines have");
            note(&format!(
                "{count} another transaction than the txid says, the first is line {first}: not as it was written"
            ));
        }
    }
}

/// The lines of one log, in their order.
#[derive(Debug, Serialize)]
struct View {
    signer: String,
    audit_log: PathBuf,
    signatures: Vec<Signature>,
    skipped_lines: usize,
}

impl Show for View {
    fn text(&self) -> String {
        let columns = [
            Column::Whole("TIME"),
            Column::Number("FENCE"),
            Column::Whole("WALLET"),
            Column::Whole("PAYMENT"),
            Column::Number("ATTEMPT"),
        ];
        let list = table::list(columns, self.signatures.iter().map(Signature::row), "no signatures");
        if self.signatures.is_empty() {
            return list;
        }
        let mut rows = list.lines().map(str::to_owned);
        let mut text: Vec<String> = rows.next().into_iter().collect();
        for (row, signature) in rows.zip(&self.signatures) {
            text.push(row);
            text.extend(signature.below());
        }
        text.push(counted(self.signatures.len(), "signature", "signatures"));
        text.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::encode::serialize_hex;
    use bitcoin::hashes::Hash as _;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxIn, WPubkeyHash};
    use serde_json::{Value, json};

    use super::*;

    const PAYEE: &str = "bcrt1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpvxat9t";

    fn transaction(amount_sat: u64) -> Transaction {
        let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([1; 20]));
        let nothing = ScriptBuf::new_op_return([7; 4]);
        let output = [(script, amount_sat), (nothing, 0)]
            .map(|(script_pubkey, sat)| TxOut { script_pubkey, value: Amount::from_sat(sat) });
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default()],
            output: output.into(),
        }
    }

    /// A line of an earlier version.
    fn old(fence: u64, signed: &Transaction) -> Value {
        json!({
            "signer": "hot", "wallet": "w", "payment_id": "order-7", "attempt": 2, "fence": fence,
            "txid": signed.compute_txid().to_string(), "digest": "00", "sighashes": ["00"], "outpoints": ["c:0"],
        })
    }

    fn new(fence: u64, signed: &Transaction) -> Value {
        let mut line = old(fence, signed);
        line["at_unix_ms"] = 1_764_547_201_234_u64.into();
        line["transaction"] = serialize_hex(signed).into();
        line
    }

    fn read(content: &[u8], since: &str) -> Lines {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signatures.jsonl");
        std::fs::write(&file, content).unwrap();
        Lines::read(&file, fence(since).unwrap(), Network::Regtest).unwrap()
    }

    fn text(signatures: Vec<Signature>) -> String {
        View { signer: "hot".to_owned(), audit_log: "log".into(), signatures, skipped_lines: 0 }.text()
    }

    #[test]
    fn a_line_shows_when_for_what_and_to_whom_something_was_signed() {
        let signed = transaction(50_000);
        let fence = Fence::of(1, LogIndex(10_523));
        let lines = read(format!("{}\n{}\n", old(81, &signed), new(fence.0, &signed)).as_bytes(), "0");
        assert!(lines.skipped.is_empty() && lines.contradictory.is_empty(), "{lines:?}");
        let txid = signed.compute_txid();
        let text = text(lines.signatures);
        let expected = [
            "TIME                    FENCE  WALLET  PAYMENT  ATTEMPT".to_owned(),
            "                         0/81  w       order-7        2".to_owned(),
            format!("  txid  {txid}"),
            "2025-12-01T00:00:01Z  1/10523  w       order-7        2".to_owned(),
            format!("  txid  {txid}"),
            format!("  pays  {PAYEE}=50000"),
            "  pays  script:6a0407070707=0".to_owned(),
            "2 signatures".to_owned(),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(table::WIDTH)), "{text}");
    }

    #[test]
    fn what_is_no_line_of_a_signer_is_counted_and_hides_no_other() {
        let (signed, other) = (transaction(1), transaction(2));
        let good = new(81, &signed).to_string().into_bytes();
        let mut swapped = new(82, &signed);
        swapped["transaction"] = serialize_hex(&other).into();
        let mut strange = old(83, &signed);
        strange["wallet"] = "a\nb".into();
        // An empty line is what a write leaves that wrote nothing; zeros are what a file system may leave.
        let torn = good[..99].to_vec();
        let [nothing, zeros, less] = [&b""[..], b"\0\0\xff", b"{\"wallet\":\"w\"}"].map(<[u8]>::to_vec);
        let [swapped, strange] = [swapped, strange].map(|line| line.to_string().into_bytes());
        let lines = read(&[good, torn, nothing, zeros, less, swapped, strange].join(&b'\n'), "0");
        assert_eq!((lines.skipped, lines.contradictory), (vec![2, 4, 5, 7], vec![6]));
        let outputs: Vec<bool> = lines.signatures.iter().map(|signature| signature.outputs.is_some()).collect();
        assert_eq!(outputs, [true, false]);
    }

    #[test]
    fn a_fence_bounds_what_is_shown() {
        let signed = transaction(1);
        let fences = [80, 81, Fence::of(1, LogIndex(7)).0];
        let content = fences.map(|fence| new(fence, &signed).to_string()).join("\n");
        let shown = |since: &str| -> Vec<u64> {
            read(content.as_bytes(), since).signatures.iter().map(|signature| signature.fence).collect()
        };
        assert_eq!(shown("0"), fences);
        assert_eq!((shown("81"), shown("0/81")), (fences[1..].to_vec(), fences[1..].to_vec()));
        assert_eq!((shown("1/0"), shown("1/8")), (fences[2..].to_vec(), Vec::new()));
        assert_eq!(text(read(content.as_bytes(), "2/0").signatures), "no signatures");
        for wrong in ["", "/", "1/", "x", "1/2/3", "-1", "65536/1", "0/281474976710656"] {
            assert!(fence(wrong).is_err(), "{wrong}");
        }
    }
}
