//! Networks of services: `--network`, `--network-add`, `--network-rm`.
//!
//! In: `NETWORK` or `name=NETWORK,alias=NAME,driver-opt=KEY=VALUE`. Out: attachments as the API takes them. Source:
//! docker/cli, `opts/network.go` and `cli/command/service/update.go`.

use crate::CliError;
use crate::client::Client;
use serde_json::{Map, Value, json};

/// Reads one `--network`.
pub(super) fn parse(text: &str) -> Result<Value, CliError> {
    if !is_long(text) {
        return Ok(json!({"Target": text}));
    }
    let (mut target, mut aliases, mut options) = (String::new(), Vec::new(), Map::new());
    for field in text.split(',') {
        let wrong = || CliError::new(format!("invalid field {field}"));
        let (key, value) = field.split_once('=').ok_or_else(wrong)?;
        match key.trim().to_lowercase().as_str() {
            "name" => value.trim().clone_into(&mut target),
            "alias" => aliases.push(value.trim().to_lowercase()),
            "driver-opt" => {
                let wrong = || CliError::new("invalid key value pair format in driver options");
                let (key, value) = value.split_once('=').ok_or_else(wrong)?;
                options.insert(key.trim().to_owned(), json!(value.trim()));
            }
            key => return Err(CliError::new(format!("invalid field key {key}"))),
        }
    }
    if target.is_empty() {
        return Err(CliError::new("network name/id is not specified"));
    }
    let mut attachment = json!({"Target": target});
    if !aliases.is_empty() {
        attachment["Aliases"] = json!(aliases);
    }
    if !options.is_empty() {
        attachment["DriverOpts"] = Value::Object(options);
    }
    Ok(attachment)
}

/// Whether a text is `key=value` …, and no name.
fn is_long(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
}

/// Puts networks into a spec and takes others out.
pub(super) async fn change(
    client: &Client,
    spec: &mut Value,
    added: &[Value],
    removed: &[String],
) -> Result<(), CliError> {
    if added.is_empty() && removed.is_empty() {
        return Ok(());
    }
    let held = |place: &Value| place.as_array().cloned().unwrap_or_default();
    let mut networks = held(&spec["TaskTemplate"]["Networks"]);
    if networks.is_empty() {
        networks = held(&spec["Networks"]);
    }
    for name in removed {
        let id = id_of(client, name).await?;
        networks.retain(|network| network["Target"] != id.as_str());
    }
    for new in added {
        let name = new["Target"].as_str().unwrap_or_default();
        let id = id_of(client, name).await?;
        if networks.iter().any(|network| network["Target"] == id.as_str()) {
            return Err(CliError::new(format!("service is already attached to network {name}")));
        }
        let mut new = new.clone();
        new["Target"] = json!(id);
        networks.push(new);
    }
    networks.sort_by_key(|network| network["Target"].as_str().map(str::to_owned));
    spec["TaskTemplate"]["Networks"] = Value::Array(networks);
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("Networks");
    }
    Ok(())
}

async fn id_of(client: &Client, name: &str) -> Result<String, CliError> {
    let found = client.get(format!("/networks/{name}")).query("scope", "swarm").value().await?;
    Ok(found["Id"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_in_both_forms() {
        let check = |text: &str, expect: &str| {
            let found = parse(text).map_or_else(|error| error.to_string(), |it| it.to_string());
            assert_eq!(found, expect);
        };
        check("net", r#"{"Target":"net"}"#);
        check("name=net,alias=Db,alias=x", r#"{"Aliases":["db","x"],"Target":"net"}"#);
        check("name=net,driver-opt=a=b", r#"{"DriverOpts":{"a":"b"},"Target":"net"}"#);
        check("alias=a", "network name/id is not specified");
        check("name=net,color=red", "invalid field key color");
        check("name=net,driver-opt=a", "invalid key value pair format in driver options");
    }
}
