//! Makes and removes networks of this machine.
//!
//! In: what a user wants. Out: an entry of the registry, on disk before its bridge is made and until its bridge is gone: so
//! whatever a killed daemon leaves belongs to a network that the next one knows.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::{IpNet, Ipv6Net};
use netlink::route::Link;
use netplan::bridge_options::{self, BridgeOptions};
use netplan::ipam::{self, Subnet};
use netplan::{PoolRange, macvlan_options, subnet};
use objects::Timestamp;

use crate::error::{CreateError, RemoveError};
use crate::record::NetworkRecord;
use crate::registry::{Entry, Kind};
use crate::state_file::{self, random_id};
use crate::worker::Worker;
use crate::{NetworkError, NetworkSpec};

/// The network by which containers of swarm networks reach what lies beyond. Docker's name, which tools look for.
pub(crate) const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// What new networks are made from besides their spec.
pub(crate) struct Defaults {
    /// Pools for networks that ask for no subnet.
    pub(crate) pools: Vec<PoolRange>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
}

impl Defaults {
    pub(crate) fn new(pools: &[PoolRange], mtu: u32) -> Self {
        let pools = if pools.is_empty() { subnet::default_pools() } else { pools.to_vec() };
        Self { pools, mtu }
    }
}

impl Worker {
    /// Makes a network known and wants its bridge; returns its id.
    pub(crate) fn create(&mut self, spec: NetworkSpec) -> Result<String, CreateError> {
        if self.status.is_closed {
            return Err(CreateError::Apply(NetworkError::Closed));
        }
        self.check_new(&spec)?;
        if spec.driver == "macvlan" {
            return self.create_macvlan(spec);
        }
        let options = bridge_options::read(&spec.options)?;
        let id = random_id().map_err(CreateError::Random)?;
        let (subnets, links) = self.settle(&spec, &id)?;
        let link = options.link.clone().unwrap_or_else(|| format!("br-{}", &id[..12]));
        self.check_link(&spec.name, &link)?;
        let found = links.iter().find(|found| found.name == link);
        if found.is_some_and(|found| found.kind != "bridge") {
            return Err(CreateError::NotABridge(link));
        }
        let is_link_ours = found.is_none();
        let record = NetworkRecord { subnets, link, is_link_ours, ..record_of(spec, &id, "bridge") };
        self.keep(record, options)?;
        Ok(id)
    }

    /// The subnets of a network that is to be, and the links that are there.
    fn settle(&mut self, spec: &NetworkSpec, id: &str) -> Result<(Vec<Subnet>, Vec<Link>), CreateError> {
        let (routed, links) = self.kernel.surroundings()?;
        let others: Vec<IpNet> = self.wanted.networks.subnets().collect();
        let around = ipam::Surroundings {
            pools: &self.defaults.pools,
            routed: &routed,
            others: &others,
            ipv6: local_subnet(id),
        };
        Ok((ipam::settle(&spec.subnets, spec.has_ipv6, &around)?, links))
    }

    /// The same for one on the wire of a link, which makes nothing in the kernel.
    fn create_macvlan(&mut self, spec: NetworkSpec) -> Result<String, CreateError> {
        let options = macvlan_options::read(&spec.options)?;
        let id = random_id().map_err(CreateError::Random)?;
        let (subnets, links) = self.settle(&spec, &id)?;
        if !links.iter().any(|link| link.name == options.parent) {
            return Err(CreateError::NoParent(options.parent));
        }
        let is_user = |entry: &&Entry| match &entry.kind {
            Kind::Macvlan(macvlan) => macvlan.parent() == options.parent,
            _ => false,
        };
        if let Some(user) = self.wanted.networks.iter().find(is_user) {
            let other = user.record.id[..12].to_owned();
            return Err(CreateError::ParentTaken { other, parent: options.parent });
        }
        let record = NetworkRecord { subnets, ..record_of(spec, &id, "macvlan") };
        self.write_down(&record)?;
        self.wanted.networks.insert(Entry::macvlan(record, options));
        Ok(id)
    }

