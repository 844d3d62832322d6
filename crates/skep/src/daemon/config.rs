//! The daemon's settings: flags and the configuration file made one.
//!
//! In: flags, the text of `daemon.json` with dockerd's keys. Out: settings, or an error in dockerd's words when a key
//! is unknown or stands in both places.

use super::flags::DaemonFlags;
use anyhow::{Context as _, bail};
use network::PoolRange;
use objects::{DiscreteGenericResource, GenericResource, NamedGenericResource};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CONFIG_FILE: &str = "/etc/skep/daemon.json";
/// Where authorities of single registries lie. Source: dockerd, and the same of our own.
const CERTS_DIRS: [&str; 2] = ["/etc/docker/certs.d", "/etc/skep/certs.d"];

/// `daemon.json`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct ConfigFile {
    hosts: Option<Vec<String>>,
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    group: Option<String>,
    labels: Option<Vec<String>>,
    node_generic_resources: Option<Vec<String>>,
    cgroup_parent: Option<String>,
    swarm_default_advertise_addr: Option<String>,
    bridge: Option<String>,
    bip: Option<String>,
    default_address_pools: Option<Vec<Pool>>,
    mtu: Option<u32>,
    dns: Option<Vec<String>>,
    dns_opts: Option<Vec<String>>,
    dns_search: Option<Vec<String>>,
    insecure_registries: Option<Vec<String>>,
    registry_mirrors: Option<Vec<String>>,
    debug: Option<bool>,
    log_level: Option<String>,
    log_format: Option<String>,
    log_driver: Option<String>,
    log_opts: Option<BTreeMap<String, String>>,
    tls: Option<bool>,
    tlsverify: Option<bool>,
    tlscacert: Option<PathBuf>,
    tlscert: Option<PathBuf>,
    tlskey: Option<PathBuf>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Pool {
    base: String,
    size: u8,
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<String>,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) group: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) generic_resources: Vec<GenericResource>,
    pub(crate) cgroup_parent: String,
    pub(crate) advertise_addr: Option<String>,
    pub(crate) bridge: Option<String>,
    pub(crate) bip: Option<ipnet::Ipv4Net>,
    pub(crate) pools: Vec<PoolRange>,
    pub(crate) mtu: Option<u32>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_opts: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) registries: images::RegistryConfig,
    pub(crate) log_level: observe::Level,
    pub(crate) log_format: observe::Format,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) tls: Option<Tls>,
}

/// TLS of TCP sockets.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) verify_with: Option<PathBuf>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Takes a setting from the flag or the file; both is an error that names both values.
struct Merge {
    twice: Vec<String>,
}

impl Merge {
    fn one<T: std::fmt::Debug>(&mut self, key: &str, flag: Option<T>, file: Option<T>) -> Option<T> {
        if let (Some(flag), Some(file)) = (&flag, &file) {
            self.twice.push(format!("{key}: (from flag: {flag:?}, from file: {file:?})"));
        }
        flag.or(file)
    }

    fn list<T: std::fmt::Debug>(&mut self, key: &str, flag: Vec<T>, file: Option<Vec<T>>) -> Vec<T> {
        self.one(key, (!flag.is_empty()).then_some(flag), file).unwrap_or_default()
    }
}

/// Reads the configuration file and makes one of it and the flags.
pub(crate) fn read(flags: DaemonFlags) -> anyhow::Result<Config> {
    let named = flags.config_file.clone();
    let path = named.clone().unwrap_or_else(|| PathBuf::from(CONFIG_FILE));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => String::new(),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("unable to configure the daemon with file {}", path.display()));
        }
    };
    merge(flags, &text)
        .with_context(|| format!("unable to configure the daemon with file {}", path.display()))
}

fn parse_file(text: &str) -> anyhow::Result<ConfigFile> {
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    let file: ConfigFile = serde_json::from_str(text).context("the file is not valid")?;
    if !file.unknown.is_empty() {
        let keys: Vec<&str> = file.unknown.keys().map(String::as_str).collect();
        bail!("the following directives don't match any configuration option: {}", keys.join(", "));
    }
    Ok(file)
}

