//! Shows whole objects to people: `--pretty` of services and nodes, `info`, `version`.
//!
//! In: objects as the API gives them. Out: text in docker's form, down to its tabs and blanks. Never asks the daemon.

pub(crate) mod info;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod version;

use serde_json::Value;
use std::fmt::Display;

/// Text line by line.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: impl Display) {
        self.0.push_str(&format!("{text}\n"));
    }

    /// A line whose value follows its label as it is.
    fn row(&mut self, label: &str, value: impl Display) {
        self.line(format!("{label}{value}"));
    }

    /// The same, unless the value is empty.
    fn given(&mut self, label: &str, value: impl Display) {
        let value = value.to_string();
        if !value.is_empty() {
            self.row(label, value);
        }
    }

    /// A line per pair: the name, and the value after `between` when there is one. `title` stands above.
    fn pairs(&mut self, title: &str, indent: &str, between: &str, pairs: &Value) {
        let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) else { return };
        self.line(title);
        for (name, value) in pairs {
            match text(value) {
                "" => self.row(indent, name),
                value => self.row(indent, format!("{name}{between}{value}")),
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A list as Go prints one: `[a b]`.
fn go_list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}
