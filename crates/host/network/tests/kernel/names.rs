//! Files of names of this machine's own networks: they say what is true before anybody is told of a change.

use std::net::IpAddr;

use names::View;

use crate::world::{World, ip_of};

/// The addresses of a name in a network's file; `None` without a file or such a name.
fn found(world: &World, network_id: &str, name: &str) -> Option<Vec<IpAddr>> {
    let file = network::NamesDir::file_in(&world.config.exec_root, network_id);
    let table = std::fs::read(file).ok()?;
    let view = View::read(&table).unwrap();
    assert_eq!(view.network(), b"front");
    view.find(name.as_bytes()).map(|addresses| addresses.iter().collect())
}

#[test]
fn names_are_there_before_a_change_is_reported_and_survive_a_restart() {
    let mut world = World::new();
    let id = world.create("front", |_| {});
    let (_web, web) = world.container_on("web", &["front"], &[]);
    let (_plain, _) = world.container("plain", &[]);
    assert_eq!(found(&world, &id, "web"), Some(vec![ip_of(&web).into()]));
    assert_eq!(found(&world, &id, "plain"), None);
    let network = world.network();
    world.runtime.block_on(network.rename("web", "www"));
    assert_eq!(found(&world, &id, "www"), Some(vec![ip_of(&web).into()]));

    drop(network);
    world.restart();
    let network = world.network();
    world.runtime.block_on(network.adopt("web", "www", &web));
    let (_db, db) = world.container_on("db", &["front"], &[]);
    assert_eq!(found(&world, &id, "db"), None, "held: not everybody is adopted yet");
    assert_eq!(found(&world, &id, "www"), Some(vec![ip_of(&web).into()]));
    world.runtime.block_on(network.release_hold()).unwrap();
    assert_eq!(found(&world, &id, "www"), Some(vec![ip_of(&web).into()]));
    assert_eq!(found(&world, &id, "db"), Some(vec![ip_of(&db).into()]));

    world.runtime.block_on(network.release("web"));
    assert_eq!(found(&world, &id, "www"), None);
    assert!(found(&world, &id, "db").is_some());
    world.runtime.block_on(network.release("db"));
    world.runtime.block_on(network.remove("front")).unwrap();
    let file = network::NamesDir::file_in(&world.config.exec_root, &id);
    assert!(!file.exists(), "names go with their network");
}
