//! Docker's JSON goes in and comes out as it was.

use objects::{Cluster, NetworkKey, Node, NodeInternal, RootRotation, Service, ServiceSpec, Task, Timestamp};
use serde_json::{Value, json};

/// Reads `text` as a spec and checks that writing it gives the same JSON, apart from nulls and empty values.
fn round_trip(text: &Value) -> ServiceSpec {
    let spec: ServiceSpec = serde_json::from_value(text.clone()).expect("a valid body");
    let written = serde_json::to_value(&spec).expect("specs serialise");
    assert_eq!(without_empty(&written), without_empty(text));
    spec
}

/// Drops what Go's `omitempty` may drop.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(name, field)| (name.clone(), without_empty(field)));
            let is_empty = |field: &Value| {
                matches!(field, Value::Null)
                    || [json!({}), json!([]), json!(""), json!(0), json!(false)].contains(field)
            };
            Value::Object(kept.filter(|(_, field)| !is_empty(field)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

#[test]
fn a_body_of_the_docker_cli_survives_unchanged() {
    let spec = round_trip(&json!({
        "Name": "web", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1@sha256:aa", "Args": ["-g"], "Env": ["A=b"], "Dir": "/", "User": "1", "TTY": true,
                "Init": false, "DNSConfig": {"Nameservers": ["1.1.1.1"]}, "Isolation": "default",
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 3},
                "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rprivate"}}],
                "Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": true, "Seccomp": {"Mode": "unconfined"}},
                "StopGracePeriod": 5000000000i64, "CapabilityAdd": ["CAP_NET_ADMIN"], "OomScoreAdj": -5,
                "Ulimits": [{"Name": "nofile", "Hard": 10, "Soft": 5}],
            },
            "Resources": {"Limits": {"NanoCPUs": 500000000, "Pids": 9}, "Reservations": {"MemoryBytes": 8388608}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 3, "Window": 9},
            "Placement": {"Constraints": ["node.role==manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
                "MaxReplicas": 2, "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 3, "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 7, "FailureAction": "rollback", "Monitor": 8, "MaxFailureRatio": 0.5, "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"}]},
    }));
    assert_eq!(spec.replicas(), Some(3));
}

#[test]
fn missing_and_null_fields_read_as_nothing() {
    let spec: ServiceSpec = serde_json::from_value(json!({
        "Name": "web", "Labels": null, "TaskTemplate": {"ContainerSpec": {"Image": "x", "Env": null, "Isolation": ""}, "ForceUpdate": null},
        "Mode": null, "EndpointSpec": {"Ports": null, "Mode": ""}, "UpdateConfig": null,
    }))
    .expect("nulls are fine");
    assert_eq!((spec.replicas(), spec.labels.len(), spec.ports().len()), (Some(1), 0, 0));
    let written = serde_json::to_value(&spec).expect("specs serialise");
    assert_eq!(written["Labels"], json!({}), "labels are always an object");
}

#[test]
fn unknown_words_are_refused_with_the_list_they_are_not_on() {
    let error = serde_json::from_value::<ServiceSpec>(json!({"UpdateConfig": {"FailureAction": "explode"}}));
    assert_eq!(error.unwrap_err().to_string(), "unrecognized update failure action \"explode\"");
}

#[test]
fn objects_show_versions_and_hide_what_is_internal() {
    let mut service = Service::new("s".into(), ServiceSpec { name: "web".to_owned(), ..Default::default() });
    service.meta.version.index = 7;
    service.meta.created_at = Timestamp::from_secs(1);
    let shown = service.to_api();
    assert_eq!((&shown["ID"], &shown["Version"]), (&json!("s"), &json!({"Index": 7})));
    assert_eq!(shown["CreatedAt"], json!("1970-01-01T00:00:01Z"));
    assert_eq!(shown.get("Internal"), None);
    let read: Service =
        serde_json::from_value(serde_json::to_value(&service).expect("serialises")).expect("reads back");
    assert_eq!(read, service);
    let task = Task::default().to_api(|_| None);
    assert_eq!((&task["Status"]["State"], &task["DesiredState"]), (&json!("new"), &json!("new")));
    assert_eq!((&task["Labels"], &task["Status"]["PortStatus"]), (&json!({}), &json!({})));
    assert_eq!(Node::default().to_api()["Spec"]["Availability"], json!("active"));
    assert_eq!(Cluster::default().to_api()["JoinTokens"], json!({"Worker": "", "Manager": ""}));
}

#[test]
fn a_cluster_and_a_node_of_before_still_read() {
    let mut cluster = Cluster::default();
    cluster.internal.ca_certificate = "root".to_owned();
    let before = json!({"Internal": {"CaCertificate": "root"}});
    assert_eq!(serde_json::from_value::<Cluster>(before).expect("fields may be missing"), cluster);
    let rotation = RootRotation { ca_certificate: "next".to_owned(), ..Default::default() };
    cluster.internal.root_rotation = Some(rotation);
    cluster.internal.removed_nodes.insert("gone".into(), Timestamp::from_secs(1));
    let written = serde_json::to_value(&cluster).expect("serialises");
    assert_eq!(serde_json::from_value::<Cluster>(written).expect("as written"), cluster);
    let node = Node { internal: NodeInternal { raft_id: 3, ..Default::default() }, ..Default::default() };
    let before = json!({"Internal": {"RaftId": 3}});
    assert_eq!(serde_json::from_value::<Node>(before).expect("fields may be missing"), node);
}

#[test]
fn no_key_token_or_password_shows_in_debug_output() {
    let secret = || "s3cret".to_owned();
    let rotation = RootRotation { ca_key: secret(), ..RootRotation::default() };
    let mut cluster = Cluster {
        internal: objects::ClusterInternal {
            ca_key: secret(),
            worker_token: secret(),
            manager_token: secret(),
            unlock_key: secret(),
            pulse_secret: secret(),
            root_rotation: Some(rotation),
            network_keys: vec![NetworkKey { key: secret(), ..NetworkKey::default() }],
            ..objects::ClusterInternal::default()
        },
        ..Cluster::default()
    };
    cluster.spec.ca_config.signing_ca_key = secret();
    let mut service = Service::default();
    service.internal.registry_auth = secret();
    service.internal.previous_registry_auth = secret();
    let shown = format!("{cluster:?} {service:?}");
    assert_eq!(shown.matches("(hidden)").count(), 10, "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    // What is written to the log and to other managers is all of it.
    assert_eq!(serde_json::to_string(&cluster).unwrap().matches("s3cret").count(), 8);
}
