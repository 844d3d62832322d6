//! Tells a container's shim where the names come from that it answers for.
//!
//! In: the container's networks, what it, the daemon and the machine say about resolvers. Out: `resolver.json` beside the
//! shim's orders, and whether there is a resolver at all: on the default bridge containers have no names, as in Docker.
//! Never writes names: `host/network` does, one file for all containers of a network.

use network::{Attachment, Endpoint};
use shim::{NetworkNames, ResolverConfig, ResolverSpec};

use super::Container;
use super::record::Record;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::files::{self, Roots};
use crate::spec_build::network_files::{self, DaemonDns};

/// The network on which nobody has a name.
const DEFAULT_BRIDGE: &str = "bridge";

/// The resolver of a container that is attached like this.
pub(crate) fn spec(attachment: Option<&Attachment>) -> Option<ResolverSpec> {
    let endpoints = attachment.into_iter().flat_map(|attachment| &attachment.endpoints);
    endpoints.into_iter().any(has_names).then(ResolverSpec::default)
}

/// Tells the shim before it starts. It heeds what it is told from the next query on.
pub(crate) fn write(inner: &Inner, record: &Record, attachment: &Attachment) -> Result<(), EngineError> {
    let upstreams = network_files::upstreams(record, daemon_dns(inner), &machine());
    let config = config(&inner.roots, attachment, upstreams);
    let dir = inner.roots.shim(&record.id);
    config.write(&dir).map_err(|source| EngineError::File {
        what: "write",
        path: dir.join(shim::RESOLVER_FILE),
        source,
    })
}

/// Makes what a running container's resolver was told true again: after its networks changed, and when a daemon finds it,
/// whose flags may name other resolvers. One that was started on networks without names gets a resolver once it is on one
/// with names, and keeps it. To be called in the container's turn; a failure costs it names, not its life.
pub(crate) async fn follow(inner: &Inner, container: &Container) {
    let record = container.record();
    let attachment = record.run.attachment.as_ref().filter(|_| container.status().has_process());
    let Some(attachment) = attachment else { return };
    let file = inner.roots.shim(&record.id).join(shim::RESOLVER_FILE);
    let told = match (file.exists(), spec(Some(attachment))) {
        (true, _) => write(inner, &record, attachment),
        (false, Some(_)) => open(inner, container, &record, attachment).await.inspect_err(|_| {
            // It would be taken for one that was opened.
            let _ = std::fs::remove_file(&file);
        }),
        (false, None) => Ok(()),
    };
    if let Err(error) = told {
        tracing::warn!(container.id = %record.id, error = &error as &dyn std::error::Error, "resolver not told");
    }
}

async fn open(
    inner: &Inner,
    container: &Container,
    record: &Record,
    attachment: &Attachment,
) -> Result<(), EngineError> {
    write(inner, record, attachment)?;
    let shim = container.running()?.shim;
    shim.open_resolver().await.map_err(|error| EngineError::Shim(Box::new(error)))?;
    let text = network_files::resolv_conf_of_resolver(record, daemon_dns(inner), &machine());
    files::write_file(&inner.roots.container(&record.id).join("resolv.conf"), text.as_bytes(), 0o644)
}

/// A machine without this file has no resolvers.
fn machine() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// What the daemon's flags say about resolvers.
pub(crate) fn daemon_dns(inner: &Inner) -> DaemonDns<'_> {
    DaemonDns {
        servers: &inner.config.dns,
        search: &inner.config.dns_search,
        options: &inner.config.dns_options,
    }
}

fn config(roots: &Roots, attachment: &Attachment, upstreams: Vec<shim::Upstream>) -> ResolverConfig {
    let networks = attachment.endpoints.iter().filter(|endpoint| has_names(endpoint));
    let names = |endpoint: &Endpoint| NetworkNames {
        id: endpoint.network_id.clone(),
        path: roots.names(&endpoint.network_id),
    };
    // Source: moby, `Sandbox.populateNetworkResources`: who has no way out asks nobody.
    let internal = attachment.way_out().is_none();
    ResolverConfig { networks: networks.map(names).collect(), upstreams, internal }
}

fn has_names(endpoint: &Endpoint) -> bool {
    endpoint.interface.is_some() && !endpoint.is_for_way_out && endpoint.network_name != DEFAULT_BRIDGE
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use network::{EndpointAddress, Interface, SandboxMode};

    use super::*;

    fn endpoint(name: &str, leads_out: bool, is_for_way_out: bool) -> Endpoint {
        let ip = IpAddr::from([10, 0, 1, 2]);
        Endpoint {
            network_id: format!("{name}-id"),
            network_name: name.into(),
            driver: "bridge".into(),
            endpoint_id: name.into(),
            addresses: vec![EndpointAddress { ip, prefix: 24, gateway: leads_out.then_some(ip) }],
            mac: None,
            aliases: Vec::new(),
            gateway_priority: 0,
            is_for_way_out,
            interface: Some(Interface {
                host_name: String::new(),
                bridge: String::new(),
                macvlan: None,
                namespace: None,
                isolated: false,
                name: String::new(),
                mac: String::new(),
                addresses: Vec::new(),
                gateways: Vec::new(),
                mtu: 0,
            }),
        }
    }

    fn attachment(endpoints: Vec<Endpoint>) -> Attachment {
        Attachment { mode: SandboxMode::Own, hostname: String::new(), endpoints, ports: Vec::new() }
    }

    /// Networks by id, and whether others are asked; `None` without a resolver.
    fn check(endpoints: Vec<Endpoint>, expect: Option<(&[&str], bool)>) {
        let attachment = attachment(endpoints);
        let roots = Roots::new("/data".into(), "/run".into());
        let config = config(&roots, &attachment, Vec::new());
        let ids: Vec<&str> = config.networks.iter().map(|network| network.id.as_str()).collect();
        let found = spec(Some(&attachment)).map(|_| (&ids[..], !config.internal));
        assert_eq!(found, expect);
        for network in &config.networks {
            assert_eq!(network.path, std::path::Path::new("/run/names").join(&network.id));
        }
    }

    #[test]
    fn names_come_from_the_networks_that_have_some() {
        check(vec![endpoint("bridge", true, false)], None);
        check(vec![], None);
        check(vec![Endpoint { interface: None, ..endpoint("host", false, false) }], None);
        check(vec![endpoint("back", true, false)], Some((&["back-id"], true)));
        let all = vec![
            endpoint("over", false, false),
            endpoint("bridge", true, false),
            endpoint("back", true, false),
        ];
        check(all, Some((&["over-id", "back-id"], true)));
        let swarm = vec![endpoint("over", false, false), endpoint("docker_gwbridge", true, true)];
        check(swarm, Some((&["over-id"], true)));
        check(vec![endpoint("inner", false, false)], Some((&["inner-id"], false)));
    }
}
