//! `ARG`: what build arguments are known at which point, and what they hold.
//!
//! In: what the client gave, `ARG` instructions. Out: variables for words and for commands.
//! Source: moby, `builder/dockerfile/buildargs.go`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Known without an `ARG`; left out of history unless there is one. Source: moby, `builtinAllowedBuildArgs`.
const BUILT_IN: [&str; 10] = [
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The build arguments of one build.
pub(crate) struct Arguments {
    given: BTreeMap<String, Option<String>>,
    /// From before the first stage, with their defaults.
    global: BTreeMap<String, Option<String>>,
    /// Of the stage that is built.
    stage: BTreeMap<String, Option<String>>,
    used: RefCell<BTreeSet<String>>,
}

impl Arguments {
    pub(crate) fn new(given: BTreeMap<String, Option<String>>) -> Arguments {
        Arguments { given, global: BTreeMap::new(), stage: BTreeMap::new(), used: RefCell::default() }
    }

    /// An `ARG` before the first stage.
    pub(crate) fn add_global(&mut self, name: &str, default: Option<String>) {
        self.used.borrow_mut().insert(name.to_owned());
        self.global.insert(name.to_owned(), default);
    }

    /// A stage begins: it knows none.
    pub(crate) fn begin_stage(&mut self) {
        self.stage.clear();
    }

    /// An `ARG` in a stage; without a default it has that of the one before the first stage.
    pub(crate) fn add(&mut self, name: &str, default: Option<String>) {
        self.used.borrow_mut().insert(name.to_owned());
        self.stage.insert(name.to_owned(), default);
    }

    /// What a name holds before the first stage.
    pub(crate) fn global(&self, name: &str) -> Option<String> {
        self.value(name, self.global.get(name)?.clone())
    }

    /// What a name holds in the stage.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        match self.stage.get(name) {
            Some(default) => self.value(name, default.clone().or_else(|| self.global(name))),
            None if BUILT_IN.contains(&name) => self.given.get(name).cloned().flatten(),
            None => None,
        }
    }

    fn value(&self, name: &str, default: Option<String>) -> Option<String> {
        self.given.get(name).cloned().flatten().or(default)
    }

    /// Everything a command gets, sorted, without what its environment has already.
    pub(crate) fn for_command(&self, env: &[String]) -> Vec<(String, String)> {
        let is_set = |name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
        let names: BTreeSet<&str> = self.stage.keys().map(String::as_str).chain(BUILT_IN).collect();
        let unset = names.into_iter().filter(|name| !is_set(name));
        unset.filter_map(|name| Some((name.to_owned(), self.get(name)?))).collect()
    }

    /// Whether a variable of a command belongs into its history and its place in the cache.
    pub(crate) fn counts(&self, name: &str) -> bool {
        !BUILT_IN.contains(&name) || self.used.borrow().contains(name)
    }

    /// What was given and asked for by nothing.
    pub(crate) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.given
            .keys()
            .filter(|name| !used.contains(*name) && !BUILT_IN.contains(&name.as_str()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_known_where_it_is_asked_for() {
        let given = [("A", "1"), ("X", "2"), ("http_proxy", "p")];
        let mut arguments =
            Arguments::new(given.map(|(k, v)| (k.to_owned(), Some(v.to_owned()))).into_iter().collect());
        arguments.add_global("G", Some("g".to_owned()));
        assert_eq!(
            (arguments.get("A"), arguments.get("G"), arguments.global("G")),
            (None, None, Some("g".into()))
        );
        arguments.add("A", Some("default".to_owned()));
        arguments.add("G", None);
        assert_eq!((arguments.get("A"), arguments.get("G")), (Some("1".into()), Some("g".into())));
        let names: Vec<String> =
            arguments.for_command(&["G=env".to_owned()]).into_iter().map(|(k, _)| k).collect();
        assert_eq!(names, ["A", "http_proxy"]);
        assert!(arguments.counts("A") && !arguments.counts("http_proxy"));
        assert_eq!(arguments.unused(), ["X"]);
        arguments.begin_stage();
        assert_eq!(arguments.get("A"), None);
    }
}
