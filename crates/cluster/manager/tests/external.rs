//! A swarm whose root's key is with an authority outside of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../../pki/tests/common/mod.rs"]
mod common;
mod support;

use common::outside::{Manner, Outside, outside};
use manager::{Code, ManagerError};
use objects::{ClusterSpec, ExternalCa, NodeRole};
use pki::Authority;
use rpc::CallError;
use support::{Papers, Swarm, founding, join, now, renew, soon, version};
use tokio::runtime::Runtime;

/// A swarm with a manager that was certified by the authority outside, and does not have its key.
fn swarm(outside: &Outside) -> Swarm {
    let authority = outside.authority();
    let papers = Papers::certified(&authority, "node1", NodeRole::Manager);
    let mut founded = founding(&Authority { key: String::new(), ..authority }, &papers);
    founded.spec.ca_config.external_cas =
        vec![ExternalCa { protocol: "cfssl".into(), url: outside.url(), ..ExternalCa::default() }];
    Swarm::founded(papers, founded)
}

/// Asks for other settings; what the swarm then says of itself.
fn change(swarm: &Swarm, change: impl FnOnce(&mut ClusterSpec)) -> Result<serde_json::Value, ManagerError> {
    let machine = &swarm.machines[0];
    let shown = machine.manager().swarm()?;
    let mut spec: ClusterSpec = serde_json::from_value(shown["Spec"].clone()).unwrap();
    change(&mut spec);
    machine.block_on(machine.manager().update_cluster(version(&shown), spec, Default::default()))?;
    machine.manager().swarm()
}

#[test]
fn an_authority_outside_certifies_who_joins_and_who_renews() {
    let runtime = Runtime::new().unwrap();
    let outside = runtime.block_on(outside(Manner::Honest));
    let swarm = swarm(&outside);
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let worker = swarm.add_worker();
    let said = pki::verify(&worker.chain, &outside.root(), now()).unwrap();
    assert_eq!((said.node, said.role), (worker.node.clone(), NodeRole::Worker));
    let renewed = machine.block_on(soon(renew(&worker, &at))).unwrap();
    assert_ne!(renewed.certificate, worker.chain);
    assert!(worker.key.is_certified_by(&renewed.certificate));

    // Without it nobody joins, and the swarm stays as it is.
    drop(outside);
    let token = machine.manager().swarm().unwrap()["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    match machine.block_on(soon(join(&at, &token, "127.0.0.1"))) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, Code::Unavailable, "{refusal:?}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nobody signs"),
    }
    let refused = change(&swarm, |spec| spec.task_defaults = Default::default()).unwrap_err();
    let text =
        "there must be at least one valid, reachable external CA corresponding to the current CA certificate";
    assert!(refused.to_string().ends_with(text), "{refused}");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[test]
fn a_swarm_takes_its_root_back_from_an_authority_outside() {
    let runtime = Runtime::new().unwrap();
    let outside = runtime.block_on(outside(Manner::Honest));
    let swarm = swarm(&outside);
    let own = Authority::create(now()).unwrap();
    let begun = change(&swarm, |spec| {
        spec.ca_config.signing_ca_cert.clone_from(&own.certificate);
        spec.ca_config.signing_ca_key.clone_from(&own.key);
    });
    assert_eq!(begun.unwrap()["RootRotationInProgress"], true);
    // From now on the swarm signs by itself, for both roots.
    drop(outside);
    let worker = swarm.add_worker();
    pki::verify(&worker.chain, &own.certificate, now()).unwrap();
    let trusted = worker.roots.matches("BEGIN CERTIFICATE").count();
    assert_eq!(trusted, 2, "the old one is trusted until every node has a certificate of the new one");
}

#[test]
fn an_authority_that_refuses_keeps_machines_out() {
    let runtime = Runtime::new().unwrap();
    let outside = runtime.block_on(outside(Manner::Refuses));
    let swarm = swarm(&outside);
    let machine = &swarm.machines[0];
    let token = machine.manager().swarm().unwrap()["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    let at = machine.address.to_string();
    match machine.block_on(soon(join(&at, &token, "127.0.0.1"))) {
        Err(CallError::Refused(refusal)) => assert!(refusal.message.contains("policy"), "{refusal:?}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
    assert_eq!(machine.manager().nodes(&Default::default()).unwrap().len(), 1);
}
