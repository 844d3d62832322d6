//! The versions of both sides for people: `version`.
//!
//! In: what the client knows of itself, and the daemon's answer. Out: the page; a row without a value is left out. Source:
//! docker/cli 28.2 `cli/command/system/version.go`, observed.

use super::{Page, text};
use serde_json::Value;

/// The page; without a server, the client's part.
pub(crate) fn page(client: &Value, server: Option<&Value>) -> String {
    let mut page = Page::default();
    page.line("Client: skep");
    for (label, key) in [("Version:", "Version"), ("API version:", "ApiVersion")] {
        row(&mut page, 1, label, text(&client[key]));
    }
    row(&mut page, 1, "OS/Arch:", &format!("{}/{}", text(&client["Os"]), text(&client["Arch"])));
    row(&mut page, 1, "Context:", text(&client["Context"]));
    let Some(server) = server else { return page.0 };
    page.line("");
    page.row("Server: ", text(&server["Platform"]["Name"]));
    for component in server["Components"].as_array().into_iter().flatten() {
        page.line(format!(" {}:", text(&component["Name"])));
        row(&mut page, 2, "Version:", text(&component["Version"]));
        let details = &component["Details"];
        if component["Name"] == "Engine" {
            engine(&mut page, details);
        } else {
            for (name, value) in details.as_object().into_iter().flatten() {
                row(&mut page, 2, &format!("{name}:"), text(value));
            }
        }
    }
    page.0
}

fn engine(page: &mut Page, details: &Value) {
    let api =
        format!("{} (minimum version {})", text(&details["ApiVersion"]), text(&details["MinAPIVersion"]));
    row(page, 2, "API version:", &api);
    for (label, key) in [("Go version:", "GoVersion"), ("Git commit:", "GitCommit"), ("Built:", "BuildTime")]
    {
        row(page, 2, label, text(&details[key]));
    }
    row(page, 2, "OS/Arch:", &format!("{}/{}", text(&details["Os"]), text(&details["Arch"])));
    row(page, 2, "Experimental:", text(&details["Experimental"]));
}

fn row(page: &mut Page, indent: usize, label: &str, value: &str) {
    if !value.is_empty() {
        // Values stand in column 20.
        let label = format!("{:indent$}{label}", "");
        page.line(format!("{label:<20}{value}"));
    }
}
