//! What the daemon says of itself, for people: `info`.
//!
//! In: the client's own facts and the daemon's. Out: the page. Source: docker/cli 28.2 `cli/command/system/info.go`.

use super::{Page, number, text, texts};
use objects::Nanos;
use serde_json::Value;

/// The client's part.
pub(crate) fn client(client: &Value) -> String {
    let mut page = Page::default();
    page.line("Client:");
    page.row(" Version:    ", text(&client["Version"]));
    page.row(" Context:    ", text(&client["Context"]));
    page.row(" Debug Mode: ", client["Debug"].as_bool().unwrap_or(false));
    page.line("");
    page.0
}

/// The daemon's part.
pub(crate) fn server(info: &Value) -> String {
    let mut page = Page::default();
    page.line("Server:");
    for (label, key) in [
        (" Containers: ", "Containers"),
        ("  Running: ", "ContainersRunning"),
        ("  Paused: ", "ContainersPaused"),
        ("  Stopped: ", "ContainersStopped"),
        (" Images: ", "Images"),
    ] {
        page.row(label, number(&info[key]));
    }
    engine(&mut page, info);
    swarm(&mut page, &info["Swarm"]);
    runtimes(&mut page, info);
    machine(&mut page, info);
    registries(&mut page, &info["RegistryConfig"]);
    page.row(" Live Restore Enabled: ", info["LiveRestoreEnabled"].as_bool().unwrap_or(false));
    page.given(" Product License: ", text(&info["ProductLicense"]));
    for (at, pool) in info["DefaultAddressPools"].as_array().into_iter().flatten().enumerate() {
        if at == 0 {
            page.line(" Default Address Pools:");
        }
        page.line(format!("   Base: {}, Size: {}", text(&pool["Base"]), number(&pool["Size"])));
    }
    page.line("");
    page.0
}

fn engine(page: &mut Page, info: &Value) {
    page.given(" Server Version: ", text(&info["ServerVersion"]));
    page.given(" Storage Driver: ", text(&info["Driver"]));
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        page.line(format!("  {}: {}", text(&pair[0]), text(&pair[1])));
    }
    page.given(" Logging Driver: ", text(&info["LoggingDriver"]));
    page.given(" Cgroup Driver: ", text(&info["CgroupDriver"]));
    page.given(" Cgroup Version: ", text(&info["CgroupVersion"]));
    let plugins = &info["Plugins"];
    page.line(" Plugins:");
    page.row("  Volume: ", texts(&plugins["Volume"]).join(" "));
    page.row("  Network: ", texts(&plugins["Network"]).join(" "));
    page.given("  Authorization: ", texts(&plugins["Authorization"]).join(" "));
    page.row("  Log: ", texts(&plugins["Log"]).join(" "));
    list(page, " CDI spec directories:", "  ", &texts(&info["CDISpecDirs"]));
}

fn list(page: &mut Page, title: &str, indent: &str, items: &[&str]) {
    if !items.is_empty() {
        page.line(title);
        items.iter().for_each(|item| page.row(indent, item));
    }
}

fn swarm(page: &mut Page, swarm: &Value) {
    let state = text(&swarm["LocalNodeState"]);
    page.row(" Swarm: ", state);
    if ["inactive", "locked", ""].contains(&state) {
        return;
    }
    page.row("  NodeID: ", text(&swarm["NodeID"]));
    page.given("  Error: ", text(&swarm["Error"]));
    let is_manager = swarm["ControlAvailable"].as_bool().unwrap_or(false);
    page.row("  Is Manager: ", is_manager);
    let cluster = &swarm["Cluster"];
    if is_manager && cluster.is_object() && text(&swarm["Error"]).is_empty() && state != "error" {
        page.row("  ClusterID: ", text(&cluster["ID"]));
        page.row("  Managers: ", number(&swarm["Managers"]));
        page.row("  Nodes: ", number(&swarm["Nodes"]));
        settings(page, cluster);
    }
    page.row("  Node Address: ", text(&swarm["NodeAddr"]));
    let managers = swarm["RemoteManagers"].as_array().into_iter().flatten();
    let mut managers: Vec<&str> = managers.map(|manager| text(&manager["Addr"])).collect();
    managers.sort_unstable();
    list(page, "  Manager Addresses:", "   ", &managers);
}

