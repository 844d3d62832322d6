//! What a container mounts: reads `-v`, `--mount`, `--tmpfs`, `VOLUME` and `--volumes-from` into one list.
//!
//! In: the request's config and host config. Out: mounts in the order of their destinations, or Docker's refusal. Never
//! touches a path: whether sources exist is checked by [`super::sources`].

use std::collections::BTreeMap;

use docker::{Mount, MountPoint};
use runtime::Propagation;
use serde::{Deserialize, Serialize};

use crate::error::InvalidRequest;

/// One mount of a container, validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    /// Cleaned absolute path in the container.
    pub(crate) destination: String,
    pub(crate) source: MountFrom,
    pub(crate) writable: bool,
    /// What stood after the last colon of `-v`, as inspect shows it.
    pub(crate) mode: String,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountFrom {
    Bind {
        path: String,
        propagation: Propagation,
        recursive: bool,
        /// Mounts below a read-only bind stay writable.
        readonly_top_only: bool,
        /// A missing source is made as a directory (`-v` does, `--mount` doesn't).
        create: bool,
    },
    Volume {
        /// Empty until the engine invents one for an anonymous volume.
        name: String,
        /// Nobody named it: goes when the container is removed with its volumes.
        anonymous: bool,
        /// The image's content isn't copied into it while it is empty.
        no_copy: bool,
        /// A directory inside the volume.
        subpath: String,
        /// For a volume that has to be made.
        driver: String,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    },
    Tmpfs {
        /// Options of the file system, such as `size=64m`.
        data: String,
        noexec: bool,
    },
}

impl MountRecord {
    /// As inspect shows it, except for a volume's path.
    pub(crate) fn to_point(&self, volume_path: impl Fn(&str) -> String) -> MountPoint {
        let base = MountPoint {
            destination: self.destination.clone(),
            mode: self.mode.clone(),
            rw: self.writable,
            ..Default::default()
        };
        match &self.source {
            MountFrom::Bind { path, propagation, .. } => MountPoint {
                kind: "bind".into(),
                source: path.clone(),
                propagation: propagation_name(*propagation).into(),
                ..base
            },
            MountFrom::Volume { name, .. } => MountPoint {
                kind: "volume".into(),
                name: name.clone(),
                source: volume_path(name),
                driver: "local".into(),
                ..base
            },
            MountFrom::Tmpfs { .. } => MountPoint { kind: "tmpfs".into(), ..base },
        }
    }

