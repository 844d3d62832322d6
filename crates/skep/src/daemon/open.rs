//! Opens the parts of the daemon in the order in which they need each other, and closes them.
//!
//! In: settings. Out: handles. The network writes nothing to the kernel until everything that wants something from it
//! has said so: a restart must not drop rules that are still needed.

use super::config::{self, Config};
use agent::{SwarmNode, SwarmNodeConfig};
use anyhow::{Context as _, bail};
use api::Listener;
use engine::{Engine, EngineConfig, OpenFiles};
use network::{Network, NetworkConfig};
use std::path::Path;
use std::time::Duration;
use tracing::warn;

/// How long the start waits for a manager. chosen: opening the log of a swarm of one takes some 30 ms.
const SETTLE: Duration = Duration::from_millis(400);

/// Handles of everything the daemon owns.
pub(crate) struct Parts {
    pub(crate) images: images::Store,
    pub(crate) engine: Engine,
    pub(crate) swarm: SwarmNode,
    network: Network,
}

/// Opens the sockets, so that a wrong address ends the start before anything is touched.
pub(crate) async fn listen(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for host in config::hosts(config) {
        let listener = if let Some(path) = host.strip_prefix("unix://") {
            Listener::unix(Path::new(path), config.group.as_deref().unwrap_or(api::DEFAULT_GROUP))?
        } else if let Some(address) = host.strip_prefix("tcp://") {
            tcp(config, address).await?
        } else {
            bail!("unable to parse `{host}`: give unix:///path or tcp://address:port");
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn tcp(config: &Config, address: &str) -> anyhow::Result<Listener> {
    let Some(tls) = &config.tls else {
        warn!(
            address,
            "the API is open on TCP without TLS: whoever reaches it is root on this machine; see --tlsverify"
        );
        return Ok(Listener::tcp(address).await?);
    };
    let files = api::TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        clients_ca: tls.verify_with.clone(),
    };
    Ok(Listener::tls(address, &files).await?)
}

/// Opens everything else.
pub(crate) async fn open(config: &Config, open_files: OpenFiles) -> anyhow::Result<Parts> {
    let images = images::Store::open(config.data_root.join("images"), config.registries.clone())
        .await
        .context("open the image store")?;
    let network = Network::open(network_config(config)).context("open the network")?;
    network.hold().await;
    let engine = Engine::open(engine_config(config, images.clone(), network.clone(), open_files))
        .await
        .context("open the engine")?;
    let swarm = SwarmNode::open(SwarmNodeConfig {
        directory: config.data_root.join("swarm"),
        engine: engine.clone(),
        hostname: super::info::hostname(),
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_labels: config.labels.clone(),
        generic_resources: config.generic_resources.clone(),
        default_advertise_addr: config.advertise_addr.clone(),
        logs: std::sync::Arc::new(api::TaskLogs::new(engine.clone())),
    })
    .await
    .context("open the swarm's state")?;
    engine.set_swarm_networks(swarm.swarm_networks());
    // A client that comes right after a restart finds the swarm's objects; one that comes to a swarm without a majority
    // is told so instead of waiting.
    let _ = tokio::time::timeout(SETTLE, swarm.settled()).await;
    network.release_hold().await.context("set up the network")?;
    Ok(Parts { images, engine, swarm, network })
}

fn network_config(config: &Config) -> NetworkConfig {
    let mut network = NetworkConfig::new(&config.data_root, &config.exec_root);
    if let Some(bridge) = &config.bridge {
        network.bridge.clone_from(bridge);
    }
    network.bip = config.bip;
    network.pools.clone_from(&config.pools);
    if let Some(mtu) = config.mtu {
        network.mtu = mtu;
    }
    network
}

fn engine_config(
    config: &Config,
    images: images::Store,
    network: Network,
    open_files: OpenFiles,
) -> EngineConfig {
    EngineConfig {
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        shim_exe: Path::new("/proc/self/exe").to_owned(),
        dns: config.dns.clone(),
        dns_search: config.dns_search.clone(),
        dns_options: config.dns_opts.clone(),
        log_driver: config.log_driver.clone(),
        log_options: config.log_opts.clone(),
        open_files: Some(open_files),
        images,
        network,
    }
}

/// Closes in the reverse order. The bridge and the rules stay while a container runs.
///
/// Once nothing is started any more, what takes long goes on side by side: the kernel alone takes up to 60 ms to remove a bridge.
pub(crate) async fn close(parts: Parts) {
    parts.swarm.stop_agent().await;
    parts.engine.finish_work().await;
    tokio::join!(parts.swarm.stop(), parts.engine.shutdown(), parts.network.shutdown_remove());
}
