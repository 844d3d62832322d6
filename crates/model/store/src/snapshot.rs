//! The whole store as one value, for snapshots.
//!
//! In and out: all objects in the order of their ids, and the index of the newest entry. Indexes are not part of it: they
//! are made anew.

use std::sync::Arc;

use objects::{Cluster, Config, Network, Node, Secret, Service, Task};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Object, Store};

#[derive(Serialize, Deserialize)]
struct Image {
    applied: u64,
    clusters: Vec<Arc<Cluster>>,
    nodes: Vec<Arc<Node>>,
    services: Vec<Arc<Service>>,
    networks: Vec<Arc<Network>>,
    /// Snapshots of earlier versions have none of these.
    #[serde(default)]
    secrets: Vec<Arc<Secret>>,
    #[serde(default)]
    configs: Vec<Arc<Config>>,
    tasks: Vec<Arc<Task>>,
}

impl Serialize for Store {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Image {
            applied: self.applied,
            clusters: self.clusters.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            secrets: self.secrets.values().cloned().collect(),
            configs: self.configs.values().cloned().collect(),
            tasks: self.tasks.values().cloned().collect(),
        }
        .serialize(out)
    }
}

impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let image = Image::deserialize(from)?;
        let mut store = Self { applied: image.applied, ..Self::default() };
        let clusters = image.clusters.into_iter().map(Object::Cluster);
        let nodes = image.nodes.into_iter().map(Object::Node);
        let services = image.services.into_iter().map(Object::Service);
        let networks = image.networks.into_iter().map(Object::Network);
        let secrets = image.secrets.into_iter().map(Object::Secret);
        let configs = image.configs.into_iter().map(Object::Config);
        let tasks = image.tasks.into_iter().map(Object::Task);
        let others = clusters.chain(nodes).chain(services).chain(networks).chain(secrets).chain(configs);
        for mut object in others.chain(tasks) {
            store.share_spec(&mut object);
            store.put(object);
        }
        Ok(store)
    }
}
