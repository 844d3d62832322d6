//! Who may leave, in Docker's words.

use objects::{ManagerStatus, Node, Reachability, Timestamp};
use store::{Store, Write};

use crate::Leaver;

fn store(reachable: &[bool]) -> Store {
    let nodes = reachable.iter().enumerate().map(|(number, is_reachable)| {
        let reachability = if *is_reachable { Reachability::Reachable } else { Reachability::Unreachable };
        let manager_status = Some(ManagerStatus { reachability, ..ManagerStatus::default() });
        Write::Create(
            Node { id: format!("n{number}").as_str().into(), manager_status, ..Node::default() }.into(),
        )
    });
    let mut store = Store::new();
    let worker = Write::Create(Node { id: "worker".into(), ..Node::default() }.into());
    store.apply(1, Timestamp(1), &nodes.chain([worker]).collect::<Vec<_>>()).unwrap();
    store
}

#[test]
fn managers_are_warned_in_dockers_words() {
    let begin = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let end = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
               `--force-new-cluster`. Use `--force` to suppress this message.";
    let out_of = |left: usize, all: usize| {
        format!(
            "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be \
             inaccessible. {end}"
        )
    };
    let check = |reachable: &[bool], expect: &str| {
        let leaver = Leaver::manager_of(&store(reachable), &"n0".into());
        assert_eq!(leaver.may_leave().unwrap_err().to_string(), format!("{begin}{expect}"), "{reachable:?}");
    };
    let last = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
    check(&[true], last);
    check(&[true, true], &out_of(1, 2));
    check(&[true, true, false], &out_of(1, 3));
    check(&[true, true, true], end);
    check(&[true, true, true, true, false], end);
    check(&[true, true, true, false, false], &out_of(2, 5));
    let inactive = Leaver::InactiveManager.may_leave().unwrap_err().to_string();
    assert_eq!(inactive, format!("{begin}Doing so may lose the consensus of your cluster. {end}"));
    assert_eq!(Leaver::Worker.may_leave(), Ok(()));
}
