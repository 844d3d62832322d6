//! Decides where virtual addresses lead, and what of it changes.
//!
//! In: networks as the node is told of them, and news about them. Out: the tables that clients get in their own namespaces,
//! and changes by VIP. What is told as news costs what it changes, however many services there are. Never knows containers.
//!
//! ```text
//!  output (nat)    ip daddr vmap @vips ─► chain of the VIP ─► dnat to its backends in turn (address only: every port, ICMP)
//!  output (filter) ip daddr @unserved ─► refused at once
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use objects::ServiceId;
use wire::network::{EndpointView, NetworkNews, NetworkView};

use crate::table::{
    Action, Base, Chain, Family, Key, Map, MapKind, Match, Rule, Table, Value, Version, name_part,
};

/// The table in a client's namespace.
pub const TABLE: &str = "skep-vip";
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

/// Virtual addresses of one network, and where they lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VipPlan {
    vips: BTreeMap<ServiceId, Vec<IpAddr>>,
    /// Serving containers by service and key.
    members: BTreeMap<ServiceId, BTreeMap<String, Vec<IpAddr>>>,
    /// Service of each serving container.
    service_of: BTreeMap<String, ServiceId>,
}

/// A virtual address that leads elsewhere now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipChange {
    /// The address.
    pub vip: IpAddr,
    /// Its backends before; `None` when it was nobody's.
    pub before: Option<Vec<IpAddr>>,
    /// Its backends now; `None` when it is nobody's. Empty: connections are refused.
    pub after: Option<Vec<IpAddr>>,
}

impl VipChange {
    /// Backends that are none any more: datagrams would go on to them.
    pub fn left(&self) -> impl Iterator<Item = IpAddr> {
        let after = self.after.as_deref().unwrap_or_default();
        self.before.iter().flatten().copied().filter(move |ip| !after.contains(ip))
    }
}

impl VipPlan {
    /// All of a network.
    pub fn of(view: &NetworkView) -> Self {
        let mut plan = Self::default();
        for (id, service) in &view.services {
            plan.vips.insert(id.clone(), service.vips.clone());
        }
        for (key, endpoint) in &view.endpoints {
            plan.put_endpoint(key, Some(endpoint));
        }
        plan
    }

    /// Takes in what is different, and tells which VIPs lead elsewhere now.
    pub fn take_in(&mut self, news: &NetworkNews) -> Vec<VipChange> {
        let mut touched: BTreeSet<ServiceId> = news.services.keys().cloned().collect();
        for (key, endpoint) in &news.endpoints {
            touched.extend(self.service_of.get(key).cloned());
            touched.extend(endpoint.iter().filter_map(|endpoint| endpoint.service.clone()));
        }
        let before = self.of_services(&touched);
        for (id, service) in &news.services {
            match service {
                Some(service) => drop(self.vips.insert(id.clone(), service.vips.clone())),
                None => drop(self.vips.remove(id)),
            }
        }
        for (key, endpoint) in &news.endpoints {
            self.put_endpoint(key, endpoint.as_ref());
        }
        between(before, self.of_services(&touched))
    }

    /// Takes in a network that is told as a whole, and tells which VIPs lead elsewhere now.
    pub fn replace(&mut self, view: &NetworkView) -> Vec<VipChange> {
        let before = self.all();
        *self = Self::of(view);
        between(before, self.all())
    }

    /// Every VIP with its backends, in order.
    pub fn all(&self) -> BTreeMap<IpAddr, Vec<IpAddr>> {
        self.vips.iter().flat_map(|(id, vips)| self.of_service(id, vips)).collect()
    }

    fn of_services(&self, ids: &BTreeSet<ServiceId>) -> BTreeMap<IpAddr, Vec<IpAddr>> {
        let known = ids.iter().filter_map(|id| Some((id, self.vips.get(id)?)));
        known.flat_map(|(id, vips)| self.of_service(id, vips)).collect()
    }

