//! What both ends of a pair derive, and the way from one set of keys to the next.

use super::*;
use crate::overlay::tests::peer;
use proptest::prelude::*;
use wire::network::NetworkView;

const PORT: u16 = 4790;

fn keys(oldest: u64) -> Vec<NetworkKey> {
    let key = |number| NetworkKey { number, key: format!("secret {number}").into() };
    (oldest..oldest + 3).map(key).collect()
}

/// Nodes `a`, `b`, … are 192.0.2.1, .2, …, of generations 1, 2, ….
fn networks(nodes: &[(&str, u8)]) -> Networks {
    let peers = nodes.iter().map(|(id, last)| ((*id).into(), peer(*last, &[]))).collect();
    let view = NetworkView {
        id: "net".into(),
        encrypted: true,
        data_path_port: 4789,
        peers,
        ..NetworkView::default()
    };
    let plain = NetworkView { id: "plain".into(), encrypted: false, ..view.clone() };
    [view, plain].map(|view| (view.id.clone(), view)).into()
}

fn pair() -> Networks {
    networks(&[("a", 1), ("b", 2)])
}

fn plan_of(node: u8, networks: &Networks, keys: &[NetworkKey]) -> EncryptionPlan {
    let id = char::from(b'a' + node - 1).to_string();
    EncryptionNeeds::of(networks, &id.as_str().into()).plan(node.into(), Some(keys))
}

/// The kernel after these steps; a step that cannot be done is a fault.
fn after(mut found: Found, steps: &[Step]) -> Found {
    for step in steps {
        match step {
            Step::Add(id, _) => assert!(found.associations.insert(*id), "{step:?}"),
            Step::Put(policy) => {
                found.policies.retain(|other| other.selector() != policy.selector());
                found.policies.insert(*policy);
            }
            Step::Drop(policy) => assert!(found.policies.remove(policy), "{step:?}"),
            Step::Forget(id) => assert!(found.associations.remove(id), "{step:?}"),
        }
    }
    found
}

/// The association that `found` sends to this address with; `None`: dropped.
fn sends(found: &Found, to: [u8; 4]) -> Option<AssociationId> {
    let to = IpAddr::from(to);
    let of_pair = |policy: &&Policy| policy.way == Way::Out && policy.destination == to;
    let policy = found.policies.iter().find(of_pair)?;
    let association = found.associations.iter().find(|id| Some(id.spi) == policy.spi && id.destination == to);
    Some(*association.expect("a policy asks for what is there"))
}

