//! Managers on simulated machines, and the network between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use objects::{Service, ServiceId, ServiceSpec, Timestamp};
use raft::{
    AnswerError, Call, CallError, Consensus, DataKey, DataKeys, Member, OpenError, ProposeError, RaftConfig,
    SnapshotStream, Start, Transport, runtime,
};
use store::Write;
use tokio::sync::{Notify, oneshot};

use super::{Sim, SimDisk};

pub const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

#[derive(Default)]
struct Network {
    up: BTreeMap<u64, Consensus>,
    /// Nothing goes from the first to the second.
    cut: BTreeSet<(u64, u64)>,
    /// Connections from and to these are refused, though they are there.
    refused: BTreeSet<u64>,
    resets: Arc<Notify>,
    latency: Duration,
    /// Messages lost of a hundred.
    loss: u64,
    calls: u64,
}

pub struct Cluster {
    pub world: Arc<Sim>,
    net: Arc<Mutex<Network>>,
    pub disks: BTreeMap<u64, SimDisk>,
    pub key: DataKey,
}

struct Wire {
    world: Arc<Sim>,
    net: Arc<Mutex<Network>>,
    from: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Why(&'static str);

/// The machine at an address.
fn machine(address: &str) -> u64 {
    address.trim_start_matches('n').split(':').next().unwrap().parse().unwrap()
}

pub fn address(id: u64) -> String {
    format!("n{id}:2377")
}

impl Network {
    fn is_refused(&self, from: u64, to: u64) -> bool {
        self.refused.contains(&from) || self.refused.contains(&to)
    }
}

impl Wire {
    /// Waits for the way; false if the message is lost.
    async fn travel(&self, from: u64, to: u64) -> bool {
        let (latency, loss) = {
            let net = self.net.lock().unwrap();
            (net.latency, net.loss)
        };
        let jitter = Duration::from_micros(self.world.below(1 + latency.as_micros() as u64 / 2));
        runtime::sleep(latency + jitter).await;
        self.world.below(100) >= loss && !self.net.lock().unwrap().cut.contains(&(from, to))
    }

    async fn carry<F>(
        self,
        to: u64,
        answer: impl FnOnce(Consensus) -> F + Send + 'static,
    ) -> Result<Bytes, CallError>
    where
        F: Future<Output = Result<Bytes, AnswerError>> + Send + 'static,
    {
        self.net.lock().unwrap().calls += 1;
        let closed = |why| Err(CallError::Closed(Why(why).into()));
        if !self.travel(self.from, to).await {
            std::future::pending::<()>().await;
        }
        let (resets, target) = {
            let net = self.net.lock().unwrap();
            let target = net.up.get(&to).filter(|_| !net.is_refused(self.from, to)).cloned();
            (Arc::clone(&net.resets), target)
        };
        let mut reset = std::pin::pin!(resets.notified());
        reset.as_mut().enable();
        let outcome = match target {
            None => closed("refused"),
            Some(target) => {
                let (done, result) = oneshot::channel();
                let answering = async move { drop(done.send(answer(target).await)) };
                self.world.spawn_on(to, answering.boxed());
                let mut result = std::pin::pin!(result);
                loop {
                    let answered = tokio::select! {
                        biased;
                        answered = &mut result => answered,
                        () = reset.as_mut() => {
                            if self.net.lock().unwrap().is_refused(self.from, to) {
                                return closed("reset");
                            }
                            reset.set(resets.notified());
                            continue;
                        }
                    };
                    break match answered {
                        Ok(Ok(bytes)) => Ok(bytes),
                        Ok(Err(error)) => Err(CallError::Refused(error.into())),
                        Err(_) => closed("reset"),
                    };
                }
            }
        };
        if !self.travel(to, self.from).await {
            std::future::pending::<()>().await;
        }
        outcome
    }

    fn copy(&self) -> Self {
        Self { world: Arc::clone(&self.world), net: Arc::clone(&self.net), from: self.from }
    }
}

impl Transport for Wire {
    fn call(
        &self,
        to: &Member,
        call: Call,
        body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let to = machine(&to.address);
        self.copy().carry(to, move |target| async move { target.answer(call, body).await }).boxed()
    }

    fn snapshot(
        &self,
        to: &Member,
        header: Bytes,
        body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let to = machine(&to.address);
        self.copy().carry(to, move |target| async move { target.answer_snapshot(header, body).await }).boxed()
    }
}

pub fn create(name: &str) -> Vec<Write> {
    let spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    vec![Write::Create(Service::new(ServiceId::from(name), spec).into())]
}

impl Cluster {
    /// One manager that leads, and others that were added to it.
    pub fn new(world: &Arc<Sim>, managers: u64) -> Self {
        let net = Network { latency: Duration::from_micros(500), ..Network::default() };
        let mut cluster = Self {
            world: Arc::clone(world),
            net: Arc::new(Mutex::new(net)),
            disks: BTreeMap::new(),
            key: DataKey::new([7; 32]),
        };
        cluster.open(1, Start::Found).unwrap();
        for id in 2..=managers {
            cluster.join(id);
        }
        cluster
    }

    /// Starts a manager.
    pub fn open(&mut self, id: u64, start: Start) -> Result<(), OpenError> {
        let disk = self.disks.entry(id).or_default().mount();
        let wire = Wire { world: Arc::clone(&self.world), net: Arc::clone(&self.net), from: id };
        let config = RaftConfig {
            disk,
            node: id,
            address: address(id),
            start,
            keys: DataKeys::only(self.key.clone()),
            transport: Arc::new(wire),
        };
        let consensus = self.world.run_on(id, Consensus::open(config))?;
        self.net.lock().unwrap().up.insert(id, consensus);
        Ok(())
    }

    /// Starts a manager with an empty disk and makes it a voter.
    pub fn join(&mut self, id: u64) {
        let leader = self.wait_leader();
        let epoch = self.at(leader).epoch();
        self.open(id, Start::Join { epoch }).unwrap();
        let log = self.at(leader);
        self.world.run_on(leader, async move {
            log.add_learner(Member { raft_id: id, address: address(id) }).await.unwrap();
            log.promote(id).await.unwrap();
        });
    }

    pub fn at(&self, id: u64) -> Consensus {
        self.net.lock().unwrap().up[&id].clone()
    }

    pub fn up(&self) -> Vec<u64> {
        self.net.lock().unwrap().up.keys().copied().collect()
    }

    /// Calls between managers so far.
    pub fn calls(&self) -> u64 {
        self.net.lock().unwrap().calls
    }

    /// The machine dies with everything that it had not synced.
    pub fn kill(&self, id: u64) {
        let handle = self.net.lock().unwrap().up.remove(&id);
        self.disks[&id].crash(|| self.world.below(u64::MAX));
        self.world.kill(id);
        drop(handle);
    }

    pub fn restart(&mut self, id: u64) {
        self.open(id, Start::Existing).unwrap();
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.net.lock().unwrap().cut.insert((from, to));
    }

    /// Cuts a machine off, in both directions.
    pub fn isolate(&self, id: u64) {
        for other in 1..20 {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Has something in between reset and refuse every connection from and to a machine.
    pub fn refuse(&self, id: u64) {
        let mut net = self.net.lock().unwrap();
        net.refused.insert(id);
        net.resets.notify_waiters();
    }

    pub fn heal(&self) {
        let mut net = self.net.lock().unwrap();
        net.cut.clear();
        net.refused.clear();
    }

    pub fn set_latency(&self, latency: Duration) {
        self.net.lock().unwrap().latency = latency;
    }

    pub fn set_loss(&self, percent: u64) {
        self.net.lock().unwrap().loss = percent;
    }

    pub fn leaders(&self) -> Vec<u64> {
        let up = self.net.lock().unwrap().up.clone();
        up.iter().filter(|(_, log)| log.leadership().is_leader()).map(|(id, _)| *id).collect()
    }

    /// Waits until exactly one manager leads.
    pub fn wait_leader(&self) -> u64 {
        let began = self.world.time();
        loop {
            if let [leader] = self.leaders()[..] {
                return leader;
            }
            assert!(self.world.time() - began < Duration::from_secs(60), "no leader: {:?}", self.views());
            self.world.pass(Duration::from_millis(5));
        }
    }

    pub fn views(&self) -> Vec<(u64, raft::Members)> {
        let up = self.net.lock().unwrap().up.clone();
        up.iter().map(|(id, log)| (*id, log.members().borrow().clone())).collect()
    }

    /// Writes at whoever leads until it is acknowledged; gives how long it took.
    pub fn write(&self, name: &str) -> Duration {
        let began = self.world.time();
        loop {
            for leader in self.leaders() {
                match self.try_write(leader, name) {
                    Ok(_) => return self.world.time() - began,
                    Err(ProposeError::Refused(store::ApplyError::Exists { .. })) => {
                        return self.world.time() - began;
                    }
                    Err(_) => {}
                }
            }
            assert!(self.world.time() - began < Duration::from_secs(60), "no write: {:?}", self.views());
            self.world.pass(Duration::from_millis(2));
        }
    }

    pub fn try_write(&self, at: u64, name: &str) -> Result<u64, ProposeError> {
        let log = self.at(at);
        let writes = create(name);
        let (done, result) = oneshot::channel();
        self.world.spawn_on(
            at,
            async move { drop(done.send(log.propose(NOW, writes).await.map(|applied| applied.index))) }
                .boxed(),
        );
        let result = self.world.run(async move { runtime::timeout(Duration::from_secs(10), result).await });
        match result {
            Ok(Ok(result)) => result,
            _ => Err(ProposeError::Unknown),
        }
    }

    pub fn has(&self, at: u64, name: &str) -> bool {
        self.at(at).read().find_service(name).is_ok()
    }

    /// Waits until all managers that are up have the same store, and everything that was acknowledged.
    pub fn converge(&self, acknowledged: &[String]) {
        let began = self.world.time();
        loop {
            let logs: Vec<Consensus> = self.up().into_iter().map(|id| self.at(id)).collect();
            let indexes: BTreeSet<u64> = logs.iter().map(Consensus::applied_index).collect();
            if indexes.len() == 1 && self.leaders().len() == 1 {
                break;
            }
            let took = self.world.time() - began;
            assert!(took < Duration::from_secs(60), "no convergence: {indexes:?} {:#?}", self.views());
            self.world.pass(Duration::from_millis(20));
        }
        for id in self.up() {
            for name in acknowledged {
                assert!(self.has(id, name), "{name} is lost at manager {id}");
            }
        }
    }
}
