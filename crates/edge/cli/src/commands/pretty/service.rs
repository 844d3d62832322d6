//! A service for people: `service inspect --pretty`.
//!
//! In: a service of the API with its defaults filled in, and the names of its networks. Out: its page. Source: docker/cli
//! 28.2 `cli/command/service/formatter.go`, observed.

use super::{Page, go_list, number, text, texts};
use crate::commands::show::ago_text;
use objects::Nanos;
use serde_json::Value;
use std::collections::BTreeMap;

/// The page of `service`; `networks` are names by id.
pub(crate) fn page(service: &Value, networks: &BTreeMap<String, String>) -> String {
    let mut page = Page::default();
    let spec = &service["Spec"];
    page.line("");
    page.row("ID:\t\t", text(&service["ID"]));
    page.row("Name:\t\t", text(&spec["Name"]));
    page.pairs("Labels:", " ", "=", &spec["Labels"]);
    mode(&mut page, &spec["Mode"]);
    update_status(&mut page, &service["UpdateStatus"]);
    placement(&mut page, &spec["TaskTemplate"]["Placement"]);
    rollout(&mut page, "UpdateConfig:", " Update order:      ", &spec["UpdateConfig"]);
    rollout(&mut page, "RollbackConfig:", " Rollback order:    ", &spec["RollbackConfig"]);
    container(&mut page, &spec["TaskTemplate"]["ContainerSpec"]);
    log_driver(&mut page, &spec["TaskTemplate"]["LogDriver"]);
    resources(&mut page, &spec["TaskTemplate"]["Resources"]);
    let attached: Vec<String> = spec["TaskTemplate"]["Networks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|network| text(&network["Target"]))
        .map(|target| networks.get(target).cloned().unwrap_or_else(|| target.to_owned()))
        .collect();
    if !attached.is_empty() {
        page.line(format!("Networks: {} ", attached.join(" ")));
    }
    page.row("Endpoint Mode:\t", text(&spec["EndpointSpec"]["Mode"]));
    ports(&mut page, &service["Endpoint"]["Ports"]);
    health(&mut page, &spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]);
    page.0 + "\n"
}

fn mode(page: &mut Page, mode: &Value) {
    if mode["Global"].is_object() {
        page.line("Service Mode:\tGlobal");
    } else if mode["Replicated"].is_object() {
        page.line("Service Mode:\tReplicated");
        if let Some(replicas) = mode["Replicated"]["Replicas"].as_u64() {
            page.row(" Replicas:\t", replicas);
        }
    } else {
        page.line("Service Mode:");
    }
}

fn update_status(page: &mut Page, status: &Value) {
    if text(&status["State"]).is_empty() {
        return;
    }
    page.line("UpdateStatus:");
    page.row(" State:\t\t", text(&status["State"]));
    let since = |value: &Value| value.as_str().map(|time| format!("{} ago", ago_text(time)));
    page.given(" Started:\t", since(&status["StartedAt"]).unwrap_or_default());
    if status["State"] == "completed" {
        page.given(" Completed:\t", since(&status["CompletedAt"]).unwrap_or_default());
    }
    page.row(" Message:\t", text(&status["Message"]));
}

fn placement(page: &mut Page, placement: &Value) {
    page.line("Placement:");
    let constraints = texts(&placement["Constraints"]);
    if !constraints.is_empty() {
        page.row(" Constraints:\t", go_list(&constraints));
    }
    let preferences = placement["Preferences"].as_array().into_iter().flatten();
    let spread = preferences.filter_map(|preference| preference["Spread"]["SpreadDescriptor"].as_str());
    let spread: Vec<String> = spread.map(|descriptor| format!("spread={descriptor}")).collect();
    if !spread.is_empty() {
        page.row(" Preferences:   ", go_list(&spread));
    }
    if number(&placement["MaxReplicas"]) > 0 {
        page.row(" Max Replicas Per Node:   ", number(&placement["MaxReplicas"]));
    }
}

fn duration(value: &Value) -> String {
    docker::units::format_duration(Nanos(value.as_i64().unwrap_or(0)))
}

fn rollout(page: &mut Page, title: &str, order: &str, config: &Value) {
    if !config.is_object() {
        return;
    }
    page.line(title);
    page.row(" Parallelism:\t", number(&config["Parallelism"]));
    if number(&config["Delay"]) > 0 {
        page.row(" Delay:\t\t", duration(&config["Delay"]));
    }
    page.row(" On failure:\t", text(&config["FailureAction"]));
    if number(&config["Monitor"]) > 0 {
        page.row(" Monitoring Period: ", duration(&config["Monitor"]));
    }
    page.row(" Max failure ratio: ", config["MaxFailureRatio"].as_f64().unwrap_or(0.0));
    page.row(order, text(&config["Order"]));
}