fn merge(flags: DaemonFlags, text: &str) -> anyhow::Result<Config> {
    let file = parse_file(text)?;
    let mut merge = Merge { twice: Vec::new() };
    let (net, registries, logging) = (flags.network, flags.registries, flags.logging);
    let given_pools: Vec<Pool> =
        net.default_address_pools.iter().map(|text| pool_of(text)).collect::<anyhow::Result<_>>()?;
    let level = merge.one("log-level", logging.log_level, file.log_level);
    let log_format = merge.one("log-format", logging.log_format, file.log_format);
    let debug = logging.debug || file.debug.unwrap_or(false);
    let flag_log_opts = (!logging.log_opts.is_empty()).then(|| pairs(&logging.log_opts));
    let tls = FileTls {
        tls: file.tls,
        tlsverify: file.tlsverify,
        tlscacert: file.tlscacert,
        tlscert: file.tlscert,
        tlskey: file.tlskey,
    };
    let config = Config {
        hosts: merge.list("hosts", flags.hosts, file.hosts),
        data_root: absolute(merge.one("data-root", flags.data_root, file.data_root), "/var/lib/skep")?,
        exec_root: absolute(merge.one("exec-root", flags.exec_root, file.exec_root), "/run/skep")?,
        pidfile: absolute(merge.one("pidfile", flags.pidfile, file.pidfile), "/run/skep.pid")?,
        group: merge.one("group", flags.group, file.group),
        labels: merge.list("labels", flags.labels, file.labels),
        generic_resources: generic_resources(&merge.list(
            "node-generic-resources",
            flags.node_generic_resources,
            file.node_generic_resources,
        ))?,
        cgroup_parent: merge
            .one("cgroup-parent", flags.cgroup_parent, file.cgroup_parent)
            .unwrap_or_else(|| "/skep".to_owned()),
        advertise_addr: merge.one(
            "swarm-default-advertise-addr",
            flags.swarm_default_advertise_addr,
            file.swarm_default_advertise_addr,
        ),
        bridge: merge.one("bridge", net.bridge, file.bridge),
        bip: merge
            .one("bip", net.bip, file.bip)
            .map(|text| text.parse().context("invalid bip"))
            .transpose()?,
        pools: pool_ranges(&merge.list("default-address-pools", given_pools, file.default_address_pools))?,
        mtu: merge.one("mtu", net.mtu, file.mtu),
        dns: merge.list("dns", net.dns, file.dns),
        dns_opts: merge.list("dns-opts", net.dns_opts, file.dns_opts),
        dns_search: merge.list("dns-search", net.dns_search, file.dns_search),
        registries: images::RegistryConfig {
            insecure: merge.list(
                "insecure-registries",
                registries.insecure_registries,
                file.insecure_registries,
            ),
            mirrors: merge.list("registry-mirrors", registries.registry_mirrors, file.registry_mirrors),
            certs_dirs: CERTS_DIRS.map(PathBuf::from).to_vec(),
        },
        log_level: if debug { observe::Level::Debug } else { level.as_deref().unwrap_or("info").parse()? },
        log_format: log_format.as_deref().unwrap_or("text").parse()?,
        log_driver: merge
            .one("log-driver", logging.log_driver, file.log_driver)
            .unwrap_or_else(|| "json-file".to_owned()),
        log_opts: merge.one("log-opts", flag_log_opts, file.log_opts).unwrap_or_default(),
        tls: tls.with_flags(flags.tls, &mut merge)?,
    };
    if !merge.twice.is_empty() {
        let twice = merge.twice.join(", ");
        bail!("the following directives are specified both as a flag and in the configuration file: {twice}");
    }
    check_labels(&config.labels)?;
    Ok(config)
}

struct FileTls {
    tls: Option<bool>,
    tlsverify: Option<bool>,
    tlscacert: Option<PathBuf>,
    tlscert: Option<PathBuf>,
    tlskey: Option<PathBuf>,
}

impl FileTls {
    fn with_flags(self, flags: super::flags::TlsFlags, merge: &mut Merge) -> anyhow::Result<Option<Tls>> {
        let verify = flags.tlsverify || self.tlsverify.unwrap_or(false);
        let on = verify || flags.tls || self.tls.unwrap_or(false);
        let ca = merge.one("tlscacert", flags.tlscacert, self.tlscacert);
        let certificate = merge.one("tlscert", flags.tlscert, self.tlscert);
        let key = merge.one("tlskey", flags.tlskey, self.tlskey);
        if !on {
            return Ok(None);
        }
        let (Some(certificate), Some(key)) = (certificate, key) else {
            bail!("TLS needs a certificate and its key: give --tlscert and --tlskey");
        };
        if verify && ca.is_none() {
            bail!("--tlsverify needs the authority that signs clients' certificates: give --tlscacert");
        }
        Ok(Some(Tls { verify_with: ca.filter(|_| verify), certificate, key }))
    }
}

fn absolute(path: Option<PathBuf>, default: &str) -> anyhow::Result<PathBuf> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    std::path::absolute(&path).with_context(|| format!("path {}", path.display()))
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let split = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    texts.iter().map(split).collect()
}

/// `base=10.10.0.0/16,size=24`
fn pool_of(text: &str) -> anyhow::Result<Pool> {
    let mut pool = Pool { base: String::new(), size: 0 };
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("base", base)) => base.clone_into(&mut pool.base),
            Some(("size", size)) => {
                pool.size = size.parse().with_context(|| format!("invalid size value: {size}"))?
            }
            _ => bail!("invalid default address pool `{text}`: give base=CIDR,size=N"),
        }
    }
    Ok(pool)
}

