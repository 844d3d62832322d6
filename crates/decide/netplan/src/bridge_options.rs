//! Reads the driver options of a bridge network.
//!
//! In: `-o` of `network create`. Out: what they mean, or a refusal. Never looks at the machine.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The bridge's own name.
pub const NAME: &str = "com.docker.network.bridge.name";
/// Whether its containers talk to each other.
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
/// Whether its containers show themselves outside with the machine's address.
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Where ports are published that name no address.
pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Largest packet in bytes.
pub const MTU: &str = "com.docker.network.driver.mtu";

/// What the options mean. Source of the defaults: moby, `daemon/libnetwork/drivers/bridge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// The bridge's own name; `None` derives it from the network's id.
    pub link: Option<String>,
    /// Its containers talk to each other.
    pub joins_containers: bool,
    /// Its containers show themselves outside with the machine's address.
    pub masquerades: bool,
    /// Where ports are published that name no address.
    pub host_binding: Ipv4Addr,
    /// Largest packet in bytes; `None` is the daemon's.
    pub mtu: Option<u32>,
}

/// Why options are refused. Source of the texts: moby, `daemon/libnetwork/drivers/bridge/bridge_linux.go`, `parseErr`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A value that can't be read.
    #[error("failed to parse {label} value: {value} ({why})")]
    Malformed {
        /// The option.
        label: &'static str,
        /// What it was set to.
        value: String,
        /// In Go's words.
        why: String,
    },
    /// dockerd knows it and we don't.
    #[error("network option {label}={value} is not supported by this engine")]
    NotSupported {
        /// The option.
        label: String,
        /// What it was set to.
        value: String,
    },
}

/// Reads the options. Those that mean nothing to a bridge are kept for inspect and change nothing.
pub fn read(options: &BTreeMap<String, String>) -> Result<BridgeOptions, OptionError> {
    let get = |label: &str| options.get(label).map(String::as_str).filter(|value| !value.is_empty());
    let boolean = |label: &'static str| get(label).map_or(Ok(true), |value| read_bool(label, value));
    let malformed =
        |label, value: &str, why: String| OptionError::Malformed { label, value: value.to_owned(), why };
    for (label, values) in [
        ("com.docker.network.bridge.gateway_mode_ipv4", &["nat"][..]),
        ("com.docker.network.bridge.gateway_mode_ipv6", &["nat"]),
        ("com.docker.network.bridge.inhibit_ipv4", &["false", "0"]),
        ("com.docker.network.bridge.trusted_host_interfaces", &[]),
        ("com.docker.network.container_iface_prefix", &["eth"]),
    ] {
        if let Some(value) = get(label).filter(|value| !values.contains(value)) {
            return Err(OptionError::NotSupported { label: label.to_owned(), value: value.to_owned() });
        }
    }
    let host_binding = match get(HOST_BINDING) {
        None => Ipv4Addr::UNSPECIFIED,
        Some(text) => text.parse().map_err(|_| malformed(HOST_BINDING, text, "nil ip".to_owned()))?,
    };
    let mtu = match get(MTU) {
        None => None,
        Some(text) => {
            let why = || format!("strconv.Atoi: parsing \"{text}\": invalid syntax");
            Some(text.parse().map_err(|_| malformed(MTU, text, why()))?)
        }
    };
    Ok(BridgeOptions {
        link: get(NAME).map(str::to_owned),
        joins_containers: boolean(ICC)?,
        masquerades: boolean(MASQUERADE)?,
        host_binding,
        mtu: mtu.filter(|mtu| *mtu != 0),
    })
}

/// As Go reads a truth value. Source: `strconv.ParseBool`.
fn read_bool(label: &'static str, value: &str) -> Result<bool, OptionError> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(OptionError::Malformed {
            label,
            value: value.to_owned(),
            why: format!("strconv.ParseBool: parsing \"{value}\": invalid syntax"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(of: &[(&str, &str)]) -> Result<BridgeOptions, String> {
        let options = of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_mean_what_docker_says() {
        let plain = BridgeOptions {
            link: None,
            joins_containers: true,
            masquerades: true,
            host_binding: Ipv4Addr::UNSPECIFIED,
            mtu: None,
        };
        assert_eq!(options(&[]), Ok(plain.clone()));
        assert_eq!(options(&[("my.own", "x"), (MTU, "0")]), Ok(plain));
        let all =
            [(NAME, "br9"), (ICC, "false"), (MASQUERADE, "0"), (HOST_BINDING, "127.0.0.1"), (MTU, "1400")];
        let expect = BridgeOptions {
            link: Some("br9".into()),
            joins_containers: false,
            masquerades: false,
            host_binding: Ipv4Addr::LOCALHOST,
            mtu: Some(1400),
        };
        assert_eq!(options(&all), Ok(expect));
    }

    #[test]
    fn what_can_not_be_read_or_done_is_refused() {
        let check = |key: &str, value: &str, expect: &str| {
            assert_eq!(options(&[(key, value)]).unwrap_err(), expect);
        };
        check(
            ICC,
            "maybe",
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)",
        );
        check(
            HOST_BINDING,
            "x",
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)",
        );
        check(
            MTU,
            "big",
            "failed to parse com.docker.network.driver.mtu value: big (strconv.Atoi: parsing \"big\": invalid syntax)",
        );
        check(
            "com.docker.network.bridge.gateway_mode_ipv4",
            "routed",
            "network option com.docker.network.bridge.gateway_mode_ipv4=routed is not supported by this engine",
        );
    }
}
