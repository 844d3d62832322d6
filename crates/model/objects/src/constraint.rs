//! Placement constraints such as `node.role==manager`.
//!
//! In: the texts of a spec, and a node. Out: whether the node satisfies them, or why a text is none.
//! Source of the grammar: moby/swarmkit, `manager/constraint/constraint.go`.

use std::net::IpAddr;

use crate::{Labels, Node};

/// One condition on nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: String,
    wants_equal: bool,
    value: String,
}

/// Why a text is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// There is no operator, or more than one.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// The key has a wrong form.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The value has a wrong form.
    #[error("value '{0}' is invalid")]
    Value(String),
}

impl Constraint {
    /// Reads all constraints of a spec.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, ConstraintError> {
        texts.iter().map(|text| text.parse()).collect()
    }

    /// Whether `node` satisfies it. Unknown keys are satisfied by no node.
    pub fn is_satisfied_by(&self, node: &Node) -> bool {
        let key = self.key.to_ascii_lowercase();
        match key.as_str() {
            "node.id" => self.compare(node.id.as_str()),
            "node.hostname" => self.compare(&node.description.hostname),
            "node.ip" => self.compare_address(&node.status.addr),
            "node.role" => self.compare(node.spec.role.as_str()),
            "node.platform.os" => self.compare(&node.description.platform.os),
            "node.platform.arch" => self.compare(&node.description.platform.architecture),
            _ => self.compare_label(&key, node),
        }
    }

    fn compare_label(&self, lower_key: &str, node: &Node) -> bool {
        for (prefix, labels) in
            [("node.labels.", &node.spec.labels), ("engine.labels.", &node.description.engine.labels)]
        {
            if lower_key.starts_with(prefix) && lower_key.len() > prefix.len() {
                return self.compare(label(labels, &self.key[prefix.len()..]));
            }
        }
        false
    }

    fn compare(&self, found: &str) -> bool {
        (found.to_lowercase() == self.value.to_lowercase()) == self.wants_equal
    }

    /// Compares an address with an address or a subnet. A node without an address satisfies nothing.
    fn compare_address(&self, found: &str) -> bool {
        let Ok(address) = found.parse::<IpAddr>() else { return false };
        let is_equal = match self.value.split_once('/') {
            None => self.value.parse::<IpAddr>().is_ok_and(|wanted| wanted == address),
            Some((subnet, bits)) => match (subnet.parse::<IpAddr>(), bits.parse::<u32>()) {
                (Ok(subnet), Ok(bits)) => is_within(address, subnet, bits),
                _ => return false,
            },
        };
        is_equal == self.wants_equal
    }
}

/// The value of a label; a missing one is the empty text.
fn label<'a>(labels: &'a Labels, key: &str) -> &'a str {
    labels.get(key).map_or("", String::as_str)
}

fn is_within(address: IpAddr, subnet: IpAddr, bits: u32) -> bool {
    match (address, subnet) {
        (IpAddr::V4(address), IpAddr::V4(subnet)) if bits <= 32 => {
            let differing = u64::from(address.to_bits() ^ subnet.to_bits());
            differing >> (32 - bits) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(subnet)) if bits <= 128 => {
            let differing = address.to_bits() ^ subnet.to_bits();
            bits == 0 || differing >> (128 - bits) == 0
        }
        _ => false,
    }
}

impl std::str::FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for (operator, wants_equal) in [("==", true), ("!=", false)] {
            let Some((key, value)) = text.split_once(operator) else { continue };
            let (key, value) = (key.trim(), value.trim());
            if !is_key(key) {
                return Err(ConstraintError::Key(key.to_owned()));
            }
            if !is_value(value) {
                return Err(ConstraintError::Value(value.to_owned()));
            }
            return Ok(Self { key: key.to_owned(), wants_equal, value: value.to_owned() });
        }
        Err(ConstraintError::Operator)
    }
}

fn is_key(text: &str) -> bool {
    let mut characters = text.chars();
    let first_fits = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = characters.as_str();
    first_fits && !rest.is_empty() && characters.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_value(text: &str) -> bool {
    let fits =
        |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c);
    !text.is_empty() && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node() -> Node {
        let mut node = Node { id: "n1".into(), ..Node::default() };
        node.spec.labels.insert("Zone".to_owned(), "West".to_owned());
        node.description.engine.labels.insert("disk".to_owned(), "ssd".to_owned());
        node.description.hostname = "alpha".to_owned();
        node.description.platform.os = "linux".to_owned();
        node.status.addr = "10.1.2.3".to_owned();
        node
    }

    #[test]
    fn constraints_compare_whole_values_without_case() {
        let check = |text: &str, expect: bool| {
            assert_eq!(text.parse::<Constraint>().unwrap().is_satisfied_by(&node()), expect, "{text}");
        };
        check("node.id == n1", true);
        check("NODE.ID==N1", true);
        check("node.hostname!=alpha", false);
        check("node.hostname==alph", false);
        check("node.role==worker", true);
        check("node.labels.Zone==west", true);
        check("node.labels.zone==west", false);
        check("node.labels.missing!=x", true);
        check("engine.labels.disk==ssd", true);
        check("node.ip==10.1.2.3", true);
        check("node.ip==10.1.0.0/16", true);
        check("node.ip!=10.1.0.0/16", false);
        check("node.ip==0.0.0.0/0", true);
        check("node.ip==10.2.0.0/16", false);
        check("node.platform.os==linux", true);
        check("node.colour==red", false);
        check("node.colour!=red", false);
    }

    #[test]
    fn wrong_texts_are_refused_in_swarms_wording() {
        let check = |text: &str, expect: &str| {
            assert_eq!(text.parse::<Constraint>().unwrap_err().to_string(), expect, "{text}");
        };
        check("node.id", "constraint expected one operator from ==, !=");
        check("node.id=n1", "constraint expected one operator from ==, !=");
        check("1x==y", "key '1x' is invalid");
        check("==y", "key '' is invalid");
        check("node.id==", "value '' is invalid");
        check("node.id==a,b", "value 'a,b' is invalid");
    }

    proptest! {
        #[test]
        fn equal_and_unequal_are_opposites_for_known_keys(value in "[a-z0-9]{1,8}") {
            let parse = |text: String| text.parse::<Constraint>().unwrap();
            let equal = parse(format!("node.hostname=={value}")).is_satisfied_by(&node());
            let unequal = parse(format!("node.hostname!={value}")).is_satisfied_by(&node());
            prop_assert_ne!(equal, unequal);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC*") {
            let _ = text.parse::<Constraint>();
        }
    }
}
