//! A node for people: `node inspect --pretty`.
//!
//! In: a node of the API. Out: its page. Source: docker/cli 28.2 `cli/command/node/formatter.go`, observed.

use super::{Page, number, text};
use crate::commands::node::capital;
use crate::commands::show::go_time;
use serde_json::Value;
use std::collections::BTreeMap;

/// The page of `node`.
pub(crate) fn page(node: &Value) -> String {
    let mut page = Page::default();
    let (spec, described, status) = (&node["Spec"], &node["Description"], &node["Status"]);
    let lower = |value: &Value| capital(&text(value).to_lowercase());
    page.row("ID:\t\t\t", text(&node["ID"]));
    page.given("Name:\t\t\t", text(&spec["Name"]));
    page.pairs("Labels:", " - ", "=", &spec["Labels"]);
    page.row("Hostname:              \t", text(&described["Hostname"]));
    page.row("Joined at:             \t", capital(&go_time(text(&node["CreatedAt"])).to_lowercase()));
    page.line("Status:");
    page.row(" State:\t\t\t", lower(&status["State"]));
    page.given(" Message:              \t", lower(&status["Message"]));
    page.row(" Availability:         \t", lower(&spec["Availability"]));
    page.given(" Address:\t\t", text(&status["Addr"]));
    let manager = &node["ManagerStatus"];
    if manager.is_object() {
        page.line("Manager Status:");
        page.row(" Address:\t\t", text(&manager["Addr"]));
        page.row(" Raft Status:\t\t", lower(&manager["Reachability"]));
        page.row(" Leader:\t\t", if manager["Leader"] == Value::Bool(true) { "Yes" } else { "No" });
    }
    machine(&mut page, described);
    page.0
}

fn machine(page: &mut Page, described: &Value) {
    page.line("Platform:");
    page.row(" Operating System:\t", text(&described["Platform"]["OS"]));
    page.row(" Architecture:\t\t", text(&described["Platform"]["Architecture"]));
    let resources = &described["Resources"];
    page.line("Resources:");
    page.row(" CPUs:\t\t\t", number(&resources["NanoCPUs"]) / 1_000_000_000);
    let memory = number(&resources["MemoryBytes"]);
    page.row(" Memory:\t\t", if memory == 0 { String::new() } else { docker::units::bytes_size(memory) });
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for plugin in described["Engine"]["Plugins"].as_array().into_iter().flatten() {
        plugins.entry(text(&plugin["Type"])).or_default().push(text(&plugin["Name"]));
    }
    if !plugins.is_empty() {
        page.line("Plugins:");
        plugins.iter().for_each(|(kind, names)| page.line(format!(" {kind}:\t\t{}", names.join(", "))));
    }
    page.row("Engine Version:\t\t", text(&described["Engine"]["EngineVersion"]));
    page.pairs("Engine Labels:", " - ", "=", &described["Engine"]["Labels"]);
    let tls = &described["TLSInfo"];
    if tls.as_object().is_some_and(|tls| !tls.is_empty()) {
        page.line("TLS Info:\n TrustRoot:");
        page.line(text(&tls["TrustRoot"]));
        page.row(" Issuer Subject:\t", text(&tls["CertIssuerSubject"]));
        page.row(" Issuer Public Key:\t", text(&tls["CertIssuerPublicKey"]));
    }
}
