//! What a container runs: its config, and the create request and response.
//!
//! In: the body of `POST /containers/create`. Out: the same shapes in inspect answers. Never merges with the image's
//! config: that is the engine's.

use std::collections::BTreeMap;

use crate::host_config::HostConfig;
use crate::shape::{Empty, Words, is_default};
use objects::Nanos;

shape! {
    /// The portable part of a container: what it runs and how. Also the `config` of an image.
    pub struct ContainerConfig {
        pub hostname: String,
        pub domainname: String,
        /// `name`, `uid`, `name:group` or `uid:gid`, resolved inside the container's root.
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// Keys like `80/tcp`; see [`crate::ContainerPort`].
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub exposed_ports: BTreeMap<String, Empty>,
        pub tty: bool,
        pub open_stdin: bool,
        pub stdin_once: bool,
        /// `NAME=value`; a bare `NAME` removes it.
        pub env: Vec<String>,
        /// `None` takes the image's.
        pub cmd: Option<Words>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<HealthcheckConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub args_escaped: bool,
        pub image: String,
        /// Anonymous volumes: path in the container.
        pub volumes: Option<BTreeMap<String, Empty>>,
        pub working_dir: String,
        /// `None` takes the image's; `[""]` or `[]` clears it.
        pub entrypoint: Option<Words>,
        #[serde(skip_serializing_if = "is_default")]
        pub network_disabled: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub mac_address: String,
        pub on_build: Option<Vec<String>>,
        pub labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "is_default")]
        pub stop_signal: String,
        /// Seconds; `None` is 10, -1 waits for ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Words>,
    }

    /// A HEALTHCHECK. Zero durations and retries mean the default (30 s, 30 s, 0 s, 5 s, 3).
    pub struct HealthcheckConfig {
        /// `[]` inherits, `["NONE"]` disables, `["CMD", …]` executes, `["CMD-SHELL", line]` asks a shell.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub test: Vec<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub interval: Nanos,
        #[serde(skip_serializing_if = "is_default")]
        pub timeout: Nanos,
        #[serde(skip_serializing_if = "is_default")]
        pub start_period: Nanos,
        /// Since API 1.44.
        #[serde(skip_serializing_if = "is_default")]
        pub start_interval: Nanos,
        #[serde(skip_serializing_if = "is_default")]
        pub retries: i64,
    }

    /// Which networks a new container joins, by name or id.
    pub struct NetworkingConfig {
        pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// A container's place in one network; also what inspect shows of it.
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpamConfig>,
        pub links: Option<Vec<String>>,
        pub aliases: Option<Vec<String>>,
        pub mac_address: String,
        pub driver_opts: Option<BTreeMap<String, String>>,
        pub gw_priority: i64,
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    /// Addresses the client asks for.
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address", skip_serializing_if = "is_default")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "is_default")]
        pub ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
        pub link_local_ips: Vec<String>,
    }

    /// Answer of `POST /containers/create`.
    pub struct ContainerCreateResponse {
        pub id: String,
        pub warnings: Vec<String>,
    }
}

/// Everything `POST /containers/create` says. On the wire the three lie in one object, `config` spread into it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerCreateRequest {
    /// The fields that lie at the top of the body.
    pub config: ContainerConfig,
    /// `HostConfig` of the body.
    pub host_config: HostConfig,
    /// `NetworkingConfig` of the body.
    pub networking_config: NetworkingConfig,
    /// Query `name`, without the leading slash; empty lets the engine invent one.
    pub name: String,
    /// Query `platform`, `os[/arch[/variant]]`; empty is this machine's.
    pub platform: String,
}

shape! {
    /// The two nested parts of a create body; `ContainerConfig` is read from the same bytes.
    pub struct CreateBodyRest {
        #[serde(rename = "HostConfig")]
        pub host_config: Option<HostConfig>,
        #[serde(rename = "NetworkingConfig")]
        pub networking_config: Option<NetworkingConfig>,
    }
}