fn container(page: &mut Page, container: &Value) {
    page.line("ContainerSpec:");
    page.row(" Image:\t\t", text(&container["Image"]));
    for (label, key) in [(" Args:\t\t", "Args"), (" Env:\t\t", "Env")] {
        let words: String = texts(&container[key]).iter().map(|word| format!("{word} ")).collect();
        page.given(label, words);
    }
    page.given(" Dir:\t\t", text(&container["Dir"]));
    if let Some(init) = container["Init"].as_bool() {
        page.row(" Init:\t\t", init);
    }
    page.given(" User: ", text(&container["User"]));
    let (added, dropped) = (texts(&container["CapabilityAdd"]), texts(&container["CapabilityDrop"]));
    if !added.is_empty() || !dropped.is_empty() {
        page.line("Capabilities:");
        page.given(" Add: ", added.join(", "));
        page.given(" Drop: ", dropped.join(", "));
    }
    page.pairs("SysCtls:", " ", ": ", &container["Sysctls"]);
    let limits = container["Ulimits"].as_array().into_iter().flatten();
    let limits: BTreeMap<&str, String> =
        limits.map(|limit| (text(&limit["Name"]), format!("{}:{}", limit["Soft"], limit["Hard"]))).collect();
    if !limits.is_empty() {
        page.line("Ulimits:");
        limits.iter().for_each(|(name, limit)| page.line(format!(" {name}: {limit}")));
    }
    mounts(page, &container["Mounts"]);
    files(page, "Configs:", "ConfigName", &container["Configs"]);
    files(page, "Secrets:", "SecretName", &container["Secrets"]);
}

fn mounts(page: &mut Page, mounts: &Value) {
    let mounts = mounts.as_array().into_iter().flatten();
    for (at, mount) in mounts.enumerate() {
        if at == 0 {
            page.line("Mounts:");
        }
        page.row(" Target:\t", text(&mount["Target"]));
        page.row("  Source:\t", text(&mount["Source"]));
        page.row("  ReadOnly:\t", mount["ReadOnly"].as_bool().unwrap_or(false));
        page.row("  Type:\t\t", text(&mount["Type"]));
    }
}

fn files(page: &mut Page, title: &str, name: &str, references: &Value) {
    for (at, reference) in references.as_array().into_iter().flatten().enumerate() {
        if at == 0 {
            page.line(title);
        }
        page.row(" Target:\t", text(&reference["File"]["Name"]));
        page.row("  Source:\t", text(&reference[name]));
    }
}

fn log_driver(page: &mut Page, driver: &Value) {
    if driver.is_object() {
        page.line("Log Driver:");
        page.given(" Name:\t\t", text(&driver["Name"]));
        page.pairs(" LogOpts:", "  ", ":       ", &driver["Options"]);
        page.line("");
    }
}

fn resources(page: &mut Page, resources: &Value) {
    if !resources.is_object() {
        return;
    }
    page.line("Resources:");
    for (title, key) in [(" Reservations:", "Reservations"), (" Limits:", "Limits")] {
        let some = &resources[key];
        let (cpus, memory, pids) =
            (number(&some["NanoCPUs"]), number(&some["MemoryBytes"]), number(&some["Pids"]));
        if cpus == 0 && memory == 0 && (pids == 0 || key == "Reservations") {
            continue;
        }
        page.line(title);
        if cpus > 0 {
            #[allow(clippy::cast_precision_loss, reason = "shown as a decimal number of CPUs")]
            page.row("  CPU:\t\t", cpus as f64 / 1e9);
        }
        if memory > 0 {
            page.row("  Memory:\t", docker::units::bytes_size(memory));
        }
    }
    if number(&resources["Limits"]["Pids"]) > 0 {
        page.row("  PIDs:\t\t", number(&resources["Limits"]["Pids"]));
    }
}

/// The line after the ports, and what follows it, stands behind the last port: docker's template eats the line break.
fn ports(page: &mut Page, ports: &Value) {
    let Some(ports) = ports.as_array().filter(|ports| !ports.is_empty()) else { return };
    page.line("Ports:");
    for port in ports {
        page.row(" PublishedPort = ", number(&port["PublishedPort"]));
        page.row("  Protocol = ", text(&port["Protocol"]));
        page.row("  TargetPort = ", number(&port["TargetPort"]));
        page.row("  PublishMode = ", text(&port["PublishMode"]));
    }
    page.0.pop();
    page.line(" ");
}

fn health(page: &mut Page, check: &Value) {
    if !check.is_object() {
        return;
    }
    page.line(" Healthcheck:");
    page.row("  Interval = ", duration(&check["Interval"]));
    page.row("  Retries = ", number(&check["Retries"]));
    page.row("  StartPeriod =\t", duration(&check["StartPeriod"]));
    page.row("  Timeout =\t", duration(&check["Timeout"]));
    let tests = texts(&check["Test"]);
    if !tests.is_empty() {
        page.line("  Tests:");
        tests.iter().for_each(|test| page.row("\t Test = ", test));
        page.0.pop();
        page.line(" ");
    }
}
