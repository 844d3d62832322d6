//! The route table as others see it: for the coverage document and for checks.
//!
//! In: the routes. Out: rows, and a Markdown document. Never serves anything.

use docker::ApiVersion;

use crate::route::Action;
use crate::routes;

/// One route of the Engine API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// `GET`, `POST`, …
    pub method: String,
    /// `{name}` is one segment, `{name...}` one or more.
    pub path: &'static str,
    /// The first API version that has it; 1.24 stands for "always".
    pub since: ApiVersion,
    /// Whether it is served.
    pub support: Support,
    /// What it does, or why it is not served.
    pub about: &'static str,
}

/// Whether a route is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Served,
    /// It answers 501 with its reason.
    Refused,
}

/// Every route, in the order they are matched.
pub fn route_table() -> Vec<RouteInfo> {
    let row = |route: &crate::route::Route<crate::AppState>| RouteInfo {
        method: route.method.to_string(),
        path: route.path,
        since: route.since,
        support: match route.action {
            Action::Serve(_) => Support::Served,
            Action::Refuse(_) => Support::Refused,
        },
        about: route.about,
    };
    routes::all().iter().map(row).collect()
}

/// The text of `docs/api-coverage.md`.
pub fn coverage_document() -> String {
    let mut rows = route_table();
    rows.sort_by(|a, b| (a.path, &a.method).cmp(&(b.path, &b.method)));
    let served = rows.iter().filter(|row| row.support == Support::Served).count();
    let mut text = format!(
        "# Docker Engine API coverage\n\nGenerated from the route table in `crates/edge/api`; do not edit.\n\nAPI versions {} to {}: {served} of {} routes are served. The others answer 501 with the reason given here; what is in neither list is 404.\n\n| Method | Path | Since | Served | |\n|---|---|---|---|---|\n",
        ApiVersion::MIN,
        ApiVersion::MAX,
        rows.len(),
    );
    for row in &rows {
        let served = if row.support == Support::Served { "yes" } else { "no" };
        text.push_str(&format!(
            "| {} | `{}` | {} | {served} | {} |\n",
            row.method, row.path, row.since, row.about
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_route_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for row in route_table() {
            assert!(
                seen.insert((row.method.clone(), row.path)),
                "{} {} is there twice",
                row.method,
                row.path
            );
        }
    }

    #[test]
    fn a_fixed_path_is_not_hidden_by_a_pattern_before_it() {
        let rows = routes::all();
        for (place, row) in rows.iter().enumerate().filter(|(_, row)| !row.path.contains('{')) {
            let segments: Vec<&str> = row.path.split('/').skip(1).collect();
            let first =
                rows.iter().position(|other| other.method == row.method && other.fits(&segments).is_some());
            assert_eq!(first, Some(place), "{} {}", row.method, row.path);
        }
    }

    #[test]
    fn the_document_names_every_route() {
        let document = coverage_document();
        assert_eq!(
            document.lines().filter(|line| line.starts_with("| ") && line.contains("| `/")).count(),
            route_table().len()
        );
    }
}
