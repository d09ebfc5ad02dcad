//! What every rpc goes through before and after its own file: who calls, may they, does this node lead, and what
//! became of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use onespend_core::command::{Command, Request as CoreRequest};
use onespend_core::ids::{CallerId, Millis, RequestId, RequestKey};
use onespend_policies::{Action, Authorized, Class, Policy};
use onespend_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::about::About;
use super::alarm_status;
use super::caller::{self, Caller};
use super::decide::{Decisions, Draft};
use super::forward::{Forward, NodeClients, Passed};
use super::page;
use super::status;
use crate::agreement;
use crate::alarms::Alarms;
use crate::backup::BackupSource;
use crate::bitcoind::BitcoindWatch;
use crate::health::Health;
use crate::leader::broadcast::Outbox;
use crate::leader::scripts::SharedScripts;
use crate::leader::sign::Signing;
use crate::peers::Peers;
use crate::raft::{Applied, LeaderHint};
use crate::replica::Replica;
use crate::selection::Busy;

/// Longest call that looks at everything: the registration of a wallet, its scan of the chain included, and the end of
/// recovery mode, for which every coin is compared.
const LONG_TIMEOUT: Duration = Duration::from_mins(20);
/// How long a fresh leader's callers wait until it has applied what earlier leaders committed.
const READY_WAIT: Duration = Duration::from_secs(2);

/// What the rpcs work with.
pub(crate) struct Api {
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) forward: Forward,
    pub(crate) signing: Arc<Signing>,
    /// Where attempts go that were signed outside.
    pub(crate) outbox: Outbox,
    pub(crate) bitcoind: Arc<BitcoindWatch>,
    pub(crate) alarms: Arc<Alarms>,
    /// What load balancers are told.
    pub(crate) health: Arc<Health>,
    pub(crate) scripts: SharedScripts,
    pub(crate) busy: Busy,
    pub(crate) decisions: Decisions,
    /// Where backups come from.
    pub(crate) backups: Arc<BackupSource>,
    /// Cancelled when open streams should end.
    pub(crate) stopping: CancellationToken,
    pub(crate) settings: Settings,
}

/// What the rpcs need of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) cluster_id: String,
    pub(crate) network: Network,
    pub(crate) node_id: u64,
    /// Depth at which payments of new wallets settle, in blocks.
    pub(crate) finality_depth: u32,
    /// Whether writes that reach a replica are passed on to the leader.
    pub(crate) forward_writes: bool,
    /// How long one request may take when the caller sets no deadline.
    pub(crate) request_timeout: Duration,
    /// Largest gRPC message in bytes, either way.
    pub(crate) max_message_bytes: usize,
    /// When the process started.
    pub(crate) started: Instant,
    /// What is doubtful about the configuration.
    pub(crate) warnings: Vec<String>,
}

/// One admitted call.
pub(crate) struct Call {
    /// Who calls.
    pub(crate) caller: CallerId,
    /// That they may: the permit of the policy.
    pub(crate) authorized: Authorized,
    /// SHA-256 of what is asked.
    pub(super) digest: [u8; 32],
    /// When the answer is no use any more.
    pub(crate) deadline: Instant,
}

impl Call {
    /// The call under the caller's name for it.
    pub(crate) fn request(&self, request: RequestId) -> CoreRequest {
        CoreRequest {
            key: RequestKey { caller: self.caller.clone(), request },
            digest: self.digest,
            for_others: self.authorized.any_owner(),
        }
    }
}

impl Api {
    /// Runs a mutation on the leader: here, or there.
    pub(crate) async fn mutate<Req, Res, Run, RunFuture, Pass, PassFuture>(
        self: &Arc<Self>,
        action: Action,
        request: Request<Req>,
        run: Run,
        pass: Pass,
    ) -> Result<Response<Res>, Status>
    where
        Req: prost::Message + About + Clone + 'static,
        Run: FnOnce(Arc<Self>, Call, Req) -> RunFuture + Send,
        RunFuture: Future<Output = Result<Res, Status>> + Send,
        Pass: FnOnce(NodeClients, Request<Req>) -> PassFuture + Send,
        PassFuture: Future<Output = Result<Response<Res>, Status>> + Send,
    {
        let observed = super::observe::start(action, &request);
        let span = observed.span();
        let answer = async {
            let (caller, call) = self.admit(action, &request)?;
            if !self.leads(call.deadline).await {
                return self.pass_on(&caller, &call, request, Passed::Write, pass).await;
            }
            self.demand_sound_state()?;
            let answer = run(Arc::clone(self), call, request.into_inner()).await.map(Response::new);
            #[cfg(feature = "failpoints")]
            let answer = or_a_defect(answer);
            self.unless_in_doubt(action, answer)
        }
        .instrument(span)
        .await;
        observed.end(answer)
    }

