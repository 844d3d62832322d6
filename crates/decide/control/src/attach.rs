//! What nodes ask of networks for plain containers: a place on one that lets them in.
//!
//! In: the store, the container, the network. Out: the task that stands for the container there, which steps give addresses
//! as they do any other; the one that there is already, if there is one.

use std::net::IpAddr;
use std::sync::Arc;

use objects::{
    Network, NetworkAttachmentConfig, NetworkAttachmentSpec, NodeId, Task, TaskId, TaskInternal, TaskSpec,
    TaskState, TaskStatus, Timestamp,
};
use store::{Store, Write};

use crate::request::RequestError;

/// Runtime of tasks that stand for plain containers. Source: moby/swarmkit, `api/naming`.
const RUNTIME: &str = "attachment";

/// A plain container that wants to be on a network.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// Where it is.
    pub node: &'a NodeId,
    /// Its id.
    pub container: &'a str,
    /// Names that mean it on the network, its own first.
    pub names: &'a [String],
    /// Addresses that it asks for, at most one of each family.
    pub addresses: &'a [IpAddr],
}

/// Gives the container a place on a network, by id, name or id prefix. A new one gets the id `id`.
pub fn attach(
    store: &Store,
    id: &TaskId,
    network: &str,
    guest: Guest<'_>,
    now: Timestamp,
) -> Result<(TaskId, Vec<Write>), RequestError> {
    let network = store.find_network(network)?;
    if !network.spec.attachable {
        return Err(RequestError::NotAttachable { name: network.spec.name.clone() });
    }
    let spec = Arc::new(spec(network, guest));
    if let Some(known) = place(store, network.id.as_str(), guest) {
        let is_same = known.spec == spec && known.internal.asked_addresses == guest.addresses;
        let next = || {
            let mut next = Task { spec: Arc::clone(&spec), ..(**known).clone() };
            next.internal.asked_addresses = guest.addresses.to_vec();
            Write::update(next)
        };
        // Names may have changed; addresses stay until the container leaves.
        return Ok((known.id.clone(), if is_same { Vec::new() } else { vec![next()] }));
    }
    let task = Task {
        id: id.clone(),
        name: guest.names.first().cloned().unwrap_or_default(),
        node_id: guest.node.clone(),
        spec,
        status: TaskStatus {
            state: TaskState::Pending,
            message: "pending task scheduling".to_owned(),
            timestamp: now,
            ..TaskStatus::default()
        },
        desired_state: TaskState::Running,
        internal: TaskInternal { asked_addresses: guest.addresses.to_vec(), ..TaskInternal::default() },
        ..Task::default()
    };
    Ok((id.clone(), vec![Write::Create(task.into())]))
}

fn spec(network: &Network, guest: Guest<'_>) -> TaskSpec {
    let asked = NetworkAttachmentConfig {
        target: network.id.to_string(),
        aliases: guest.names.to_vec(),
        ..NetworkAttachmentConfig::default()
    };
    TaskSpec {
        network_attachment_spec: Some(NetworkAttachmentSpec { container_id: guest.container.to_owned() }),
        networks: vec![asked],
        runtime: RUNTIME.to_owned(),
        ..TaskSpec::default()
    }
}

