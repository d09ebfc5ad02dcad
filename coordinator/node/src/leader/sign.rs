//! From a committed intent to a recorded signature: permit, signer, log. The same bytes whoever asks and however
//! often (safety 3, 13, 14).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{OutPoint, Transaction, Txid};
use onespend_adapters::signer::memory::Refusal;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::command::Command;
use onespend_core::ids::{AttemptNo, Fence, PaymentKey};
use onespend_core::outcome::Outcome;
use onespend_core::payment::{Attempt, Payment};
use onespend_core::signing::SigningPermit;
use onespend_core::state::State;
use onespend_core::wallet::{SignerRef, WalletDescriptor};
use tokio::sync::Semaphore;
use tracing::{Instrument, error, info, info_span, warn};

use super::broadcast::Outbox;
use super::refusals::Refusals;
use crate::alarms::Alarms;
use crate::grpc::turns::Turns;
use crate::metrics;
use crate::replica::Replica;
use crate::runtime;

/// The alarm when a signer has signed what the cluster's log lacks.
pub const FROZEN: &str = "SIGNER_FROZEN";
/// The alarm while a signer has not accepted the epoch that the cluster's log is in.
pub const NOT_ACCEPTED: &str = "SIGNER_NOT_ACCEPTED";
/// Most calls of one signer at once.
const MAX_OF_SIGNER: usize = 16;
/// Most calls of all signers at once. Each takes a thread while it lasts, of the 512 that tokio has for such work.
const MAX_AT_ONCE: usize = 256;

/// A signer with its own places for calls: one that hangs on all of them keeps no other from signing.
struct Desk {
    signer: Arc<dyn Signer>,
    places: Semaphore,
}

/// A signer of which no operator has said that its memory knows what it must, for the epoch that the log is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unaccepted {
    /// The signer's name.
    pub signer: String,
    /// The epoch of the log.
    pub epoch: u32,
    /// The last one that the signer has accepted.
    pub accepted: u32,
}

impl fmt::Display for Unaccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signer, epoch, accepted } = self;
        write!(f, "signer {signer} has accepted the log up to epoch {accepted}, and the log is in epoch {epoch}")
    }
}

/// How many places each of so many signers has.
fn places(signers: usize) -> usize {
    MAX_OF_SIGNER.min(MAX_AT_ONCE / signers.max(1))
}

/// The way to the signers of this node.
pub struct Signing {
    replica: Arc<Replica>,
    signers: BTreeMap<String, Desk>,
    outbox: Outbox,
    turns: Turns<(PaymentKey, AttemptNo)>,
    /// Attempts that a signer is at work on.
    working: Mutex<BTreeSet<(PaymentKey, AttemptNo)>>,
    refusals: Refusals,
    alarms: Arc<Alarms>,
}

impl Signing {
    /// Signers by the names that wallets refer to. One that is frozen raises its alarm at once.
    pub fn new(replica: Arc<Replica>, signers: Vec<Arc<dyn Signer>>, outbox: Outbox, alarms: Arc<Alarms>) -> Self {
        let places = places(signers.len());
        let desk = |signer: Arc<dyn Signer>| Desk { signer, places: Semaphore::new(places) };
        let signing = Self {
            replica,
            signers: signers.into_iter().map(|signer| (signer.name().to_owned(), desk(signer))).collect(),
            outbox,
            turns: Turns::default(),
            working: Mutex::default(),
            refusals: Refusals::default(),
            alarms,
        };
        for name in signing.signers.keys() {
            metrics::signer_begins(name);
        }
        signing.report_frozen();
        signing
    }

    /// A node whose signer is frozen must not be sent spends: no payment would get beyond its intent.
    fn report_frozen(&self) {
        let mut told = Vec::new();
        for (name, desk) in &self.signers {
            let frozen = desk.signer.frozen();
            metrics::signer_frozen(name, frozen.is_some());
            told.extend(frozen.map(|why| format!("signer {name}: {why}")));
        }
        if !told.is_empty() {
            self.alarms.raise(FROZEN, &told.join("; "));
        }
    }

    /// The highest fence epoch that a signer of this node has seen or accepted, of those that remember.
    pub fn epoch(&self) -> u32 {
        let of = |signer: &dyn Signer| signer.highest_fence().map(Fence::epoch).max(signer.accepted_epoch());
        self.signers.values().filter_map(|desk| of(desk.signer.as_ref())).max().unwrap_or(0)
    }

