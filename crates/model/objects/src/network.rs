//! A network of the swarm, as the managers know it.
//!
//! In and out: swarm's `Network` and `NetworkSpec` with every field of API 1.51.

use crate::json::shape;
use crate::{Driver, Labels, Meta, NetworkId};

shape! {
    /// A network of the swarm.
    pub struct Network {
        /// Addresses it got.
        #[serde(rename = "IPAMOptions")]
        pub ipam_options: Option<IpamOptions>,
        always {
            /// Id of the network.
            #[serde(rename = "ID")]
            pub id: NetworkId,
            /// Version and times.
            #[serde(flatten)]
            pub meta: Meta,
            /// What a user asked for.
            pub spec: NetworkSpec,
            /// The driver with what it was given.
            pub driver_state: Driver,
        }
    }

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

impl Network {
    /// As Docker's API shows it.
    pub fn to_api(&self) -> serde_json::Value {
        crate::json::api_value(self)
    }
}
