//! Which networks a container asks for: the checks when it is created or connected, and what it asks for when it starts.
//!
//! In: network mode and networking config of a request, the networks that exist. Out: settings by network name, or
//! Docker's refusals. Never changes a network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use docker::{EndpointSettings, HostConfig, NetworkingConfig};
use network::{NetworkFacts, NetworkJoin};

use super::record::Record;
use crate::engine::Inner;
use crate::error::EngineError;

/// The networks that the container joins, by name; the network mode's among them, unless others were asked for in place
/// of the default bridge.
pub(crate) async fn read(
    inner: &Inner,
    host: &HostConfig,
    asked: &NetworkingConfig,
) -> Result<BTreeMap<String, EndpointSettings>, EngineError> {
    if host.network_mode.starts_with("container:") {
        return Ok(BTreeMap::new());
    }
    let names = asked.endpoints_config.keys().map(String::as_str).chain([host.network_mode.as_str()]);
    let mut known = BTreeMap::new();
    for name in names {
        // A network that isn't there yet may be when the container starts.
        if let Ok(facts) = find(inner, name).await {
            known.insert(name.to_owned(), facts);
        }
    }
    choose(host, asked, &known)
}

/// The network of this name, id or id prefix.
pub(crate) async fn find(inner: &Inner, name: &str) -> Result<NetworkFacts, EngineError> {
    let name = if name == "default" { "bridge" } else { name };
    inner.config.network.facts(name).await.ok_or_else(|| EngineError::NoSuchNetwork(name.to_owned()))
}

