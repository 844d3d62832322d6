//! A network as it was made: what inspect shows, and what makes it again after a restart.
//!
//! In and out: plain values, kept in `networks.json`.

use std::collections::BTreeMap;

use netplan::ipam::{AskedSubnet, Subnet};
use objects::Timestamp;
use serde::{Deserialize, Serialize};

/// A network as a user wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Empty, `default` or `bridge`; others are refused.
    pub driver: String,
    /// Its containers reach nothing but each other.
    pub is_internal: bool,
    /// Means nothing on one machine, and is shown.
    pub is_attachable: bool,
    /// With a subnet of IPv6 besides the one of IPv4.
    pub has_ipv6: bool,
    /// Subnets; those left out are chosen.
    pub subnets: Vec<AskedSubnet>,
    /// Options of the address management; they mean nothing, and are shown.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    /// 64 hex digits.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// `bridge`, `host`, `null`, `overlay`, …
    pub(crate) driver: String,
    /// Its containers reach nothing but each other.
    pub(crate) is_internal: bool,
    /// What the user said; means nothing on one machine.
    pub(crate) is_attachable: bool,
    /// Published ports of a swarm come in by it.
    #[serde(default)]
    pub(crate) is_ingress: bool,
    pub(crate) has_ipv6: bool,
    /// Driver options as the user gave them.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Options of the address management as the user gave them.
    pub(crate) ipam_options: Option<BTreeMap<String, String>>,
    /// IPv4 first.
    pub(crate) subnets: Vec<Subnet>,
    /// The bridge's name; empty for networks without.
    pub(crate) link: String,
    /// The bridge was made by us and is ours to remove.
    pub(crate) is_link_ours: bool,
}

impl NetworkRecord {
    /// One of the networks that every machine has.
    pub(crate) fn built_in(id: &str, name: &str, driver: &str, created: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            created,
            driver: driver.to_owned(),
            is_internal: false,
            is_attachable: false,
            is_ingress: false,
            has_ipv6: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipam_options: None,
            subnets: Vec::new(),
            link: String::new(),
            is_link_ours: false,
        }
    }
}