    /// Runs a read with the consistency that it asks for. What is not found in a state that may be old is looked for
    /// again linearizably, because `NOT_FOUND` says that it does not exist (safety 26).
    pub(crate) async fn read<Req, Res, Run, Pass, PassFuture>(
        self: &Arc<Self>,
        action: Action,
        consistency: Option<v1::ReadConsistency>,
        request: Request<Req>,
        run: Run,
        pass: Pass,
    ) -> Result<Response<Res>, Status>
    where
        Req: prost::Message + About + Clone + 'static,
        Run: Fn(&Self, v1::ReadInfo, &Req) -> Result<Res, Status> + Send,
        Pass: FnOnce(NodeClients, Request<Req>) -> PassFuture + Send,
        PassFuture: Future<Output = Result<Response<Res>, Status>> + Send,
    {
        let observed = super::observe::start(action, &request);
        let span = observed.span();
        let answer = async {
            let (caller, call) = self.admit(action, &request)?;
            if let Some(bound) = super::reads::staleness_bound(consistency.as_ref())? {
                let info = super::reads::confirm(self, Some(bound), call.deadline).await?;
                let answer = run(self, info, request.get_ref());
                if super::reads::may_be_stale(&answer) {
                    return self.unless_in_doubt(action, answer.map(Response::new));
                }
            }
            if !self.leads(call.deadline).await {
                return self.pass_on(&caller, &call, request, Passed::Read, pass).await;
            }
            let info = super::reads::confirm(self, None, call.deadline).await?;
            let answer = run(self, info, request.get_ref()).map(Response::new);
            #[cfg(feature = "failpoints")]
            let answer = or_a_defect(answer);
            self.unless_in_doubt(action, answer)
        }
        .instrument(span)
        .await;
        observed.end(answer)
    }

    /// Runs on the node that the request names, whoever leads: here, or there. What is no member is left to `run` to
    /// refuse.
    pub(crate) async fn at_node<Req, Res, Run, RunFuture, Pass, PassFuture>(
        self: &Arc<Self>,
        action: Action,
        node: u64,
        request: Request<Req>,
        run: Run,
        pass: Pass,
    ) -> Result<Response<Res>, Status>
    where
        Req: prost::Message + About + 'static,
        Run: FnOnce(Arc<Self>, Call, Req) -> RunFuture + Send,
        RunFuture: Future<Output = Result<Res, Status>> + Send,
        Pass: FnOnce(NodeClients, Request<Req>) -> PassFuture + Send,
        PassFuture: Future<Output = Result<Response<Res>, Status>> + Send,
    {
        let observed = super::observe::start(action, &request);
        let span = observed.span();
        let answer = async {
            let (caller, call) = self.admit(action, &request)?;
            let others = self.replica.status().others();
            let Some(member) = others.into_iter().find(|member| member.node_id == node && !caller.forwarded) else {
                return run(Arc::clone(self), call, request.into_inner()).await.map(Response::new);
            };
            let hint = LeaderHint { node_id: node, addresses: member.addresses, term: 0 };
            self.forward.pass(&hint, request, &caller, call.deadline, Passed::ToNode, pass).await
        }
        .instrument(span)
        .await;
        observed.end(answer)
    }

    /// Who calls, and may they.
    pub(crate) fn admit<Req: prost::Message + About>(
        &self,
        action: Action,
        request: &Request<Req>,
    ) -> Result<(Caller, Call), Status> {
        let caller = caller::identify(request, &self.settings.cluster_id)?;
        super::observe::called_by(&caller.id);
        let resource = request.get_ref().resource();
        let authorized = self.policy.authorize(&caller.subject(), action, &resource).map_err(|denied| {
            crate::metrics::policy_denied(&denied);
            status::denied(&denied)
        })?;
        let longest = match action {
            // Scanning the chain takes minutes on the main network.
            Action::RegisterWallet | Action::ConfirmRecovery => LONG_TIMEOUT,
            _ => self.settings.request_timeout,
        };
        let asked = super::observe::timeout(request).unwrap_or(longest);
        let call = Call {
            caller: caller.id.clone(),
            authorized,
            digest: digest(action, request.get_ref()),
            deadline: Instant::now() + asked.min(longest),
        };
        Ok((caller, call))
    }