fn choose(
    host: &HostConfig,
    asked: &NetworkingConfig,
    known: &BTreeMap<String, NetworkFacts>,
) -> Result<BTreeMap<String, EndpointSettings>, EngineError> {
    let unknown = |name: &str| NetworkFacts {
        id: String::new(),
        name: name.to_owned(),
        driver: String::new(),
        is_predefined: false,
        asked_subnets: Vec::new(),
    };
    let look_up = |name: &str| known.get(name).cloned().unwrap_or_else(|| unknown(name));
    let mode = look_up(&host.network_mode);
    let mut networks = BTreeMap::new();
    for (name, settings) in &asked.endpoints_config {
        let facts = look_up(name);
        if facts.name != mode.name && (is_alone(&facts) || is_alone(&mode)) {
            return Err(EngineError::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        let mut settings = settings.clone().unwrap_or_default();
        if known.contains_key(name) {
            check(&settings, &facts)?;
        }
        settings.network_id.clone_from(&facts.id);
        networks.insert(facts.name.clone(), settings);
    }
    if networks.is_empty() || mode.is_made_by_user() {
        let settings = networks.entry(mode.name.clone()).or_default();
        settings.network_id.clone_from(&mode.id);
    }
    Ok(networks)
}

/// Whoever is on this network is on no other.
fn is_alone(facts: &NetworkFacts) -> bool {
    matches!(facts.driver.as_str(), "host" | "null")
}

/// What a container may ask of a network. Source of the texts: moby, `daemon/container_operations.go`,
/// `validateEndpointSettings`, and `api/types/network/endpoint.go`.
pub(crate) fn check(settings: &EndpointSettings, facts: &NetworkFacts) -> Result<(), EngineError> {
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let none = docker::EndpointIpamConfig::default();
    let ipam = settings.ipam_config.as_ref().unwrap_or(&none);
    let asked: Vec<&str> = [&ipam.ipv4_address, &ipam.ipv6_address]
        .map(String::as_str)
        .into_iter()
        .filter(|ip| !ip.is_empty())
        .collect();
    let mut wrong = Vec::new();
    if !facts.is_made_by_user() {
        if !asked.is_empty() {
            wrong.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if has(&settings.aliases) {
            let text = "network-scoped alias is supported only for containers in user defined networks";
            wrong.push(text.to_owned());
        }
    } else if facts.driver != "overlay" {
        wrong.extend(asked.iter().filter_map(|ip| check_address(ip, facts).err()));
    }
    if !wrong.is_empty() {
        return Err(EngineError::invalid(format!("invalid endpoint settings:\n{}", wrong.join("\n"))));
    }
    if !ipam.link_local_ips.is_empty() {
        return Err(EngineError::NotSupported("a link-local address of one's own".into()));
    }
    // Those of swarm networks were looked at by the swarm.
    let has_options = settings.driver_opts.as_ref().is_some_and(|options| !options.is_empty());
    if has_options && facts.driver != "overlay" {
        return Err(EngineError::NotSupported("NetworkingConfig.EndpointsConfig.DriverOpts".into()));
    }
    Ok(())
}

fn check_address(text: &str, facts: &NetworkFacts) -> Result<(), String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("invalid IPv4 address: {text}"))?;
    if facts.asked_subnets.is_empty() {
        let text = "user specified IP address is supported only when connecting to networks with user configured subnets";
        return Err(text.to_owned());
    }
    if facts.asked_subnets.iter().any(|subnet| subnet.contains(&ip)) {
        return Ok(());
    }
    Err(format!("no configured subnet or ip-range contain the IP address {text}"))
}

/// A network that was not there when the container was created may have been asked for by its id: from now on its name is
/// known.
pub(crate) fn note_names(
    networks: &mut BTreeMap<String, EndpointSettings>,
    attachment: Option<&network::Attachment>,
) {
    for endpoint in attachment.iter().flat_map(|attachment| &attachment.endpoints) {
        if let Some(settings) = networks.remove(&endpoint.network_id) {
            networks.insert(endpoint.network_name.clone(), settings);
        }
        if let Some(settings) = networks.get_mut(&endpoint.network_name) {
            settings.network_id.clone_from(&endpoint.network_id);
        }
    }
}

/// Lines of `hosts` by which a container finds those that it is linked to, where they are now; nothing for those that
/// don't run.
pub(crate) fn link_lines(inner: &Inner, record: &Record) -> Result<String, EngineError> {
    record.networks.iter().map(|(network, settings)| lines_of(inner, network, settings)).collect()
}

/// The same for one network.
pub(crate) fn lines_of(
    inner: &Inner,
    network: &str,
    settings: &EndpointSettings,
) -> Result<String, EngineError> {
    let links = settings.links.iter().flatten();
    links.map(|link| Ok(line_of(inner, network, link)?.unwrap_or_default())).collect()
}

/// Target and alias of `target[:alias]`, also where inspect wrote `/target:/name/alias`.
fn parts(link: &str) -> (&str, &str) {
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    let last = |path: &'_ str| path.rfind('/').map_or(0, |slash| slash + 1);
    (target.trim_start_matches('/'), &alias[last(alias)..])
}

fn line_of(inner: &Inner, network: &str, link: &str) -> Result<Option<String>, EngineError> {
    let (target, alias) = parts(link);
    let target = inner.registry.find(target)?;
    let live = target.live();
    let attachment = live.record.run.attachment.as_ref();
    let Some(endpoint) = attachment.and_then(|attachment| attachment.endpoint(network)) else {
        return Ok(None);
    };
    let name = &live.record.name;
    let names = if alias == name { name.clone() } else { format!("{alias} {} {name}", &target.id[..12]) };
    Ok(endpoint.addresses.first().map(|address| format!("{}\t{names}\n", address.ip)))
}

/// What the container asks of its networks, its network mode's first.
pub(crate) fn joins(record: &Record) -> Result<Vec<NetworkJoin>, EngineError> {
    let mode = &record.host_config.network_mode;
    let is_mode = |name: &str, settings: &EndpointSettings| name == mode || settings.network_id == *mode;
    let mut networks: Vec<_> = record.networks.iter().collect();
    networks.sort_by_key(|(name, settings)| !is_mode(name, settings));
    let join = |(at, (name, settings)): (usize, (&String, &EndpointSettings))| {
        let mut join = join(name, settings)?;
        if at == 0 && join.mac.is_none() && !record.config.mac_address.is_empty() {
            join.mac = Some(record.config.mac_address.clone());
        }
        Ok(join)
    };
    networks.into_iter().enumerate().map(join).collect()
}

/// What these settings ask of the network.
pub(crate) fn join(network: &str, settings: &EndpointSettings) -> Result<NetworkJoin, EngineError> {
    fn read<T: std::str::FromStr>(text: &str) -> Result<Option<T>, EngineError> {
        let wrong = |_| EngineError::invalid(format!("invalid IP address: {text}"));
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
    }
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    Ok(NetworkJoin {
        network: network.to_owned(),
        ip: read(&ipam.ipv4_address)?,
        ip6: read(&ipam.ipv6_address)?,
        mac: Some(settings.mac_address.clone()).filter(|mac| !mac.is_empty()),
        aliases: settings.aliases.clone().unwrap_or_default(),
        driver_opts: settings.driver_opts.clone().unwrap_or_default(),
        gateway_priority: settings.gw_priority,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, driver: &str, subnets: &[&str]) -> NetworkFacts {
        NetworkFacts {
            id: format!("id-{name}"),
            name: name.into(),
            driver: driver.into(),
            is_predefined: matches!(name, "bridge" | "host" | "none"),
            asked_subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        }
    }

    fn chosen(mode: &str, asked: &[&str]) -> Result<Vec<String>, String> {
        let mut known: BTreeMap<String, NetworkFacts> = BTreeMap::new();
        for (name, driver) in
            [("bridge", "bridge"), ("host", "host"), ("none", "null"), ("blue", "bridge"), ("red", "bridge")]
        {
            known.insert(name.into(), facts(name, driver, &[]));
        }
        known.insert("default".into(), facts("bridge", "bridge", &[]));
        known.insert("id-blue".into(), facts("blue", "bridge", &[]));
        let host = HostConfig { network_mode: mode.into(), ..Default::default() };
        let endpoints_config = asked.iter().map(|name| ((*name).to_owned(), None)).collect();
        let networks = choose(&host, &NetworkingConfig { endpoints_config }, &known);
        networks.map(|networks| networks.into_keys().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_network_mode_is_joined_and_what_was_asked_for_besides() {
        let check = |mode: &str, asked: &[&str], expect: &[&str]| {
            assert_eq!(chosen(mode, asked).unwrap(), expect, "{mode} {asked:?}");
        };
        check("bridge", &[], &["bridge"]);
        check("bridge", &["default"], &["bridge"]);
        check("host", &["host"], &["host"]);
        check("blue", &[], &["blue"]);
        check("blue", &["red"], &["blue", "red"]);
        check("id-blue", &["blue"], &["blue"]);
        // In place of the default bridge, as a client does that leaves the mode open.
        check("bridge", &["red"], &["red"]);
        check("bridge", &["bridge", "red"], &["bridge", "red"]);
        check("later", &["later", "red"], &["later", "red"]);
        for (mode, asked) in [("host", "blue"), ("blue", "none"), ("none", "bridge")] {
            let text =
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
            assert_eq!(chosen(mode, &[asked]).unwrap_err(), text);
        }
    }

    #[test]
    fn links_are_read_as_users_and_as_inspect_write_them() {
        assert_eq!(parts("db:data"), ("db", "data"));
        assert_eq!(parts("db"), ("db", "db"));
        assert_eq!(parts("/db:/web/data"), ("db", "data"));
    }

    #[test]
    fn addresses_are_for_networks_with_a_subnet_of_the_users_choice() {
        let settings = |ip: &str| EndpointSettings {
            ipam_config: Some(docker::EndpointIpamConfig { ipv4_address: ip.into(), ..Default::default() }),
            ..Default::default()
        };
        let refusal = |ip: &str, facts: &NetworkFacts| check(&settings(ip), facts).unwrap_err().to_string();
        let own = facts("blue", "bridge", &["10.1.0.0/24"]);
        assert!(check(&settings("10.1.0.9"), &own).is_ok());
        assert_eq!(
            refusal("10.2.0.9", &own),
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.2.0.9"
        );
        assert!(
            refusal("10.2.0.9", &facts("red", "bridge", &[]))
                .ends_with("networks with user configured subnets")
        );
        assert!(refusal("10.2.0.9", &facts("bridge", "bridge", &[])).ends_with("user defined networks only"));
    }
}
