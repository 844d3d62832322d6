//! Pins a service's image to the digest that its registry has under the name now, so that all nodes run the same.
//!
//! In: a service's spec. Out: the spec with tag, digest and platforms, and a warning when the registry could not be asked.
//! Source: docker, `client/service_create.go`.

use super::registry_header;
use crate::client::Client;
use docker::Reference;
use serde_json::{Value, json};

/// Names the image fully; with `ask`, also by digest, as the daemon learns it from the registry.
pub(super) async fn resolve(client: &Client, spec: &mut Value, ask: bool, auth: bool) -> Option<String> {
    let task = &mut spec["TaskTemplate"];
    let image = task["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned();
    // What is not a name is for the daemon to refuse.
    let named = Reference::parse(&image).ok()?.with_default_tag();
    let image = named.familiar();
    task["ContainerSpec"]["Image"] = json!(image);
    if !ask {
        return None;
    }
    let call = registry_header(client.get(format!("/distribution/{image}/json")), &image, auth);
    let Ok(found) = call.value().await else {
        return Some(format!(
            "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} \
             independently,\npossibly leading to different nodes running different\nversions of the image.\n"
        ));
    };
    if let (None, Some(digest)) = (&named.digest, found["Descriptor"]["digest"].as_str()) {
        task["ContainerSpec"]["Image"] = json!(named.with_digest(digest).familiar());
    }
    let platforms: Vec<Value> = found["Platforms"].as_array().into_iter().flatten().map(platform).collect();
    if !platforms.is_empty() {
        task["Placement"]["Platforms"] = json!(platforms);
    }
    None
}

/// Variants of arm run on each other's machines, so arm is left open.
fn platform(found: &Value) -> Value {
    let architecture = found["architecture"].as_str().unwrap_or_default();
    let architecture = if architecture.eq_ignore_ascii_case("arm") { "" } else { architecture };
    json!({"Architecture": architecture, "OS": found["os"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arm_is_left_open() {
        let found = json!({"architecture": "arm", "os": "linux", "variant": "v7"});
        assert_eq!(platform(&found), json!({"Architecture": "", "OS": "linux"}));
        assert_eq!(platform(&json!({"architecture": "amd64", "os": "linux"}))["Architecture"], "amd64");
    }
}
