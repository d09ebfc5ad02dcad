//! The other members: each must answer on its control port with its own certificate.

use super::dial::{self, Answer, Silence};
use super::findings::{Area, Findings};
use crate::config::{Config, PeerConfig};
use crate::identity::Party;
use crate::tls::Material;

/// Asks all of them at once.
pub fn check(config: &Config, material: Option<&Material>, findings: &mut Findings) {
    let Some(material) = material else {
        findings.warn(Area::Peers, "not asked: this node has no certificate to ask with", "see certificates");
        return;
    };
    let others: Vec<&PeerConfig> = config.peers.iter().filter(|peer| peer.id != config.node.id).collect();
    let answers: Vec<Result<Answer, Silence>> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            others.iter().map(|peer| scope.spawn(|| dial::node(&peer.control.to_string(), material))).collect();
        let lost = || Err(Silence::Stranger("the check broke off".to_owned()));
        asked.into_iter().map(|asked| asked.join().unwrap_or_else(|_| lost())).collect()
    });
    for (peer, answer) in others.iter().zip(answers) {
        judge(config, peer, answer, findings);
    }
    if others.is_empty() {
        findings.ok(Area::Peers, alone(config));
    }
}

/// Why there is nobody to ask.
fn alone(config: &Config) -> &'static str {
    if config.node.join {
        "not asked: a node that joins names itself alone in [[peers]]; `onespend cluster members` shows the others"
    } else {
        "this node is the only member"
    }
}

fn judge(config: &Config, peer: &PeerConfig, answer: Result<Answer, Silence>, findings: &mut Findings) {
    let who = format!("node {} at {}", peer.id, peer.control);
    match answer {
        Ok(Answer { identity, took }) => {
            if identity.cluster == config.cluster.id && identity.party == Party::Node(peer.id) {
                findings.ok(Area::Peers, format!("{who} answers in {} ms", took.as_millis()));
            } else {
                let remedy = "correct the address in [[peers]], or the certificate on that machine; or, if the node was \
                              replaced, put the new one in its place";
                findings.fail(Area::Peers, format!("{who} is really {}", identity.uri()), remedy);
            }
        }
        Err(error @ Silence::Unreachable(_)) => {
            let remedy = "start that node if it is not running yet; else look at its address and at firewalls";
            findings.warn(Area::Peers, format!("{who}: {error}"), remedy);
        }
        Err(error @ Silence::Stranger(_)) => {
            let remedy = "both nodes need certificates of one authority: compare ca.pem on both machines";
            findings.fail(Area::Peers, format!("{who}: {error}"), remedy);
        }
    }
}
