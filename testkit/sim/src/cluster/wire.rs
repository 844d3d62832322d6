//! The replicated log's way to other managers: calls through the world's network.
//!
//! In: bytes for a member. Out: its answer, a refusal, or how the call was lost. Never interprets a byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use raft::{Call, CallError, Member, SnapshotStream, Transport};

use crate::cluster::manager::PATIENCE;
use crate::cluster::net::Lost;
use crate::cluster::shared::Shared;
use crate::cluster::time::Machine;

/// Machines per world at most: a member's number tells its machine, and how often the machine began to manage.
const MACHINES: u64 = 100;

/// The number of a machine in the log, when it begins to manage for the `times`th time. Numbers are never used again.
pub(crate) fn raft_id(machine: Machine, times: u64) -> u64 {
    times * MACHINES + machine as u64 + 1
}

/// The machine of a member.
pub(crate) fn machine_of(raft_id: u64) -> Machine {
    (raft_id % MACHINES) as Machine - 1
}

/// Where the manager of a machine is reached.
pub(crate) fn address(machine: Machine) -> String {
    format!("m{machine}:2377")
}

/// The replicated log's way to other managers.
pub(crate) struct Wire {
    pub(crate) shared: Arc<Shared>,
    pub(crate) from: Machine,
}

#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no answer")
    }
}

impl std::error::Error for NoAnswer {}

fn call_error(lost: Lost) -> CallError {
    match lost {
        Lost::Refused => CallError::Closed(Box::new(NoAnswer)),
        Lost::Silence => CallError::Silent(Box::new(NoAnswer)),
    }
}

impl Transport for Wire {
    fn call(
        &self,
        to: &Member,
        call: Call,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (shared, to) = (Arc::clone(&self.shared), machine_of(to.raft_id));
        let served = move || {
            let (manager, body) = (shared.manager(to), body.clone());
            async move {
                match manager {
                    Some(manager) => manager.log.answer(call, body).await.map_err(|error| error.to_string()),
                    None => Err("nobody listens".to_owned()),
                }
            }
        };
        let asked = self.shared.net.ask(self.from, to, timeout, true, served);
        async move {
            match asked.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refused)) => Err(CallError::Refused(refused.into())),
                Err(lost) => Err(call_error(lost)),
            }
        }
        .boxed()
    }

    fn snapshot(
        &self,
        to: &Member,
        header: Bytes,
        mut body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (shared, from, to) = (Arc::clone(&self.shared), self.from, machine_of(to.raft_id));
        async move {
            let mut parts = Vec::new();
            while let Some(part) = body.next().await {
                parts.push(part.map_err(|error| CallError::Silent(error.into()))?);
            }
            let net = shared.net.clone();
            let served = move || {
                let (manager, header, parts) = (shared.manager(to), header.clone(), parts.clone());
                async move {
                    let Some(manager) = manager else { return Err("nobody listens".to_owned()) };
                    let stream = futures_util::stream::iter(parts.into_iter().map(Ok)).boxed();
                    manager.log.answer_snapshot(header, stream).await.map_err(|error| error.to_string())
                }
            };
            match net.ask(from, to, PATIENCE, false, served).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refused)) => Err(CallError::Refused(refused.into())),
                Err(lost) => Err(call_error(lost)),
            }
        }
        .boxed()
    }
}
