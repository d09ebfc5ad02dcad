//! PSBTs that are broken, lie, or ask for what is never signed.

use anyhow::{Context, Result};
use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::{Psbt, PsbtSighashType};
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapNodeHash, TaprootBuilder};
use bitcoin::{Amount, OutPoint, PublicKey, ScriptBuf, Transaction, Txid, Witness, XOnlyPublicKey, ecdsa, taproot};
use onespend_proto::v1;
use onespend_testnet::seed::Seeded;

use crate::door::Who;
use crate::draft::{Draft, txout};
use crate::refusal::{Refusal, invalid, refusal};
use crate::stage::{HOT, Stage, TAP, outpoint};

/// Largest PSBT, by payment.proto.
const MAX_PSBT_BYTES: usize = 1024 * 1024;
/// PSBTs with random damage.
const DAMAGED: usize = 300;

/// What is wrong with the bytes.
pub async fn unreadable(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "unreadable").await?;
    let good = draft.psbt.serialize();
    let broken = || refusal("PSBT_INVALID");
    let mut trailing = good.clone();
    trailing.push(0);
    let mut large = good.clone();
    large.resize(MAX_PSBT_BYTES + 1, 0);
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("no PSBT", vec![], broken().field("psbt").saying("not a PSBT")),
        ("text", b"please sign this".to_vec(), broken().field("psbt").saying("not a PSBT")),
        ("zeros", vec![0; 500], broken().field("psbt")),
        ("only the magic", b"psbt\xff".to_vec(), broken()),
        ("hexadecimal", good.to_lower_hex_string().into_bytes(), broken().saying("hexadecimal")),
        ("base64 of garbage", BASE64_STANDARD.encode([7; 300]).into_bytes(), broken().field("psbt")),
        ("base64 cut short", BASE64_STANDARD.encode(&good).as_bytes()[..100].to_vec(), broken()),
        ("base64 with a star", BASE64_STANDARD.encode(&good).replacen('A', "*", 1).into_bytes(), broken()),
        ("a transaction", bitcoin::consensus::serialize(&draft.psbt.unsigned_tx), broken().field("psbt")),
        ("bytes after the end", trailing, broken().saying("bytes follow")),
        ("larger than 1 MiB", large, broken().saying("at most")),
        ("version 2 (BIP-370)", version_two(), broken().saying("version 2")),
        ("a key twice", with_global_field(&good, &[0xfc, 1, 1, 1], 2), broken().saying("twice")),
        ("no unsigned transaction", b"psbt\xff\x00".to_vec(), broken().saying("unsigned transaction")),
        ("no inputs and outputs", empty_transaction(), broken()),
    ];
    for (what, bytes, wanted) in cases {
        stage
            .refuses(Who::Client, what, &wanted, async |mut to| to.payment.sign_psbt(draft.request_with(&bytes)).await)
            .await;
    }
    let before = stage.ledger().await;
    for length in 0..good.len() {
        let cut = &good[..length];
        let what = format!("the first {length} bytes");
        let status = stage.refuses_somehow(&what, async |mut to| to.payment.sign_psbt(draft.request_with(cut)).await);
        let status = status.await;
        let fault = status.and_then(|status| broken().fault(&status));
        stage.check(&what, fault.is_none(), || fault.unwrap_or_default());
    }
    stage.unchanged("PSBTs cut short", before).await;
    stage.release(&draft.reservation).await
}

/// With a fence that was never granted nothing can be signed, whatever the damage leaves.
pub async fn damaged(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "damaged").await?;
    let good = draft.psbt.serialize();
    let before = stage.ledger().await;
    let mut random = Seeded::new(174);
    for round in 0..DAMAGED {
        let mut bytes = good.clone();
        for _ in 0..random.between(1, 4) {
            let at = usize::try_from(random.between(0, bytes.len() as u64))?;
            bytes[at] = u8::try_from(random.next_u64() & 0xff)?;
        }
        let request = v1::SignPsbtRequest { fence: 1, ..draft.request_with(&bytes) };
        let what = format!("damage {round}");
        stage.refuses_somehow(&what, async |mut to| to.payment.sign_psbt(request.clone()).await).await;
    }
    stage.unchanged("damaged PSBTs", before).await;
    stage.release(&draft.reservation).await
}

