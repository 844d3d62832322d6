//! The three files that tell a container its name and its resolvers: `hostname`, `hosts`, `resolv.conf`.
//!
//! In: the record, its address, the machine's own files. Out: texts. Never writes: the start does.

use std::net::IpAddr;

use network::{Attachment, Endpoint, EndpointAddress};

use crate::container::record::Record;

/// Source: moby, `daemon/libnetwork/internal/resolvconf`: public servers when the machine's are all local.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// `hosts`. Source of the first lines: moby, `daemon/libnetwork/etchosts`.
pub(crate) fn hosts(record: &Record, machine: &str, attachment: Option<&Attachment>) -> String {
    let way_out = attachment.and_then(Attachment::way_out);
    let gateway = way_out.and_then(|endpoint| endpoint.ipv4().or(endpoint.ipv6())?.gateway);
    let mut text = if record.host_config.network_mode == "host" {
        let mut own = machine.to_owned();
        if !own.is_empty() && !own.ends_with('\n') {
            own.push('\n');
        }
        own
    } else {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned()
    };
    for entry in record.host_config.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once([':', '=']) else { continue };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        match (address, gateway) {
            ("host-gateway", Some(gateway)) => text.push_str(&format!("{gateway}\t{name}\n")),
            // On the machine's own network the machine is here; from a network that leads nowhere it is not reached.
            ("host-gateway", None) if record.host_config.network_mode != "host" => {}
            ("host-gateway", None) => text.push_str(&format!("127.0.0.1\t{name}\n")),
            (address, _) => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    let endpoints = attachment.iter().flat_map(|attachment| &attachment.endpoints);
    endpoints.for_each(|endpoint| text.push_str(&own_lines(record, endpoint)));
    text
}

/// The lines by which a container finds itself on a network.
pub(crate) fn own_lines(record: &Record, endpoint: &Endpoint) -> String {
    let (host, domain) = (&record.config.hostname, &record.config.domainname);
    let addresses = endpoint.addresses.iter().filter(|_| !endpoint.is_for_way_out);
    let line = |address: &EndpointAddress| match domain.as_str() {
        "" => format!("{}\t{host}\n", address.ip),
        domain => format!("{}\t{host}.{domain} {host}\n", address.ip),
    };
    addresses.map(line).collect()
}

/// What the daemon's flags say about resolvers; empty means the machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DaemonDns<'a> {
    pub(crate) servers: &'a [String],
    pub(crate) search: &'a [String],
    pub(crate) options: &'a [String],
}

