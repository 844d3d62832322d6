//! Devices of the host that a container sees, and what it may do with them.
//!
//! In: `Devices` and `DeviceCgroupRules`. Out: nodes and rules, or Docker's refusals. Reads the nodes of the host.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use docker::{DeviceMapping, HostConfig};
use runtime::{Device, DeviceKind, DeviceRule};

use crate::error::EngineError;

/// Nodes and rules beyond the default ones.
pub(crate) fn build(host: &HostConfig) -> Result<(Vec<Device>, Vec<DeviceRule>), EngineError> {
    let (mut devices, mut rules) = (Vec::new(), Vec::new());
    if host.privileged {
        // Every node of the host, as Docker gives; its rules allow all anyway.
        add_tree(Path::new("/dev"), Path::new("/dev"), &mut devices);
    }
    for mapping in &host.devices {
        add(mapping, &mut devices, &mut rules)?;
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        rules.push(read_rule(rule)?);
    }
    Ok((devices, rules))
}

fn add(
    mapping: &DeviceMapping,
    devices: &mut Vec<Device>,
    rules: &mut Vec<DeviceRule>,
) -> Result<(), EngineError> {
    let from = Path::new(&mapping.path_on_host);
    let inside =
        if mapping.path_in_container.is_empty() { from } else { Path::new(&mapping.path_in_container) };
    let permissions = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    let missing = |what: &str| {
        EngineError::invalid(format!(
            "error gathering device information while adding custom device \"{}\": {what}",
            from.display()
        ))
    };
    if permissions.chars().any(|c| !"rwm".contains(c)) || !inside.is_absolute() {
        return Err(missing("invalid device mode or path"));
    }
    let metadata = fs::metadata(from).map_err(|_| missing("no such file or directory"))?;
    let before = devices.len();
    if metadata.is_dir() {
        add_tree(from, inside, devices);
    } else {
        devices.extend(device(&metadata, inside.to_owned()));
    }
    if devices.len() == before {
        return Err(missing("not a device node"));
    }
    rules.extend(devices[before..].iter().map(|device| DeviceRule {
        allow: true,
        kind: Some(device.kind),
        major: Some(device.major),
        minor: Some(device.minor),
        read: permissions.contains('r'),
        write: permissions.contains('w'),
        mknod: permissions.contains('m'),
    }));
    Ok(())
}

fn add_tree(from: &Path, inside: &Path, devices: &mut Vec<Device>) {
    /// Places with a mount of the container's own.
    const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", "console"];
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(metadata) = entry.metadata() else { continue };
        if OWN.iter().any(|own| name == *own) || metadata.is_symlink() {
            continue;
        }
        if metadata.is_dir() {
            add_tree(&path, &inside.join(name), devices);
        } else {
            devices.extend(device(&metadata, inside.join(name)));
        }
    }
}

fn device(metadata: &fs::Metadata, path: PathBuf) -> Option<Device> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    Some(Device {
        path,
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Reads `c 1:3 rwm`. Source of the text: moby, `daemon/daemon_unix.go`.
pub(crate) fn read_rule(text: &str) -> Result<DeviceRule, EngineError> {
    let wrong = || EngineError::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, permissions] = parts.as_slice() else { return Err(wrong()) };
    let kind = match *kind {
        "a" => None,
        "b" => Some(DeviceKind::Block),
        "c" => Some(DeviceKind::Char),
        _ => return Err(wrong()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        other => other.parse::<u32>().map(Some).map_err(|_| wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let is_known = !permissions.is_empty() && permissions.len() <= 3;
    if !is_known || permissions.chars().any(|c| !"rwm".contains(c)) {
        return Err(wrong());
    }
    Ok(DeviceRule {
        allow: true,
        kind,
        major: number(major)?,
        minor: number(minor)?,
        read: permissions.contains('r'),
        write: permissions.contains('w'),
        mknod: permissions.contains('m'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_or_refused_in_dockers_words() {
        let rule = read_rule("c 1:* rm").unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor), (Some(DeviceKind::Char), Some(1), None));
        assert!(rule.allow && rule.read && !rule.write && rule.mknod);
        for text in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 rwx", "c a:3 r", "c 1:3 r "] {
            let error = read_rule(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid device cgroup rule format: '{text}'"));
        }
    }

    #[test]
    fn a_device_node_gets_its_numbers_and_its_rule() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".into(),
            path_in_container: "/dev/nothing".into(),
            cgroup_permissions: "r".into(),
        };
        let (devices, rules) = build(&HostConfig { devices: vec![mapping], ..Default::default() }).unwrap();
        assert_eq!((devices[0].major, devices[0].minor), (1, 3));
        assert_eq!(devices[0].path, Path::new("/dev/nothing"));
        assert!(rules[0].read && !rules[0].write);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let mapping = DeviceMapping { path_on_host: "/etc/passwd".into(), ..Default::default() };
        let error = build(&HostConfig { devices: vec![mapping], ..Default::default() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error gathering device information while adding custom device \"/etc/passwd\": not a device node"
        );
    }
}
