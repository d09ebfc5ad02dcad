//! One call: tries until there is an answer, a refusal, or no time left. Every try carries the same request, so the
//! same request id, and the service applies it at most once.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::backoff;
use super::config::Interceptor;
use super::error::{ClientError, Rejection, Verdict};
use super::nodes::{NodeIndex, Nodes};
use super::stats::{Counters, count};
use crate::LEADER_METADATA_KEY;

/// A try with less time than this would hardly reach a node, and without an answer it makes a call's outcome unknown.
const SHORTEST_TRY: Duration = Duration::from_millis(5);

/// How long a call and each of its tries may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) deadline: Duration,
    /// No further try begins later than this, where that is before the deadline.
    pub(super) last_begin: Duration,
    /// Of the first try; each that had no answer doubles it, up to `try_timeout`.
    pub(super) first_try: Duration,
    pub(super) try_timeout: Duration,
    /// Whether the node hears of the try's bound (`grpc-timeout`). Not for streams: it would end them.
    pub(super) announced: bool,
    /// Whether a try that had no answer is followed by another one. Not where the same request could be applied twice.
    pub(super) repeats: bool,
}

impl Bounds {
    /// How long a try may take after so many that had no answer. Short at first, for one that is silent is most likely
    /// frozen or cut off; longer then, so that callers do not multiply what an overloaded node has to do.
    fn patience(&self, unanswered: u32) -> Duration {
        let doubled = self.first_try.saturating_mul(1_u32.checked_shl(unanswered).unwrap_or(u32::MAX));
        doubled.min(self.try_timeout)
    }
}

/// What all calls on one plane have in common.
pub(super) struct Plane<'a> {
    pub(super) nodes: &'a Nodes,
    pub(super) counters: &'a Counters,
    pub(super) interceptor: Option<&'a Interceptor>,
    /// Key of NOT_LEADER's metadata that holds the leader's address on this plane.
    pub(super) hint_key: &'static str,
}

/// Sends `request` until the call is over. `request_id` is for the error only.
pub(super) async fn call<Req, Resp, F, Fut>(
    plane: Plane<'_>,
    bounds: Bounds,
    request_id: &str,
    request: Req,
    send: F,
) -> Result<Resp, ClientError>
where
    Req: Clone,
    F: Fn(Channel, Request<Req>) -> Fut,
    Fut: Future<Output = Result<Response<Resp>, Status>>,
{
    count(&plane.counters.calls);
    let mut course = Course::begin(&plane, bounds);
    loop {
        let verdict = match course.attempt(&request, &send).await {
            Ok(answer) => return Ok(answer),
            Err(verdict) => verdict,
        };
        let pause = match course.weigh(verdict) {
            Step::Again(pause) => pause,
            Step::Refused(rejection) => return Err(course.refuse(rejection)),
            Step::Over => return Err(course.give_up(request_id)),
        };
        if Instant::now() + pause >= course.last_begin {
            return Err(course.give_up(request_id));
        }
        tokio::time::sleep(pause).await;
        if Instant::now() + SHORTEST_TRY >= course.last_begin {
            return Err(course.give_up(request_id));
        }
    }
}

enum Step {
    Again(Duration),
    Refused(Rejection),
    /// There was no answer, and another try could do it once more.
    Over,
}

/// What the latest try ended with, as far as it may end the call.
enum Last {
    Refused(Rejection),
    Failed(String),
}

/// Where a call stands.
struct Course<'a> {
    plane: &'a Plane<'a>,
    bounds: Bounds,
    began: Instant,
    deadline: Instant,
    last_begin: Instant,
    node: NodeIndex,
    tries: u32,
    /// Tries that were sent and had no answer: the request may be applied.
    unanswered: u32,
    /// The node that failed to answer last. Others may still take it for the leader.
    silent: Option<NodeIndex>,
    /// This try goes where a hint pointed.
    hinted: bool,
    last: Last,
}

impl<'a> Course<'a> {
    fn begin(plane: &'a Plane<'a>, bounds: Bounds) -> Self {
        let began = Instant::now();
        Self {
            plane,
            bounds,
            began,
            deadline: began + bounds.deadline,
            last_begin: began + bounds.last_begin.min(bounds.deadline),
            node: plane.nodes.preferred(),
            tries: 0,
            unanswered: 0,
            silent: None,
            hinted: false,
            last: Last::Failed("nothing was tried".to_owned()),
        }
    }

