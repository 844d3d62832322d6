//! What the documents name exists: paths in the tables of `docs/invariants.md` and `ARCHITECTURE.md`.
//!
//! In: the documents. Out: the paths and tests they name that are not there. Never judges what a document says about them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the short paths of the documents begin: `decide/schedule` is `crates/decide/schedule`.
const HOMES: [&str; 2] = ["", "crates"];
/// How a name begins or ends that is a file or folder of this workspace, and not one of a running daemon.
const TOP_LEVEL: [&str; 12] = [
    "model/", "decide/", "host/", "cluster/", "edge/", "skep/", "crates/", "testkit/", "xtask/", "docs/",
    "scripts/", ".cargo/",
];

fn read(name: &str) -> String {
    fs::read_to_string(xtask::root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between backticks, in order.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` is two paths; `a/<noun>` is the folder `a`.
fn spelled_out(path: &str) -> Vec<String> {
    let path = path.split("/<").next().unwrap_or(path);
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (middle, tail))) => middle.split(',').map(|one| format!("{head}{one}{tail}")).collect(),
        None => vec![path.to_owned()],
    }
}

/// The file or folder meant, if it is there; also as a module, whose file has an ending.
fn found(path: &str) -> Option<PathBuf> {
    let root = xtask::root();
    let candidates = HOMES.iter().flat_map(|home| {
        let plain = root.join(home).join(path);
        [plain.with_extension("rs"), plain]
    });
    candidates.into_iter().find(|candidate| candidate.exists())
}

fn is_path(text: &str) -> bool {
    TOP_LEVEL.iter().any(|start| text.starts_with(start)) && !text.contains([' ', '*'])
}

fn tables(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('|') && line.contains('`'))
}

fn check(document: &str, at_least: usize, lines: &str) {
    let paths: Vec<String> =
        lines.lines().flat_map(quoted).filter(|text| is_path(text)).flat_map(spelled_out).collect();
    assert!(paths.len() >= at_least, "{document} names paths: {paths:?}");
    let missing: Vec<&String> = paths.iter().filter(|path| found(path).is_none()).collect();
    assert!(missing.is_empty(), "{document} names what is not there: {missing:?}");
}

#[test]
fn every_path_in_the_architecture_s_tables_exists() {
    let text = read("ARCHITECTURE.md");
    check("ARCHITECTURE.md", 10, &tables(&text).collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_path_in_the_invariants_and_the_design_exists() {
    check("docs/invariants.md", 20, &read("docs/invariants.md"));
    for page in xtask::files(&xtask::root().join("docs/design"), ".md").expect("docs/design is there") {
        let name = page.strip_prefix(xtask::root()).unwrap_or(&page).display().to_string();
        check(&name, 3, &read(&name));
        assert!(read(&name).lines().count() <= 90, "{name} is one page of at most 90 lines");
    }
}

#[test]
fn every_crate_of_a_ring_is_on_the_map() {
    let map = read("ARCHITECTURE.md");
    for ring in ["model", "decide", "host", "cluster", "edge"] {
        let start = format!("  {ring}/ ");
        let line =
            map.lines().find(|line| line.starts_with(&start)).expect("the map has a line for each ring");
        let words: Vec<&str> = line.split([' ', ',']).collect();
        for entry in fs::read_dir(xtask::root().join("crates").join(ring)).expect("the ring has a folder") {
            let entry = entry.expect("the folder is readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_crate = entry.path().join("Cargo.toml").exists();
            assert!(!is_crate || words.contains(&name.as_str()), "{name} is not on the map's line of {ring}");
        }
    }
}

/// The source that stands for a path: the file, or all Rust and Python files of the folder.
fn source_of(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).expect("source is UTF-8");
    }
    let mut text = String::new();
    for ending in [".rs", ".py"] {
        for file in xtask::files(path, ending).expect("folder is readable") {
            text.push_str(&fs::read_to_string(file).expect("source is UTF-8"));
        }
    }
    text
}

/// A row reads: `path`: `test`, `test`; `path`. A test belongs to the path before it.
fn missing_tests(row: &str) -> Vec<String> {
    let mut source = String::new();
    let mut missing = Vec::new();
    for word in quoted(row) {
        if is_path(word) {
            let parts = spelled_out(word);
            source = parts.iter().filter_map(|part| found(part)).map(|path| source_of(&path)).collect();
        } else if !source.contains(&format!("fn {word}(")) && !source.contains(&format!("def {word}(")) {
            missing.push(word.to_owned());
        }
    }
    missing
}

#[test]
fn invariants_are_numbered_in_order_and_name_tests_that_exist() {
    let text = read("docs/invariants.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| INV-")).collect();
    assert!(rows.len() >= 20, "the table has its rows");
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, guard] = cells[..] else { panic!("three cells: {row}") };
        assert_eq!(number, format!("INV-{}", at + 1), "numbers follow each other");
        assert!(quoted(guard).any(is_path), "{number} names the file that guards it");
        let missing = missing_tests(guard);
        assert!(missing.is_empty(), "{number} names tests that are not there: {missing:?}");
    }
}