type Spoil = Box<dyn Fn(&mut Draft)>;

fn spoil(change: impl Fn(&mut Draft) + 'static) -> Spoil {
    Box::new(change)
}

/// Spoils the draft in one way at a time.
async fn refuse_each(stage: &mut Stage, draft: &Draft, cases: Vec<(&str, Spoil, Refusal)>) {
    for (what, change, wanted) in cases {
        let mut spoilt = draft.clone();
        change(&mut spoilt);
        let what = format!("{} of {}", what, draft.wallet);
        stage.refuses(Who::Client, &what, &wanted, async |mut to| to.payment.sign_psbt(spoilt.request()).await).await;
    }
}

/// What is in the inputs' maps.
pub async fn inputs(stage: &mut Stage) -> Result<()> {
    for wallet in [HOT, TAP] {
        let draft = Draft::new(stage, wallet, "inputs").await?;
        let coins = draft.coins();
        let second = &coins[1..];
        let invalid = |text: &str| refusal("PSBT_INVALID").field("psbt.inputs[1]").saying(text);
        let lie = || refusal("PREVOUT_MISMATCH").field("psbt.inputs[1]").naming(second);
        let legacy = |kind: &str| invalid("native segwit").saying(kind);
        let script = |bytes: &[u8]| ScriptBuf::from_bytes(bytes.to_vec());
        let p2pkh = script(&[&[0x76, 0xa9, 20][..], &[1; 20], &[0x88, 0xac]].concat());
        let p2sh = script(&[&[0xa9, 20][..], &[1; 20], &[0x87]].concat());
        let cases = vec![
            ("a partial signature", spoil(sign_second), invalid("signature")),
            (
                "a taproot signature",
                spoil(|draft| draft.psbt.inputs[1].tap_key_sig = Some(schnorr())),
                invalid("signature"),
            ),
            (
                "a final witness",
                spoil(|draft| draft.psbt.inputs[1].final_script_witness = Some(Witness::from_slice(&[[1; 71]]))),
                invalid("witness"),
            ),
            (
                "a final scriptSig",
                spoil(|draft| draft.psbt.inputs[1].final_script_sig = Some(ScriptBuf::from_bytes(vec![0x51]))),
                invalid("scriptSig"),
            ),
            ("a value that is too large", spoil(|draft| lie_of_value(draft, 1)), lie().saying("worth")),
            ("a value that is too small", spoil(|draft| lie_of_value(draft, -1)), lie().saying("worth")),
            ("another script", spoil(|draft| lie_of_script(draft, crate::keys::stranger(1))), lie().saying("script")),
            ("the transaction of another coin", spoil(other_parent), lie().saying("txid")),
            ("P2PKH", spoil(move |draft| lie_of_script(draft, p2pkh.clone())), legacy("P2PKH")),
            ("P2SH", spoil(move |draft| lie_of_script(draft, p2sh.clone())), legacy("P2SH")),
            ("a bare script", spoil(|draft| lie_of_script(draft, ScriptBuf::from_bytes(vec![0x51]))), legacy("bare")),
            (
                "a redeem script",
                spoil(|draft| draft.psbt.inputs[1].redeem_script = Some(ScriptBuf::from_bytes(vec![0x51]))),
                invalid("redeem_script"),
            ),
            (
                "a witness script",
                spoil(|draft| draft.psbt.inputs[1].witness_script = Some(ScriptBuf::from_bytes(vec![0x51]))),
                invalid("witness_script"),
            ),
            ("a leaf script", spoil(with_leaf), invalid("leaf script")),
            (
                "a merkle root",
                spoil(|draft| draft.psbt.inputs[1].tap_merkle_root = Some(TapNodeHash::all_zeros())),
                invalid("merkle root"),
            ),
            (
                "another internal key",
                spoil(|draft| draft.psbt.inputs[1].tap_internal_key = Some(internal_key())),
                invalid("internal_key"),
            ),
        ];
        refuse_each(stage, &draft, cases).await;
        stage.release(&draft.reservation).await?;
    }
    Ok(())
}

