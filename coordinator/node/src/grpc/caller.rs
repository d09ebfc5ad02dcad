//! The certificate becomes a caller.

use onespend_core::ids::CallerId;
use onespend_policies::{self as policies, Subject};
use onespend_proto::CALLER_METADATA_KEY;
use tonic::{Request, Status};

use super::status;
use crate::identity::{Identity, Party};

/// Who calls, by its certificate, or by the word of a node that forwards.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The name that owns what it reserves, such as `client/payouts`.
    pub(crate) id: CallerId,
    /// What kind of party it is.
    pub(crate) party: Party,
    /// Whether another node passed the request on; it is not passed on again.
    pub(crate) forwarded: bool,
}

impl Caller {
    /// What policy judges.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { caller: policies::CallerId(self.id.as_str()), role: self.party.role() }
    }
}

/// Reads the caller of a request.
///
/// # Errors
/// `UNAUTHENTICATED` names what is wrong with the certificate. TLS has proved already that the cluster's CA made it.
pub(crate) fn identify<T>(request: &Request<T>, cluster: &str) -> Result<Caller, Status> {
    let certificates = request.peer_certs();
    let certificate = certificates
        .as_ref()
        .and_then(|chain| chain.first())
        .ok_or_else(|| status::unauthenticated("there is no client certificate"))?;
    let identity = Identity::of_member(certificate, cluster)
        .map_err(|error| status::unauthenticated(&format!("client certificate: {error}")))?;
    match (identity.party, request.metadata().get(CALLER_METADATA_KEY)) {
        (party, None) => caller(party, false),
        (Party::Node(_), Some(claimed)) => {
            let path = claimed.to_str().map_err(|_| status::unauthenticated("the forwarded caller is not text"))?;
            let party = Party::from_caller_id(path)
                .map_err(|error| status::unauthenticated(&format!("forwarded caller: {error}")))?;
            caller(party, true)
        }
        (Party::Client(_) | Party::Operator(_), Some(_)) => {
            Err(status::unauthenticated("only a node may name another caller"))
        }
    }
}

fn caller(party: Party, forwarded: bool) -> Result<Caller, Status> {
    let id = CallerId::parse(&party.to_string()).map_err(|error| status::unauthenticated(&error.to_string()))?;
    Ok(Caller { id, party, forwarded })
}