    /// The name of the volume it mounts.
    pub(crate) fn volume(&self) -> Option<&str> {
        match &self.source {
            MountFrom::Volume { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// What a client asked to be mounted.
pub(crate) struct Asked<'a> {
    pub(crate) binds: &'a [String],
    pub(crate) mounts: &'a [Mount],
    pub(crate) tmpfs: &'a BTreeMap<String, String>,
    /// Destinations of `VOLUME` and `-v /path`.
    pub(crate) anonymous: Vec<&'a str>,
    /// Mounts of the containers in `VolumesFrom`, in their order.
    pub(crate) from_others: Vec<MountRecord>,
}

/// Every mount of the container, sorted by destination.
///
/// Later kinds don't replace earlier ones: two mounts at one place are refused, except that `VOLUME`s and
/// `--volumes-from` give way. Source: moby, `daemon/volumes.go`, `registerMountPoints`.
pub(crate) fn read(asked: &Asked<'_>) -> Result<Vec<MountRecord>, InvalidRequest> {
    let mut explicit: BTreeMap<String, MountRecord> = BTreeMap::new();
    let mut add = |mount: MountRecord| match explicit.insert(mount.destination.clone(), mount) {
        None => Ok(()),
        Some(before) => Err(InvalidRequest(format!("Duplicate mount point: {}", before.destination))),
    };
    for bind in asked.binds {
        add(read_bind(bind)?)?;
    }
    for mount in asked.mounts {
        add(read_mount(mount)?)?;
    }
    for (destination, options) in asked.tmpfs {
        add(read_tmpfs(destination, options)?)?;
    }
    let mut all = explicit;
    for mount in &asked.from_others {
        all.entry(mount.destination.clone()).or_insert_with(|| mount.clone());
    }
    for path in &asked.anonymous {
        let destination = absolute(path).ok_or_else(|| {
            InvalidRequest(format!("invalid mount path: '{path}' mount path must be absolute"))
        })?;
        if destination == "/" {
            return Err(InvalidRequest("invalid specification: destination can't be '/'".into()));
        }
        let volume = volume_at(&destination, String::new());
        all.entry(destination).or_insert(volume);
    }
    Ok(all.into_values().collect())
}

fn volume_at(destination: &str, name: String) -> MountRecord {
    MountRecord {
        destination: destination.to_owned(),
        source: MountFrom::Volume {
            anonymous: name.is_empty(),
            name,
            no_copy: false,
            subpath: String::new(),
            driver: String::new(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        },
        writable: true,
        mode: String::new(),
    }
}

/// Reads one `-v`: `destination`, `source:destination` or `source:destination:mode`.
fn read_bind(raw: &str) -> Result<MountRecord, InvalidRequest> {
    let invalid = || InvalidRequest(format!("invalid volume specification: '{raw}'"));
    let because = |why: &str| InvalidRequest(format!("invalid volume specification: '{raw}': {why}"));
    let parts: Vec<&str> = raw.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [_, mode] if Mode::read(mode).is_some() && !mode.is_empty() => return Err(invalid()),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(invalid()),
    };
    if target.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(invalid());
    }
    let flags = Mode::read(mode).ok_or_else(|| InvalidRequest(format!("invalid mode: {mode}")))?;
    let is_bind = source.starts_with('/');
    let kind = if is_bind { "bind" } else { "volume" };
    let destination = check_target(target).map_err(|why| because(&about(kind, &why)))?;
    if !is_bind && flags.propagation.is_some() {
        return Err(InvalidRequest(format!("invalid mode: {mode}")));
    }
    let from = if is_bind {
        MountFrom::Bind {
            path: absolute(source).ok_or_else(invalid)?,
            propagation: flags.propagation.unwrap_or_default(),
            recursive: true,
            readonly_top_only: false,
            create: true,
        }
    } else {
        let mut volume = volume_at(&destination, source.to_owned()).source;
        if let MountFrom::Volume { no_copy, .. } = &mut volume {
            *no_copy = flags.no_copy;
        }
        volume
    };
    Ok(MountRecord { destination, source: from, writable: !flags.readonly, mode: mode.to_owned() })
}

/// The letters after the last colon of `-v`.
#[derive(Default)]
struct Mode {
    readonly: bool,
    no_copy: bool,
    propagation: Option<Propagation>,
}

impl Mode {
    /// `None` when it is no mode. Each kind of word may stand once. Source: moby, `volume/mounts/linux_parser.go`.
    fn read(text: &str) -> Option<Mode> {
        let mut mode = Mode::default();
        if text.is_empty() {
            return Some(mode);
        }
        let mut seen = [false; 5];
        for word in text.split(',') {
            let kind = match word {
                "ro" => {
                    mode.readonly = true;
                    0
                }
                "rw" => 0,
                // Labels for SELinux change nothing on a host without it.
                "z" | "Z" => 1,
                "nocopy" => {
                    mode.no_copy = true;
                    2
                }
                "consistent" | "cached" | "delegated" => 3,
                other => {
                    mode.propagation = Some(propagation(other)?);
                    4
                }
            };
            if std::mem::replace(&mut seen[kind], true) {
                return None;
            }
        }
        Some(mode)
    }
}

fn propagation(name: &str) -> Option<Propagation> {
    Some(match name {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        _ => return None,
    })
}

fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
    }
}

fn about(kind: &str, why: &str) -> String {
    format!("invalid mount config for type \"{kind}\": {why}")
}

/// Reads one entry of `HostConfig.Mounts`. Source: moby, `volume/mounts/linux_parser.go`, `validateMountConfigImpl`.
fn read_mount(mount: &Mount) -> Result<MountRecord, InvalidRequest> {
    let kind = mount.kind.as_str();
    let refuse = |why: &str| InvalidRequest(about(kind, why));
    if mount.target.is_empty() {
        return Err(refuse("field Target must not be empty"));
    }
    let destination = check_target(&mount.target).map_err(|why| refuse(&why))?;
    if mount.image_options.is_some() {
        return Err(refuse("field ImageOptions must not be specified"));
    }
    if mount.cluster_options.is_some() {
        return Err(refuse("field ClusterOptions must not be specified"));
    }
    let source = match kind {
        "bind" => bind_source(mount),
        "volume" => volume_source(mount),
        "tmpfs" => tmpfs_source(mount),
        "image" | "cluster" | "npipe" => Err("mount type is not supported by this engine".to_owned()),
        _ => Err("mount type unknown".to_owned()),
    }
    .map_err(|why| refuse(&why))?;
    Ok(MountRecord { destination, source, writable: !mount.read_only, mode: String::new() })
}

fn must_not_have(fields: &[(&str, bool)]) -> Result<(), String> {
    match fields.iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(format!("field {field} must not be specified")),
        None => Ok(()),
    }
}

