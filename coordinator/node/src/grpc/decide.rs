//! From a request to its outcome: one try at a time, facts gathered here, and one entry of the log that decides.

use std::sync::Arc;
use std::time::Instant;

use onespend_core::command::{Command, Request};
use onespend_core::dedup;
use onespend_core::ids::RequestKey;
use onespend_core::outcome::Outcome;
use tokio::time::timeout_at;
use tonic::Status;
use tracing::{Instrument, field, info_span};

use super::status;
use super::turns::Turns;
use crate::raft::Applied;
use crate::replica::Replica;
use crate::selection::Selected;

/// How often facts are gathered, at most, when they are out of date each time.
const MAX_ROUNDS: usize = 8;

/// A command, with what has to stay held until it is decided.
pub(crate) struct Draft {
    pub(crate) command: Command,
    _held: Option<Selected>,
}

impl Draft {
    pub(crate) fn of(command: Command) -> Self {
        Self { command, _held: None }
    }

    /// Coins that were chosen stay unavailable to other selections until the command is decided.
    pub(crate) fn holding(command: Command, held: Selected) -> Self {
        Self { command, _held: Some(held) }
    }
}

/// The way of requests into the log.
pub(crate) struct Decisions {
    replica: Arc<Replica>,
    turns: Turns<RequestKey>,
}

impl Decisions {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, turns: Turns::default() }
    }

    /// Proposes what `gather` drafts until it is decided. The answer to a request that was decided before is the
    /// same again; facts that were out of date are gathered anew. Nothing is waited for beyond the deadline.
    pub(crate) async fn decide<Gather, GatherFuture>(
        &self,
        deadline: Instant,
        request: Request,
        mut gather: Gather,
    ) -> Result<Applied, Status>
    where
        Gather: FnMut() -> GatherFuture + Send,
        GatherFuture: Future<Output = Result<Draft, Status>> + Send,
    {
        let turn = timeout_at(deadline.into(), self.turns.take(request.key.clone())).await;
        let _turn = turn.map_err(|_| status::unknown("an earlier try of this request is still under way"))?;
        let mut rounds = 0;
        loop {
            rounds += 1;
            if let Some(outcome) = self.earlier(&request) {
                return accepted(self.replica.applied(outcome));
            }
            let draft = match timeout_at(deadline.into(), gather()).await {
                Ok(Ok(draft)) => draft,
                Ok(Err(refused)) => return self.refuse(deadline, &request, refused).await,
                Err(_) => return Err(status::unknown("the facts for the decision were not there in time")),
            };
            #[cfg(feature = "sabotage")]
            crate::sabotage::sign_early(&self.replica, &request, &draft.command).await;
            let span = info_span!("propose", command = draft.command.kind(), log_index = field::Empty);
            let proposed = self.replica.propose(Some(request.clone()), draft.command, deadline);
            let proposed = proposed.instrument(span.clone()).await;
            let applied = proposed.map_err(|error| status::proposing(&error))?;
            // Committed by a quorum and applied here.
            span.record("log_index", applied.index.0);
            match &applied.outcome {
                Outcome::Rejected(rejection) if rejection.is_transient() => {
                    if rounds == MAX_ROUNDS {
                        return Err(status::outrun(rejection, rounds));
                    }
                }
                _ => return accepted(applied),
            }
        }
    }

    /// A refusal of this node's own, which no entry records. An earlier try of the same request may still be on its
    /// way through the log; a refusal that came before it would sound as if nothing happened (safety 27).
    async fn refuse(&self, deadline: Instant, request: &Request, refused: Status) -> Result<Applied, Status> {
        if self.replica.all_decided(deadline).await.is_err() {
            return Err(status::unknown("no quorum told in time whether an earlier try was committed"));
        }
        match self.earlier(request) {
            Some(outcome) => accepted(self.replica.applied(outcome)),
            None => Err(refused),
        }
    }

    fn earlier(&self, request: &Request) -> Option<Outcome> {
        self.replica.read(|state| dedup::earlier(state, request))
    }
}

