//! Finds a container's user and groups in its own `/etc/passwd` and `/etc/group`.
//!
//! In: the texts of both files and what the user asked for (`name`, `uid`, `name:group`, …). Out: numbers and a home
//! directory. Pure; the files are read elsewhere.

/// Why a user or group was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such name, and not a number either. Source of the text: moby/sys/user, `user.go`.
    #[error("unable to find user {user}: no matching entries in passwd file")]
    NoUser {
        /// What was asked for.
        user: String,
    },
    /// No such group, and not a number either.
    #[error("unable to find group {group}: no matching entries in group file")]
    NoGroup {
        /// What was asked for.
        group: String,
    },
    /// The number is outside what the kernel takes.
    #[error("uids and gids must be in range 0-2147483647")]
    OutOfRange,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups; the primary one is among them.
    pub groups: Vec<u32>,
    /// Home directory, `/` when unknown.
    pub home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds the identity for `user`, by the texts of the container's files (empty when missing).
///
/// Source of the rules: moby/sys/user, `GetExecUser` and `GetAdditionalGroups`: a number is always an id; an explicit
/// group takes the place of those that the group file lists; the primary group is also a supplementary one.
pub fn resolve(user: &str, extra: &[String], passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let wanted_uid: Option<i64> = user_part.parse().ok();
    let entry = entries(passwd).find(|entry| match wanted_uid {
        _ if user_part.is_empty() => entry.uid == 0,
        Some(uid) => i64::from(entry.uid) == uid,
        None => entry.name == user_part,
    });
    let (uid, mut gid, home) = match (&entry, wanted_uid) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home),
        (None, _) if user_part.is_empty() => (0, 0, ""),
        (None, Some(uid)) => (in_range(uid)?, 0, ""),
        (None, None) => return Err(UserError::NoUser { user: user_part.to_owned() }),
    };
    let mut numbers = Vec::new();
    if !group_part.is_empty() {
        gid = group_number(group_part, group)?;
    } else if let Some(entry) = &entry {
        let listed =
            groups(group).filter(|group| group.members.split(',').any(|member| member == entry.name));
        numbers.extend(listed.map(|group| group.gid));
    }
    numbers.push(gid);
    for name in extra {
        numbers.push(group_number(name, group)?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups: numbers, home: home.to_owned() })
}

/// The number of a group given by name or number.
fn group_number(wanted: &str, file: &str) -> Result<u32, UserError> {
    match wanted.parse::<i64>() {
        Ok(number) => in_range(number),
        Err(_) => groups(file)
            .find(|group| group.name == wanted)
            .map(|group| group.gid)
            .ok_or_else(|| UserError::NoGroup { group: wanted.to_owned() }),
    }
}

fn in_range(number: i64) -> Result<u32, UserError> {
    match u32::try_from(number) {
        Ok(id) if id <= i32::MAX as u32 => Ok(id),
        _ => Err(UserError::OutOfRange),
    }
}

/// `name:password:uid:gid:comment:home:shell`; lines that make no sense are skipped.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(Entry { name, uid, gid, home })
    })
}

/// `name:password:gid:member,member`.
fn groups(file: &str) -> impl Iterator<Item = Group<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\n:x:5:5::/:\ndaemon:x:1:1::/usr/sbin:/bin/false\n\
                          web:x:33:34::/var/www:\n1000:x:7:7::/trap:\n";
    const GROUP: &str = "root:x:0:root\nweb:x:34:\nvideo:x:44:web,daemon\naudio:x:29:web\nstaff:x:50:other\n";

    fn check(user: &str, extra: &[&str], expect: Result<(u32, u32, &[u32], &str), &str>) {
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        let found = resolve(user, &extra, PASSWD, GROUP).map_err(|error| error.to_string());
        let expect = expect
            .map(|(uid, gid, groups, home)| Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            })
            .map_err(ToOwned::to_owned);
        assert_eq!(found, expect, "user `{user}`");
    }

    #[test]
    fn users_and_groups_are_found_as_docker_finds_them() {
        check("", &[], Ok((0, 0, &[0], "/root")));
        check("root", &[], Ok((0, 0, &[0], "/root")));
        check("web", &[], Ok((33, 34, &[29, 34, 44], "/var/www")));
        check("33", &[], Ok((33, 34, &[29, 34, 44], "/var/www")));
        check("web:staff", &[], Ok((33, 50, &[50], "/var/www")));
        check("web:99", &[], Ok((33, 99, &[99], "/var/www")));
        check("1000", &[], Ok((1000, 0, &[0], "/")));
        check("1000:1000", &[], Ok((1000, 1000, &[1000], "/")));
        check(":staff", &[], Ok((0, 50, &[50], "/root")));
        check("web", &["staff", "77"], Ok((33, 34, &[29, 34, 44, 50, 77], "/var/www")));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        check("foo", &[], Err("unable to find user foo: no matching entries in passwd file"));
        check("web:foo", &[], Err("unable to find group foo: no matching entries in group file"));
        check("web", &["foo"], Err("unable to find group foo: no matching entries in group file"));
        check("2147483648", &[], Err("uids and gids must be in range 0-2147483647"));
        check("-1", &[], Err("uids and gids must be in range 0-2147483647"));
        check("1:-1", &[], Err("uids and gids must be in range 0-2147483647"));
    }

    #[test]
    fn numbers_work_without_any_files() {
        assert_eq!(resolve("12:34", &[], "", "").unwrap().groups, vec![34]);
        assert!(resolve("name", &[], "", "").is_err());
    }
}
