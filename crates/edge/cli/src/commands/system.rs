//! `version`, `info`, `events`.

use crate::client::{API_VERSION, Client};
use crate::commands::show::moment;
use crate::commands::{pretty, read};
use crate::output::{line, note, print};
use crate::{CliError, Outcome};
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use template::Template;

/// `version [OPTIONS]`
#[derive(Debug, Args)]
pub struct Version {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `info [OPTIONS]`
#[derive(Debug, Args)]
pub struct Info {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `events [OPTIONS]`
#[derive(Debug, Args)]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long)]
    until: Option<String>,
}

/// What this client says of itself.
fn own() -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": API_VERSION, "DefaultAPIVersion": API_VERSION,
        "Os": std::env::consts::OS, "Arch": architecture(), "Context": "default",
    })
}

/// The machine's name as Go has it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Version {
    /// Prints the versions of both sides; of one when the daemon can't be reached, which is an error then.
    pub async fn run(self, client: &Client) -> Outcome {
        let server = client.get("/version").value().await;
        let Some(format) = self.format.as_deref().filter(|format| !format.is_empty()) else {
            print(&pretty::version::page(&own(), server.as_ref().ok()));
            return server.map(drop);
        };
        let mut both = json!({"Client": own(), "Server": server?});
        if format != "json" {
            // A template names the fields of Go's structs, where this one is spelt otherwise.
            for side in ["Client", "Server"] {
                both[side]["APIVersion"] = both[side]["ApiVersion"].clone();
            }
        }
        line(&render(format, &both)?);
        Ok(())
    }
}

fn render(format: &str, value: &Value) -> Result<String, CliError> {
    if format == "json" {
        return Ok(value.to_string());
    }
    template::render(format, value).map_err(|error| {
        // Source: docker/cli `system/version.go` and `info.go`: a template that cannot be parsed is exit code 64.
        let code = if matches!(error, template::TemplateError::Parse { .. }) { 64 } else { 1 };
        CliError { code, ..CliError::from(error) }
    })
}

impl Info {
    /// Prints what the daemon says of itself.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut own = own();
        own["Debug"] = json!(false);
        if let Some(format) = self.format.as_deref().filter(|format| !format.is_empty()) {
            let mut info = client.get("/info").value().await?;
            info["ClientInfo"] = own;
            line(&render(format, &info)?);
            return Ok(());
        }
        print(&pretty::info::client(&own));
        let info = match client.get("/info").value().await {
            Ok(info) => info,
            Err(error) => {
                print("Server:\n");
                let message = format!("ERROR: {error}\nerrors pretty printing info");
                return Err(CliError { message, ..error });
            }
        };
        print(&pretty::info::server(&info));
        for warning in info["Warnings"].as_array().into_iter().flatten() {
            note(warning.as_str().unwrap_or_default());
        }
        Ok(())
    }
}

impl Events {
    /// Prints events as they come.
    pub async fn run(self, client: &Client) -> Outcome {
        if let Some(format) = self.format.as_deref().filter(|format| *format != "json") {
            Template::parse(format).map_err(|error| {
                let why = error.to_string();
                let why = why.strip_prefix("template parsing error: ").unwrap_or(&why);
                CliError { code: 64, ..CliError::new(format!("Error parsing format: {why}")) }
            })?;
        }
        let call = client
            .get("/events")
            .query_some("since", self.since.as_deref().map(moment).transpose()?)
            .query_some("until", self.until.as_deref().map(moment).transpose()?)
            .query_some("filters", read::filters(&self.filter)?);
        let mut body = call.send().await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CliError::new(format!("read events: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = pending.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&text)
                    .map_err(|error| CliError::new(format!("the daemon's event is not JSON: {error}")))?;
                match self.format.as_deref().filter(|format| !format.is_empty()) {
                    // The daemon's own order of fields.
                    Some("json" | "{{json .}}") => line(String::from_utf8_lossy(&text).trim()),
                    Some(format) => line(&render(format, &with_go_names(event))?),
                    None => line(&event_text(&event)),
                }
            }
        }
        Ok(())
    }
}

/// A template names the fields of Go's struct, where they are spelt otherwise in the answer.
fn with_go_names(mut event: Value) -> Value {
    for (name, key) in [
        ("ID", "id"),
        ("From", "from"),
        ("Scope", "scope"),
        ("Status", "status"),
        ("Time", "time"),
        ("TimeNano", "timeNano"),
    ] {
        // Only containers and images have all of them.
        event[name] = event.get(key).cloned().unwrap_or_else(|| json!(""));
    }
    event
}

fn event_text(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let attributes: Vec<String> = attributes.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let nanos = event["timeNano"].as_i64().unwrap_or(0);
    let second = objects::Timestamp(nanos - nanos.rem_euclid(1_000_000_000)).to_string();
    // All nine digits, so that lines are as long as each other.
    let time = format!("{}.{:09}Z", second.trim_end_matches('Z'), nanos.rem_euclid(1_000_000_000));
    let shown = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!(
        "{time} {} {} {}{shown}",
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"])
    )
}
