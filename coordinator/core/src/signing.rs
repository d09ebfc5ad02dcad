//! Intents and permits: the only way to a signature (safety 3, 8, 11, 14).

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{Message, Secp256k1, XOnlyPublicKey, schnorr};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, WPubkeyHash, WScriptHash};

use crate::apply::Context;
use crate::command::{AbortAttempt, Change, FenceKey, Recipient};
use crate::ids::{AttemptNo, Fence, PaymentId, PaymentKey};
use crate::outcome::{Outcome, Rejection};
use crate::payment::{Attempt, AttemptEnd, AttemptKind, Payment, check_owner, number_at};
use crate::recovery;
use crate::replacement;
use crate::settlement::{self, AttemptState};
use crate::spending;
use crate::state::State;
use crate::utxo::Claim;
use crate::wallet::{Keychain, SignerRef, WalletDescriptor};

/// The sighash byte at the end of a signature (BIP-143); BIP-341 may leave it out for the same meaning.
const SIGHASH_ALL: u8 = 1;
/// A DER signature with a low S, which is what nodes relay (BIP-146), and its sighash byte.
const MAX_ECDSA_LEN: usize = 72;

/// A transaction that passed every check and asks for its intent.
pub(crate) struct Proposal<'a> {
    pub(crate) transaction: Transaction,
    pub(crate) fee_sat: u64,
    pub(crate) change: Option<Change>,
    pub(crate) recipients: &'a [Recipient],
    pub(crate) digest: [u8; 32],
    pub(crate) kind: Option<AttemptKind>,
    pub(crate) bumps: Option<PaymentId>,
}

impl<'a> Proposal<'a> {
    /// One that pays the recipients and has no change.
    pub(crate) fn paying(
        transaction: Transaction,
        fee_sat: u64,
        recipients: &'a [Recipient],
        digest: [u8; 32],
    ) -> Self {
        Self { transaction, fee_sat, change: None, recipients, digest, kind: None, bumps: None }
    }

    /// What it lets leave the wallet beyond what live attempts of the payment do, for the velocity limit. Once all are
    /// dead, nothing of them leaves any more, and what is ordered anew leaves as if it were the first.
    fn leaving_sat(&self, payment: Option<&Payment>) -> u64 {
        let live = payment.iter().flat_map(|payment| &payment.attempts).filter(|attempt| attempt.is_live());
        if let Some(highest) = live.map(|attempt| attempt.fee_sat).max() {
            return self.fee_sat.saturating_sub(highest);
        }
        // A child pays an own address: only its fee leaves.
        let paid = if self.bumps.is_some() { &[] } else { self.recipients };
        paid.iter().fold(self.fee_sat, |sum, one| sum.saturating_add(one.amount_sat))
    }
}

/// Commits the intent: the attempt exists, its coins are exposed. Callers have checked that the coins may be had.
/// A refusal comes before the first change.
pub(crate) fn grant(
    state: &mut State,
    ctx: &Context,
    key: &PaymentKey,
    proposal: Proposal<'_>,
) -> Result<Outcome, Rejection> {
    if let Some(payment) = state.payment(key) {
        replacement::check_further(state, key, payment)?;
    }
    let leaving_sat = proposal.leaving_sat(state.payment(key));
    spending::check(state, &key.wallet, ctx.now, leaving_sat)?;
    let attempt = Attempt {
        fence: state.fence_at(ctx.index),
        transaction: proposal.transaction,
        fee_sat: proposal.fee_sat,
        change: proposal.change,
        signed: None,
        relay: None,
        end: None,
        kind: proposal.kind,
    };
    let owner = ctx.caller()?.clone();
    let inputs: Vec<OutPoint> = attempt.inputs().collect();
    let first =
        *inputs.first().ok_or_else(|| Rejection::TransactionInvalid { rule: "there are no inputs".to_owned() })?;
    for outpoint in &inputs {
        state.update_utxo(outpoint, |utxo| utxo.claim = Claim::Exposed(key.payment.clone()));
    }
    if state.payment(key).is_none() {
        state.put_payment(
            key.clone(),
            Payment {
                owner,
                digest: proposal.digest,
                recipients: proposal.recipients.to_vec(),
                anchor: None,
                attempts: Vec::new(),
                created: ctx.now,
                created_wall_ms: ctx.wall_ms,
                changed_at: ctx.index,
                bumps: proposal.bumps,
                undone: None,
            },
        );
    }
    spending::count(state, &key.wallet, ctx.now, leaving_sat);
    let number = state.change_payment(key, |payment| {
        payment.anchor.get_or_insert(first);
        payment.attempts.push(attempt);
        number_at(payment.attempts.len() - 1)
    });
    number.map(|attempt| Outcome::Permitted { payment: key.clone(), attempt }).ok_or(Rejection::PaymentUnknown)
}