    /// The signers of this node that have not accepted the epoch of its state. None while the state is not confirmed:
    /// until then nothing is signed anyhow, and the epoch to accept is not known.
    pub fn unaccepted(&self) -> Vec<Unaccepted> {
        // The state first: no signer accepts less later, so what one lacks at the second look it lacked at the first.
        let Some(epoch) = self.replica.read(|state| state.recovery().is_none().then(|| state.epoch())) else {
            return Vec::new();
        };
        let lacks = |(name, desk): (&String, &Desk)| {
            let accepted = desk.signer.accepted_epoch().filter(|accepted| *accepted < epoch)?;
            Some(Unaccepted { signer: name.clone(), epoch, accepted })
        };
        self.signers.iter().filter_map(lacks).collect()
    }

    /// Has the signers of this node accept an epoch, on the word of an operator; the names of those that did. Blocks
    /// for a write to the disk.
    pub fn accept(&self, epoch: u32, who: &str) -> Vec<String> {
        let remember = self.signers.iter().filter(|(_, desk)| desk.signer.accepted_epoch().is_some());
        let accepts = |(name, desk): (&String, &Desk)| match desk.signer.accept_epoch(epoch, who) {
            Ok(()) => {
                info!(signer = name, epoch, who, "the signer has accepted the epoch of the log");
                Some(name.clone())
            }
            Err(error) => {
                error!(signer = name, epoch, %error, "the signer has not accepted the epoch, so it signs nothing");
                None
            }
        };
        remember.filter_map(accepts).collect()
    }

    /// Says which signer has signed under a fence above all that the state of this leader has granted, if one has: what
    /// told it to sign is not in the log any more (safety 12, 30). A leader that is ready has applied all that was
    /// committed, and nothing is signed before that (safety 3), so this is never for a reason that heals.
    pub fn ahead(&self) -> Option<String> {
        // The signers first: what one signs between the two looks is granted by the state of the second.
        let signed: Vec<_> =
            self.signers.iter().filter_map(|(name, desk)| Some((name, desk.signer.highest_fence()?))).collect();
        let granted = self.replica.read(State::fence);
        let (name, fence) = signed.into_iter().find(|(_, fence)| *fence > granted)?;
        let (signed, reached) = (fence.spelled(), granted.spelled());
        Some(format!("signer {name} has signed under fence {signed}, and the log has reached {reached} only"))
    }

    /// The transactions that the signers of this node remember to have signed these coins away by, each with its coin and
    /// the signer's name. Blocks for reads of the disk.
    ///
    /// # Errors
    /// What one of them remembers cannot be read.
    pub fn spenders(&self, coins: &[OutPoint]) -> Result<Vec<(OutPoint, Txid, &str)>, SignerError> {
        let mut all = Vec::new();
        for (name, desk) in &self.signers {
            let spent = desk.signer.spenders(coins)?;
            all.extend(spent.into_iter().map(|(coin, by)| (coin, by, name.as_str())));
        }
        Ok(all)
    }

    /// Whether a signer of this name is configured.
    pub fn knows(&self, name: &str) -> bool {
        self.signers.contains_key(name)
    }

    /// Whether the signer can sign for a wallet of this descriptor, so that a wallet with the wrong keys is refused
    /// when it is registered and not when it pays.
    ///
    /// # Errors
    /// What it has instead, in words.
    pub fn holds(&self, name: &str, descriptor: &WalletDescriptor) -> Result<(), String> {
        let desk = self.signers.get(name).ok_or_else(|| format!("signer {name} is not configured on this node"))?;
        if desk.signer.holds(descriptor) {
            return Ok(());
        }
        Err(format!("signer {name} has no private key for this descriptor; see its file for those that it has"))
    }

    /// Signs an attempt and hands it on to broadcast, and waits for that no longer than the caller does. The work
    /// goes on when the caller has gone.
    pub async fn sign(self: &Arc<Self>, key: &PaymentKey, attempt: AttemptNo, deadline: Instant) {
        let (signing, key) = (Arc::clone(self), key.clone());
        let span = info_span!("sign", payment = %key, attempt = attempt.0);
        let work = runtime::spawn(async move { signing.work(&key, attempt).await }.instrument(span));
        // Late or failed, the caller is shown the payment as it stands, and the duties drive it on.
        let _ = runtime::timeout_at(deadline.into(), work).await;
    }

    /// Whether a signer is at work on an attempt, however long it takes.
    fn is_working(&self, key: &PaymentKey, attempt: AttemptNo) -> bool {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.contains(&(key.clone(), attempt))
    }

    fn note_working(&self, key: &PaymentKey, attempt: AttemptNo, at_work: bool) {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work {
            working.insert((key.clone(), attempt));
        } else {
            working.remove(&(key.clone(), attempt));
        }
    }

