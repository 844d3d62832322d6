//! `network create`: reads the flags, and which range and gateway belongs to which subnet.
//!
//! Source: docker/cli, `cli/command/network/create.go`.

use crate::client::Client;
use crate::commands::read;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// `network create [OPTIONS] NETWORK`
#[derive(Debug, Args)]
pub struct Create {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long, value_name = "map")]
    aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    config_from: String,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the Network
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "ipSlice")]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "ipNetSlice")]
    ip_range: Vec<String>,
    /// IP Address Management Driver
    #[arg(long, value_name = "string", default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "map")]
    ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<String>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "list", value_parser = read::label)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    scope: String,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Name of the network
    network: String,
}

impl Create {
    /// Creates the network and prints its id.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut ipam = json!({"Driver": self.ipam_driver, "Options": read::pairs(&self.ipam_opt)});
        ipam["Config"] =
            Value::Array(configs(&self.subnet, &self.ip_range, &self.gateway, &self.aux_address)?);
        let mut body = json!({
            "Name": self.network,
            "Driver": self.driver,
            "Options": read::pairs(&self.opt),
            "IPAM": ipam,
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": self.ingress,
            "Scope": self.scope,
            "ConfigOnly": self.config_only,
            "Labels": read::pairs(&self.label),
        });
        if !self.config_from.is_empty() {
            body["ConfigFrom"] = json!({"Network": self.config_from});
        }
        for (key, wish) in [("EnableIPv4", self.ipv4.map(|text| text != "false")), ("EnableIPv6", self.ipv6)]
        {
            if let Some(wish) = wish {
                body[key] = json!(wish);
            }
        }
        let made = client.post("/networks/create").json(&body).value().await?;
        line(made["Id"].as_str().unwrap_or_default());
        Ok(())
    }
}

/// The subnets, each with the range, gateway and further addresses that lie in it.
fn configs(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    further: &[String],
) -> Result<Vec<Value>, CliError> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(CliError::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut nets: Vec<(IpNet, Map<String, Value>)> = Vec::new();
    for text in subnets {
        let wrong = |_| CliError::new(format!("invalid CIDR address: {text}"));
        let net: IpNet = text.parse().map_err(wrong)?;
        let overlaps = |(other, _): &(IpNet, _)| net.contains(other) || other.contains(&net);
        if nets.iter().any(overlaps) {
            return Err(CliError::new("multiple overlapping subnet configuration is not supported"));
        }
        nets.push((net, Map::from_iter([("Subnet".to_owned(), json!(text))])));
    }
    let place =
        |nets: &mut [(IpNet, Map<String, Value>)], key: &str, what: &str, text: &str, first: IpAddr| {
            let found = nets.iter_mut().find(|(net, _)| net.contains(&first));
            let (net, config) =
                found.ok_or_else(|| CliError::new(format!("no matching subnet for {what} {text}")))?;
            if config.insert(key.to_owned(), json!(text)).is_some() {
                let text = format!("cannot configure multiple {what}s (..) on the same subnet ({net})");
                return Err(CliError::new(text));
            }
            Ok(())
        };
    for text in ranges {
        let net: IpNet = text.parse().map_err(|_| CliError::new(format!("invalid CIDR address: {text}")))?;
        place(&mut nets, "IPRange", "range", text, net.addr())?;
    }
    for text in gateways {
        place(&mut nets, "Gateway", "gateway", text, address(text)?)?;
    }
    for pair in further {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let first = address(text)?;
        let found = nets.iter_mut().find(|(net, _)| net.contains(&first));
        let (_, config) =
            found.ok_or_else(|| CliError::new(format!("no matching subnet for aux-address {text}")))?;
        let all = config.entry("AuxiliaryAddresses").or_insert_with(|| json!({}));
        all[name] = json!(text);
    }
    Ok(nets.into_iter().map(|(_, config)| Value::Object(config)).collect())
}

fn address(text: &str) -> Result<IpAddr, CliError> {
    text.parse().map_err(|_| CliError::new(format!("invalid IP address: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subnets: &[&str], ranges: &[&str], gateways: &[&str], expect: &str) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let found = configs(&owned(subnets), &owned(ranges), &owned(gateways), &[]);
        let text = found.map_or_else(|error| error.to_string(), |all| Value::Array(all).to_string());
        assert_eq!(text, expect);
    }

    #[test]
    fn ranges_and_gateways_belong_to_the_subnet_that_they_lie_in() {
        check(&[], &[], &[], "[]");
        check(
            &["10.1.0.0/16", "fd00::/64"],
            &["10.1.2.0/24"],
            &["fd00::9", "10.1.0.1"],
            r#"[{"Gateway":"10.1.0.1","IPRange":"10.1.2.0/24","Subnet":"10.1.0.0/16"},{"Gateway":"fd00::9","Subnet":"fd00::/64"}]"#,
        );
        check(&[], &[], &["10.1.0.1"], "every ip-range or gateway must have a corresponding subnet");
        check(&["10.1.0.0/16"], &[], &["10.2.0.1"], "no matching subnet for gateway 10.2.0.1");
        check(&["10.1.0.0/16"], &["10.2.0.0/24"], &[], "no matching subnet for range 10.2.0.0/24");
        let overlap = "multiple overlapping subnet configuration is not supported";
        check(&["10.1.0.0/16", "10.1.5.0/24"], &[], &[], overlap);
    }
}
