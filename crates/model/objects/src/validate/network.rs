//! Refuses networks of the swarm that cannot work, in Docker's wording.
//!
//! In: a spec. Out: nothing, or the first error. Overlaps with other networks are found where the store is at hand. Source of
//! texts and order: moby/swarmkit, `manager/controlapi/network.go`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{SpecError, invalid, name};
use crate::{IpamConfig, MTU_OPTION, NODE_NETWORKS, NetworkSpec, OVERLAY, SHORT_VXLAN_OPTION, VXLAN_OPTION};

/// Label of networks that swarm mirrors from the nodes. Source: moby/swarmkit, `networkallocator.PredefinedLabel`.
const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// Numbers of VXLANs have 24 bits; zero is none.
const MAX_VNI: u32 = (1 << 24) - 1;
/// Least MTU of IPv4. Source: RFC 791.
const MIN_MTU: u32 = 68;

/// Refuses a network that cannot work.
pub fn network(spec: &NetworkSpec) -> Result<(), SpecError> {
    let driver = spec.driver_configuration.as_ref().map_or("", |driver| driver.name.as_str());
    if !matches!(driver, "" | OVERLAY) {
        let text = match spec.ingress {
            true => "only overlay driver is currently supported for ingress network".to_owned(),
            false => format!("networks of the swarm with the driver \"{driver}\" are not supported"),
        };
        return Err(SpecError::Unsupported(text));
    }
    if spec.attachable && spec.ingress {
        return invalid("ingress network cannot be attachable");
    }
    name(&spec.name)?;
    if NODE_NETWORKS.contains(&spec.name.as_str()) {
        return Err(SpecError::Forbidden(format!(
            "operation is not permitted on predefined {} network",
            spec.name
        )));
    }
    if spec.labels.contains_key(PREDEFINED_LABEL) {
        return Err(SpecError::Forbidden(format!(
            "label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        )));
    }
    if spec.config_from.as_ref().is_some_and(|from| !from.network.is_empty()) {
        return Err(SpecError::Unsupported(
            "networks that take their settings from another are not supported".into(),
        ));
    }
    options(spec)?;
    let Some(ipam) = &spec.ipam_options else { return Ok(()) };
    if !matches!(ipam.driver.name.as_str(), "" | "default") {
        return Err(SpecError::Unsupported(format!(
            "the IPAM driver \"{}\" is not supported",
            ipam.driver.name
        )));
    }
    ipam.configs.iter().try_for_each(addresses)
}

fn options(spec: &NetworkSpec) -> Result<(), SpecError> {
    let is_number =
        |text: &str, least, most| text.trim().parse().is_ok_and(|it: u32| (least..=most).contains(&it));
    if let Some(mtu) = spec.driver_option(MTU_OPTION).filter(|text| !is_number(text, MIN_MTU, 65_535)) {
        return invalid(format!("invalid MTU \"{mtu}\""));
    }
    for list in [VXLAN_OPTION, SHORT_VXLAN_OPTION].into_iter().filter_map(|option| spec.driver_option(option))
    {
        if let Some(vni) = list.split(',').find(|vni| !is_number(vni, 1, MAX_VNI)) {
            return invalid(format!("invalid vxlan id value {vni:?} passed"));
        }
    }
    Ok(())
}

/// One subnet as a user asks for it; every part may be left out.
fn addresses(config: &IpamConfig) -> Result<(), SpecError> {
    if config.subnet.is_empty() {
        let is_lone = !config.range.is_empty() || !config.gateway.is_empty();
        return if is_lone { invalid("ipam configuration: invalid subnet ") } else { Ok(()) };
    }
    let Ok(subnet) = config.subnet.parse::<IpNet>() else {
        return invalid(format!("ipam configuration: invalid subnet {}", config.subnet));
    };
    if !config.range.is_empty() {
        let Ok(range) = config.range.parse::<IpNet>() else {
            return invalid(format!("ipam configuration: invalid range {}", config.range));
        };
        if !subnet.contains(&range) {
            let text = format!("ipam configuration: subnet {subnet} does not contain range {range}");
            return invalid(text);
        }
    }
    if !config.gateway.is_empty() {
        let Ok(gateway) = config.gateway.parse::<IpAddr>() else {
            return invalid(format!("ipam configuration: invalid gateway {}", config.gateway));
        };
        if !subnet.contains(&gateway) {
            let text = format!("ipam configuration: subnet {subnet} does not contain gateway {gateway}");
            return invalid(text);
        }
    }
    // A gateway, a virtual address and a task.
    let most = if subnet.addr().is_ipv4() { 29 } else { 125 };
    if subnet.prefix_len() > most {
        return invalid(format!("ipam configuration: subnet {subnet} is too small: /{most} is the smallest"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Driver, IpamOptions};

    fn check(change: impl FnOnce(&mut NetworkSpec), expect: &str) {
        let mut spec = NetworkSpec { name: "net".to_owned(), ..NetworkSpec::default() };
        change(&mut spec);
        let text = network(&spec).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert_eq!(text, expect);
    }

    fn driver(name: &str, options: &[(&str, &str)]) -> Option<Driver> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Some(Driver { name: name.to_owned(), options: options.collect() })
    }

    #[test]
    fn networks_are_refused_in_swarms_wording() {
        check(|_| {}, "ok");
        check(|spec| spec.name.clear(), "meta: name must be provided");
        check(|spec| spec.name = "a b".to_owned(), "name must be valid as a DNS name component");
        check(|spec| spec.name = "host".to_owned(), "operation is not permitted on predefined host network");
        check(|spec| (spec.ingress, spec.attachable) = (true, true), "ingress network cannot be attachable");
        check(
            |spec| (spec.ingress, spec.driver_configuration) = (true, driver("bridge", &[])),
            "only overlay driver is currently supported for ingress network",
        );
        let odd = "invalid vxlan id value \"x\" passed";
        check(|spec| spec.driver_configuration = driver("overlay", &[(SHORT_VXLAN_OPTION, "7,x")]), odd);
        check(|spec| spec.driver_configuration = driver("", &[(MTU_OPTION, "9k")]), "invalid MTU \"9k\"");
        check(|spec| spec.driver_configuration = driver("", &[("encrypted", "")]), "ok");
    }

    #[test]
    fn addresses_lie_in_their_subnet() {
        let ask = |subnet: &str, range: &str, gateway: &str, expect: &str| {
            let config = IpamConfig { subnet: subnet.into(), range: range.into(), gateway: gateway.into() };
            let options = IpamOptions { configs: vec![config], ..IpamOptions::default() };
            check(|spec| spec.ipam_options = Some(options), expect);
        };
        ask("", "", "", "ok");
        ask("10.1.0.0/16", "10.1.5.0/24", "10.1.0.9", "ok");
        ask("fd00:1::/64", "", "", "ok");
        ask("10.1.0.0", "", "", "ipam configuration: invalid subnet 10.1.0.0");
        ask("10.1.0.0/16", "x", "", "ipam configuration: invalid range x");
        let text = "ipam configuration: subnet 10.1.0.0/16 does not contain range 10.2.0.0/24";
        ask("10.1.0.0/16", "10.2.0.0/24", "", text);
        let text = "ipam configuration: subnet 10.1.0.0/16 does not contain gateway 10.2.0.1";
        ask("10.1.0.0/16", "", "10.2.0.1", text);
        let text = "ipam configuration: subnet 10.1.0.0/30 is too small: /29 is the smallest";
        ask("10.1.0.0/30", "", "", text);
    }
}