/// `resolv.conf`: what the container says, else what the daemon says, else what the machine has without local servers.
pub(crate) fn resolv_conf(record: &Record, daemon: DaemonDns<'_>, machine: &str) -> String {
    let host = &record.host_config;
    let is_host_network = host.network_mode == "host";
    let own = Resolver::read(machine);
    let mut usable = own.servers.clone();
    if !is_host_network {
        // The machine's own loopback isn't the container's.
        usable.retain(|server| !server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
        if usable.is_empty() {
            usable = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        }
    }
    let servers = pick(&host.dns, daemon.servers, usable);
    let search = pick(&host.dns_search, daemon.search, own.search);
    let options = pick(&host.dns_options, daemon.options, own.options);
    written(&servers, &search, &options)
}

/// `resolv.conf` of a container with a resolver of its own: that one alone.
///
/// A name is asked for as it is first (`ndots:0`), unless an option says otherwise: names on networks have no dots.
/// Source: moby, `daemon/libnetwork/internal/resolvconf`, `TransformForIntNS`.
pub(crate) fn resolv_conf_of_resolver(record: &Record, daemon: DaemonDns<'_>, machine: &str) -> String {
    let host = &record.host_config;
    let own = Resolver::read(machine);
    let search = pick(&host.dns_search, daemon.search, own.search);
    let mut options = pick(&host.dns_options, daemon.options, own.options);
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    written(&[shim::RESOLVER_ADDRESS.to_string()], &search, &options)
}

/// Whom a container's resolver asks for names that none of its networks has: whom the container says, else the daemon, else
/// the machine, of which local ones serve, too. A resolver that was named for this container is asked from inside it, as
/// Docker does: it may be one on its networks, or in it.
pub(crate) fn upstreams(record: &Record, daemon: DaemonDns<'_>, machine: &str) -> Vec<shim::Upstream> {
    let asked = &record.host_config.dns;
    let servers = pick(asked, daemon.servers, Resolver::read(machine).servers);
    let addresses = servers.iter().filter_map(|server| server.parse().ok());
    addresses.map(|address| shim::Upstream { address, inside: !asked.is_empty() }).collect()
}

fn pick(asked: &[String], daemon: &[String], machine: Vec<String>) -> Vec<String> {
    match (asked.is_empty(), daemon.is_empty()) {
        (false, _) => asked.to_vec(),
        (true, false) => daemon.to_vec(),
        (true, true) => machine,
    }
}

fn written(servers: &[String], search: &[String], options: &[String]) -> String {
    let mut text = String::new();
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // `--dns-search .` means none.
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn read(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
                // The last of these lines counts. Source: resolv.conf(5).
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Run;

    fn record(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = Record {
            id: "a".repeat(64),
            name: "web".into(),
            created: objects::Timestamp(1),
            image_id: String::new(),
            config: docker::ContainerConfig { hostname: "web".into(), ..Default::default() },
            host_config: docker::HostConfig { network_mode: "bridge".into(), ..Default::default() },
            networks: Default::default(),
            mounts: Vec::new(),
            removing: false,
            removing_volumes: false,
            run: Run::default(),
        };
        change(&mut record);
        record
    }

    /// A container on networks where it has these addresses and gateways.
    fn attachment(places: &[(&str, Option<&str>)]) -> Attachment {
        let endpoint = |&(ip, gateway): &(&str, Option<&str>)| Endpoint {
            network_id: ip.into(),
            network_name: ip.into(),
            driver: "bridge".into(),
            endpoint_id: ip.into(),
            addresses: vec![EndpointAddress {
                ip: ip.parse().unwrap(),
                prefix: 16,
                gateway: gateway.map(|ip| ip.parse().unwrap()),
            }],
            mac: None,
            aliases: Vec::new(),
            gateway_priority: 0,
            is_for_way_out: false,
            interface: None,
        };
        let endpoints = places.iter().map(endpoint).collect();
        let mode = network::SandboxMode::Own;
        Attachment { mode, hostname: "web".into(), endpoints, ports: Vec::new() }
    }

    #[test]
    fn local_servers_of_the_machine_are_left_out() {
        let text = resolv_conf(
            &record(|_| {}),
            DaemonDns::default(),
            "# a comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n",
        );
        assert_eq!(text, "nameserver 10.0.0.2\nsearch a b\noptions edns0\n");
        let text = resolv_conf(&record(|_| {}), DaemonDns::default(), "nameserver ::1\n");
        assert_eq!(text, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let host = record(|record| record.host_config.network_mode = "host".into());
        assert_eq!(resolv_conf(&host, DaemonDns::default(), "nameserver ::1\n"), "nameserver ::1\n");
    }

    #[test]
    fn the_container_comes_before_the_daemon_and_the_daemon_before_the_machine() {
        let servers = ["10.1.1.1".to_owned()];
        let daemon = DaemonDns { servers: &servers, ..Default::default() };
        assert_eq!(resolv_conf(&record(|_| {}), daemon, "nameserver 10.0.0.2\n"), "nameserver 10.1.1.1\n");
        let own = record(|record| {
            record.host_config.dns = vec!["9.9.9.9".into()];
            record.host_config.dns_search = vec![".".into()];
        });
        assert_eq!(resolv_conf(&own, daemon, "nameserver 10.0.0.2\nsearch x\n"), "nameserver 9.9.9.9\n");
    }

    #[test]
    fn a_container_with_a_resolver_is_told_of_it_alone() {
        let machine = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0 trust-ad\n";
        let plain = record(|_| {});
        let text = resolv_conf_of_resolver(&plain, DaemonDns::default(), machine);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch a b\noptions edns0 trust-ad ndots:0\n");
        let own = record(|record| {
            record.host_config.dns = vec!["9.9.9.9".into(), "127.0.0.1".into()];
            record.host_config.dns_search = vec![".".into()];
            record.host_config.dns_options = vec!["ndots:2".into(), "rotate".into()];
        });
        let text = resolv_conf_of_resolver(&own, DaemonDns::default(), machine);
        assert_eq!(text, "nameserver 127.0.0.11\noptions ndots:2 rotate\n");
        let text = resolv_conf_of_resolver(&plain, DaemonDns::default(), "");
        assert_eq!(text, "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_resolver_asks_whom_the_container_the_daemon_or_the_machine_names() {
        let machine = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver fd00::2\n";
        let servers = ["10.1.1.1".to_owned()];
        let daemon = DaemonDns { servers: &servers, ..Default::default() };
        let asked = |record: &Record, daemon| -> Vec<(String, bool)> {
            let upstreams = upstreams(record, daemon, machine);
            upstreams.iter().map(|upstream| (upstream.address.to_string(), upstream.inside)).collect()
        };
        let plain = record(|_| {});
        let expect = [("127.0.0.53".to_owned(), false), ("fd00::2".to_owned(), false)];
        assert_eq!(asked(&plain, DaemonDns::default()), expect);
        assert_eq!(asked(&plain, daemon), [("10.1.1.1".to_owned(), false)]);
        let own = record(|record| record.host_config.dns = vec!["9.9.9.9".into()]);
        assert_eq!(asked(&own, daemon), [("9.9.9.9".to_owned(), true)]);
    }

    #[test]
    fn hosts_names_the_container_and_what_it_was_told() {
        let record = record(|record| {
            record.config.domainname = "lan".into();
            let extra = ["db:10.0.0.9", "gw=host-gateway", "six:[::2]"];
            record.host_config.extra_hosts = Some(extra.map(str::to_owned).to_vec());
        });
        let attachment = attachment(&[("172.17.0.2", Some("172.17.0.1"))]);
        let text = hosts(&record, "", Some(&attachment));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"), "{text}");
        assert!(
            text.ends_with("10.0.0.9\tdb\n172.17.0.1\tgw\n::2\tsix\n172.17.0.2\tweb.lan web\n"),
            "{text}"
        );
    }
}