    /// Whether this node leads and has applied all that earlier leaders committed. A node that has just won waits
    /// for that.
    async fn leads(&self, deadline: Instant) -> bool {
        let wait = READY_WAIT.min(deadline.saturating_duration_since(Instant::now()));
        self.replica.leads_ready(wait).await
    }

    /// Has the leader answer, if one is known and this node passes on at all.
    async fn pass_on<Req, Res, Pass, PassFuture>(
        &self,
        caller: &Caller,
        call: &Call,
        request: Request<Req>,
        passed: Passed,
        pass: Pass,
    ) -> Result<Response<Res>, Status>
    where
        Pass: FnOnce(NodeClients, Request<Req>) -> PassFuture,
        PassFuture: Future<Output = Result<Response<Res>, Status>>,
    {
        let hint = self.replica.leader_hint();
        let Some(leader) = hint.as_ref().filter(|_| self.settings.forward_writes && !caller.forwarded) else {
            return Err(status::not_leader(hint.as_ref()));
        };
        // A leader that is frozen or cut off would be waited for as long as the caller waits.
        let answer = tokio::select! {
            biased;
            answer = self.forward.pass(leader, request, caller, call.deadline, passed, pass) => answer?,
            () = self.replica.lost(leader) => return Err(passed.lost("the leader was lost before it answered")),
        };
        // Callers go on where the service is: administration is on the control port alone.
        let administers = call.authorized.action().class() == Class::ClusterAdministration;
        let address = if administers { &leader.addresses.control } else { &leader.addresses.data };
        Ok(super::observe::name_leader(answer, address))
    }

    /// Proposes what `gather` drafts until it is decided; see [`Decisions::decide`].
    pub(crate) async fn decide<Gather, GatherFuture>(
        &self,
        call: &Call,
        request: CoreRequest,
        gather: Gather,
    ) -> Result<Applied, Status>
    where
        Gather: FnMut() -> GatherFuture + Send,
        GatherFuture: Future<Output = Result<Draft, Status>> + Send,
    {
        #[cfg(feature = "sabotage")]
        let request = crate::sabotage::forget(&self.signing, request);
        self.decisions.decide(call.deadline, request, gather).await
    }

    /// The same for a command that rests on no facts.
    pub(crate) async fn decide_plain(
        &self,
        call: &Call,
        request: CoreRequest,
        command: Command,
    ) -> Result<Applied, Status> {
        self.decide(call, request, || std::future::ready(Ok(Draft::of(command.clone())))).await
    }

    /// A node whose state most others contradict answers nothing (safety 31).
    pub(crate) fn demand_sound_state(&self) -> Result<(), Status> {
        if self.alarms.stands(agreement::MISMATCH) { Err(alarm_status::unsound()) } else { Ok(()) }
    }

    /// What a state that may be wrong refuses is not certain (safety 31).
    fn unless_in_doubt<T>(&self, action: Action, answer: Result<T, Status>) -> Result<T, Status> {
        answer.map_err(|refused| alarm_status::instead_of(refused, action, self.alarms.doubt()))
    }

    /// Coins may be given out only while this node's bitcoind can be believed and no alarm stands that stops spends.
    pub(crate) fn demand_synced_chain(&self) -> Result<(), Status> {
        self.demand_sound_state()?;
        if let Some(alarm) = self.alarms.stopping() {
            return Err(alarm_status::no_spends(alarm));
        }
        self.bitcoind.in_sync().map_err(|reason| status::chain_not_synced(&reason))
    }

    /// How much one page of an answer holds.
    pub(super) fn page_bounds(&self, rows: usize) -> page::Bounds {
        page::Bounds { rows, message_bytes: self.settings.max_message_bytes }
    }

    /// Logical time as this leader would propose it, for showing what remains.
    pub(crate) fn now(&self) -> Millis {
        self.replica.now()
    }
}

/// What the leader answers, or a defect in its place if the harness wants one; what was decided is decided.
#[cfg(feature = "failpoints")]
fn or_a_defect<Res>(answer: Result<Response<Res>, Status>) -> Result<Response<Res>, Status> {
    if onespend_adapters::failpoints::answers_with_a_defect() {
        return Err(Status::internal("the harness wants a defect"));
    }
    answer
}

/// SHA-256 of what is asked: the same request id with another digest is another request.
fn digest<Req: prost::Message>(action: Action, message: &Req) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(action.name().as_bytes());
    engine.input(&[0]);
    engine.input(&message.encode_to_vec());
    sha256::Hash::from_engine(engine).to_byte_array()
}