/// Records a signature before anybody is shown it. The first one stays: a retry returns the same bytes.
///
/// Also in recovery mode (safety 30), and for a frozen wallet: nothing is signed here. The signature exists, for an intent
/// that this log has committed, and forgetting it would only hide what may confirm anyhow.
pub(crate) fn record(
    state: &mut State,
    key: &PaymentKey,
    number: AttemptNo,
    signed: &Transaction,
) -> Result<Outcome, Rejection> {
    let attempt = state.payment(key).and_then(|payment| payment.attempt(number)).ok_or(Rejection::PaymentUnknown)?;
    let unsigned_again = Transaction {
        input: signed
            .input
            .iter()
            .map(|input| bitcoin::TxIn { witness: bitcoin::Witness::new(), ..input.clone() })
            .collect(),
        ..signed.clone()
    };
    if attempt.end == Some(AttemptEnd::Aborted) {
        return Err(Rejection::AttemptAborted);
    }
    if unsigned_again != attempt.transaction || !signed.input.iter().all(|input| is_plainly_signed(state, input)) {
        return Err(Rejection::SignatureMismatch);
    }
    if attempt.signed.is_none() {
        state.change_payment(key, |payment| {
            if let Some(attempt) = payment.attempt_mut(number) {
                attempt.signed = Some(signed.clone());
            }
        });
    }
    Ok(Outcome::Recorded)
}

/// Whether the witness has the form of one signature over all inputs and outputs (safety 14, 20): a key's own script,
/// no script path, no annex, no other sighash. Whether the signature is true is for the leader to check before.
fn is_plainly_signed(state: &State, input: &TxIn) -> bool {
    let Some(utxo) = state.utxo(&input.previous_output) else {
        // The attempt ended long ago, and nothing can come of its signature any more.
        return !input.witness.is_empty();
    };
    let items: Vec<&[u8]> = input.witness.iter().collect();
    match items.as_slice() {
        [signature, key] if utxo.script.is_p2wpkh() => {
            let signs_all = signature.len() <= MAX_ECDSA_LEN && signature.last() == Some(&SIGHASH_ALL);
            signs_all && key.len() == 33 && utxo.script == ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(key))
        }
        [signature] if utxo.script.is_p2tr() => {
            signature.len() == 64 || (signature.len() == 65 && signature.last() == Some(&SIGHASH_ALL))
        }
        // sortedmulti: the item that OP_CHECKMULTISIG takes too many (BIP-147), signatures, the script.
        [[], signatures @ .., script] if utxo.script.is_p2wsh() => {
            let signs_all = |one: &&[u8]| one.len() <= MAX_ECDSA_LEN && one.last() == Some(&SIGHASH_ALL);
            let own_script = utxo.script == ScriptBuf::new_p2wsh(&WScriptHash::hash(script));
            !signatures.is_empty() && signatures.iter().all(signs_all) && own_script
        }
        _ => false,
    }
}