    fn of_service<'a>(
        &'a self,
        id: &'a ServiceId,
        vips: &'a [IpAddr],
    ) -> impl Iterator<Item = (IpAddr, Vec<IpAddr>)> + 'a {
        let members = self.members.get(id);
        vips.iter().map(move |vip| {
            let addresses = members.into_iter().flat_map(BTreeMap::values).flatten().copied();
            let mut backends: Vec<_> = addresses.filter(|ip| ip.is_ipv4() == vip.is_ipv4()).collect();
            backends.sort_unstable();
            backends.dedup();
            (*vip, backends)
        })
    }

    fn put_endpoint(&mut self, key: &str, endpoint: Option<&EndpointView>) {
        if let Some(service) = self.service_of.remove(key)
            && let Some(members) = self.members.get_mut(&service)
        {
            members.remove(key);
            if members.is_empty() {
                self.members.remove(&service);
            }
        }
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.is_serving) else { return };
        let Some(service) = &endpoint.service else { return };
        self.service_of.insert(key.to_owned(), service.clone());
        let members = self.members.entry(service.clone()).or_default();
        members.insert(key.to_owned(), endpoint.addresses.clone());
    }
}

fn between(
    before: BTreeMap<IpAddr, Vec<IpAddr>>,
    mut after: BTreeMap<IpAddr, Vec<IpAddr>>,
) -> Vec<VipChange> {
    let mut changes = Vec::new();
    for (vip, before) in before {
        let after = after.remove(&vip);
        if after.as_ref() != Some(&before) {
            changes.push(VipChange { vip, before: Some(before), after });
        }
    }
    let new = after.into_iter().map(|(vip, after)| VipChange { vip, before: None, after: Some(after) });
    changes.extend(new);
    changes
}

/// Name of the map from the VIPs of one version to their chains.
pub fn vips_map(version: Version) -> &'static str {
    match version {
        Version::V4 => "vips",
        Version::V6 => "vips6",
    }
}

/// Name of the set of the VIPs of one version that have no backends.
pub fn unserved_set(version: Version) -> &'static str {
    match version {
        Version::V4 => "unserved",
        Version::V6 => "unserved6",
    }
}

/// Name of the chain of a VIP.
pub fn vip_chain(vip: IpAddr) -> String {
    format!("vip_{}", name_part(vip))
}

/// The rules of the chain of a VIP with backends.
pub fn vip_rules(backends: &[IpAddr]) -> Vec<Rule> {
    vec![Rule::always(Action::Translate(backends.to_vec()))]
}

/// The table in the namespace of a client that is on these networks. An address that two of them have is the first one's.
pub fn table<'a>(networks: impl Iterator<Item = &'a VipPlan>) -> Table {
    let mut all = BTreeMap::new();
    for (vip, backends) in networks.flat_map(VipPlan::all) {
        all.entry(vip).or_insert(backends);
    }
    let mut maps = Vec::new();
    for version in VERSIONS {
        let of_version = || all.iter().filter(|(vip, _)| Version::of(**vip) == version);
        let served = of_version().filter(|(_, backends)| !backends.is_empty());
        let unserved = of_version().filter(|(_, backends)| backends.is_empty());
        maps.push(Map {
            name: vips_map(version),
            kind: MapKind::AddressChains(version),
            elements: served.map(|(vip, _)| (Key::Address(*vip), Value::Chain(vip_chain(*vip)))).collect(),
        });
        maps.push(Map {
            name: unserved_set(version),
            kind: MapKind::Addresses(version),
            elements: unserved.map(|(vip, _)| (Key::Address(*vip), Value::Nothing)).collect(),
        });
    }
    let served = all.iter().filter(|(_, backends)| !backends.is_empty());
    let mut chains: Vec<_> = served
        .map(|(vip, backends)| Chain { name: vip_chain(*vip), base: None, rules: vip_rules(backends) })
        .collect();
    let translate = |version| Rule::always(Action::ChainOfDestination(version, vips_map(version)));
    let refuse = |version| Rule::when([Match::ToOneOf(version, unserved_set(version))], Action::Refuse);
    chains.push(Chain::base("output", Base::NatLocal, VERSIONS.map(translate).to_vec()));
    chains.push(Chain::base("refuse", Base::Output, VERSIONS.map(refuse).to_vec()));
    Table { family: Family::Inet, name: TABLE, maps, chains }
}

#[cfg(test)]
mod tests;
