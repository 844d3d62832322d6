//! Decides by which of its networks a container reaches what lies beyond all of them.
//!
//! In: its places in networks. Out: which of them has the default route, and so answers for its published ports. Never
//! looks at addresses: a place offers a way out or it does not.

use std::cmp::Reverse;

/// A container's place in one network, as far as the choice looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The network has a gateway that leads out of it.
    pub leads_out: bool,
    /// What the user said (`gw-priority`): the highest wins.
    pub priority: i64,
    /// It exists only for the way out, as `docker_gwbridge` does.
    pub is_for_that: bool,
    /// The network's name decides among equals.
    pub network: &'a str,
}

/// The index of the place that has the default route; none when no network leads out.
///
/// Source: moby, `daemon/libnetwork/endpoint.go`, `Less`.
pub fn choose(places: &[Place<'_>]) -> Option<usize> {
    let leading = places.iter().enumerate().filter(|(_, place)| place.leads_out);
    let best =
        leading.min_by_key(|(_, place)| (Reverse(place.priority), Reverse(place.is_for_that), place.network));
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places as (network, leads out, priority, is for that).
    fn check(places: &[(&str, bool, i64, bool)], expect: Option<&str>) {
        let places: Vec<_> = places
            .iter()
            .map(|&(network, leads_out, priority, is_for_that)| Place {
                leads_out,
                priority,
                is_for_that,
                network,
            })
            .collect();
        assert_eq!(choose(&places).map(|index| places[index].network), expect);
    }

    #[test]
    fn the_default_route_follows_priority_and_then_the_alphabet() {
        check(&[], None);
        check(&[("b", true, 0, false), ("a", true, 0, false)], Some("a"));
        check(&[("b", true, 1, false), ("a", true, 0, false)], Some("b"));
        check(&[("b", true, 0, false), ("a", true, -1, false)], Some("b"));
        check(&[("b", true, 0, false), ("a", false, 9, false)], Some("b"));
        check(&[("a", false, 0, false)], None);
        check(&[("a", true, 0, false), ("docker_gwbridge", true, 0, true)], Some("docker_gwbridge"));
    }
}
