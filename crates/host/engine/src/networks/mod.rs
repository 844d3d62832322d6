//! The networks of this machine as users make, list and remove them.
//!
//! In: Docker's requests. Out: Docker's answers and events. Addresses, bridges and rules are `host/network`'s; which
//! containers are on a network says [`connect`].

mod connect;

use docker::{
    Filters, Ipam, NetworkCreateRequest, NetworkCreateResponse, NetworkInspect, NetworksPruneReport,
};
use network::{AskedSubnet, NetworkSpec};
use objects::Timestamp;

use crate::engine::{Engine, now};
use crate::error::EngineError;

impl Engine {
    /// Makes a network of this machine.
    pub async fn network_create(
        &self,
        request: NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse, EngineError> {
        let spec = read(request)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let inner = &engine.inner;
            let name = spec.name.clone();
            let driver = if spec.driver == "macvlan" { "macvlan" } else { "bridge" };
            let id = inner.config.network.create(spec).await?;
            inner.events.network(&id, "create", &[("name", &name), ("type", driver)]);
            Ok(NetworkCreateResponse { id, warning: String::new() })
        })
        .await
    }

    /// Removes a network that no running container is on.
    pub async fn network_remove(&self, network: &str) -> Result<(), EngineError> {
        let (engine, network) = (self.clone(), network.to_owned());
        self.to_the_end(async move { remove(&engine, &network).await.map(drop) }).await
    }

    /// Removes every network of a user's that no running container is on and that passes `label` and `until`.
    pub async fn networks_prune(&self, filters: &Filters) -> Result<NetworksPruneReport, EngineError> {
        let invalid = |error: docker::filters::FilterError| EngineError::invalid(error.to_string());
        filters.validate(&["label", "label!", "until"]).map_err(invalid)?;
        let mut until = None;
        for text in filters.get("until") {
            until =
                docker::units::parse_moment(text, now()).map_err(|e| EngineError::invalid(e.to_string()))?;
        }
        let mut report = NetworksPruneReport { networks_deleted: Some(Vec::new()) };
        for network in self.inner.config.network.list().await {
            if !may_be_pruned(&network, filters, until) {
                continue;
            }
            let (engine, id) = (self.clone(), network.id);
            // Somebody may have used or removed it meanwhile.
            if let Ok(name) = self.to_the_end(async move { remove(&engine, &id).await }).await {
                report.networks_deleted.get_or_insert_default().push(name);
            }
        }
        Ok(report)
    }
}

async fn remove(engine: &Engine, network: &str) -> Result<String, EngineError> {
    let inner = &engine.inner;
    let driver = inner.config.network.facts(network).await.map(|facts| facts.driver).unwrap_or_default();
    let (name, id) = inner.config.network.remove(network).await?;
    inner.events.network(&id, "destroy", &[("name", &name), ("type", &driver)]);
    Ok(name)
}

fn may_be_pruned(network: &NetworkInspect, filters: &Filters, until: Option<Timestamp>) -> bool {
    network.scope == "local"
        && network.driver != "host"
        && network.driver != "null"
        && network.name != "bridge"
        && network.containers.is_empty()
        && until.is_none_or(|until| network.created < until)
        && filters.matches_labels("label", &network.labels)
        && !(filters.contains("label!") && filters.matches_labels("label!", &network.labels))
}

/// What is asked for, or what we don't do, by name.
fn read(request: NetworkCreateRequest) -> Result<NetworkSpec, EngineError> {
    let refuse = |what: &str| Err(EngineError::NotSupported(what.to_owned()));
    if request.ingress {
        return Err(EngineError::invalid("ingress network must be a swarm network"));
    }
    if request.scope == "swarm" {
        return Err(EngineError::invalid(format!(
            "driver \"{}\" makes no networks of scope swarm",
            request.driver
        )));
    }
    if request.config_only || request.config_from.is_some_and(|from| !from.network.is_empty()) {
        return refuse("a network that takes its configuration from another");
    }
    if request.enable_ipv4 == Some(false) {
        return refuse("a bridge network without IPv4");
    }
    let ipam = request.ipam.unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(EngineError::NotFound(format!("plugin \"{}\" not found", ipam.driver)));
    }
    Ok(NetworkSpec {
        name: request.name,
        driver: request.driver,
        is_internal: request.internal,
        is_attachable: request.attachable,
        has_ipv6: request.enable_ipv6 == Some(true),
        ipam_options: ipam.options.clone(),
        subnets: subnets(ipam),
        options: request.options,
        labels: request.labels,
    })
}

fn subnets(ipam: Ipam) -> Vec<AskedSubnet> {
    let asked = ipam.config.into_iter().flatten().map(|config| AskedSubnet {
        subnet: config.subnet,
        range: config.ip_range,
        gateway: config.gateway,
        reserved: config.auxiliary_addresses,
    });
    asked.collect()
}
