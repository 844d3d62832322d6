//! Golden bytes of what is sent. They were compared with what `nft` 1.0 sends for the same commands
//! (`nft --debug=mnl`), apart from user data that only `nft list` reads. Some values are in the machine's own byte
//! order; the bytes here are those of a little-endian machine.
#![cfg(target_endian = "little")]

use std::net::Ipv4Addr;

use super::super::{CtState, Direction, IpField};
use super::*;

/// The sealed batch without its opening and closing message, as hex of 4-byte words, one message per line.
fn check(batch: Batch, expect: &[&str]) {
    let sealed = batch.seal(7).expect("the batch is not empty");
    let messages: Vec<Vec<u8>> = crate::wire::messages(sealed.encoder.bytes())
        .map(|message| {
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&message.kind.to_be_bytes());
            bytes.extend_from_slice(&message.flags.to_be_bytes());
            bytes.extend_from_slice(&message.sequence.to_be_bytes());
            bytes.extend_from_slice(message.payload);
            bytes
        })
        .collect();
    let shown: Vec<String> = messages
        .iter()
        .map(|bytes| {
            let words =
                bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let inner: Vec<&str> = shown[1..shown.len() - 1].iter().map(String::as_str).collect();
    assert_eq!(shown[0], "00100001 00000007 0000000a");
    assert_eq!(shown.last().map(|last| &last[..8]), Some("00110001"));
    assert_eq!(inner, expect, "{inner:#?}");
}

fn batch() -> Batch {
    Batch::new(Family::Inet, "t")
}

#[test]
fn a_table_is_replaced_by_making_deleting_and_making_it() {
    let mut batch = batch();
    batch.replace_table();
    check(
        batch,
        &[
            "0a000401 00000008 01000000 06000100 74000000 08000200 00000000",
            "0a020001 00000009 01000000 06000100 74000000",
            "0a000405 0000000a 01000000 06000100 74000000 08000200 00000000",
        ],
    );
}

#[test]
fn chains_carry_their_hook() {
    let mut batch = batch();
    batch.add_chain("c");
    batch.add_base_chain("pre", BaseChain { kind: ChainKind::Nat, hook: Hook::Prerouting, priority: -100 });
    batch.flush_chain("c");
    batch.delete_chain("c");
    check(
        batch,
        &[
            "0a030401 00000008 01000000 06000100 74000000 06000300 63000000",
            "0a030401 00000009 01000000 06000100 74000000 08000300 70726500 14000480 08000100 00000000 \
             08000200 ffffff9c 08000500 00000001 08000700 6e617400",
            "0a080001 0000000a 01000000 06000100 74000000 06000200 63000000",
            "0a050005 0000000b 01000000 06000100 74000000 06000300 63000000",
        ],
    );
}

#[test]
fn a_verdict_map_has_a_concatenated_key() {
    let mut batch = batch();
    let key = MapKey::AddressPort { ip: Ipv4Addr::LOCALHOST, protocol: 6, port: 8080 };
    let value = MapValue::Verdict(Verdict::Goto("c".to_owned()));
    batch.add_map("m", key, &value);
    batch.add_elements("m", &[(key, value)]);
    batch.delete_elements("m", &[key]);
    check(
        batch,
        &[
            "0a090401 00000008 01000000 06000100 74000000 06000200 6d000000 08000300 00000008 08000400 \
             0000730d 08000500 0000000c 08000600 ffffff00 08000700 00000000 08000a00 00000001",
            "0a0c0401 00000009 01000000 06000100 74000000 06000200 6d000000 34000380 30000180 14000180 \
             10000100 7f000001 06000000 1f900000 18000280 14000280 08000100 fffffffc 06000200 63000000",
            "0a0e0005 0000000a 01000000 06000100 74000000 06000200 6d000000 1c000380 18000180 14000180 \
             10000100 7f000001 06000000 1f900000",
        ],
    );
}

#[test]
fn connections_take_turns_through_an_anonymous_map() {
    let mut batch = batch();
    let elements = [
        (MapKey::Number(0), MapValue::Socket(([10, 0, 0, 1], 80).into())),
        (MapKey::Number(1), MapValue::Socket(([10, 0, 0, 2], 81).into())),
    ];
    let map = batch.add_anonymous_map(&elements).expect("it has elements");
    batch.add_rule("c", &Rule::new().protocol(6).dnat_in_turn_socket(map, 2, false));
    check(
        batch,
        &[
            "0a090401 00000008 01000000 06000100 74000000 0c000200 5f5f6d61 70256400 08000300 0000000b \
             08000400 00000004 08000500 00000004 08000600 000001cd 08000700 00000008 08000a00 00000001 \
             0c000980 08000100 00000002 0a000d00 00040100 00000000",
            "0a0c0401 00000009 01000000 06000100 74000000 0c000200 5f5f6d61 70256400 08000400 00000001 \
             44000380 20000180 0c000180 08000100 00000000 10000280 0c000100 0a000001 00500000 20000180 \
             0c000180 08000100 01000000 10000280 0c000100 0a000002 00510000",
            "0a060c05 0000000a 01000000 06000100 74000000 06000200 63000000 f8000480 24000180 09000100 \
             6d657461 00000000 14000280 08000200 00000010 08000100 00000001 2c000180 08000100 636d7000 \
             20000280 08000100 00000001 08000200 00000000 0c000380 05000100 06000000 34000180 0b000100 \
             6e756d67 656e0000 24000280 08000100 00000001 08000200 00000002 08000300 00000000 08000400 \
             00000000 38000180 0b000100 6c6f6f6b 75700000 28000280 0c000100 5f5f6d61 70256400 08000200 \
             00000001 08000300 00000001 08000400 00000001 38000180 08000100 6e617400 2c000280 08000100 \
             00000001 08000200 00000002 08000300 00000008 08000500 00000009 08000700 00000002",
        ],
    );
}

#[test]
fn a_rule_masks_what_it_compares() {
    let mut batch = batch();
    let rule = Rule::new()
        .ipv4()
        .address(IpField::Source, Ipv4Addr::new(172, 17, 0, 9), 16)
        .interface(Direction::Out, "skep0", false)
        .ct_is_dnat()
        .ct_state(CtState::ESTABLISHED | CtState::RELATED)
        .verdict(&Verdict::Accept);
    batch.add_rule("c", &rule);
    check(
        batch,
        &["0a060c05 00000008 01000000 06000100 74000000 06000200 63000000 a4020480 24000180 09000100 \
             6d657461 00000000 14000280 08000200 0000000f 08000100 00000001 2c000180 08000100 636d7000 \
             20000280 08000100 00000001 08000200 00000000 0c000380 05000100 02000000 34000180 0c000100 \
             7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 08000300 0000000c 08000400 \
             00000004 44000180 0c000100 62697477 69736500 34000280 08000100 00000001 08000200 00000001 \
             08000300 00000004 0c000480 08000100 ffff0000 0c000580 08000100 00000000 2c000180 08000100 \
             636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 08000100 ac110000 24000180 \
             09000100 6d657461 00000000 14000280 08000200 00000007 08000100 00000001 38000180 08000100 \
             636d7000 2c000280 08000100 00000001 08000200 00000001 18000380 14000100 736b6570 30000000 \
             00000000 00000000 20000180 07000100 63740000 14000280 08000200 00000002 08000100 00000001 \
             44000180 0c000100 62697477 69736500 34000280 08000100 00000001 08000200 00000001 08000300 \
             00000004 0c000480 08000100 20000000 0c000580 08000100 00000000 2c000180 08000100 636d7000 \
             20000280 08000100 00000001 08000200 00000001 0c000380 08000100 00000000 20000180 07000100 \
             63740000 14000280 08000200 00000000 08000100 00000001 44000180 0c000100 62697477 69736500 \
             34000280 08000100 00000001 08000200 00000001 08000300 00000004 0c000480 08000100 06000000 \
             0c000580 08000100 00000000 2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 \
             00000001 0c000380 08000100 00000000 30000180 0e000100 696d6d65 64696174 65000000 1c000280 \
             08000100 00000000 10000280 0c000280 08000100 00000001"],
    );
}

#[test]
fn nothing_is_sent_for_an_empty_batch_and_only_the_last_change_is_acknowledged() {
    assert!(batch().seal(1).is_none());
    let mut batch = batch();
    batch.add_chain("a");
    batch.add_chain("b");
    let sealed = batch.seal(1).expect("it has messages");
    let flags: Vec<_> =
        crate::wire::messages(sealed.encoder.bytes()).map(|m| m.flags & socket::ACK).collect();
    assert_eq!(flags, [0, 0, socket::ACK, 0]);
    assert_eq!((sealed.first, sealed.last), (1, 3));
}

#[test]
fn more_elements_than_fit_one_message_are_split() {
    let mut batch = batch();
    let value = MapValue::Verdict(Verdict::Accept);
    let elements: Vec<_> =
        (0..1200).map(|n| (MapKey::Port { protocol: 6, port: n }, value.clone())).collect();
    batch.add_elements("m", &elements);
    let sealed = batch.seal(1).expect("it has messages");
    assert_eq!(sealed.messages, 4);
}