    async fn work(&self, key: &PaymentKey, attempt: AttemptNo) {
        let _turn = self.turns.take((key.clone(), attempt)).await;
        self.note_working(key, attempt, true);
        self.sign_once(key, attempt).await;
        self.note_working(key, attempt, false);
    }

    async fn sign_once(&self, key: &PaymentKey, attempt: AttemptNo) {
        let signer = self.permit(key, attempt, &[]).map(|permit| permit.signer().clone());
        // What is signed for outside comes back through SubmitSignedTransaction.
        let Some(SignerRef::Named(name)) = signer else { return };
        let Some(mut signed) = self.call(&name, || self.permit(key, attempt, &[])).await else { return };
        if let Some(earlier) = wants_proof(&signed)
            && let Some(again) = self.call(&name, || self.permit(key, attempt, &earlier)).await
        {
            signed = again;
        }
        match signed {
            Ok(transaction) => self.record(key, attempt, transaction).await,
            Err(error) if error.retry() => warn!(%error, "the signer cannot sign now; it is asked again"),
            Err(error) => self.report_refusal(key, attempt, &error),
        }
    }

    /// The permit as of now, with the proof of what became of the payment's own attempts, and of earlier payments for the
    /// same coins. The own ones are never asked for: a signer names one thing that it misses at a time, and is asked once
    /// more only. A state that most other nodes contradict permits nothing (safety 31), nor does one that came out of a
    /// backup (safety 30). Nothing is permitted to a signer that has not accepted the state's epoch: what was signed before
    /// it, other memories alone may know (safety 8).
    fn permit(&self, key: &PaymentKey, attempt: AttemptNo, earlier: &[PaymentKey]) -> Option<SigningPermit> {
        if self.alarms.stop_signing() {
            return None;
        }
        let permit = self.replica.read(|state| {
            let permit = SigningPermit::for_attempt(state, key, attempt)?.with_dead(state, key);
            Some(earlier.iter().fold(permit, |permit, earlier| permit.with_dead(state, earlier)))
        })?;
        self.has_accepted(&permit).then_some(permit)
    }

    /// Whether the signer that has to sign has accepted the epoch that the permit was made in.
    fn has_accepted(&self, permit: &SigningPermit) -> bool {
        let SignerRef::Named(name) = permit.signer() else { return true };
        let accepted = self.signers.get(name).and_then(|desk| desk.signer.accepted_epoch());
        accepted.is_none_or(|accepted| permit.position().epoch() <= accepted)
    }

    /// Each is counted. It is asked again each second, so the log is told less often.
    fn report_refusal(&self, key: &PaymentKey, attempt: AttemptNo, error: &SignerError) {
        if let SignerError::Remembered { signer, refusal } = error {
            metrics::signer_refused(signer, refusal.rule());
            self.report_frozen();
        }
        if self.refusals.is_due(key, attempt, &error.to_string(), runtime::now()) {
            error!(%error, "the signer refuses; somebody must act");
        }
    }

    /// Has a signer sign, with the permit of the moment at which it has a place: while all of them hang, the wait may be
    /// long, and what was permitted before it may not be so after it (safety 30, 31). `None` if nothing is permitted.
    pub(crate) async fn call(
        &self,
        name: &str,
        permit: impl FnOnce() -> Option<SigningPermit>,
    ) -> Option<Result<Transaction, SignerError>> {
        let unavailable = |why: &str| Err(SignerError::Unavailable { signer: name.to_owned(), why: why.to_owned() });
        let Some(desk) = self.signers.get(name) else {
            return Some(unavailable("it is not configured on this node"));
        };
        let signer = Arc::clone(&desk.signer);
        let Ok(_place) = desk.places.acquire().await else { return Some(unavailable("this node is stopping")) };
        let permit = permit()?;
        let started = Instant::now();
        let span = info_span!("signer", signer = name);
        let signed = runtime::blocking(move || {
            #[cfg(feature = "failpoints")]
            onespend_adapters::failpoints::before_signing();
            span.in_scope(|| signer.sign(&permit))
        })
        .await;
        metrics::signed(name, matches!(signed, Ok(Ok(_))), started.elapsed());
        Some(signed.unwrap_or_else(|_| unavailable("its thread ended")))
    }

