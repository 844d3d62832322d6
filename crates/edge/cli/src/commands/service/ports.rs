//! Reads `service create --publish`.
//!
//! In: the short form of `run --publish`, or `published=80,target=80,protocol=tcp,mode=ingress`. Out: port configs.

use crate::CliError;
use crate::commands::ports;
use serde_json::{Value, json};

/// Reads all flags.
///
/// # Errors
/// When one has the wrong form, or binds an address of the host.
pub fn parse_all(flag: &str, texts: &[String]) -> Result<Value, CliError> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(parse(text).map_err(|error| error.for_flag(flag, text))?);
    }
    Ok(Value::Array(all))
}

fn parse(text: &str) -> Result<Vec<Value>, CliError> {
    if text.contains('=') { Ok(vec![long(text)?]) } else { short(text) }
}

fn short(text: &str) -> Result<Vec<Value>, CliError> {
    let mut configs = Vec::new();
    for port in ports::parse(text)? {
        if !port.ip.is_empty() {
            return Err(CliError::new("hostip is not supported"));
        }
        let mut config =
            json!({"Protocol": port.protocol, "TargetPort": port.container, "PublishMode": "ingress"});
        if !port.host.is_empty() {
            let host: u16 = port.host.parse().map_err(|_| {
                CliError::new(format!(
                    "invalid hostport binding ({}) for port ({})",
                    port.host, port.container
                ))
            })?;
            config["PublishedPort"] = json!(host);
        }
        configs.push(config);
    }
    Ok(configs)
}

fn long(text: &str) -> Result<Value, CliError> {
    let mut config = json!({"Protocol": "tcp", "PublishMode": "ingress"});
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| CliError::new(format!("invalid field: {field}")))?;
        let number = || {
            value
                .parse::<u16>()
                .map_err(|_| CliError::new(format!("invalid {key} port ({value}): value must be an integer")))
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
        return Err(CliError::new("missing mandatory field \"target\""));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let read = parse_all("-p", &["8080:80/udp".into(), "target=53,published=5353,mode=host".into()])
            .expect("both are right");
        assert_eq!(
            read,
            json!([
                {"Protocol": "udp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 8080},
                {"Protocol": "tcp", "TargetPort": 53, "PublishMode": "host", "PublishedPort": 5353},
            ])
        );
        for (text, error) in [
            ("127.0.0.1:80:80", "hostip is not supported"),
            ("published=80", "missing mandatory field \"target\""),
            ("target=80,mode=x", "invalid publish mode value (x): must be either 'ingress' or 'host'"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), error);
        }
    }
}