/// Sighash types other than ALL, and DEFAULT for taproot.
pub async fn sighashes(stage: &mut Stage) -> Result<()> {
    for wallet in [HOT, TAP] {
        let draft = Draft::new(stage, wallet, "sighashes").await?;
        let coins = draft.coins();
        let wanted = refusal("SIGHASH_NOT_ALLOWED").field("psbt.inputs[1]").naming(&coins[1..]);
        let mut types: Vec<u32> = vec![0x02, 0x03, 0x81, 0x82, 0x83, 0x04, 0x41, 0x80, 0xff, 0x100, u32::MAX];
        // DEFAULT is 0, and means something to taproot alone.
        types.extend((wallet == HOT).then_some(0));
        for number in types {
            let mut spoilt = draft.clone();
            spoilt.psbt.inputs[1].sighash_type = Some(PsbtSighashType::from_u32(number));
            let what = format!("sighash {number:#x} of {wallet}");
            stage
                .refuses(Who::Client, &what, &wanted, async |mut to| to.payment.sign_psbt(spoilt.request()).await)
                .await;
        }
        stage.release(&draft.reservation).await?;
    }
    Ok(())
}

/// Which coins are spent.
pub async fn coins(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "coins").await?;
    let reserved = draft.coins();
    let free = stage.coins(HOT).await?.pop().context("a free coin")?;
    let (free_at, free_txout) = (outpoint(&free)?, txout(&free)?);
    let theirs = stage.coins(TAP).await?.pop().context("a coin of another wallet")?;
    let (theirs_at, theirs_txout) = (outpoint(&theirs)?, txout(&theirs)?);
    let nowhere = OutPoint::new(Txid::all_zeros(), 3);
    let foreign = |coin: &OutPoint| refusal("FOREIGN_INPUT").naming([coin]);
    let first = reserved[0];
    let cases = vec![
        (
            "a coin of nobody",
            spoil(move |draft| draft.psbt.unsigned_tx.input[1].previous_output = nowhere),
            foreign(&nowhere),
        ),
        ("one coin more, of nobody", spoil(move |draft| draft.add_input(nowhere, None)), foreign(&nowhere)),
        (
            "one coin more, not reserved",
            spoil(move |draft| draft.add_input(free_at, Some(free_txout.clone()))),
            foreign(&free_at),
        ),
        (
            "one coin more, of another wallet",
            spoil(move |draft| draft.add_input(theirs_at, Some(theirs_txout.clone()))),
            foreign(&theirs_at),
        ),
        ("a coin is missing", spoil(drop_second), refusal("INPUT_MISSING").naming(&reserved[1..])),
        (
            "a coin twice",
            spoil(move |draft| draft.add_input(first, None)),
            refusal("DUPLICATE_INPUT").field("psbt.inputs[2]").naming([&first]),
        ),
        ("two strange coins", spoil(both_strange), refusal("FOREIGN_INPUT").naming(&strange())),
    ];
    refuse_each(stage, &draft, cases).await;
    stage.release(&draft.reservation).await
}

