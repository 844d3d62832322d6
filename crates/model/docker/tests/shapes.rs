//! Bodies as clients send them, and answers as dockerd writes them.
//!
//! The request bodies are those of docker CLI 28 and of docker-py 7 for the commands named; the answers hold what those
//! clients read. Never talks to anything.

use docker::container_config::CreateBodyRest;
use docker::lenient::from_slice;
use docker::{
    ContainerConfig, ContainerInspect, ContainerSummary, EventMessage, ExecConfig, HostConfig, Timestamp,
};
use serde_json::{Value, json};

/// `docker run -d -p 8080:80 -v data:/d --restart on-failure:3 -m 64m --health-cmd … nginx`
const CLI_RUN: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"ExposedPorts":{"80/tcp":{}},"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000},"Image":"nginx","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":["data:/d"],"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[24,80],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":67108864,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;

/// `client.containers.run("alpine", "echo hi", detach=True, ports={"80/tcp": 8080})`
const SDK_RUN: &str = r#"{"Hostname":null,"Domainname":null,"ExposedPorts":{"80/tcp":{}},"User":null,"Tty":false,"OpenStdin":false,"StdinOnce":false,"AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Env":null,"Cmd":["echo","hi"],"Image":"alpine","Volumes":null,"NetworkDisabled":false,"Entrypoint":null,"WorkingDir":null,"HostConfig":{"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}},"NetworkingConfig":null,"MacAddress":null,"Labels":null,"StopSignal":null,"Healthcheck":null,"StopTimeout":null,"Runtime":null}"#;

fn config(body: &str) -> ContainerConfig {
    from_slice(body.as_bytes()).expect("a config").value
}

fn host(body: &str) -> HostConfig {
    let rest: CreateBodyRest = from_slice(body.as_bytes()).expect("a body").value;
    rest.host_config.expect("a host config")
}

#[test]
fn a_create_body_of_the_cli_loses_nothing() {
    let body: Value = serde_json::from_str(CLI_RUN).unwrap();
    assert_eq!(serde_json::to_value(host(CLI_RUN)).unwrap(), {
        let mut expect = body["HostConfig"].clone();
        // The CLI leaves the runtime out; dockerd's answer always has it.
        expect["Runtime"] = json!("");
        expect
    });
    let written = serde_json::to_value(config(CLI_RUN)).unwrap();
    for (name, sent) in body.as_object().unwrap() {
        match name.as_str() {
            "HostConfig" | "NetworkingConfig" => {}
            "Env" => assert_eq!(written[name], json!([])),
            _ => assert_eq!(&written[name], sent, "{name}"),
        }
    }
}

#[test]
fn no_member_of_a_real_body_is_unknown() {
    let rest = from_slice::<CreateBodyRest>(CLI_RUN.as_bytes()).unwrap();
    let nested: Vec<&String> = rest.unknown.iter().filter(|path| path.contains('.')).collect();
    assert!(nested.is_empty(), "{nested:?}");
    let parsed = from_slice::<ContainerConfig>(CLI_RUN.as_bytes()).unwrap();
    assert_eq!(parsed.unknown, ["HostConfig", "NetworkingConfig"]);
}

#[test]
fn a_create_body_of_the_python_sdk_is_read_with_its_nulls() {
    let read = config(SDK_RUN);
    assert_eq!(read.image, "alpine");
    assert_eq!(read.cmd.unwrap().0, ["echo", "hi"]);
    assert_eq!((read.hostname.as_str(), read.entrypoint, read.stop_timeout), ("", None, None));
    let host = host(SDK_RUN);
    let bound = host.port_bindings["80/tcp"].as_ref().unwrap();
    assert_eq!((bound[0].host_ip.as_str(), bound[0].host_port.as_str()), ("", "8080"));
    assert_eq!(host.masked_paths, None);
}

#[test]
fn names_match_in_any_case_and_what_nobody_reads_is_told() {
    let body = br#"{"image":"a","CMD":"one","entryPoint":["x"],"Foo":1,"Empty":"","HealthCheck":{"Test":["NONE"],"Odd":true}}"#;
    let parsed = from_slice::<ContainerConfig>(body).unwrap();
    assert_eq!(parsed.value.image, "a");
    assert_eq!(parsed.value.cmd.unwrap().0, ["one"]);
    assert_eq!(parsed.value.entrypoint.unwrap().0, ["x"]);
    assert_eq!(parsed.value.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(parsed.unknown, ["Foo", "Healthcheck.Odd"]);
}

#[test]
fn wrong_types_and_trailing_bytes_are_errors() {
    for bad in [r#"{"Image":1}"#, r#"{"Env":"a"}"#, r#"{"Cmd":{}}"#, "{} x", "[]", r#"{"Tty":"yes"}"#] {
        assert!(from_slice::<ContainerConfig>(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(from_slice::<HostConfig>(br#"{"Memory":1.5}"#).is_err());
    assert_eq!(from_slice::<HostConfig>(b"null").unwrap().value, HostConfig::default());
}

#[test]
fn an_exec_body_of_the_cli_is_read() {
    let body = br#"{"User":"","Privileged":false,"Tty":true,"ConsoleSize":[24,80],"AttachStdin":true,"AttachStderr":true,"AttachStdout":true,"DetachKeys":"","Env":null,"WorkingDir":"","Cmd":["sh"]}"#;
    let parsed = from_slice::<ExecConfig>(body).unwrap();
    assert!(parsed.unknown.is_empty());
    assert_eq!((parsed.value.console_size, parsed.value.cmd.len()), (Some([24, 80]), 1));
}

#[test]
fn answers_keep_dockerds_null_and_empty_habits() {
    let inspect = serde_json::to_value(ContainerInspect::default()).unwrap();
    assert_eq!(inspect["ExecIDs"], Value::Null);
    assert_eq!(inspect["Mounts"], json!([]));
    assert_eq!(inspect["Config"]["Labels"], json!({}));
    assert_eq!(inspect["HostConfig"]["Binds"], Value::Null);
    assert_eq!(inspect["HostConfig"]["Devices"], json!([]));
    assert_eq!(inspect["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    assert!(inspect["State"].get("Health").is_none());
    let summary = serde_json::to_value(ContainerSummary::default()).unwrap();
    assert_eq!((&summary["Labels"], &summary["Ports"]), (&json!({}), &json!([])));
    assert!(summary.get("SizeRw").is_none());
    let back: ContainerInspect = serde_json::from_value(inspect.clone()).unwrap();
    assert_eq!(serde_json::to_value(back).unwrap(), inspect);
}

#[test]
fn events_carry_the_legacy_fields_of_containers() {
    let attributes = [("image".to_owned(), "nginx".to_owned())].into();
    let event = EventMessage::local("container", "start", "abc", attributes, Timestamp(1_500_000_000));
    assert_eq!(
        serde_json::to_string(&event).unwrap(),
        r#"{"status":"start","id":"abc","from":"nginx","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"nginx"}},"scope":"local","time":1,"timeNano":1500000000}"#
    );
    let event = EventMessage::swarm("service", "create", "abc", Default::default(), Timestamp(0));
    assert!(serde_json::to_value(event).unwrap().get("status").is_none());
}
