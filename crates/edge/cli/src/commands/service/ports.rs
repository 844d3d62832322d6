//! Reads `service create --publish`.
//!
//! In: the short form of `run --publish`, or `published=80,target=80,protocol=tcp,mode=ingress`. Out: port configs.

use crate::CliError;
use crate::commands::ports;
use serde_json::{Value, json};

/// Reads one flag: an array of ports, as a range stands for several.
///
/// # Errors
/// When it has the wrong form, or binds an address of the host.
pub fn parse(text: &str) -> Result<Value, CliError> {
    if text.contains('=') { Ok(json!([long(text)?])) } else { short(text).map(Value::Array) }
}

/// Reads `80[/tcp]`: a port of the container.
///
/// # Errors
/// When it is not a port.
pub fn target(text: &str) -> Result<Value, CliError> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let wrong = |_| CliError::new(format!("invalid containerPort: {port}"));
    let port: u16 = port.parse().map_err(wrong)?;
    Ok(json!({"TargetPort": port, "Protocol": protocol}))
}

/// The ports of several flags.
pub fn flat(flags: &[Value]) -> Vec<Value> {
    flags.iter().filter_map(Value::as_array).flatten().cloned().collect()
}

fn short(text: &str) -> Result<Vec<Value>, CliError> {
    let mut configs = Vec::new();
    for port in ports::parse(text)? {
        if !port.ip.is_empty() {
            return Err(CliError::new("hostip is not supported"));
        }
        let config =
            json!({"Protocol": port.protocol, "TargetPort": port.container, "PublishMode": "ingress"});
        if port.host.is_empty() {
            configs.push(config);
            continue;
        }
        // Of a range, each port leads inside.
        let (from, to) = port.host.split_once('-').unwrap_or((&port.host, &port.host));
        let number = |text: &str| {
            let (host, inside) = (&port.host, port.container);
            let wrong = |_| CliError::new(format!("invalid hostport binding ({host}) for port ({inside})"));
            text.parse::<u16>().map_err(wrong)
        };
        for host in number(from)?..=number(to)? {
            let mut config = config.clone();
            config["PublishedPort"] = json!(host);
            configs.push(config);
        }
    }
    Ok(configs)
}

fn long(text: &str) -> Result<Value, CliError> {
    let mut config = json!({"Protocol": "tcp", "PublishMode": "ingress"});
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| CliError::new(format!("invalid field: {field}")))?;
        let number = || {
            let is_number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
            let why = if is_number { "value out of range" } else { "invalid syntax" };
            let text = format!("invalid {key} port ({value}): value must be an integer: {why}");
            value.parse::<u16>().map_err(|_| CliError::new(text))
        };
        match key.to_lowercase().as_str() {
            "protocol" if ["tcp", "udp", "sctp"].contains(&value) => config["Protocol"] = json!(value),
            "protocol" => return Err(CliError::new(format!("invalid protocol value '{value}'"))),
            "mode" if ["ingress", "host"].contains(&value) => config["PublishMode"] = json!(value),
            "mode" => {
                return Err(CliError::new(format!(
                    "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                )));
            }
            "target" => config["TargetPort"] = json!(number()?),
            "published" => config["PublishedPort"] = json!(number()?),
            other => return Err(CliError::new(format!("invalid field key: {other}"))),
        }
    }
    if config.get("TargetPort").is_none() {
        return Err(CliError::new("missing mandatory field 'target'"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let flags = ["8080:80/udp", "target=53,published=5353,mode=host", "90-91:80"];
        let read: Vec<Value> = flags.iter().map(|text| parse(text).expect("all are right")).collect();
        assert_eq!(
            Value::Array(flat(&read)),
            json!([
                {"Protocol": "udp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 8080},
                {"Protocol": "tcp", "TargetPort": 53, "PublishMode": "host", "PublishedPort": 5353},
                {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 90},
                {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 91},
            ])
        );
        for (text, error) in [
            ("127.0.0.1:80:80", "hostip is not supported"),
            ("published=80", "missing mandatory field 'target'"),
            ("target=80,mode=x", "invalid publish mode value (x): must be either 'ingress' or 'host'"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), error);
        }
    }
}