/// What no transaction of the service may be.
pub async fn transactions(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "transactions").await?;
    let tip = stage.cluster.bitcoinds()[0].height()?;
    let broken = |text: &str| refusal("PSBT_INVALID").saying(text);
    let lock = move |at: u32| {
        spoil(move |draft| draft.psbt.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_consensus(at))
    };
    let cases = vec![
        ("version 3", spoil(|draft| draft.psbt.unsigned_tx.version.0 = 3), broken("version")),
        ("a lock time above the tip", lock(tip + 1), broken("lock time")),
        ("a lock time by clock", lock(1_700_000_000), broken("lock time")),
        (
            "a relative lock time",
            spoil(|draft| draft.psbt.unsigned_tx.input[0].sequence = bitcoin::Sequence::from_height(1)),
            broken("relative lock time"),
        ),
    ];
    refuse_each(stage, &draft, cases).await;
    for (what, inputs, outputs) in [("401 inputs", 401, 1), ("1002 outputs", 1, 1002)] {
        let mut large = draft.clone();
        for vout in 2..inputs {
            large.add_input(OutPoint::new(Txid::all_zeros(), vout), None);
        }
        for _ in 2..outputs {
            large.add_output(crate::keys::stranger(1), 1_000);
        }
        let what = format!("{what} at least");
        stage
            .refuses(Who::Client, &what, &broken("there must be 1 to"), async |mut to| {
                to.payment.sign_psbt(large.request()).await
            })
            .await;
    }
    let signed = signed_transaction(&draft.psbt);
    stage
        .refuses(Who::Client, "a scriptSig", &broken("scriptSig"), async |mut to| {
            to.payment.sign_psbt(draft.request_with(&signed)).await
        })
        .await;
    stage.release(&draft.reservation).await
}

/// What a request must say besides the PSBT.
pub async fn requests(stage: &mut Stage) -> Result<()> {
    let draft = Draft::new(stage, HOT, "requests").await?;
    let good = draft.request();
    let sign = async |mut to: crate::door::Clients, request: v1::SignPsbtRequest| to.payment.sign_psbt(request).await;
    let fence = good.fence;
    let cases = vec![
        ("no fence", v1::SignPsbtRequest { fence: 0, ..good.clone() }, invalid(&["fence"])),
        (
            "a fence without a reservation",
            v1::SignPsbtRequest { reservation_id: String::new(), ..good.clone() },
            invalid(&["fence"]),
        ),
        (
            "neither a reservation nor anything to replace",
            v1::SignPsbtRequest {
                reservation_id: String::new(),
                fence: 0,
                request_id: crate::stage::id(),
                ..good.clone()
            },
            refusal("RESERVATION_UNKNOWN"),
        ),
        (
            "a stale fence",
            v1::SignPsbtRequest { fence: fence - 1, request_id: crate::stage::id(), ..good.clone() },
            refusal("STALE_FENCE").with("fence", fence),
        ),
        (
            "no reservation of this name",
            v1::SignPsbtRequest {
                reservation_id: "r-999999999".into(),
                request_id: crate::stage::id(),
                ..good.clone()
            },
            refusal("RESERVATION_UNKNOWN"),
        ),
        (
            "a reservation for another payment",
            v1::SignPsbtRequest { payment_id: "another".into(), request_id: crate::stage::id(), ..good.clone() },
            refusal("RESERVED_FOR_OTHER").with("payment_id", "requests"),
        ),
        (
            "no such wallet",
            v1::SignPsbtRequest { wallet_id: "nobody".into(), request_id: crate::stage::id(), ..good.clone() },
            refusal("WALLET_UNKNOWN"),
        ),
    ];
    for (what, request, wanted) in cases {
        stage.refuses(Who::Client, what, &wanted, async |to| sign(to, request.clone()).await).await;
    }
    let theirs = refusal("NOT_OWNER").with("owner", "client/payouts");
    stage.refuses(Who::Other, "the reservation of another", &theirs, async |to| sign(to, draft.request()).await).await;
    stage.release(&draft.reservation).await?;
    let ended = refusal("RESERVATION_RELEASED");
    stage.refuses(Who::Client, "a released reservation", &ended, async |to| sign(to, draft.request()).await).await;
    Ok(())
}

fn sign_second(draft: &mut Draft) {
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[1; 32]).expect("a key");
    let signature = secp.sign_ecdsa(&Message::from_digest([2; 32]), &secret);
    let signature = ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All };
    draft.psbt.inputs[1].partial_sigs.insert(PublicKey::new(secret.public_key(&secp)), signature);
}

fn schnorr() -> taproot::Signature {
    let secp = Secp256k1::new();
    let keypair = Keypair::from_seckey_slice(&secp, &[1; 32]).expect("a key");
    let signature = secp.sign_schnorr_no_aux_rand(&Message::from_digest([2; 32]), &keypair);
    taproot::Signature { signature, sighash_type: TapSighashType::Default }
}

