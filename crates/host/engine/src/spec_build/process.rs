//! The container's first process: command, environment, rights.

use docker::HostConfig;
use runtime::{Capabilities, ProcessSpec, Rlimit, WindowSize};

use crate::config::OpenFiles;
use crate::container::create_parts::Security;
use crate::container::record::Record;

/// Source: moby, `oci/defaults.go`, `defaultUnixPathEnv`.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `open_files` is for processes whose container names no such limit.
pub(crate) fn build(record: &Record, security: Security, open_files: Option<OpenFiles>) -> ProcessSpec {
    let (config, host) = (&record.config, &record.host_config);
    let [rows, cols] = host.console_size.map(|size| u16::try_from(size).unwrap_or(0));
    ProcessSpec {
        args: record.command(),
        env: environment(record),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        groups: host.group_add.clone().unwrap_or_default(),
        capabilities: capabilities(host),
        no_new_privileges: security.no_new_privileges,
        rlimits: rlimits(host, open_files),
        terminal: config.tty.then_some(WindowSize { rows, cols }),
        stdin: config.open_stdin,
        oom_score_adj: i32::try_from(host.oom_score_adj).ok().filter(|&adj| adj != 0),
        seccomp: security.seccomp,
    }
}

fn rlimits(host: &HostConfig, open_files: Option<OpenFiles>) -> Vec<Rlimit> {
    const NOFILE: &str = "nofile";
    let own = host.ulimits.iter().map(|limit| Rlimit {
        name: limit.name.clone(),
        // -1 is Docker's "unlimited", and so are all bits to the kernel.
        soft: u64::try_from(limit.soft).unwrap_or(u64::MAX),
        hard: u64::try_from(limit.hard).unwrap_or(u64::MAX),
    });
    let default = open_files.map(|OpenFiles { soft, hard }| Rlimit { name: NOFILE.into(), soft, hard });
    let number = runtime::rlimit_number;
    let is_named = host.ulimits.iter().any(|limit| number(&limit.name) == number(NOFILE));
    own.chain(default.filter(|_| !is_named)).collect()
}

/// Docker's own variables first, so that the user's win. A bare `NAME` takes one away.
///
/// Source: moby, `container/container.go`, `CreateDaemonEnvironment`.
pub(crate) fn environment(record: &Record) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if record.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    merge_env(&mut env, &record.config.env);
    env
}

/// Later settings replace earlier ones of the same name in place.
pub(crate) fn merge_env(env: &mut Vec<String>, more: &[String]) {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    for pair in more {
        let at = env.iter().position(|known| name(known) == name(pair));
        match (at, pair.contains('=')) {
            (Some(at), true) => env[at].clone_from(pair),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(pair.clone()),
            (None, false) => {}
        }
    }
}

/// Docker's rule: `--cap-add ALL` starts from all, `--cap-drop ALL` from none, then single ones are taken and added.
///
/// Source: moby, `daemon/pkg/oci/caps/utils.go`, `TweakCapabilities`. Names were checked when it was created.
pub(crate) fn capabilities(host: &HostConfig) -> Capabilities {
    if host.privileged {
        return runtime::defaults::all_capabilities();
    }
    let read = |list: &Option<_>| -> (bool, u64) {
        let names: Vec<String> = words(list);
        let has_all = names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        let bits = names.iter().filter_map(|name| runtime::defaults::capability_bit(name));
        (has_all, bits.fold(0, |set, bit| set | (1 << bit)))
    };
    let (add_all, added) = read(&host.cap_add);
    let (drop_all, dropped) = read(&host.cap_drop);
    let all = runtime::defaults::all_capabilities().0;
    let set = match (add_all, drop_all) {
        (true, _) => all & !dropped,
        (false, true) => added,
        (false, false) => (runtime::defaults::capabilities().0 & !dropped) | added,
    };
    // A kernel that doesn't know one can't give it.
    Capabilities(set & all)
}

fn words<W: std::ops::Deref<Target = Vec<String>>>(list: &Option<W>) -> Vec<String> {
    list.iter().flat_map(|words| words.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_environment_wins_and_a_bare_name_takes_away() {
        let mut env = vec!["PATH=/bin".to_owned(), "A=1".to_owned(), "B=2".to_owned()];
        merge_env(&mut env, &["A=x=y".to_owned(), "B".to_owned(), "C=3".to_owned(), "D".to_owned()]);
        assert_eq!(env, ["PATH=/bin", "A=x=y", "C=3"]);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let host = |add: &[&str], drop: &[&str]| HostConfig {
            cap_add: Some(add.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>().into()),
            cap_drop: Some(drop.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>().into()),
            ..Default::default()
        };
        let bit = |name: &str| 1u64 << runtime::defaults::capability_bit(name).unwrap();
        let default = runtime::defaults::capabilities().0;
        assert_eq!(capabilities(&host(&[], &[])).0, default);
        assert_eq!(
            capabilities(&host(&["NET_ADMIN"], &["cap_chown"])).0,
            (default | bit("NET_ADMIN")) & !bit("CHOWN")
        );
        assert_eq!(capabilities(&host(&["CHOWN"], &["ALL"])).0, bit("CHOWN"));
        let all = runtime::defaults::all_capabilities().0;
        assert_eq!(capabilities(&host(&["all"], &["CHOWN"])).0, all & !bit("CHOWN"));
        assert_eq!(capabilities(&HostConfig { privileged: true, ..host(&[], &["ALL"]) }).0, all);
    }
}
