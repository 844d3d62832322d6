//! Finds the cgroup trees of this host.
//!
//! In: `/proc/self/mountinfo` and `/proc/self/cgroup`, as text. Out: where each tree is mounted and which controllers it
//! has. Never assumes a place, and never mounts anything.

use std::path::{Path, PathBuf};

use super::CgroupError;

/// One cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// Its version and controllers.
    pub(super) kind: Kind,
}

/// Version of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Version 1, with the names of its controllers (`name=systemd` has none but its name).
    V1(Vec<String>),
    /// Version 2; its controllers are listed in a file of every group.
    V2,
}

impl Tree {
    /// Whether this is the version 1 tree of a controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        matches!(&self.kind, Kind::V1(names) if names.iter().any(|name| name == controller))
    }

    /// Whether this is the version 2 tree.
    pub(super) fn is_v2(&self) -> bool {
        self.kind == Kind::V2
    }
}

/// Reads the trees of this host.
pub(super) fn detect() -> Result<Vec<Tree>, CgroupError> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|source| CgroupError::File {
            action: "read",
            path: path.into(),
            source,
        })
    };
    let trees = parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
    if trees.is_empty() { Err(CgroupError::NotMounted) } else { Ok(trees) }
}

/// `mountinfo`: `id parent major:minor root mountpoint options [marks] - type source super-options`;
/// `cgroup`: `number:controllers:path`, with no controllers for version 2.
fn parse(mountinfo: &str, cgroup: &str) -> Vec<Tree> {
    let hierarchies: Vec<Vec<&str>> = cgroup
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|names| !names.is_empty())
        .map(|names| names.split(',').collect())
        .collect();
    let mut trees: Vec<Tree> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let kind = match kind {
            "cgroup2" => Kind::V2,
            "cgroup" => {
                let named = |names: &&Vec<&str>| {
                    names.iter().all(|name| options.split(',').any(|option| option == *name))
                };
                let Some(names) = hierarchies.iter().find(named) else { continue };
                Kind::V1(names.iter().map(|name| (*name).to_owned()).collect())
            }
            _ => continue,
        };
        // A tree that is mounted twice is the same tree; the first place is the usual one.
        if trees.iter().all(|tree| tree.kind != kind) {
            trees.push(Tree { mount: PathBuf::from(unescape(mount)), kind });
        }
    }
    trees
}

/// `mountinfo` writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The groups that a process is in: for every tree, the absolute path of its group's directory.
pub(super) fn groups_of(pid: i32, trees: &[Tree]) -> Result<Vec<(Tree, PathBuf)>, CgroupError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&path).map_err(|source| CgroupError::File {
        action: "read",
        path,
        source,
    })?;
    Ok(trees
        .iter()
        .filter_map(|tree| Some((tree.clone(), below(&tree.mount, group_in(&text, tree)?))))
        .collect())
}

fn group_in<'a>(cgroup: &'a str, tree: &Tree) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let names = fields.nth(1)?;
        let path = fields.next()?;
        let matches = match &tree.kind {
            Kind::V2 => names.is_empty(),
            Kind::V1(wanted) => !names.is_empty() && names.split(',').eq(wanted.iter().map(String::as_str)),
        };
        matches.then_some(path)
    })
}

/// The directory of an absolute cgroup path below a mount.
pub(super) fn below(mount: &Path, group: &str) -> PathBuf {
    mount.join(group.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /elsewhere rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/with\\040blank rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_GROUPS: &str = "9:name=systemd:/a\n4:memory:/process/x\n2:cpu,cpuacct:/c\n0::/u\n";

    #[test]
    fn every_tree_of_a_mixed_host_is_found_once() {
        let trees = parse(HYBRID_MOUNTS, HYBRID_GROUPS);
        let shown: Vec<_> =
            trees.iter().map(|tree| (tree.mount.to_str().unwrap(), tree.kind.clone())).collect();
        let v1 = |names: &[&str]| Kind::V1(names.iter().map(ToString::to_string).collect());
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", v1(&["cpu", "cpuacct"])),
                ("/sys/fs/cgroup/memory", v1(&["memory"])),
                ("/sys/fs/cgroup/with blank", v1(&["name=systemd"])),
                ("/sys/fs/cgroup/unified", Kind::V2),
            ]
        );
        assert!(trees[0].has("cpuacct"));
        assert_eq!(group_in(HYBRID_GROUPS, &trees[0]), Some("/c"));
        assert_eq!(group_in(HYBRID_GROUPS, &trees[3]), Some("/u"));
    }

    #[test]
    fn a_host_with_version_2_only_has_one_tree() {
        let trees =
            parse("25 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/init.scope\n");
        assert_eq!(trees, [Tree { mount: "/sys/fs/cgroup".into(), kind: Kind::V2 }]);
    }

    #[test]
    fn a_host_without_cgroups_has_no_tree() {
        assert!(parse("27 1 254:0 / / rw - ext4 /dev/vda rw\n", "").is_empty());
    }
}