fn bind_source(mount: &Mount) -> Result<MountFrom, String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    must_not_have(&[
        ("VolumeOptions", mount.volume_options.is_some()),
        ("TmpfsOptions", mount.tmpfs_options.is_some()),
    ])?;
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = match options.propagation.as_str() {
        "" => Propagation::default(),
        name => propagation(name).ok_or_else(|| format!("invalid propagation mode: {name}"))?,
    };
    if options.non_recursive && options.read_only_force_recursive {
        return Err("ReadOnlyForceRecursive must not be set with NonRecursive".into());
    }
    if options.read_only_non_recursive && options.read_only_force_recursive {
        return Err("ReadOnlyForceRecursive must not be set with ReadOnlyNonRecursive".into());
    }
    if (options.read_only_non_recursive || options.read_only_force_recursive) && !mount.read_only {
        return Err("mount must be read-only for the ReadOnly options of a bind".into());
    }
    let path = absolute(&mount.source)
        .ok_or_else(|| format!("invalid mount path: '{}' mount path must be absolute", mount.source))?;
    Ok(MountFrom::Bind {
        path,
        propagation,
        recursive: !options.non_recursive,
        readonly_top_only: options.read_only_non_recursive,
        create: options.create_mountpoint,
    })
}

fn volume_source(mount: &Mount) -> Result<MountFrom, String> {
    must_not_have(&[
        ("BindOptions", mount.bind_options.is_some()),
        ("TmpfsOptions", mount.tmpfs_options.is_some()),
    ])?;
    if mount.source.is_empty() && mount.read_only {
        return Err("must not set ReadOnly mode when using anonymous volumes".into());
    }
    let options = mount.volume_options.clone().unwrap_or_default();
    if !options.subpath.is_empty() {
        let is_local = std::path::Path::new(&options.subpath)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if mount.source.is_empty() {
            return Err("must not set Subpath when using anonymous volumes".into());
        }
        if !is_local {
            return Err("subpath must be a relative path within the volume".into());
        }
    }
    let driver = options.driver_config.unwrap_or_default();
    Ok(MountFrom::Volume {
        name: mount.source.clone(),
        anonymous: mount.source.is_empty(),
        no_copy: options.no_copy,
        subpath: options.subpath,
        driver: driver.name,
        labels: options.labels,
        options: driver.options,
    })
}

fn tmpfs_source(mount: &Mount) -> Result<MountFrom, String> {
    must_not_have(&[
        ("Source", !mount.source.is_empty()),
        ("BindOptions", mount.bind_options.is_some()),
        ("VolumeOptions", mount.volume_options.is_some()),
    ])?;
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut data = Vec::new();
    if options.size_bytes < 0 {
        return Err(format!("invalid tmpfs size: {}", options.size_bytes));
    }
    if options.size_bytes > 0 {
        data.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        data.push(format!("mode={:o}", options.mode & 0o7777));
    }
    let mut noexec = true;
    for option in &options.options {
        match option.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["exec"] => noexec = false,
            ["noexec"] => noexec = true,
            _ => return Err(format!("invalid option: {option:?}")),
        }
    }
    Ok(MountFrom::Tmpfs { data: data.join(","), noexec })
}

/// Reads one `--tmpfs`: `noexec,nosuid,nodev` unless said otherwise.
fn read_tmpfs(destination: &str, options: &str) -> Result<MountRecord, InvalidRequest> {
    let refuse = |why: String| InvalidRequest(about("tmpfs", &why));
    let destination = check_target(destination).map_err(refuse)?;
    let (mut data, mut noexec, mut writable) = (Vec::new(), true, true);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "exec" => noexec = false,
            "noexec" => noexec = true,
            "ro" => writable = false,
            "rw" => writable = true,
            // A set-user-id program or a device node in a tmpfs of a container serves nobody.
            "nosuid" | "nodev" => {}
            other => {
                let key = other.split('=').next().unwrap_or_default();
                if !["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"].contains(&key) {
                    return Err(refuse(format!("invalid tmpfs option [\"{other}\"]")));
                }
                data.push(other.to_owned());
            }
        }
    }
    let source = MountFrom::Tmpfs { data: data.join(","), noexec };
    Ok(MountRecord { destination, source, writable, mode: options.to_owned() })
}

fn check_target(target: &str) -> Result<String, String> {
    let cleaned = absolute(target)
        .ok_or_else(|| format!("invalid mount path: '{target}' mount path must be absolute"))?;
    if cleaned == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    Ok(cleaned)
}

