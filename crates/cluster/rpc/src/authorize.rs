//! Who may call a method.
//!
//! In: what the method asks for, who calls, the time. Out: the caller as the handler sees it, or a refusal with Docker's
//! text.

use objects::{NodeRole, Timestamp};
use wire::{Callers, Code, Refusal};

use crate::peer::{Peer, Validity};
use crate::server::Unwelcome;

/// Checks a caller's certificate against what a method asks for; whether it has run out.
///
/// The certificate's chain and swarm were verified when the connection was made.
pub(crate) fn check(callers: Callers, peer: Option<&Peer>, now: Timestamp) -> Result<bool, Refusal> {
    let Some(peer) = peer else {
        return if callers == Callers::Anyone { Ok(false) } else { Err(without_certificate()) };
    };
    let validity = peer.validity(now);
    let is_expired = validity == Validity::Expired;
    match (callers, validity) {
        (Callers::Anyone, _) | (Callers::ExpiredToo, Validity::Valid | Validity::Expired) => Ok(is_expired),
        (_, Validity::Expired) => Err(expired(peer, now)),
        (_, Validity::NotYet) => Err(not_yet(peer, now)),
        (Callers::Node, Validity::Valid) => Ok(false),
        (Callers::Manager, Validity::Valid) if peer.role == NodeRole::Manager => Ok(false),
        (Callers::Manager, Validity::Valid) => Err(wrong_role()),
    }
}

/// What a node gets whose certificate alone does not make it welcome.
pub(crate) fn turned_away(why: Unwelcome) -> Refusal {
    match why {
        Unwelcome::Removed => {
            let text = format!("Permission denied: {}", crate::ServerOptions::REMOVED);
            Refusal::new(Code::PermissionDenied, text)
        }
        Unwelcome::NoManager => wrong_role(),
    }
}

// Source of the two texts: swarmkit, `ca/auth.go`.
fn without_certificate() -> Refusal {
    let text = "Permission denied: unauthorized peer role: no client certificates in request";
    Refusal::new(Code::PermissionDenied, text)
}

fn wrong_role() -> Refusal {
    let text =
        "Permission denied: unauthorized peer role: remote certificate not part of OUs: [swarm-manager]";
    Refusal::new(Code::PermissionDenied, text)
}

// Source of the form: Go, `crypto/x509`.
fn expired(peer: &Peer, now: Timestamp) -> Refusal {
    let text = format!(
        "x509: certificate of node {} has expired or is not yet valid: current time {now} is after {}",
        peer.node, peer.not_after
    );
    Refusal::new(Code::Unauthenticated, text)
}

fn not_yet(peer: &Peer, now: Timestamp) -> Refusal {
    let text = format!(
        "x509: certificate of node {} has expired or is not yet valid: current time {now} is before {}",
        peer.node, peer.not_before
    );
    Refusal::new(Code::Unauthenticated, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn peer(role: NodeRole, from: i64, until: i64) -> Peer {
        Peer {
            node: "n".into(),
            role,
            cluster: "c".into(),
            not_before: Timestamp::from_secs(1_000_000 + from),
            not_after: Timestamp::from_secs(1_000_000 + until),
            certificate: Bytes::new(),
        }
    }

    #[test]
    fn each_method_serves_its_callers_and_no_others() {
        use Callers::{Anyone, ExpiredToo, Manager, Node};
        let stranger = None;
        let worker = Some(peer(NodeRole::Worker, -1, 1));
        let manager = Some(peer(NodeRole::Manager, -1, 1));
        let expired = Some(peer(NodeRole::Manager, -2, -1));
        let early = Some(peer(NodeRole::Manager, 1, 2));
        for (name, caller, allowed) in [
            ("a stranger", stranger, &[Anyone][..]),
            ("a worker", worker, &[Anyone, ExpiredToo, Node]),
            ("a manager", manager, &[Anyone, ExpiredToo, Node, Manager]),
            ("an expired one", expired, &[Anyone, ExpiredToo]),
            ("one that is early", early, &[Anyone]),
        ] {
            for callers in [Anyone, ExpiredToo, Node, Manager] {
                let may = check(callers, caller.as_ref(), NOW).is_ok();
                assert_eq!(may, allowed.contains(&callers), "{name} calls for {callers:?}");
            }
        }
    }

    #[test]
    fn only_an_expired_certificate_is_marked() {
        let expired = peer(NodeRole::Worker, -2, -1);
        assert_eq!(check(Callers::ExpiredToo, Some(&expired), NOW), Ok(true));
        assert_eq!(check(Callers::ExpiredToo, Some(&peer(NodeRole::Worker, -2, 1)), NOW), Ok(false));
    }

    #[test]
    fn refusals_name_the_node_and_both_times() {
        let refusal = check(Callers::Node, Some(&peer(NodeRole::Worker, -2, -1)), NOW).unwrap_err();
        assert_eq!(refusal.code, Code::Unauthenticated);
        assert_eq!(
            refusal.message,
            "x509: certificate of node n has expired or is not yet valid: \
             current time 1970-01-12T13:46:40Z is after 1970-01-12T13:46:39Z"
        );
    }
}