fn accepted(applied: Applied) -> Result<Applied, Status> {
    match &applied.outcome {
        Outcome::Rejected(rejection) => Err(status::rejected(rejection)),
        _ => Ok(applied),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use onespend_core::command::{CreatePayment, Recipient};
    use onespend_core::ids::{PaymentId, PaymentKey};
    use onespend_core::outcome::Rejection;
    use onespend_core::wallet::Keychain;
    use onespend_proto::v1::ErrorReason;
    use tempfile::TempDir;
    use tonic_types::StatusExt;

    use super::*;
    use crate::specimen::{Coin, coin, leader, register, request, script, soon, wallet};

    /// A leader with a wallet.
    async fn with_wallet(folder: &TempDir) -> Arc<Replica> {
        let replica = leader(folder).await;
        replica.propose(None, register("w", &[]), soon()).await.unwrap();
        replica
    }

    fn addresses() -> Command {
        Command::GiveAddresses { wallet: wallet("w"), keychain: Keychain::External, count: 1 }
    }

    fn insufficient() -> Status {
        status::rejected(&Rejection::InsufficientFunds { needed_sat: 2, available_sat: 1 })
    }

    /// safety 27: "not applied" would be false where an earlier try of the request still may be.
    // On one thread, so that the earlier try cannot be through before the refusal.
    #[tokio::test]
    async fn a_refusal_does_not_overtake_an_earlier_try_of_the_request() {
        let folder = TempDir::new().unwrap();
        let replica = with_wallet(&folder).await;
        let decisions = Decisions::new(Arc::clone(&replica));
        let decided = decisions
            .decide(soon(), request("r"), || async {
                // The earlier try is handed to the log, and its caller goes away.
                let mut earlier = Box::pin(replica.propose(Some(request("r")), addresses(), soon()));
                assert!(futures::poll!(&mut earlier).is_pending());
                Err(insufficient())
            })
            .await;
        let outcome = decided.unwrap().outcome;
        assert!(matches!(outcome, Outcome::AddressesGiven { first: 0, count: 1, .. }), "{outcome:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_refusal_without_an_earlier_try_is_the_answer() {
        let folder = TempDir::new().unwrap();
        let decisions = Decisions::new(with_wallet(&folder).await);
        let refused = decisions.decide(soon(), request("r"), || async { Err(insufficient()) }).await.unwrap_err();
        assert!(status::is_for(&refused, ErrorReason::InsufficientFunds), "{refused}");
    }

    /// A payment that spends the only coin of the wallet.
    fn payment(name: &str) -> Command {
        let key = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse(name).unwrap() };
        let recipients = vec![Recipient { script: script("x", Keychain::External, 0), amount_sat: 50_000 }];
        Command::CreatePayment(CreatePayment { key, recipients, outpoints: vec![coin(0)], fee_sat: 1_000 })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_that_others_outran_each_time_is_told_so_and_to_ask_again() {
        let folder = TempDir::new().unwrap();
        let replica = leader(&folder).await;
        replica.propose(None, register("w", &[Coin::of(100_000)]), soon()).await.unwrap();
        let decisions = Decisions::new(replica);
        let quick = decisions.decide(soon(), request("quick"), || async { Ok(Draft::of(payment("quick"))) });
        quick.await.unwrap();
        let mut rounds = 0;
        let slow = decisions.decide(soon(), request("slow"), || {
            rounds += 1;
            async { Ok(Draft::of(payment("slow"))) }
        });
        let refused = slow.await.unwrap_err();
        assert_eq!(rounds, MAX_ROUNDS);
        assert!(status::is_for(&refused, ErrorReason::ChainNotSynced), "{refused}");
        let message = refused.message();
        assert!(message.contains("8 times") && message.contains("coins that were chosen are gone"), "{message}");
        assert!(message.contains("ask again") && !message.contains("bitcoind"), "{message}");
        assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    }

    #[test]
    fn a_cluster_that_never_began_blames_no_other_request() {
        let refused = status::outrun(&Rejection::NotStarted, MAX_ROUNDS);
        assert!(status::is_for(&refused, ErrorReason::ChainNotSynced), "{refused}");
        assert!(refused.message().contains("not_started"), "{refused}");
    }

    /// safety 27: the earlier try may be applied yet.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_retry_waits_for_an_earlier_try_no_longer_than_its_own_deadline() {
        let folder = TempDir::new().unwrap();
        let decisions = Decisions::new(with_wallet(&folder).await);
        let mut earlier = Box::pin(decisions.decide(soon(), request("r"), std::future::pending));
        assert!(futures::poll!(&mut earlier).is_pending());
        let (asked, wait) = (Instant::now(), Duration::from_millis(50));
        let retry = decisions.decide(asked + wait, request("r"), || async { Ok(Draft::of(addresses())) });
        let refused = retry.await.unwrap_err();
        assert!(status::is_for(&refused, ErrorReason::ResultUnknown), "{refused}");
        assert!((wait..wait * 20).contains(&asked.elapsed()));
        drop(earlier);
        let again = decisions.decide(soon(), request("r"), || async { Ok(Draft::of(addresses())) }).await.unwrap();
        assert!(matches!(again.outcome, Outcome::AddressesGiven { first: 0, .. }), "{again:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn facts_are_waited_for_no_longer_than_the_deadline() {
        let folder = TempDir::new().unwrap();
        let decisions = Decisions::new(with_wallet(&folder).await);
        let deadline = Instant::now() + Duration::from_millis(50);
        let refused = decisions.decide(deadline, request("r"), std::future::pending).await.unwrap_err();
        assert!(status::is_for(&refused, ErrorReason::ResultUnknown), "{refused}");
    }

    /// safety 27.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_refusal_that_nothing_vouches_for_is_unknown() {
        let folder = TempDir::new().unwrap();
        let replica = with_wallet(&folder).await;
        let decisions = Decisions::new(Arc::clone(&replica));
        let refused = decisions
            .decide(soon(), request("r"), || async {
                replica.raft().stop().await.unwrap();
                Err(insufficient())
            })
            .await
            .unwrap_err();
        assert!(status::is_for(&refused, ErrorReason::ResultUnknown), "{refused}");
    }
}