fn settings(page: &mut Page, cluster: &Value) {
    let pools = texts(&cluster["DefaultAddrPool"]);
    if !pools.is_empty() {
        page.row(
            "  Default Address Pool: ",
            pools.iter().map(|pool| format!("{pool}  ")).collect::<String>(),
        );
        page.row("  SubnetSize: ", number(&cluster["SubnetSize"]));
    }
    if number(&cluster["DataPathPort"]) > 0 {
        page.row("  Data Path Port: ", number(&cluster["DataPathPort"]));
    }
    let spec = &cluster["Spec"];
    let span = |value: &Value| docker::units::human_duration(Nanos(value.as_i64().unwrap_or(0)));
    page.line("  Orchestration:");
    let history = spec["Orchestration"]["TaskHistoryRetentionLimit"].as_i64().unwrap_or(0);
    page.row("   Task History Retention Limit: ", history);
    page.line("  Raft:");
    page.row("   Snapshot Interval: ", number(&spec["Raft"]["SnapshotInterval"]));
    if let Some(kept) = spec["Raft"]["KeepOldSnapshots"].as_u64() {
        page.row("   Number of Old Snapshots to Retain: ", kept);
    }
    page.row("   Heartbeat Tick: ", number(&spec["Raft"]["HeartbeatTick"]));
    page.row("   Election Tick: ", number(&spec["Raft"]["ElectionTick"]));
    page.line("  Dispatcher:");
    page.row("   Heartbeat Period: ", span(&spec["Dispatcher"]["HeartbeatPeriod"]));
    page.line("  CA Configuration:");
    page.row("   Expiry Duration: ", span(&spec["CAConfig"]["NodeCertExpiry"]));
    page.row("   Force Rotate: ", number(&spec["CAConfig"]["ForceRotate"]));
    let certificate = text(&spec["CAConfig"]["SigningCACert"]).trim();
    if !certificate.is_empty() {
        page.line(format!("   Signing CA Certificate: \n{certificate}\n"));
    }
    for (at, ca) in spec["CAConfig"]["ExternalCAs"].as_array().into_iter().flatten().enumerate() {
        if at == 0 {
            page.line("   External CAs:");
        }
        page.line(format!("     {}: {}", text(&ca["Protocol"]), text(&ca["URL"])));
    }
    let is = |value: &Value| value.as_bool().unwrap_or(false);
    page.row("  Autolock Managers: ", is(&spec["EncryptionConfig"]["AutoLockManagers"]));
    page.row("  Root Rotation In Progress: ", is(&cluster["RootRotationInProgress"]));
}

fn runtimes(page: &mut Page, info: &Value) {
    let names: Vec<&str> =
        info["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        page.row(" Runtimes: ", names.join(" "));
        page.row(" Default Runtime: ", text(&info["DefaultRuntime"]));
    }
    page.row(" Init Binary: ", text(&info["InitBinary"]));
    for (label, key) in [
        (" containerd version: ", "ContainerdCommit"),
        (" runc version: ", "RuncCommit"),
        (" init version: ", "InitCommit"),
    ] {
        page.row(label, text(&info[key]["ID"]));
    }
    let options = texts(&info["SecurityOptions"]);
    if !options.is_empty() {
        page.line(" Security Options:");
    }
    for option in options {
        for part in option.split(',') {
            match part.split_once('=') {
                Some(("name", name)) => page.row("  ", name),
                Some(("profile", profile)) => page.row("   Profile: ", profile),
                _ => {}
            }
        }
    }
}

fn machine(page: &mut Page, info: &Value) {
    let is = |key: &str| info[key].as_bool().unwrap_or(false);
    for (label, key) in [
        (" Kernel Version: ", "KernelVersion"),
        (" Operating System: ", "OperatingSystem"),
        (" OSType: ", "OSType"),
        (" Architecture: ", "Architecture"),
    ] {
        page.given(label, text(&info[key]));
    }
    page.row(" CPUs: ", number(&info["NCPU"]));
    page.row(" Total Memory: ", docker::units::bytes_size(number(&info["MemTotal"])));
    page.given(" Name: ", text(&info["Name"]));
    page.given(" ID: ", text(&info["ID"]));
    page.row(" Docker Root Dir: ", text(&info["DockerRootDir"]));
    page.row(" Debug Mode: ", is("Debug"));
    if is("Debug") {
        page.row("  File Descriptors: ", number(&info["NFd"]));
        page.row("  Goroutines: ", number(&info["NGoroutines"]));
        page.row("  System Time: ", text(&info["SystemTime"]));
        page.row("  EventsListeners: ", number(&info["NEventsListener"]));
    }
    for (label, key) in
        [(" HTTP Proxy: ", "HttpProxy"), (" HTTPS Proxy: ", "HttpsProxy"), (" No Proxy: ", "NoProxy")]
    {
        page.given(label, text(&info[key]));
    }
    list(page, " Labels:", "  ", &texts(&info["Labels"]));
    page.row(" Experimental: ", is("ExperimentalBuild"));
}

fn registries(page: &mut Page, config: &Value) {
    let known = config["IndexConfigs"].as_object();
    let ranges = texts(&config["InsecureRegistryCIDRs"]);
    if !ranges.is_empty() || known.is_some_and(|known| !known.is_empty()) {
        page.line(" Insecure Registries:");
        let insecure = known.into_iter().flatten().filter(|(_, one)| one["Secure"] != Value::Bool(true));
        insecure.for_each(|(_, one)| page.row("  ", text(&one["Name"])));
        ranges.iter().for_each(|range| page.row("  ", range));
    }
    list(page, " Registry Mirrors:", "  ", &texts(&config["Mirrors"]));
}