fn pool_ranges(pools: &[Pool]) -> anyhow::Result<Vec<PoolRange>> {
    let range = |pool: &Pool| {
        let base = pool.base.parse().with_context(|| format!("invalid base pool `{}`", pool.base))?;
        PoolRange::new(base, pool.size)
            .with_context(|| format!("invalid size {} for pool {}", pool.size, pool.base))
    };
    pools.iter().map(range).collect()
}

/// `KIND=2` is two of a kind, `KIND=a` and `KIND=b` are two with names; one kind is one or the other.
///
/// Source: moby/swarmkit `api/genericresource/parse.go`.
fn generic_resources(texts: &[String]) -> anyhow::Result<Vec<GenericResource>> {
    let mut found: Vec<GenericResource> = Vec::new();
    for text in texts {
        let (kind, value) = text
            .split_once('=')
            .filter(|(kind, value)| !kind.is_empty() && !value.is_empty())
            .with_context(|| format!("incorrect term {text}, missing '=' or malformed expression"))?;
        let discrete = value.parse::<i64>().ok();
        if let Some(count) = discrete.filter(|count| *count < 0) {
            bail!("cannot ask for negative resource {kind}: {count}");
        }
        let mixes =
            |other: &GenericResource| match (&other.named_resource_spec, &other.discrete_resource_spec) {
                (Some(named), _) => named.kind == kind && discrete.is_some(),
                (None, Some(counted)) => counted.kind == kind,
                (None, None) => false,
            };
        if found.iter().any(mixes) {
            bail!("mixed discrete and named resources in expression '{kind}={value}'");
        }
        found.push(match discrete {
            Some(value) => GenericResource {
                discrete_resource_spec: Some(DiscreteGenericResource { kind: kind.to_owned(), value }),
                ..GenericResource::default()
            },
            None => GenericResource {
                named_resource_spec: Some(NamedGenericResource {
                    kind: kind.to_owned(),
                    value: value.to_owned(),
                }),
                ..GenericResource::default()
            },
        });
    }
    Ok(found)
}

/// Source: moby `daemon/config/config.go` `ValidateLabel`.
fn check_labels(labels: &[String]) -> anyhow::Result<()> {
    for label in labels {
        if label.split_once('=').is_none_or(|(key, value)| key.is_empty() || value.is_empty()) {
            bail!("bad attribute format: {label}");
        }
    }
    Ok(())
}

/// The sockets to listen on.
pub(crate) fn hosts(config: &Config) -> Vec<String> {
    if config.hosts.is_empty() { vec![cli::client::DEFAULT_HOST.to_owned()] } else { config.hosts.clone() }
}

/// What a running daemon takes over when it is told to read its file again.
pub(crate) fn reload(flags: DaemonFlags, running: &Config) -> anyhow::Result<Config> {
    let fresh = read(flags)?;
    let same = |a: &Path, b: &Path| a == b;
    if !same(&fresh.data_root, &running.data_root) || !same(&fresh.exec_root, &running.exec_root) {
        bail!("data-root and exec-root cannot change while the daemon runs");
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(args: &[&str], file: &str) -> anyhow::Result<Config> {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            flags: DaemonFlags,
        }
        let flags = <Only as clap::Parser>::parse_from(std::iter::once(&"x").chain(args)).flags;
        merge(flags, file)
    }

    #[test]
    fn the_file_and_the_flags_add_up() {
        let config = merged(&["--mtu", "1400"], r#"{"log-level": "warn", "hosts": ["tcp://127.0.0.1:1"]}"#);
        let config = config.expect("nothing is given twice");
        assert_eq!(config.mtu, Some(1400));
        assert_eq!(config.log_level, observe::Level::Warn);
        assert_eq!(hosts(&config), ["tcp://127.0.0.1:1"]);
        assert_eq!(config.data_root, Path::new("/var/lib/skep"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (args, file, says) in [
            (&["--mtu", "1"][..], r#"{"mtu": 2}"#, "mtu: (from flag: 1, from file: 2)"),
            (&[], r#"{"nope": 2}"#, "don't match any configuration option: nope"),
            (&[], "{", "the file is not valid"),
            (&["--label", "x"], "", "bad attribute format: x"),
            (&["--log-level", "loud"], "", "invalid logging level"),
            (&["--tlsverify"], "", "--tlscert"),
            (
                &["--node-generic-resource", "GPU=1", "--node-generic-resource", "GPU=a"],
                "",
                "mixed discrete and named",
            ),
            (&["--default-address-pool", "10.0.0.0/8"], "", "base=CIDR,size=N"),
        ] {
            let error = format!("{:#}", merged(args, file).expect_err(says));
            assert!(error.contains(says), "{error}");
        }
    }
}
