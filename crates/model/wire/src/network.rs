//! Networks of the swarm as a node is told of them: who is on them, and how that changes.
//!
//! A node learns of a network while it uses it: a live task or an attached container of its own is on it, or it is the
//! ingress network. In: views, and news about them. Out: the views after the news ([`apply`]), and the news that lead from
//! one view to another ([`NetworkNews::between`]). Nothing here is secret: a node keeps it on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use objects::{NetworkId, NodeId, PortConfig, ServiceId};
use serde::{Deserialize, Serialize};

use crate::Hidden;
use crate::session::Assignments;

/// The networks that a node was told of.
pub type Networks = BTreeMap<NetworkId, NetworkView>;

/// A key that traffic of encrypted networks is derived from; in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkKey {
    /// Counts the keys: the newer one has the higher number.
    pub number: u64,
    /// 32 bytes in base 64.
    pub key: Hidden,
}

/// A network of the swarm with everything that a node on it has to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether plain containers may attach.
    pub attachable: bool,
    /// Whether it is the routing mesh.
    pub ingress: bool,
    /// Whether its traffic between nodes is encrypted.
    pub encrypted: bool,
    /// What a user asked for; `None` follows the machine's.
    pub mtu: Option<u32>,
    /// Number of the VXLAN; 24 bits.
    pub vni: u32,
    /// UDP port of the VXLAN, the same on every node.
    pub data_path_port: u16,
    /// First the one of IPv4, then that of IPv6 if it has one.
    pub subnets: Vec<IpNet>,
    /// One per subnet, in their order. No task ever has one of them.
    pub gateways: Vec<IpAddr>,
    /// Every node that uses it, the one that is told included.
    pub peers: BTreeMap<NodeId, PeerView>,
    /// Containers on it, by id of the task (or of the task that stands for an attachment).
    pub endpoints: BTreeMap<String, EndpointView>,
    /// Services on it.
    pub services: BTreeMap<ServiceId, ServiceView>,
}

/// A node on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Where its VXLAN traffic arrives.
    pub data_path: IpAddr,
    /// The node's own addresses on this network; only the ingress network has any.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Names what its kernel holds of encrypted networks; zero: it cannot encrypt. Keys between two machines follow from the
    /// numbers of both: what counts packets begins anew on both sides when one of them lost it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub encryption_generation: u64,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointView {
    /// The node that it is on.
    pub node: NodeId,
    /// First the one of IPv4, then that of IPv6 if the network has one.
    pub addresses: Vec<IpAddr>,
    /// Names that mean this container alone: its own, its host name, aliases of the task.
    pub names: Vec<String>,
    /// Its service; `None` for a plain container.
    pub service: Option<ServiceId>,
    /// Whether it runs and is wanted to: only then names and VIPs lead to it.
    pub is_serving: bool,
    /// Its published ports as it knows them: while an update changes the port inside, old and new tasks differ. Only on the
    /// ingress network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// A service on a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Further names that mean the service.
    pub aliases: Vec<String>,
    /// Its virtual addresses; empty when its names resolve to its tasks (`dnsrr`).
    pub vips: Vec<IpAddr>,
    /// Ports that it publishes on every node; only on the ingress network.
    pub ports: Vec<PortConfig>,
}

/// What is different about a network that the node knows. `None` in a map: no longer there.
///
/// What the maps don't hold never changes under a network's id; if it does, the whole view is sent again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkNews {
    /// Which network.
    pub id: NetworkId,
    /// Nodes that came, changed or left.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<NodeId, Option<PeerView>>,
    /// Containers that came, changed or left.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, Option<EndpointView>>,
    /// Services that came, changed or left.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceId, Option<ServiceView>>,
}

impl NetworkNews {
    /// No news of a network.
    pub fn of(id: NetworkId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.endpoints.is_empty() && self.services.is_empty()
    }

    /// The news that lead from one view of a network to another, as far as their maps go.
    pub fn between(old: &NetworkView, new: &NetworkView) -> Self {
        Self {
            id: new.id.clone(),
            peers: difference(&old.peers, &new.peers),
            endpoints: difference(&old.endpoints, &new.endpoints),
            services: difference(&old.services, &new.services),
        }
    }
}

impl NetworkView {
    /// Whether everything but the maps is the same: news are enough to lead from one to the other.
    pub fn is_same_network(&self, other: &Self) -> bool {
        let bare = |view: &Self| Self {
            peers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
            ..view.clone()
        };
        bare(self) == bare(other)
    }

    /// Takes in what is different.
    pub fn take_in(&mut self, news: &NetworkNews) {
        change(&mut self.peers, &news.peers);
        change(&mut self.endpoints, &news.endpoints);
        change(&mut self.services, &news.services);
    }
}

