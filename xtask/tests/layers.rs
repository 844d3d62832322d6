//! A crate may depend only on its own ring or on rings further in, and the pure rings only on a named few crates.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const RINGS: [&str; 6] = ["model", "decide", "host", "cluster", "edge", "skep"];
const PURE_RINGS: usize = 2;
/// Outside crates that the pure rings may name. Each is free of input, output, clocks and randomness as used here.
const PURE_MAY_USE: [&str; 6] = ["ipnet", "serde", "serde_json", "sha2", "thiserror", "time"];
/// What must not be reachable from a pure crate, at any depth.
const NEVER_BELOW_PURE: [&str; 5] = ["tokio", "rustix", "rand", "getrandom", "mio"];
/// Libraries that few may use, with their users: what talks to registries, to disks, to other managers, to people.
const GUARDED: [(&str, &[&str]); 9] = [
    ("anyhow", &["skep", "xtask"]),
    ("clap", &["cli", "play", "skep"]),
    ("hyper", &["api", "cli", "rpc"]),
    ("openraft", &["raft"]),
    ("rcgen", &["pki"]),
    ("redb", &["engine", "raft"]),
    ("reqwest", &["images", "pki"]),
    ("tokio-rustls", &["api", "rpc"]),
    ("zstd", &["images"]),
];

fn ring(manifest: &str) -> Option<usize> {
    let inner = manifest.rsplit_once("/crates/")?.1;
    RINGS.iter().position(|name| inner.starts_with(&format!("{name}/")))
}

fn metadata() -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(xtask::root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("metadata is JSON")
}

fn each_dependency(mut visit: impl FnMut(&str, Option<usize>, &str, Option<usize>)) {
    let meta = metadata();
    let packages = meta["packages"].as_array().expect("packages");
    let rings: BTreeMap<&str, usize> = packages
        .iter()
        .filter_map(|p| Some((p["name"].as_str()?, ring(p["manifest_path"].as_str()?)?)))
        .collect();
    assert!(rings.len() > 10, "the workspace has its rings: {rings:?}");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"].is_null() {
                let other = dependency["name"].as_str().expect("name");
                visit(name, rings.get(name).copied(), other, rings.get(other).copied());
            }
        }
    }
}

#[test]
fn dependencies_point_inwards() {
    let mut wrong = Vec::new();
    each_dependency(|name, from, other, to| match (from, to) {
        (Some(from), Some(to)) if to > from => {
            wrong.push(format!("{name} ({}) -> {other} ({})", RINGS[from], RINGS[to]));
        }
        (Some(from), None) if from < PURE_RINGS && !PURE_MAY_USE.contains(&other) => {
            wrong.push(format!("{name} is pure and may not use {other}"));
        }
        _ => {}
    });
    assert!(wrong.is_empty(), "wrong dependencies:\n{}", wrong.join("\n"));
}

#[test]
fn pure_crates_reach_no_runtime_at_any_depth() {
    let mut pure = BTreeSet::new();
    each_dependency(|name, from, _, _| {
        if from.is_some_and(|ring| ring < PURE_RINGS) {
            pure.insert(name.to_owned());
        }
    });
    for name in pure {
        let out = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
                "-p",
                &name,
            ])
            .current_dir(xtask::root())
            .output()
            .expect("cargo runs");
        let tree = String::from_utf8_lossy(&out.stdout);
        for line in tree.lines() {
            let used = line.split(' ').next().unwrap_or_default();
            assert!(!NEVER_BELOW_PURE.contains(&used), "{name} is pure but reaches {used}");
        }
    }
}

#[test]
fn guarded_libraries_are_used_by_those_named_here_alone() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    each_dependency(|name, _, other, _| {
        let Some((library, users)) = GUARDED.iter().find(|(library, _)| *library == other) else { return };
        used.insert((*library, name.to_owned()));
        if !users.contains(&name) {
            wrong.push(format!("{name} uses {library}; only {users:?} may"));
        }
    });
    // A guard that guards nothing any more only misleads.
    for (library, users) in GUARDED {
        for user in users.iter().filter(|user| !used.contains(&(library, (**user).to_owned()))) {
            wrong.push(format!("{user} is named as a user of {library} and is none"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
/// A patch that no lock entry follows is silently without effect.
#[test]
fn every_patch_takes_the_place_of_the_published_crate() {
    let lock = std::fs::read_to_string(xtask::root().join("Cargo.lock")).expect("the lock file is there");
    let patches = std::fs::read_dir(xtask::root().join("patches")).expect("there are patches");
    for patch in patches {
        let name = patch.expect("it lists").file_name().to_string_lossy().into_owned();
        let entries: Vec<&str> = lock
            .split("[[package]]")
            .filter(|entry| entry.contains(&format!("name = \"{name}\"\n")))
            .collect();
        assert_eq!(
            entries.len(),
            1,
            "Cargo.lock has one {name}: `cargo update -p {name}` puts the patch in place"
        );
        assert!(!entries[0].contains("source = "), "Cargo.lock takes {name} from the registry");
    }
}
