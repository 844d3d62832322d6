//! A network of the swarm, as the managers know it.
//!
//! In and out: swarm's `Network` and `NetworkSpec` with every field of API 1.51. What was allocated lies where swarm has it:
//! subnets in `ipam_options`, the number of the VXLAN among the options of `driver_state`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::json::{object, shape};
use crate::{Driver, Labels, NetworkId};

/// Networks that every node has of its own. Services may use them by these names, which are their ids in the swarm.
pub const NODE_NETWORKS: [&str; 3] = ["bridge", "host", "none"];
/// The one driver of networks of the swarm.
pub const OVERLAY: &str = "overlay";
/// Driver option: the numbers of the VXLANs, the first of which is the network's.
///
/// Source: moby, `libnetwork/netlabel/labels.go` (`OverlayVxlanIDList`).
pub const VXLAN_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The same as it is written on the command line. Source: moby, Docker's documentation of `network create`.
pub const SHORT_VXLAN_OPTION: &str = "com.docker.network.driver.vxlanid_list";
/// Driver option: MTU. Source: moby, `libnetwork/netlabel/labels.go` (`DriverMTU`).
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// Driver option: traffic between nodes is encrypted, whatever its value. Source: moby, `libnetwork/drivers/overlay`.
pub const ENCRYPTED_OPTION: &str = "encrypted";

object! {
    /// A network of the swarm.
    pub struct Network {
        /// Addresses it got.
        #[serde(rename = "IPAMOptions")]
        pub ipam_options: Option<IpamOptions>,
        always {
            /// Id of the network.
            #[serde(rename = "ID")]
            pub id: NetworkId,
            /// What a user asked for.
            pub spec: NetworkSpec,
            /// The driver with what it was given.
            pub driver_state: Driver,
        }
    }
}

shape! {
    /// What a user asked a network to be.
    pub struct NetworkSpec {
        /// Unique name.
        pub name: String,
        /// The driver.
        pub driver_configuration: Option<Driver>,
        /// Whether it has IPv6.
        #[serde(rename = "IPv6Enabled")]
        pub ipv6_enabled: bool,
        /// Whether it has no way out.
        pub internal: bool,
        /// Whether plain containers may attach.
        pub attachable: bool,
        /// Whether it is the routing mesh.
        pub ingress: bool,
        /// Addresses a user asked for.
        #[serde(rename = "IPAMOptions")]
        pub ipam_options: Option<IpamOptions>,
        /// Network whose settings each node takes.
        pub config_from: Option<ConfigFrom>,
        /// `swarm`, or empty.
        pub scope: String,
        always {
            /// Labels of the network.
            pub labels: Labels,
        }
    }

    /// Network whose settings each node takes.
    pub struct ConfigFrom {
        always {
            /// Its name.
            pub network: String,
        }
    }

    /// Addresses of a network.
    pub struct IpamOptions {
        /// Address driver.
        pub driver: Driver,
        /// Subnets.
        pub configs: Vec<IpamConfig>,
    }

    /// One subnet.
    pub struct IpamConfig {
        /// The subnet.
        pub subnet: String,
        /// The part of it that tasks get addresses from.
        pub range: String,
        /// The gateway.
        pub gateway: String,
    }
}

impl IpamConfig {
    /// The allocated subnet that it says; `None` when it is not complete.
    pub fn subnet(&self) -> Option<Subnet> {
        let net: IpNet = self.subnet.parse().ok()?;
        let range = self.range.parse().unwrap_or(net);
        Some(Subnet { net: net.trunc(), range: range.trunc(), gateway: self.gateway.parse().ok()? })
    }
}

/// A subnet of a network as it was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub net: IpNet,
    /// The part of it that addresses are handed out from; usually all of it.
    pub range: IpNet,
    /// The address that no task has.
    pub gateway: IpAddr,
}

impl NetworkSpec {
    /// An option of the driver.
    pub fn driver_option(&self, name: &str) -> Option<&str> {
        self.driver_configuration.as_ref()?.options.get(name).map(String::as_str)
    }
}

impl Network {
    /// Its subnets, those of IPv4 first. Empty while none are allocated.
    pub fn subnets(&self) -> Vec<Subnet> {
        let configs = self.ipam_options.iter().flat_map(|options| &options.configs);
        let mut subnets: Vec<Subnet> = configs.filter_map(IpamConfig::subnet).collect();
        subnets.sort_by_key(|subnet| subnet.net.addr().is_ipv6());
        subnets
    }

    /// Number of its VXLAN; `None` while none is allocated.
    pub fn vni(&self) -> Option<u32> {
        let list = self.driver_state.options.get(VXLAN_OPTION)?;
        list.split(',').next()?.trim().parse().ok()
    }

    /// Whether its traffic between nodes is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.spec.driver_option(ENCRYPTED_OPTION).is_some()
    }

    /// The MTU that a user asked for.
    pub fn mtu(&self) -> Option<u32> {
        self.spec.driver_option(MTU_OPTION)?.parse().ok()
    }

    /// As Docker's API shows it.
    pub fn to_api(&self) -> serde_json::Value {
        crate::json::api_value(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allocated_is_read_from_where_swarm_has_it() {
        let config = |subnet: &str, range: &str, gateway: &str| IpamConfig {
            subnet: subnet.to_owned(),
            range: range.to_owned(),
            gateway: gateway.to_owned(),
        };
        let configs =
            vec![config("fd00::/64", "", "fd00::1"), config("10.0.1.0/24", "10.0.1.64/26", "10.0.1.1")];
        let options = [(VXLAN_OPTION.to_owned(), "4097,9".to_owned())].into();
        let network = Network {
            ipam_options: Some(IpamOptions { configs, ..IpamOptions::default() }),
            driver_state: Driver { name: OVERLAY.to_owned(), options },
            ..Network::default()
        };
        let nets: Vec<_> = network.subnets().iter().map(|it| format!("{} {}", it.net, it.range)).collect();
        assert_eq!(nets, ["10.0.1.0/24 10.0.1.64/26", "fd00::/64 fd00::/64"]);
        assert_eq!((network.vni(), Network::default().vni()), (Some(4097), None));
    }
}
