//! Reads `--publish` and `--expose`.
//!
//! In: `[[ip:]host[-range]:]container[-range][/proto]`. Out: exposed ports and bindings as the API takes them.

use crate::CliError;
use serde_json::{Map, Value, json};

/// Ports of a container as the API takes them.
pub struct Ports {
    /// `{"80/tcp": {}}`
    pub exposed: Value,
    /// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`
    pub bindings: Value,
}

/// One published port of one protocol; ranges are already spread.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// Address of the host, empty for all.
    pub ip: String,
    /// `8080`, `8000-8010` (one of these) or empty (any).
    pub host: String,
    /// Port inside.
    pub container: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Reads all flags.
///
/// # Errors
/// When one has the wrong form.
pub fn parse_all(published: &[String], exposed: &[String]) -> Result<Ports, CliError> {
    let mut open = Map::new();
    let mut bindings = Map::new();
    for text in exposed {
        let (range, protocol) = protocol_of(text)?;
        let (from, to) = exposed_range(range)?;
        for port in from..=to {
            open.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    for text in published {
        for port in parse(text)? {
            let key = format!("{}/{}", port.container, port.protocol);
            open.insert(key.clone(), json!({}));
            let all = bindings.entry(key).or_insert_with(|| json!([]));
            if let Some(all) = all.as_array_mut() {
                all.push(json!({"HostIp": port.ip, "HostPort": port.host}));
            }
        }
    }
    Ok(Ports { exposed: Value::Object(open), bindings: Value::Object(bindings) })
}

/// Reads one `--publish`.
///
/// # Errors
/// When it has the wrong form or its ranges differ in length.
pub fn parse(text: &str) -> Result<Vec<Published>, CliError> {
    let (rest, protocol) = protocol_of(text)?;
    let (front, container) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (ip, host) = match front.rsplit_once(':') {
        Some((ip, host)) => (ip.trim_start_matches('[').trim_end_matches(']'), host),
        None => ("", front),
    };
    if container.is_empty() {
        return Err(CliError::new(format!("no port specified: {text}<empty>")));
    }
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(CliError::new(format!("invalid IP address: {ip}")));
    }
    let (from, to) = range_of(container)?;
    if host.is_empty() {
        return Ok((from..=to).map(|port| published(ip, String::new(), port, &protocol)).collect());
    }
    let (host_from, host_to) =
        range_of(host).map_err(|_| CliError::new(format!("invalid hostPort: {host}")))?;
    if host_to - host_from != to - from {
        if from != to {
            return Err(CliError::new(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            )));
        }
        return Ok(vec![published(ip, host.to_owned(), from, &protocol)]);
    }
    Ok((from..=to)
        .zip(host_from..)
        .map(|(port, host)| published(ip, host.to_string(), port, &protocol))
        .collect())
}

fn published(ip: &str, host: String, container: u16, protocol: &str) -> Published {
    Published { ip: ip.to_owned(), host, container, protocol: protocol.to_owned() }
}

fn protocol_of(text: &str) -> Result<(&str, String), CliError> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if ["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        Ok((rest, protocol))
    } else {
        Err(CliError::new(format!("invalid proto: {protocol}")))
    }
}

fn range_of(range: &str) -> Result<(u16, u16), CliError> {
    let wrong = || CliError::new(format!("invalid containerPort: {range}"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to) = (from.parse::<u16>().map_err(|_| wrong())?, to.parse::<u16>().map_err(|_| wrong())?);
    if from <= to {
        Ok((from, to))
    } else {
        Err(CliError::new(format!("invalid range specified for port: {range}")))
    }
}

fn exposed_range(range: &str) -> Result<(u16, u16), CliError> {
    range_of(range).map_err(|error| {
        let parts = range.split('-').find(|part| part.parse::<u16>().is_err());
        let why = parts.map_or(error.message, |part| {
            let is_number = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
            let what = if is_number { "value out of range" } else { "invalid syntax" };
            format!("strconv.ParseUint: parsing \"{part}\": {what}")
        });
        CliError::new(format!("invalid range format for --expose: {range}, error: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Err(error) => format!("! {error}"),
            Ok(ports) => ports
                .iter()
                .map(|p| format!("{}|{}|{}/{}", p.ip, p.host, p.container, p.protocol))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    #[test]
    fn all_forms_are_read() {
        for (text, expect) in [
            ("80", "||80/tcp"),
            ("8080:80", "|8080|80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1|53|53/udp"),
            ("127.0.0.1::80", "127.0.0.1||80/tcp"),
            ("[::1]:8080:80", "::1|8080|80/tcp"),
            ("8000-8001:80-81", "|8000|80/tcp |8001|81/tcp"),
            ("8000-8010:80", "|8000-8010|80/tcp"),
            (
                "8000-8001:80-82",
                "! invalid ranges specified for container and host Ports: 80-82 and 8000-8001",
            ),
            ("80/x", "! invalid proto: x"),
            ("a:80", "! invalid hostPort: a"),
            ("80:99999", "! invalid containerPort: 99999"),
            ("1.2.3:80:80", "! invalid IP address: 1.2.3"),
        ] {
            assert_eq!(shown(text), expect, "{text}");
        }
    }
}