fn internal_key() -> XOnlyPublicKey {
    let secp = Secp256k1::new();
    Keypair::from_seckey_slice(&secp, &[1; 32]).expect("a key").x_only_public_key().0
}

fn lie_of_value(draft: &mut Draft, more_sat: i64) {
    let claimed = draft.psbt.inputs[1].witness_utxo.as_mut().expect("a claim");
    claimed.value = Amount::from_sat(claimed.value.to_sat().saturating_add_signed(more_sat));
}

fn lie_of_script(draft: &mut Draft, script: ScriptBuf) {
    draft.psbt.inputs[1].witness_utxo.as_mut().expect("a claim").script_pubkey = script;
}

fn other_parent(draft: &mut Draft) {
    // Any transaction but the coin's own.
    draft.psbt.inputs[1].non_witness_utxo = Some(draft.psbt.unsigned_tx.clone());
}

fn with_leaf(draft: &mut Draft) {
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let spend = TaprootBuilder::new().add_leaf(0, script.clone()).expect("one leaf");
    let spend = spend.finalize(&Secp256k1::new(), internal_key()).expect("one leaf");
    let leaf = (script, LeafVersion::TapScript);
    let control = spend.control_block(&leaf).expect("a leaf of this tree");
    draft.psbt.inputs[1].tap_scripts.insert(control, leaf);
}

fn drop_second(draft: &mut Draft) {
    draft.psbt.unsigned_tx.input.truncate(1);
    draft.psbt.inputs.truncate(1);
    // The fee stays sensible.
    let half = draft.psbt.unsigned_tx.output[crate::draft::CHANGE_VOUT].value.to_sat() - crate::stage::COIN_SAT;
    draft.psbt.unsigned_tx.output[crate::draft::CHANGE_VOUT].value = Amount::from_sat(half);
}

fn strange() -> [OutPoint; 2] {
    [OutPoint::new(Txid::all_zeros(), 1), OutPoint::new(Txid::all_zeros(), 2)]
}

fn both_strange(draft: &mut Draft) {
    for (input, coin) in draft.psbt.unsigned_tx.input.iter_mut().zip(strange()) {
        input.previous_output = coin;
    }
}

/// BIP-370: a version field of 2 and counts instead of a transaction.
fn version_two() -> Vec<u8> {
    let mut bytes = b"psbt\xff".to_vec();
    for (key, value) in [(0x02, vec![2, 0, 0, 0]), (0x04, vec![0]), (0x05, vec![0]), (0xfb, vec![2, 0, 0, 0])] {
        bytes.extend([1, key, u8::try_from(value.len()).expect("short")]);
        bytes.extend(value);
    }
    bytes.push(0);
    bytes
}

/// The same field so many times at the front of the global map.
fn with_global_field(psbt: &[u8], key: &[u8], times: usize) -> Vec<u8> {
    let mut bytes = b"psbt\xff".to_vec();
    for _ in 0..times {
        bytes.push(u8::try_from(key.len()).expect("short"));
        bytes.extend(key);
        bytes.extend([1, 0]);
    }
    bytes.extend(&psbt[5..]);
    bytes
}

fn empty_transaction() -> Vec<u8> {
    let transaction = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [b"psbt\xff\x01\x00\x0a".as_slice(), &transaction, &[0]].concat()
}

/// The PSBT with a scriptSig in its transaction, which the crate refuses to write.
fn signed_transaction(psbt: &Psbt) -> Vec<u8> {
    let length_of = |transaction: &Transaction| bitcoin::consensus::serialize(transaction).len();
    let mut spoilt = psbt.unsigned_tx.clone();
    spoilt.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    let (old, new) = (length_of(&psbt.unsigned_tx), length_of(&spoilt));
    let mut bytes = b"psbt\xff\x01\x00".to_vec();
    bytes.push(u8::try_from(new).expect("below 253 bytes"));
    bytes.extend(bitcoin::consensus::serialize(&spoilt));
    bytes.extend(&psbt.serialize()[5 + 3 + old..]);
    bytes
}
