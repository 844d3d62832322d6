//! Proves that this node is alive: a datagram to every manager, again and again, beside the session.
//!
//! In: the session's key and period, the known managers. Out: datagrams, and an empty report now and then for networks that
//! let no datagrams through. It goes on between two sessions with what the last one told: that a session broke does not
//! mean that the node did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rpc::pulse::{PulseKey, PulseSender};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire::session::{Report, ReportRequest};

use crate::ties::{OpenSession, Ties, With};

/// Bounds of the period that a manager may ask for. chosen: less would be a flood, more would be as good as silence.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(60);

/// How long an empty report may take. chosen: one that takes longer proves nothing any more.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Pulses between two empty reports. chosen: two seconds at the usual period, for a node counts as silent after 3.5. A
/// connection on which nothing comes asks every 0.8 s whether it is there, which its manager hears as well; one on which
/// much comes asks nothing.
const PER_REPORT: u32 = 4;

/// Runs until `stopping`.
pub(crate) async fn run(ties: Ties, stopping: CancellationToken) {
    let mut sender = match PulseSender::open(ties.node.clone()) {
        Ok(sender) => sender,
        Err(error) => {
            // The session alone proves it then; a manager that is lost is noticed later.
            tracing::error!(%error, "no socket to prove by that this node is alive");
            return;
        }
    };
    let beat = async {
        let mut sessions = ties.session.subscribe();
        loop {
            // The sender lives in `ties`.
            let session = match sessions.wait_for(Option::is_some).await {
                Ok(session) => session.clone(),
                Err(_) => return,
            };
            let Some(session) = session else { continue };
            beat_until_changed(&ties, &mut sender, &session, &mut sessions).await;
        }
    };
    stopping.run_until_cancelled(beat).await;
}

/// Beats as this session wants it, until there is another one.
async fn beat_until_changed(
    ties: &Ties,
    sender: &mut PulseSender,
    session: &OpenSession,
    sessions: &mut tokio::sync::watch::Receiver<Option<OpenSession>>,
) {
    let Some(key) = PulseKey::read(&session.heartbeat.key) else {
        tracing::error!("the manager gave a key for proofs of life that cannot be read");
        let _ = sessions.changed().await;
        return;
    };
    let period = Duration::from_millis(session.heartbeat.period_ms).clamp(SHORTEST, LONGEST);
    // Together with what else repeats in this process.
    raft::runtime::rest(Duration::ZERO).await;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = BTreeMap::new();
    let mut reports = tokio::time::interval(period * PER_REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reporting = JoinSet::new();
    loop {
        tokio::select! {
            _ = reports.tick(), if reporting.is_empty() => {
                reporting.spawn(report(ties.clone(), session.clone()));
            }
            Some(_) = reporting.join_next() => {}
            _ = ticks.tick() => {
                let failed = sender.send(&key, &session.id, &addresses(ties));
                log_news(&mut refused, failed);
            }
            changed = sessions.changed() => {
                let is_new = sessions.borrow().as_ref().is_some_and(|next| {
                    next.id != session.id || next.heartbeat != session.heartbeat
                });
                if is_new || changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Tells the session's manager that this node is alive; one in this process knows.
async fn report(ties: Ties, session: OpenSession) {
    let With::Remote(address) = &session.with else { return };
    let request = ReportRequest { session: session.id, statuses: Vec::new() };
    // When it fails, the session ends by itself, or the datagrams arrive.
    let _ = ties.client.call::<Report>(address, &request, REPORT_LIMIT).await;
}

/// Where the other managers hear pulses.
fn addresses(ties: &Ties) -> Vec<SocketAddr> {
    let managers = ties.managers.list();
    // What a session told are numbers: names are only what a join was given.
    let others = managers.iter().filter(|manager| ties.node.as_str() != manager.node_id);
    others.filter_map(|manager| manager.addr.parse().ok()).collect()
}

/// Logs what could not be sent, each address once until its error is another one.
fn log_news(known: &mut BTreeMap<SocketAddr, std::io::ErrorKind>, failed: Vec<(SocketAddr, std::io::Error)>) {
    let mut now = BTreeMap::new();
    for (address, error) in failed {
        if known.get(&address) != Some(&error.kind()) {
            tracing::info!(%address, %error, "no proof of life to a manager");
        }
        now.insert(address, error.kind());
    }
    *known = now;
}