/// Frees an attempt that an external signer has proved to have fenced (safety 6): it was not signed, and never will be. Of a
/// payment an end of which was undone the chain alone ends attempts: one may be signed that its signer had given up.
pub(crate) fn abort(state: &mut State, ctx: &Context, command: &AbortAttempt) -> Result<Outcome, Rejection> {
    let wallet = state.wallet(&command.key.wallet)?;
    let payment = state.payment(&command.key).ok_or(Rejection::PaymentUnknown)?;
    check_owner(ctx, payment)?;
    let attempt = payment.attempt(command.attempt).ok_or(Rejection::PaymentUnknown)?;
    let unsupported = |why: &str| Err(Rejection::AbortUnsupported { why: why.to_owned() });
    let (SignerRef::External, Some(FenceKey(fence_key))) = (&wallet.signer, wallet.fence_key) else {
        return unsupported("it has no external signer with a fence key");
    };
    match attempt.end {
        Some(AttemptEnd::Aborted) => return Ok(Outcome::Recorded),
        Some(AttemptEnd::Settled(_) | AttemptEnd::Dead(_)) => return unsupported("the attempt has ended already"),
        None if attempt.signed.is_some() => return unsupported("the attempt is signed"),
        // Whatever its signer says: a block shows that it was signed, or that its coins are gone.
        None if settlement::attempt_state(state, attempt) != AttemptState::Signing => {
            return unsupported("a block has it, or another transaction that spends one of its coins");
        }
        // A block may have had the very transaction of which its signer had said that it would never be.
        None if payment.undone.is_some() => {
            return unsupported("an end of this payment was undone: its signer's word counts no more");
        }
        None => {}
    }
    let message = abort_message(state.network()?, &command.key, command.attempt, attempt);
    if !is_signed_by(&fence_key, &message, &command.proof) {
        return Err(Rejection::AbortProofInvalid);
    }
    settlement::end_attempts(state, &command.key, vec![(command.attempt, AttemptEnd::Aborted)]);
    Ok(Outcome::Recorded)
}

/// What the fence key signs to say: I have not signed this attempt, and from now on I never will. The tagged hash
/// (BIP-340) with the tag `onespend/abort-attempt` of the network's magic, the names with their lengths as 64-bit
/// big-endian numbers before them, the attempt's number and fence, big-endian too, and its txid in internal byte order.
pub fn abort_message(network: Network, key: &PaymentKey, number: AttemptNo, attempt: &Attempt) -> [u8; 32] {
    let tag = sha256::Hash::hash(b"onespend/abort-attempt");
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_ref());
    engine.input(tag.as_ref());
    engine.input(&network.magic().to_bytes());
    for name in [key.wallet.as_str(), key.payment.as_str()] {
        engine.input(&(name.len() as u64).to_be_bytes());
        engine.input(name.as_bytes());
    }
    engine.input(&number.0.to_be_bytes());
    engine.input(&attempt.fence.0.to_be_bytes());
    engine.input(attempt.txid().as_ref());
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn is_signed_by(key: &[u8; 32], message: &[u8; 32], proof: &[u8]) -> bool {
    let (Ok(key), Ok(proof)) = (XOnlyPublicKey::from_slice(key), schnorr::Signature::from_slice(proof)) else {
        return false;
    };
    Secp256k1::verification_only().verify_schnorr(&proof, &Message::from_digest(*message), &key).is_ok()
}

/// One coin that a permit lets a signer spend, from our own view of the chain (safety 18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermittedInput {
    /// The coin.
    pub outpoint: OutPoint,
    /// Its value and script.
    pub txout: TxOut,
    /// Chain of the descriptor.
    pub keychain: Keychain,
    /// Index on that chain.
    pub index: u32,
}

/// The value that a signer demands. Only [`SigningPermit::for_attempt`] makes one, from an intent that is committed
/// and applied on this node (safety 3).
///
/// Anybody may read one:
/// ```
/// use onespend_core::{ids::Fence, signing::SigningPermit};
/// fn read(permit: &SigningPermit) -> Fence {
///     permit.fence()
/// }
/// ```
/// Nobody outside this module can make one up, or change one: all that is wrong with this is that `fence` is private.
/// ```compile_fail,E0451
/// use onespend_core::{ids::Fence, signing::SigningPermit};
/// fn forge(permit: SigningPermit) -> SigningPermit {
///     SigningPermit { fence: Fence(1), ..permit }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningPermit {
    key: PaymentKey,
    attempt: AttemptNo,
    fence: Fence,
    signer: SignerRef,
    descriptor: WalletDescriptor,
    transaction: Transaction,
    inputs: Vec<PermittedInput>,
    change: Option<Change>,
    position: Fence,
    dead: BTreeSet<Txid>,
}

