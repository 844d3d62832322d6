//! Opens the network: looks at the machine, settles the subnet, starts the thread.
//!
//! In: the configuration. Out: a running, held thread and the way to reach it. Changes nothing in the kernel.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::Ipv4Net;
use netlink::watch::Watch;
use netplan::subnet;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{mpsc, watch};

use crate::built_in;
use crate::create::{self, Defaults};
use crate::kernel::{self, Found, Kernel};
use crate::local_names::LocalNames;
use crate::request::Request;
use crate::state_file::{self, State};
use crate::status::Status;
use crate::swarm::{self, Swarm};
use crate::wanted::Wanted;
use crate::worker::Worker;
use crate::{NetworkConfig, OpenError};

/// chosen: more callers than this wait for their turn in the channel.
const QUEUED_REQUESTS: usize = 256;

/// The running thread.
pub(crate) struct Running {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) wake: Arc<OwnedFd>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) encryption_generation: watch::Receiver<u64>,
}

/// Starts the thread in the caller's network namespace.
pub(crate) fn start(config: &NetworkConfig) -> Result<Running, OpenError> {
    // As dockerd reads `--mtu 0`.
    let mtu = if config.mtu == 0 { NetworkConfig::DEFAULT_MTU } else { config.mtu };
    let lock = lock(&config.bridge)?;
    let found = kernel::look(&config.bridge)?;
    if let Some(link) = found.bridge.as_ref().filter(|link| link.kind != "bridge") {
        return Err(OpenError::NotABridge(link.name.clone()));
    }
    let mut state = state_file::load(&config.state_dir)?;
    state.is_bridge_ours |= found.bridge.is_none() || config.bridge == NetworkConfig::DEFAULT_BRIDGE;
    let address = settle_subnet(config, &state, &found)?;
    state.subnet = Some(address);
    state_file::save(&config.state_dir, &state)?;

    let kernel = Kernel::open(config.table()).map_err(OpenError::Netlink)?;
    let networks = built_in::networks(&state, &config.bridge, address, mtu);
    let rules = Watch::rules(kernel.rules_port()).map_err(OpenError::Netlink)?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|e| OpenError::Thread(e.into()))?;
    let wake = Arc::new(wake);
    let (requests, receiver) = mpsc::channel(QUEUED_REQUESTS);
    let mut worker = Worker {
        kernel,
        wanted: Wanted::new(networks),
        requests: receiver,
        wake: Arc::clone(&wake),
        rules,
        links: Watch::links().map_err(OpenError::Netlink)?,
        status: Status::held(),
        swarm: Swarm::open(config)?,
        uplink: None,
        state,
        names: LocalNames::new(swarm::names_dir(&config.exec_root)?),
        defaults: Defaults::new(&config.pools, mtu),
        state_dir: config.state_dir.clone(),
        lock,
    };
    create::restore(&mut worker);
    for (_, bridge) in worker.wanted.networks.bridges() {
        worker.kernel.want_bridge(&bridge.link, bridge.addresses(), bridge.mtu);
    }
    worker.swarm.begin(&mut worker.wanted);
    let encryption_generation = worker.swarm.encryption().generation();
    let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || worker.run());
    Ok(Running { requests, wake, thread: thread.map_err(OpenError::Thread)?, encryption_generation })
}

/// Abstract socket names belong to a network namespace and vanish with the process: just the life of this lock.
fn lock(bridge: &str) -> Result<UnixListener, OpenError> {
    let name = SocketAddr::from_abstract_name(format!("skep/network/{bridge}")).map_err(OpenError::Thread)?;
    UnixListener::bind_addr(&name).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => OpenError::InUse { bridge: bridge.to_owned() },
        _ => OpenError::Thread(error),
    })
}

/// The bridge's own address: the one asked for, else the one it has or had, else from the pools.
fn settle_subnet(config: &NetworkConfig, state: &State, found: &Found) -> Result<Ipv4Net, OpenError> {
    if let Some(bip) = config.bip {
        return if is_host_address(bip) { Ok(bip) } else { Err(OpenError::Bip(bip)) };
    }
    if let Some(address) = found.address.filter(|address| is_host_address(*address)) {
        return Ok(address);
    }
    let overlaps =
        |net: Ipv4Net| found.in_use.iter().any(|used| used.contains(&net.trunc()) || net.contains(used));
    if let Some(remembered) = state.subnet.filter(|net| !overlaps(*net)) {
        return Ok(remembered);
    }
    let default;
    let pools = if config.pools.is_empty() {
        default = subnet::default_pools();
        &default
    } else {
        &config.pools
    };
    let chosen = subnet::choose(pools, &found.in_use).ok_or(OpenError::NoSubnet)?;
    let gateway = Ipv4Addr::from_bits(chosen.network().to_bits() + 1);
    Ok(Ipv4Net::new(gateway, chosen.prefix_len()).expect("the prefix length is the chosen subnet's"))
}

fn is_host_address(net: Ipv4Net) -> bool {
    net.prefix_len() <= 30 && net.addr() != net.network() && net.addr() != net.broadcast()
}