    async fn attempt<Req, Resp, F, Fut>(&mut self, request: &Req, send: &F) -> Result<Resp, Verdict>
    where
        Req: Clone,
        F: Fn(Channel, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let Some(channel) = self.plane.nodes.channel(self.node) else {
            return Err(Verdict::NotSent("no endpoint is configured".to_owned()));
        };
        let timeout =
            self.deadline.saturating_duration_since(Instant::now()).min(self.bounds.patience(self.unanswered));
        let mut request = Request::new(request.clone());
        if self.bounds.announced {
            request.set_timeout(timeout);
        }
        if let Some(interceptor) = self.plane.interceptor {
            interceptor(request.metadata_mut());
        }
        self.tries += 1;
        count(&self.plane.counters.tries);
        match tokio::time::timeout(timeout, send(channel, request)).await {
            Ok(Ok(response)) => {
                self.note_leader(&response);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(Verdict::of(&status)),
            Err(_) => Err(Verdict::NoAnswer(format!("no answer within {} ms", timeout.as_millis()))),
        }
    }

    /// The next call begins at the leader: where this answer says it is, else at the node that answered.
    fn note_leader<Resp>(&self, response: &Response<Resp>) {
        let named = response.metadata().get(LEADER_METADATA_KEY).and_then(|address| address.to_str().ok());
        let leader = named.and_then(|address| self.plane.nodes.at_address(address));
        self.plane.nodes.prefer(leader.unwrap_or(self.node));
    }

    fn weigh(&mut self, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Refused(rejection) => Step::Refused(rejection),
            Verdict::Busy(rejection) => self.wait(rejection),
            Verdict::NotLeader(rejection) => self.follow(rejection),
            Verdict::NotSent(why) => {
                count(&self.plane.counters.tries_not_sent);
                self.go_on(why)
            }
            Verdict::NoAnswer(why) => {
                count(&self.plane.counters.tries_without_answer);
                self.unanswered += 1;
                let again = self.go_on(why);
                if self.bounds.repeats { again } else { Step::Over }
            }
        }
    }

    fn pause(&self) -> Duration {
        backoff::pause(self.began.elapsed())
    }

    /// The node wants to be asked again later.
    fn wait(&mut self, rejection: Rejection) -> Step {
        let pause = self.pause().max(rejection.retry_after.unwrap_or_default());
        self.hinted = false;
        if Instant::now() + pause >= self.last_begin {
            return Step::Refused(rejection);
        }
        self.last = Last::Refused(rejection);
        Step::Again(pause)
    }

    /// The node does not lead: at once to the one that it names, unless that one has just failed or this try was
    /// the result of a hint already, for two nodes may name each other for a moment.
    fn follow(&mut self, rejection: Rejection) -> Step {
        let address = rejection.metadata.get(self.plane.hint_key);
        let leader = address.and_then(|address| self.plane.nodes.at_address(address));
        let leader = leader.filter(|leader| *leader != self.node && Some(*leader) != self.silent);
        self.last = Last::Refused(rejection);
        let Some(leader) = leader else {
            return self.move_on();
        };
        count(&self.plane.counters.hints_followed);
        let pause = if self.hinted { self.pause() } else { Duration::ZERO };
        self.plane.nodes.prefer(leader);
        self.node = leader;
        self.hinted = true;
        Step::Again(pause)
    }

    /// The node did not answer.
    fn go_on(&mut self, why: String) -> Step {
        let address = self.plane.nodes.address(self.node);
        tracing::debug!(node = %address, error = %why, "a try failed");
        let is_one_of_many = self.plane.nodes.len() > 1;
        self.last = Last::Failed(if is_one_of_many { format!("{address}: {why}") } else { why });
        self.silent = Some(self.node);
        self.move_on()
    }

    /// To the next node in turn, after a pause.
    fn move_on(&mut self) -> Step {
        self.plane.nodes.leave(self.node);
        self.node = self.plane.nodes.after(self.node);
        self.hinted = false;
        Step::Again(self.pause())
    }

    fn refuse(&self, mut rejection: Rejection) -> ClientError {
        rejection.after_unknown = self.unanswered > 0;
        ClientError::Rejected(Box::new(rejection))
    }

    fn give_up(self, request_id: &str) -> ClientError {
        let last = match self.last {
            Last::Refused(rejection) if self.unanswered == 0 => {
                return ClientError::Rejected(Box::new(rejection));
            }
            Last::Refused(rejection) => rejection.to_string(),
            Last::Failed(why) => why,
        };
        if self.unanswered > 0 {
            count(&self.plane.counters.calls_unknown);
            ClientError::Unknown { request_id: request_id.to_owned(), tries: self.tries, last }
        } else {
            ClientError::Unreachable { addresses: self.plane.nodes.addresses(), tries: self.tries, last }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_without_answer_doubles_the_patience_up_to_its_bound() {
        let ms = Duration::from_millis;
        let bounds = Bounds {
            deadline: ms(10_000),
            last_begin: ms(10_000),
            first_try: ms(400),
            try_timeout: ms(1_000),
            announced: true,
            repeats: true,
        };
        let waits: Vec<Duration> = [0, 1, 2, 40].iter().map(|unanswered| bounds.patience(*unanswered)).collect();
        assert_eq!(waits, [ms(400), ms(800), ms(1_000), ms(1_000)]);
        let shorter = Bounds { try_timeout: ms(150), ..bounds };
        assert_eq!(shorter.patience(0), ms(150));
    }
}