/// The task that stands for the container on the network already.
fn place<'s>(store: &'s Store, network: &str, guest: Guest<'_>) -> Option<&'s Arc<Task>> {
    store.tasks_on_node(guest.node).find(|task| {
        let attachment = task.spec.network_attachment_spec.as_ref();
        attachment.is_some_and(|it| it.container_id == guest.container)
            && task.spec.networks.iter().any(|asked| asked.target == network)
            && task.is_wanted()
            && !task.is_terminal()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dirty, networks, request::Code, step};
    use objects::{IdSource, NetworkSpec, Node, NodeState};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    /// A store with a node, an attachable network and one that is not.
    fn store() -> Store {
        let mut store = Store::new();
        let mut node = Node { id: "n".into(), ..Node::default() };
        node.status.state = NodeState::Ready;
        apply(&mut store, &[Write::Create(node.into())]);
        for (name, attachable) in [("open", true), ("closed", false)] {
            let spec = NetworkSpec { name: name.into(), attachable, ..NetworkSpec::default() };
            let writes = networks::create(&store, name.into(), spec).unwrap();
            apply(&mut store, &writes);
        }
        store
    }

    fn apply(store: &mut Store, writes: &[Write]) {
        store.apply(store.applied() + 1, NOW, writes).unwrap();
    }

    /// Lets the swarm decide until it has nothing more to write.
    fn settle(store: &mut Store) {
        let (mut dirty, mut ids) = (Dirty::everything(), IdSource::from_seed([1; 32]));
        loop {
            let writes = step(store, &mut dirty, NOW, &mut ids).writes;
            if writes.is_empty() {
                return;
            }
            let changes = store.apply(store.applied() + 1, NOW, &writes).unwrap();
            changes.iter().for_each(|change| dirty.note(change));
        }
    }

    fn guest<'a>(container: &'a str, node: &'a NodeId, addresses: &'a [IpAddr]) -> Guest<'a> {
        Guest { node, container, names: &[], addresses }
    }

    #[test]
    fn a_container_gets_addresses_and_the_same_ones_when_it_asks_again() {
        let (mut store, node) = (store(), NodeId::from("n"));
        let (id, writes) = attach(&store, &"t1".into(), "open", guest("c", &node, &[]), NOW).unwrap();
        apply(&mut store, &writes);
        settle(&mut store);
        let task = store.task(&id).unwrap().clone();
        assert_eq!((task.status.state, task.networks_attachments.len()), (TaskState::Assigned, 1));
        let again = attach(&store, &"t2".into(), "open", guest("c", &node, &[]), NOW).unwrap();
        assert_eq!(again, (id.clone(), Vec::new()));
        let (other, writes) = attach(&store, &"t3".into(), "open", guest("d", &node, &[]), NOW).unwrap();
        apply(&mut store, &writes);
        settle(&mut store);
        let other = store.task(&other).unwrap();
        assert_ne!(other.networks_attachments[0].addresses, task.networks_attachments[0].addresses);
        let ended = TaskStatus { state: TaskState::Complete, ..task.status.clone() };
        apply(&mut store, &[Write::update(task.observed(ended, NOW).unwrap())]);
        settle(&mut store);
        assert!(store.task(&id).is_none(), "nobody remembers it");
        assert_eq!(store.tasks().count(), 1);
    }

    #[test]
    fn an_address_is_had_by_who_asks_first_and_refused_to_others_with_the_reason() {
        let (mut store, node) = (store(), NodeId::from("n"));
        let asked: IpAddr = "10.0.0.77".parse().unwrap();
        let mut explained = |container: &str, address: IpAddr| {
            let id = TaskId::from(container);
            let addresses = [address];
            let guest = guest(container, &node, &addresses);
            let (id, writes) = attach(&store, &id, "open", guest, NOW).unwrap();
            apply(&mut store, &writes);
            settle(&mut store);
            let task = store.task(&id).unwrap();
            let given = task.networks_attachments.first().map(|it| it.addresses.join(" "));
            given.unwrap_or_else(|| task.status.err.clone())
        };
        assert_eq!(explained("a", asked), "10.0.0.77/24");
        let refused = "address 10.0.0.77 of network open cannot be given: it is in use";
        assert_eq!(explained("b", asked), refused);
        let own = explained("c", "10.0.0.1".parse().unwrap());
        assert!(own.ends_with("it is the network's own"), "{own}");
        let outside = explained("d", "192.0.2.1".parse().unwrap());
        assert!(outside.ends_with("it is in no subnet of the network"), "{outside}");
    }

    #[test]
    fn a_network_that_lets_nobody_in_says_so() {
        let (store, node) = (store(), NodeId::from("n"));
        let refused = |network: &str| attach(&store, &"t".into(), network, guest("c", &node, &[]), NOW);
        let error = refused("closed").unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        assert_eq!(error.to_string(), "network closed not manually attachable");
        assert_eq!(refused("nope").unwrap_err().code(), Code::NotFound);
    }
}