    async fn record(&self, key: &PaymentKey, attempt: AttemptNo, transaction: Transaction) {
        let Some(term) = self.replica.leader_term() else {
            // The next leader signs the same bytes again.
            return;
        };
        let txid = transaction.compute_txid();
        let command = Command::RecordSignature { key: key.clone(), attempt, transaction };
        let span = info_span!("propose", command = command.kind());
        match self.replica.propose_as(&term, command).instrument(span).await {
            Ok(applied) if applied.outcome == Outcome::Recorded => {
                info!(%txid, log_index = applied.index.0, "signed");
                self.outbox.put(key.clone(), attempt);
            }
            Ok(applied) => error!(%txid, outcome = ?applied.outcome, "the signature was not recorded"),
            Err(error) => warn!(%txid, %error, "the signature is not recorded yet; it is made again"),
        }
    }
}

/// The other payments whose end a signer wants to see proven before it signs a coin away again. Of the permit's own payment
/// it has seen all the proof there is.
fn wants_proof(signed: &Result<Transaction, SignerError>) -> Option<Vec<PaymentKey>> {
    match signed {
        Err(SignerError::Remembered { refusal, .. }) => match refusal.as_ref() {
            Refusal::SecondPayment { earlier, .. } => Some(earlier.clone()),
            Refusal::NoSharedCoin { .. }
            | Refusal::OtherTransaction { .. }
            | Refusal::LowerFence { .. }
            | Refusal::EpochNotAccepted { .. }
            | Refusal::Frozen { .. } => None,
        },
        _ => None,
    }
}

/// How often payments that wait for a signature are looked for.
const RECONCILE: Duration = Duration::from_secs(1);

/// The leader's duty: drives on every intent that has no signature, those of earlier leaders too.
pub(super) async fn run(duty: Arc<super::Duty>) {
    let mut rounds = Rounds::default();
    loop {
        let deadline = runtime::now().into_std() + RECONCILE;
        let due = rounds.due(duty.replica.read(waiting));
        let signing = due.iter().map(|(key, attempts)| drive(&duty.signing, key, attempts, deadline));
        futures::future::join_all(signing).await;
        runtime::sleep(RECONCILE).await;
    }
}

/// What waits for a signature: the attempts of each payment.
type Waiting = Vec<(PaymentKey, Vec<AttemptNo>)>;

/// Leaves an intent that is younger than the last round to the request that made it, so that it is signed in the trace of
/// that request. What a new leader finds is due at once.
#[derive(Default)]
struct Rounds {
    before: Option<BTreeSet<(PaymentKey, AttemptNo)>>,
}

impl Rounds {
    fn due(&mut self, mut waiting: Waiting) -> Waiting {
        let each = waiting.iter().flat_map(|(key, attempts)| attempts.iter().map(|attempt| (key.clone(), *attempt)));
        let seen = each.collect();
        if let Some(before) = self.before.replace(seen) {
            for (key, attempts) in &mut waiting {
                attempts.retain(|attempt| before.contains(&(key.clone(), *attempt)));
            }
        }
        waiting
    }
}

/// Payments with intents that have no signature and that are signed for here.
fn waiting(state: &State) -> Waiting {
    let here =
        |key: &PaymentKey| state.wallet(&key.wallet).is_ok_and(|wallet| matches!(wallet.signer, SignerRef::Named(_)));
    let open = state.open_payments().into_iter().filter(here);
    let waits = open.map(|key| {
        let numbers = state.payment(&key).map(unsigned).unwrap_or_default();
        (key, numbers)
    });
    waits.filter(|(_, numbers): &(_, Vec<_>)| !numbers.is_empty()).collect()
}

/// The attempts of a payment that wait for a signature. One is left alone while a newer one is signed and may confirm: a
/// signature for it would be no use, and a signer with a memory refuses it (safety 12).
fn unsigned(payment: &Payment) -> Vec<AttemptNo> {
    let is_signed = |attempt: &Attempt| attempt.signed.is_some() && attempt.is_live();
    let newest_signed = payment.numbered().rev().find(|(_, attempt)| is_signed(attempt)).map(|(number, _)| number);
    let newer = payment.numbered().filter(|(number, _)| newest_signed.is_none_or(|signed| *number > signed));
    let open = |attempt: &Attempt| attempt.signed.is_none() && attempt.end.is_none();
    let unsigned = newer.filter(|(_, attempt)| open(attempt) && !payment.has_rival(attempt));
    unsigned.map(|(number, _)| number).collect()
}

/// The attempts of one payment, in their order: they share a coin, and a signer with a memory refuses an older
/// attempt once it has signed a newer one for it that may confirm (safety 12).
async fn drive(signing: &Arc<Signing>, key: &PaymentKey, attempts: &[AttemptNo], deadline: Instant) {
    for attempt in attempts {
        // A signer that hangs is asked once, not once a second.
        if !signing.is_working(key, *attempt) {
            signing.sign(key, *attempt, deadline).await;
        }
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
