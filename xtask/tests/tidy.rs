//! Rules of `STYLE.md` that a reader of the text can check: module docs, file length, whitespace, banned file names.

use std::fs;
use std::path::Path;

/// Lines of code, tests not counted, above which a file must be split by noun.
const LINES_MAX: usize = 800;
/// Names that say nothing about the business.
const EMPTY_NAMES: [&str; 6] = ["utils.rs", "util.rs", "helpers.rs", "misc.rs", "common.rs", "manager2.rs"];

fn relative(path: &Path) -> String {
    path.strip_prefix(xtask::root()).unwrap_or(path).display().to_string()
}

fn sources() -> Vec<(String, String)> {
    let root = xtask::root();
    let mut all = Vec::new();
    for folder in ["crates", "testkit", "xtask"] {
        for path in xtask::files(&root.join(folder), ".rs").expect("sources are readable") {
            all.push((relative(&path), fs::read_to_string(&path).expect("source is UTF-8")));
        }
    }
    assert!(all.len() > 30, "the workspace has sources");
    all
}

fn check(rule: &str, broken_by: impl Fn(&str, &str) -> Option<String>) {
    let found: Vec<String> = sources()
        .iter()
        .filter_map(|(path, text)| broken_by(path, text).map(|what| format!("{path}: {what}")))
        .collect();
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn every_file_starts_with_a_module_doc() {
    check("a file starts with what it decides or does", |_, text| {
        (!text.starts_with("//!")).then(|| "no `//!` on line 1".to_owned())
    });
}

#[test]
fn no_file_grows_past_the_limit() {
    check("a file over the limit is split by noun", |path, text| {
        let code = text.split("\n#[cfg(test)]").next().unwrap_or(text).lines().count();
        (!path.contains("/tests/") && code > LINES_MAX).then(|| format!("{code} lines, {LINES_MAX} allowed"))
    });
}

#[test]
fn names_of_files_say_something() {
    check("a file is named after a noun or a verb of the business", |path, _| {
        EMPTY_NAMES.iter().find(|name| path.ends_with(&format!("/{name}"))).map(|name| (*name).to_owned())
    });
}

#[test]
fn no_stub_and_no_switched_off_test_is_left() {
    let marks = ["todo!(", "unimplemented!(", "#[ignore"];
    check("what is there works", |path, text| {
        if path == "xtask/tests/tidy.rs" {
            return None;
        }
        marks.iter().find(|mark| text.contains(**mark)).map(|mark| (*mark).to_owned())
    });
}

#[test]
fn lines_end_without_blanks() {
    check("no trailing blanks", |_, text| {
        text.lines().position(|line| line.ends_with([' ', '\t'])).map(|line| format!("line {}", line + 1))
    });
}

#[test]
fn the_pure_rings_hold_the_same_rules() {
    let root = xtask::root();
    let model = fs::read_to_string(root.join("crates/model/clippy.toml")).expect("model's rules");
    let decide = fs::read_to_string(root.join("crates/decide/clippy.toml")).expect("decide's rules");
    assert_eq!(model, decide, "crates/model/clippy.toml and crates/decide/clippy.toml differ");
}

#[test]
fn unsafe_code_lives_where_it_may() {
    let may = ["machine", "netlink", "runtime", "shim"].map(|name| format!("crates/host/{name}/"));
    check("only the crates that talk to the kernel directly allow unsafe code", |path, text| {
        let allows = text.contains("allow(unsafe_code");
        let test_only = path.contains("/tests/") || path == "xtask/tests/tidy.rs";
        (allows && !test_only && !may.iter().any(|home| path.starts_with(home.as_str())))
            .then(|| "allows unsafe".to_owned())
    });
}
