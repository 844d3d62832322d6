//! Reads the driver options of a macvlan network.
//!
//! In: `-o` of `network create`. Out: what they mean, or a refusal. Never looks at the machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The link whose wire the containers share.
pub const PARENT: &str = "parent";
/// Which of their siblings they reach.
pub const MODE: &str = "macvlan_mode";

/// What the options mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacvlanOptions {
    /// The link whose wire the containers share.
    pub parent: String,
    /// Which of their siblings they reach.
    pub mode: MacvlanMode,
}

/// Which of its siblings a container reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// None.
    Private,
    /// All, by way of a switch that sends back.
    Vepa,
    /// All.
    Bridge,
    /// It is the only one on that wire.
    Passthru,
}

/// Why options are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacvlanOptionError {
    /// Source: moby, `daemon/libnetwork/drivers/macvlan/macvlan_network.go`.
    #[error("requested macvlan mode '{0}' is not valid, 'bridge' mode is the macvlan driver default")]
    Mode(String),
    /// dockerd would make a network that leads nowhere.
    #[error("a macvlan network without -o parent=LINK is not supported by this engine")]
    NoParent,
}

/// Reads the options; those that mean nothing here are kept for inspect and change nothing.
pub fn read(options: &BTreeMap<String, String>) -> Result<MacvlanOptions, MacvlanOptionError> {
    let get = |label: &str| options.get(label).map(String::as_str).unwrap_or_default();
    let mode = match get(MODE) {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        other => return Err(MacvlanOptionError::Mode(other.to_owned())),
    };
    match get(PARENT) {
        "" => Err(MacvlanOptionError::NoParent),
        parent => Ok(MacvlanOptions { parent: parent.to_owned(), mode }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_mean_what_docker_says() {
        let check = |options: &[(&str, &str)], expect: Result<(&str, MacvlanMode), &str>| {
            let options =
                options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let read = read(&options).map_err(|error| error.to_string());
            let expect = expect.map(|(parent, mode)| MacvlanOptions { parent: parent.to_owned(), mode });
            assert_eq!(read, expect.map_err(str::to_owned));
        };
        check(&[(PARENT, "eth0")], Ok(("eth0", MacvlanMode::Bridge)));
        check(&[(PARENT, "eth0"), (MODE, "private"), ("x", "y")], Ok(("eth0", MacvlanMode::Private)));
        check(&[], Err("a macvlan network without -o parent=LINK is not supported by this engine"));
        let text = "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default";
        check(&[(PARENT, "eth0"), (MODE, "x")], Err(text));
    }
}