#[test]
fn the_hash_is_that_of_the_standard() {
    let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
    // RFC 4231, cases 2 and 6.
    assert_eq!(
        hex(authenticated(b"Jefe", b"what do ya want for nothing?")),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        hex(authenticated(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}

#[test]
fn a_pair_derives_the_same_and_no_direction_shares_a_key() {
    let (a, b) = (plan_of(1, &pair(), &keys(1)), plan_of(2, &pair(), &keys(1)));
    let is_shared = |id: &&AssociationId| b.associations.contains_key(id);
    // Of what `a` sends, `b` takes that and two more; and the other way round.
    assert_eq!((a.associations.len(), b.associations.len()), (4, 4));
    let shared: Vec<_> = a.associations.keys().filter(is_shared).collect();
    assert_eq!(shared.len(), 2, "what the one sends, the other takes");
    assert!(shared.iter().all(|id| a.associations[id] == b.associations[id]));
    for plan in [&a, &b] {
        let distinct: BTreeSet<_> = plan.associations.values().map(|key| key.0).collect();
        let salts: BTreeSet<_> = plan.associations.values().map(|key| &key.0[16..]).collect();
        assert_eq!((distinct.len(), salts.len()), (4, 4));
    }
    let shown = format!("{:?}", a.associations.values().next().unwrap());
    assert_eq!(shown, "CipherKey(…)");
}

#[test]
fn what_is_derived_stays_what_it_is() {
    let (from, to) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let (from, to) = (Machine { address: from, generation: 1 }, Machine { address: to, generation: 2 });
    let all = |key: &NetworkKey, from: &Machine, to: &Machine| derived(key, from, to).1.0;
    let [first, second, _] = &keys(1)[..] else { panic!("three keys") };
    let reborn = |machine: &Machine| Machine { generation: 9, ..*machine };
    let distinct: BTreeSet<_> = [
        all(first, &from, &to),
        all(first, &to, &from),
        all(second, &from, &to),
        all(first, &reborn(&from), &to),
        all(first, &from, &reborn(&to)),
        all(&NetworkKey { number: 9, ..first.clone() }, &from, &to),
    ]
    .into();
    assert_eq!(distinct.len(), 6, "everything that goes in counts");
}

#[test]
fn nothing_plain_passes_even_before_keys_are_told() {
    let needs = EncryptionNeeds::of(&pair(), &"a".into());
    let plan = needs.plan(1, None);
    assert!(plan.associations.is_empty());
    let any = IpAddr::from([0; 4]);
    let policy =
        |way, request_id| Policy { way, source: any, destination: any, port: PORT, request_id, spi: None };
    let closed = [policy(Way::In, REQUEST_ID), policy(Way::Out, REQUEST_ID_OF_NONE)];
    assert_eq!(plan.policies, closed.into());
    assert!(plan_of(1, &pair(), &keys(1)).policies.is_superset(&plan.policies), "nor afterwards");
    let found = after(Found::default(), &plan.steps(&Found::default()));
    let vague = EncryptionNeeds::of(&networks(&[("b", 2)]), &"a".into());
    assert_eq!(vague.plan(1, Some(&keys(1))).steps(&found), [], "nor while this node's address is not told");
}

#[test]
fn whoever_cannot_encrypt_gets_nothing() {
    let mut networks = pair();
    for view in networks.values_mut() {
        view.peers.get_mut(&NodeId::from("b")).unwrap().encryption_generation = 0;
    }
    let plan = plan_of(1, &networks, &keys(1));
    assert_eq!((plan.associations.len(), plan.policies.len()), (0, 2));
}

#[test]
fn a_daemon_that_knows_no_key_yet_takes_nothing_away() {
    let plan = plan_of(1, &pair(), &keys(1));
    let found = after(Found::default(), &plan.steps(&Found::default()));
    let restarted = EncryptionNeeds::of(&pair(), &"a".into()).plan(1, None);
    assert_eq!(restarted.steps(&found), []);
    assert_eq!(plan.steps(&found), [], "and is told the same again");
    // Without any encrypted network nothing can be sent: what is asked for goes, what counts packets stays.
    let idle = EncryptionNeeds::default().plan(1, None);
    let left = after(found.clone(), &idle.steps(&found));
    assert_eq!((left.policies.len(), left.associations.len()), (0, 4));
    assert_eq!(after(found.clone(), &EncryptionPlan::nothing().steps(&found)), Found::default());
}

#[test]
fn a_pair_that_parts_and_meets_again_goes_on_counting() {
    let plan = plan_of(1, &pair(), &keys(1));
    let together = after(Found::default(), &plan.steps(&Found::default()));
    let alone = plan_of(1, &networks(&[("a", 1)]), &keys(1));
    let apart = after(together.clone(), &alone.steps(&together));
    assert_eq!(sends(&apart, [192, 0, 2, 2]), None);
    assert_eq!(apart.associations, together.associations);
    assert!(plan.steps(&apart).iter().all(|step| matches!(step, Step::Put(_))));
}

#[test]
fn keys_go_when_they_are_not_known_any_more_also_those_of_an_earlier_daemon() {
    let mut found = Found::default();
    for oldest in 1..9 {
        let plan = plan_of(1, &pair(), &keys(oldest));
        found = after(found.clone(), &plan.steps(&found));
        // Three that arrive; those that were sent with since then, and are known.
        assert_eq!(found.associations.len(), 3 + (oldest as usize).min(2));
        assert!(plan.steps(&found).is_empty());
    }
}

#[test]
fn a_machine_that_began_anew_is_talked_to_under_other_keys() {
    let before = plan_of(1, &pair(), &keys(1));
    let found = after(Found::default(), &before.steps(&Found::default()));
    let mut networks = pair();
    for view in networks.values_mut() {
        view.peers.get_mut(&NodeId::from("b")).unwrap().encryption_generation = 77;
    }
    let plan = plan_of(1, &networks, &keys(1));
    let next = after(found.clone(), &plan.steps(&found));
    assert_ne!(sends(&next, [192, 0, 2, 2]), sends(&found, [192, 0, 2, 2]));
    let reborn = EncryptionNeeds::of(&networks, &"b".into()).plan(77, Some(&keys(1)));
    assert!(reborn.associations.contains_key(&sends(&next, [192, 0, 2, 2]).unwrap()));
}

proptest! {
    /// Two machines hear of changes of keys at different times, one change apart, and one step at a time: whatever the one sends
    /// at any moment, the other takes.
    #[test]
    fn no_packet_is_lost_while_keys_change(turns in prop::collection::vec(any::<bool>(), 0..40)) {
        let mut oldest = [1u64, 1];
        let mut pending: [Vec<Step>; 2] = [Vec::new(), Vec::new()];
        let mut kernels = [1, 2].map(|node| {
            let plan = plan_of(node, &pair(), &keys(1));
            after(Found::default(), &plan.steps(&Found::default()))
        });
        for turn in turns {
            let (own, other) = if turn { (0, 1) } else { (1, 0) };
            if pending[own].is_empty() {
                if oldest[own] > oldest[other] || !pending[other].is_empty() {
                    continue;
                }
                oldest[own] += 1;
                let node = u8::try_from(own).unwrap() + 1;
                pending[own] = plan_of(node, &pair(), &keys(oldest[own])).steps(&kernels[own]);
            }
            let step = pending[own].remove(0);
            kernels[own] = after(kernels[own].clone(), &[step]);
            let sent = [sends(&kernels[0], [192, 0, 2, 2]), sends(&kernels[1], [192, 0, 2, 1])];
            prop_assert!(kernels[1].associations.contains(&sent[0].expect("it sends")));
            prop_assert!(kernels[0].associations.contains(&sent[1].expect("it sends")));
        }
    }
}