/// A path without `.`, `..` and doubled slashes; `None` for a relative one. Go's `path.Clean`.
pub(crate) fn absolute(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(binds: &'a [String], mounts: &'a [Mount], tmpfs: &'a BTreeMap<String, String>) -> Asked<'a> {
        Asked { binds, mounts, tmpfs, anonymous: Vec::new(), from_others: Vec::new() }
    }

    fn bind(raw: &str) -> Result<MountRecord, String> {
        let none = BTreeMap::new();
        read(&asked(&[raw.to_owned()], &[], &none)).map(|mut all| all.remove(0)).map_err(|e| e.to_string())
    }

    fn mount(mount: Mount) -> Result<MountRecord, String> {
        let none = BTreeMap::new();
        read(&asked(&[], &[mount], &none)).map(|mut all| all.remove(0)).map_err(|e| e.to_string())
    }

    fn long(kind: &str, source: &str, target: &str) -> Mount {
        Mount { kind: kind.into(), source: source.into(), target: target.into(), ..Default::default() }
    }

    #[test]
    fn short_syntax_knows_binds_and_volumes() {
        let read = bind("/a/../b:/c/:ro").unwrap();
        assert_eq!((read.destination.as_str(), read.writable, read.mode.as_str()), ("/c", false, "ro"));
        assert!(matches!(&read.source, MountFrom::Bind { path, create: true, .. } if path == "/b"));
        let read = bind("data:/c:nocopy").unwrap();
        assert!(
            matches!(&read.source, MountFrom::Volume { name, no_copy: true, anonymous: false, .. } if name == "data")
        );
        let read = bind("/c").unwrap();
        assert!(matches!(&read.source, MountFrom::Volume { anonymous: true, .. }));
    }

    #[test]
    fn bad_short_syntax_gets_dockers_words() {
        for (raw, text) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            (":/x", "invalid volume specification: ':/x'"),
            ("/x:", "invalid volume specification: '/x:'"),
            ("/x:ro", "invalid volume specification: '/x:ro'"),
            ("/a:/b:what", "invalid mode: what"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("data:/b:rslave", "invalid mode: rslave"),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
        ] {
            assert_eq!(bind(raw).unwrap_err(), text, "{raw}");
        }
    }

    #[test]
    fn bad_long_syntax_gets_dockers_words() {
        let text = |m: Mount| mount(m).unwrap_err();
        assert_eq!(
            text(long("bind", "", "/x")),
            "invalid mount config for type \"bind\": field Source must not be empty"
        );
        assert_eq!(
            text(long("bind", "/a", "")),
            "invalid mount config for type \"bind\": field Target must not be empty"
        );
        assert_eq!(
            text(long("bind", "a", "/x")),
            "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute"
        );
        assert_eq!(
            text(long("tmpfs", "a", "/x")),
            "invalid mount config for type \"tmpfs\": field Source must not be specified"
        );
        assert_eq!(
            text(long("wish", "a", "/x")),
            "invalid mount config for type \"wish\": mount type unknown"
        );
        assert_eq!(
            text(Mount { read_only: true, ..long("volume", "", "/x") }),
            "invalid mount config for type \"volume\": must not set ReadOnly mode when using anonymous volumes"
        );
        let options = Some(docker::VolumeOptions::default());
        assert_eq!(
            text(Mount { volume_options: options, ..long("bind", "/a", "/x") }),
            "invalid mount config for type \"bind\": field VolumeOptions must not be specified"
        );
    }

    #[test]
    fn two_mounts_at_one_place_are_refused_but_image_volumes_give_way() {
        let none = BTreeMap::new();
        let binds = ["/a:/x".to_owned(), "/b:/x/".to_owned()];
        let error = read(&asked(&binds, &[], &none)).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");
        let one = ["/a:/x".to_owned()];
        let all = read(&Asked { anonymous: vec!["/x", "/y"], ..asked(&one, &[], &none) }).unwrap();
        let shown: Vec<_> = all.iter().map(|m| (m.destination.as_str(), m.volume().is_some())).collect();
        assert_eq!(shown, [("/x", false), ("/y", true)]);
    }

    #[test]
    fn tmpfs_options_are_read() {
        let tmpfs = BTreeMap::from([("/t".to_owned(), "size=64k,exec,mode=1777".to_owned())]);
        let all = read(&asked(&[], &[], &tmpfs)).unwrap();
        assert_eq!(all[0].source, MountFrom::Tmpfs { data: "size=64k,mode=1777".into(), noexec: false });
        let bad = BTreeMap::from([("/t".to_owned(), "colour=red".to_owned())]);
        assert_eq!(
            read(&asked(&[], &[], &bad)).unwrap_err().to_string(),
            "invalid mount config for type \"tmpfs\": invalid tmpfs option [\"colour=red\"]"
        );
    }
}
