//! Virtual addresses in the namespaces of containers.
//!
//! In: networks and news about them, containers that come and go. Out: a table in each container's namespace with the VIPs
//! of its networks; a change touches only what changed, in one transaction per container. Tables need no daemon. Never
//! decides where a VIP leads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink::conntrack::{ConntrackSocket, FlowFilter};
use netlink::namespace;
use netlink::nft::{Batch, NftSocket};
use netplan::table::{Family, Key, Value, Version};
use netplan::vip::{self, VipChange, VipPlan};
use objects::NetworkId;
use wire::network::{NetworkNews, NetworkView};

use crate::NetworkError;
use crate::apply_table;

/// Protocol number of what has no connection that would end by itself.
const UDP: u8 = 17;

/// The containers that use VIPs, and where those lead.
#[derive(Debug, Default)]
pub struct Vips {
    plans: BTreeMap<NetworkId, VipPlan>,
    clients: BTreeMap<String, Client>,
}

/// A container. Its sockets keep its namespace: it must be unplugged when it ends.
#[derive(Debug)]
struct Client {
    networks: Vec<NetworkId>,
    nft: NftSocket,
    conntrack: ConntrackSocket,
    /// A change failed: the table is written anew with the next one, or by [`Vips::repair`].
    is_doubtful: bool,
}

impl Vips {
    /// Nobody and nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a network as a whole, and changes the tables of its containers.
    pub fn put_network(&mut self, view: &NetworkView) {
        let plan = self.plans.entry(view.id.clone()).or_default();
        let changes = plan.replace(view);
        self.change(&view.id, &changes);
    }

    /// Takes in news of a network, and changes the tables of its containers. News of a network that is not known are
    /// skipped.
    pub fn take_in(&mut self, news: &NetworkNews) {
        let Some(plan) = self.plans.get_mut(&news.id) else { return };
        let changes = plan.take_in(news);
        self.change(&news.id, &changes);
    }

    /// Forgets a network, and takes its VIPs out of the tables.
    pub fn forget_network(&mut self, id: &NetworkId) {
        self.put_network(&NetworkView { id: id.clone(), ..NetworkView::default() });
        self.plans.remove(id);
    }

    /// Writes the table of a container on these networks into its namespace. May be repeated, when its networks change.
    pub fn plug(
        &mut self,
        container: &str,
        namespace: BorrowedFd<'_>,
        networks: Vec<NetworkId>,
    ) -> Result<(), NetworkError> {
        let (nft, conntrack) = namespace::within(namespace, || {
            Ok::<_, NetworkError>((NftSocket::open()?, ConntrackSocket::open()?))
        })
        .map_err(|e| NetworkError::namespace("enter", container, e))??;
        let mut client = Client { networks, nft, conntrack, is_doubtful: true };
        client.rebuild(&self.plans)?;
        self.clients.insert(container.to_owned(), client);
        Ok(())
    }

    /// Forgets a container; its table goes with its namespace.
    pub fn unplug(&mut self, container: &str) {
        self.clients.remove(container);
    }

    /// Writes tables anew that a change could not be made to; true when none is left.
    pub fn repair(&mut self) -> bool {
        let mut is_whole = true;
        for (container, client) in self.clients.iter_mut().filter(|(_, client)| client.is_doubtful) {
            is_whole &= told(container, client.rebuild(&self.plans));
        }
        is_whole
    }

    fn change(&mut self, network: &NetworkId, changes: &[VipChange]) {
        if changes.is_empty() {
            return;
        }
        for (container, client) in &mut self.clients {
            if client.networks.contains(network) {
                told(container, client.change(&self.plans, changes));
            }
        }
    }
}

/// What a container does to its own namespace is its own affair; the rest goes on.
fn told(container: &str, result: Result<(), NetworkError>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(
            container.id = container,
            error = error as &dyn std::error::Error,
            "could not write the virtual addresses of a container"
        );
    }
    result.is_ok()
}

impl Client {
    fn rebuild(&mut self, plans: &BTreeMap<NetworkId, VipPlan>) -> Result<(), NetworkError> {
        let own = self.networks.iter().filter_map(|network| plans.get(network));
        let result = self.nft.commit(apply_table::replace(&vip::table(own)));
        self.nft.rest();
        self.is_doubtful = result.is_err();
        Ok(result?)
    }

    fn change(
        &mut self,
        plans: &BTreeMap<NetworkId, VipPlan>,
        changes: &[VipChange],
    ) -> Result<(), NetworkError> {
        let mut batch = apply_table::batch(Family::Inet, vip::TABLE);
        changes.iter().for_each(|change| put_change(&mut batch, change));
        let is_changed = !self.is_doubtful && self.nft.commit(batch).is_ok();
        self.nft.rest();
        if !is_changed {
            self.rebuild(plans)?;
        }
        self.forget(changes)
    }

    /// Datagrams would go on to a backend that left for as long as the client keeps sending.
    fn forget(&mut self, changes: &[VipChange]) -> Result<(), NetworkError> {
        let left = changes.iter().flat_map(|change| change.left().map(|backend| (change.vip, backend)));
        let to_backend = |(vip, backend): (IpAddr, IpAddr)| FlowFilter {
            protocol: Some(UDP),
            asked: Some(vip),
            answered_by: Some(backend),
            ..FlowFilter::default()
        };
        let filters: Vec<_> = left.map(to_backend).collect();
        let result = self.conntrack.forget(&filters);
        self.conntrack.rest();
        result?;
        Ok(())
    }
}

fn put_change(batch: &mut Batch, change: &VipChange) {
    let chain = vip::vip_chain(change.vip);
    let key = Key::Address(change.vip);
    let version = Version::of(change.vip);
    let (vips, unserved) = (vip::vips_map(version), vip::unserved_set(version));
    match (change.before.as_deref(), change.after.as_deref()) {
        (Some([_, ..]), Some(backends @ [_, ..])) => {
            // The element stays, so that no connection finds the address missing.
            batch.flush_chain(&chain);
            apply_table::put_rules(batch, &chain, &vip::vip_rules(backends));
        }
        (before, after) => {
            match before {
                None => {}
                Some([]) => apply_table::delete_element(batch, unserved, &key),
                Some(_) => {
                    apply_table::delete_element(batch, vips, &key);
                    batch.delete_chain(&chain);
                }
            }
            match after {
                None => {}
                Some([]) => apply_table::add_elements(batch, unserved, &[(key, Value::Nothing)]),
                Some(backends) => {
                    batch.add_chain(&chain);
                    apply_table::put_rules(batch, &chain, &vip::vip_rules(backends));
                    apply_table::add_elements(batch, vips, &[(key, Value::Chain(chain))]);
                }
            }
        }
    }
}