impl SigningPermit {
    /// The permit of a committed intent. `None` when there is no such attempt, when it is signed already or has
    /// ended, when another attempt could pay a second time ([`Payment::has_rival`]), when the wallet is frozen, or while a
    /// restored state is not confirmed (safety 30).
    pub fn for_attempt(state: &State, key: &PaymentKey, number: AttemptNo) -> Option<Self> {
        let wallet = state.active_wallet(&key.wallet).ok()?;
        recovery::check(state).ok()?;
        let payment = state.payment(key)?;
        let attempt = payment.attempt(number)?;
        if attempt.signed.is_some() || attempt.end.is_some() || payment.has_rival(attempt) {
            return None;
        }
        let inputs = attempt.inputs().map(|outpoint| {
            let utxo = state.utxo(&outpoint)?;
            let txout = TxOut { value: Amount::from_sat(utxo.value_sat), script_pubkey: utxo.script.clone() };
            let owned = utxo.claim == Claim::Exposed(key.payment.clone());
            owned.then_some(PermittedInput { outpoint, txout, keychain: utxo.keychain, index: utxo.index })
        });
        Some(Self {
            key: key.clone(),
            attempt: number,
            fence: attempt.fence,
            signer: wallet.signer.clone(),
            descriptor: wallet.descriptor.clone(),
            transaction: attempt.transaction.clone(),
            inputs: inputs.collect::<Option<_>>()?,
            change: attempt.change.clone(),
            position: state.fence(),
            dead: BTreeSet::new(),
        })
    }

    /// Adds the proof that lets a signer with a memory give a coin to another payment, or the permit's own payment
    /// another anchor: which attempts of an earlier payment, or of its own, are dead, so that nothing that was signed for
    /// them can ever confirm (safety 6, 9). A payment that the state does not know proves nothing. The signer names the
    /// other payments that it remembers, so no index of dead attempts has to be kept.
    pub fn with_dead(mut self, state: &State, earlier: &PaymentKey) -> Self {
        let attempts = state.payment(earlier).into_iter().flat_map(|payment| &payment.attempts);
        let dead = attempts.filter(|attempt| matches!(attempt.end, Some(AttemptEnd::Dead(_))));
        self.dead.extend(dead.map(Attempt::txid));
        self
    }

    /// The payment.
    pub fn key(&self) -> &PaymentKey {
        &self.key
    }

    /// The attempt.
    pub fn attempt(&self) -> AttemptNo {
        self.attempt
    }

    /// The log index of the intent.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Who has to sign.
    pub fn signer(&self) -> &SignerRef {
        &self.signer
    }

    /// The wallet's descriptor.
    pub fn descriptor(&self) -> &WalletDescriptor {
        &self.descriptor
    }

    /// The unsigned transaction: always the same bytes for an attempt (safety 14).
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Its txid.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    /// The coins, in the order of the transaction's inputs.
    pub fn inputs(&self) -> &[PermittedInput] {
        &self.inputs
    }

    /// The change output, if any.
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// Whether nobody but the wallet gets anything: its change is the one output, as of a cancellation. That the change
    /// goes to the wallet was checked when the intent was granted, and each signer checks it again (safety 21).
    pub fn pays_only_the_wallet(&self) -> bool {
        let change = self.change.as_ref().map(|change| change.vout);
        self.transaction.output.len() == 1 && change == Some(0)
    }

    /// How far the log was when the permit was made, as the fence that an intent at the last applied entry would
    /// have. A signer that has seen a higher fence before faces a log that lost entries (safety 12, 30).
    pub fn position(&self) -> Fence {
        self.position
    }

    /// Transactions that are dead, of the payments that [`Self::with_dead`] was asked about.
    pub fn dead(&self) -> &BTreeSet<Txid> {
        &self.dead
    }
}