    fn check_new(&self, spec: &NetworkSpec) -> Result<(), CreateError> {
        let name = &spec.name;
        if name.trim().is_empty() {
            return Err(CreateError::NoName);
        }
        if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(CreateError::Predefined(name.clone()));
        }
        match spec.driver.as_str() {
            "" | "default" | "bridge" | "macvlan" => {}
            "ipvlan" => return Err(CreateError::NoIpvlan),
            "host" | "null" => return Err(CreateError::OnlyOne(spec.driver.clone())),
            _ => return Err(CreateError::NoDriver(spec.driver.clone())),
        }
        if self.wanted.networks.iter().any(|entry| entry.record.name == *name) {
            return Err(CreateError::Exists(name.clone()));
        }
        Ok(())
    }

    fn check_link(&self, name: &str, link: &str) -> Result<(), CreateError> {
        match self.wanted.networks.bridges().find(|(record, _)| record.link == link) {
            None => Ok(()),
            Some((record, _)) => Err(CreateError::LinkTaken {
                name: name.to_owned(),
                link: link.to_owned(),
                other: record.name.clone(),
                other_id: record.id.clone(),
            }),
        }
    }

    /// On disk first, then among what is wanted.
    fn keep(&mut self, record: NetworkRecord, options: BridgeOptions) -> Result<(), CreateError> {
        self.write_down(&record)?;
        let entry = Entry::bridge(record, options, self.defaults.mtu);
        if let Kind::Bridge(bridge) = &entry.kind {
            self.kernel.want_bridge(&bridge.link, bridge.addresses(), bridge.mtu);
        }
        self.wanted.networks.insert(entry);
        self.status.rules_doubtful = true;
        Ok(())
    }

    fn write_down(&mut self, record: &NetworkRecord) -> Result<(), CreateError> {
        self.state.networks.push(record.clone());
        state_file::save(&self.state_dir, &self.state).map_err(|error| {
            self.state.networks.pop();
            CreateError::State(Box::new(error))
        })
    }

    /// Removes a network that no container is on; returns its name and id.
    pub(crate) fn remove(&mut self, name_or_id: &str) -> Result<(String, String), RemoveError> {
        let entry = self.wanted.networks.find(name_or_id)?;
        let (name, id) = (entry.record.name.clone(), entry.record.id.clone());
        if entry.is_predefined() {
            return Err(RemoveError::Predefined(name));
        }
        if self.wanted.uses(&id) {
            return Err(RemoveError::InUse { name, id });
        }
        self.take_away(&id)?;
        Ok((name, id))
    }

    /// The bridge first, then the record.
    pub(crate) fn take_away(&mut self, id: &str) -> Result<(), RemoveError> {
        let Some(entry) = self.wanted.networks.by_id(id) else { return Ok(()) };
        let (link, is_ours) = (entry.record.link.clone(), entry.record.is_link_ours);
        if matches!(entry.kind, Kind::Bridge(_)) {
            self.kernel.remove_bridge(&link, is_ours)?;
        }
        self.wanted.networks.remove(id);
        self.wanted.note_renamed(id);
        self.state.networks.retain(|record| record.id != id);
        self.status.rules_doubtful = true;
        state_file::save(&self.state_dir, &self.state).map_err(|error| RemoveError::State(Box::new(error)))
    }

    /// The id of the network `docker_gwbridge`, which is made if there is none yet. Its containers don't talk to each other
    /// through it. Source of the options: moby, `daemon/libnetwork/default_gateway_linux.go`.
    pub(crate) fn ensure_gateway_bridge(&mut self) -> Result<String, CreateError> {
        if let Ok(found) = self.wanted.networks.find(GATEWAY_BRIDGE) {
            return Ok(found.record.id.clone());
        }
        let options = [(bridge_options::ICC, "false"), (bridge_options::MASQUERADE, "true")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.create(NetworkSpec {
            name: GATEWAY_BRIDGE.to_owned(),
            options: BTreeMap::from(options),
            ..NetworkSpec::default()
        })
    }
}

/// Takes in the networks that users made before.
pub(crate) fn restore(worker: &mut Worker) {
    for record in worker.state.networks.clone() {
        let (id, name) = (record.id.clone(), record.name.clone());
        let entry = match record.driver.as_str() {
            "macvlan" => macvlan_options::read(&record.options)
                .map(|options| Entry::macvlan(record, options))
                .map_err(CreateError::from),
            _ => bridge_options::read(&record.options)
                .map(|options| Entry::bridge(record, options, worker.defaults.mtu))
                .map_err(CreateError::from),
        };
        match entry {
            Ok(entry) => worker.wanted.networks.insert(entry),
            // Only a newer version can have written what this one doesn't understand. It stays on disk.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(network.id = id, network.name = name, error, "network is not served");
            }
        }
    }
}

/// What a user said, without what is decided here.
fn record_of(spec: NetworkSpec, id: &str, driver: &str) -> NetworkRecord {
    NetworkRecord {
        is_internal: spec.is_internal,
        is_attachable: spec.is_attachable,
        has_ipv6: spec.has_ipv6,
        options: spec.options,
        labels: spec.labels,
        ipam_options: spec.ipam_options,
        ..NetworkRecord::built_in(id, &spec.name, driver, now())
    }
}

/// A subnet of local addresses (RFC 4193) that nobody else is likely to have: its number comes from the network's id.
fn local_subnet(id: &str) -> IpNet {
    let random = u64::from_str_radix(&id[..10], 16).unwrap_or_default();
    let bits = (0xfd << 120) | (u128::from(random) << 80);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 64))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