/// Takes in what a manager told of networks. News of a network that is not known are skipped: it is told as a whole first.
pub fn apply(networks: &mut Networks, told: &Assignments) {
    let known = |view: &NetworkView| (view.id.clone(), view.clone());
    match told {
        Assignments::Complete(all) => *networks = all.networks.iter().map(known).collect(),
        Assignments::Incremental { update, remove } => {
            for id in &remove.networks {
                networks.remove(id);
            }
            networks.extend(update.networks.iter().map(known));
            for news in &update.network_news {
                if let Some(view) = networks.get_mut(&news.id) {
                    view.take_in(news);
                }
            }
        }
    }
}

// By reference, as serde asks.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn difference<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    gone.chain(changed.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

fn change<K: Ord + Clone, V: Clone>(known: &mut BTreeMap<K, V>, news: &BTreeMap<K, Option<V>>) {
    for (key, value) in news {
        match value {
            Some(value) => drop(known.insert(key.clone(), value.clone())),
            None => drop(known.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Assigned, Removed};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn peer() -> impl Strategy<Value = PeerView> {
        (any::<u8>(), vec(any::<u8>(), 0..2), 0..2u64).prop_map(|(last, own, encryption_generation)| {
            PeerView {
                encryption_generation,
                data_path: IpAddr::from([192, 0, 2, last]),
                addresses: own.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect(),
            }
        })
    }

    fn endpoint() -> impl Strategy<Value = EndpointView> {
        ("[ab]", any::<u8>(), vec("[a-z]", 0..2), any::<bool>()).prop_map(
            |(node, last, names, is_serving)| EndpointView {
                node: node.into(),
                addresses: vec![IpAddr::from([10, 0, 1, last])],
                names,
                service: None,
                is_serving,
                ports: Vec::new(),
            },
        )
    }

    fn service() -> impl Strategy<Value = ServiceView> {
        ("[a-z]", any::<u8>()).prop_map(|(name, last)| ServiceView {
            name,
            vips: vec![IpAddr::from([10, 0, 1, last])],
            ..ServiceView::default()
        })
    }

    fn view() -> impl Strategy<Value = NetworkView> {
        let peers = btree_map("[a-c]".prop_map(NodeId::from), peer(), 0..4);
        let endpoints = btree_map("[a-c]", endpoint(), 0..4);
        let services = btree_map("[a-c]".prop_map(ServiceId::from), service(), 0..4);
        (peers, endpoints, services).prop_map(|(peers, endpoints, services)| NetworkView {
            id: "net".into(),
            name: "net".to_owned(),
            vni: 4097,
            subnets: vec!["10.0.1.0/24".parse().expect("a subnet")],
            peers,
            endpoints,
            services,
            ..NetworkView::default()
        })
    }

    proptest! {
        #[test]
        fn news_lead_to_what_everything_says(views in vec(view(), 1..6)) {
            let mut known = Networks::new();
            let all = Assigned { networks: vec![views[0].clone()], ..Assigned::default() };
            apply(&mut known, &Assignments::Complete(all));
            for pair in views.windows(2) {
                let news = NetworkNews::between(&pair[0], &pair[1]);
                prop_assert_eq!(news.is_empty(), pair[0] == pair[1]);
                let text = serde_json::to_string(&news).unwrap();
                let news = serde_json::from_str(&text).unwrap();
                let update = Assigned { network_news: vec![news], ..Assigned::default() };
                apply(&mut known, &Assignments::Incremental { update, remove: Removed::default() });
                prop_assert_eq!(&known[&NetworkId::from("net")], &pair[1]);
            }
        }
    }

    #[test]
    fn a_network_is_forgotten_when_it_is_told_to_be() {
        let view = |id: &str| NetworkView { id: id.into(), ..NetworkView::default() };
        let mut known = Networks::from([("a".into(), view("a")), ("b".into(), view("b"))]);
        let update = Assigned { networks: vec![view("c")], ..Assigned::default() };
        let remove = Removed { networks: vec!["a".into()], ..Removed::default() };
        apply(&mut known, &Assignments::Incremental { update, remove });
        assert_eq!(known.keys().map(NetworkId::as_str).collect::<Vec<_>>(), ["b", "c"]);
        let all = Assigned { networks: vec![view("a")], ..Assigned::default() };
        apply(&mut known, &Assignments::Complete(all));
        assert_eq!(known.keys().map(NetworkId::as_str).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn news_of_a_network_that_is_not_known_are_skipped() {
        let mut known = Networks::new();
        let mut news = NetworkNews::of("a".into());
        news.services.insert("s".into(), None);
        let update = Assigned { network_news: vec![news], ..Assigned::default() };
        apply(&mut known, &Assignments::Incremental { update, remove: Removed::default() });
        assert!(known.is_empty());
    }
}
