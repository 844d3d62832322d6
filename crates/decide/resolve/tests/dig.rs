//! What the resolver answers, as `dig` would show it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use names::{Rows, View};
use proptest::prelude::*;
use resolve::relay::{self, Judgement};
use resolve::{Answer, Scope, TTL_S, Transport, Unknown, answer};

const KINDS: [(&str, u16); 7] =
    [("A", 1), ("PTR", 12), ("MX", 15), ("TXT", 16), ("AAAA", 28), ("OPT", 41), ("ANY", 255)];

/// A query as a stub resolver writes it.
fn query(name: &str, kind: &str) -> Vec<u8> {
    let kind = KINDS.iter().find(|(known, _)| *known == kind).unwrap().1;
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

fn with_edns(mut query: Vec<u8>, udp_bytes: u16, version: u8) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41]);
    query.extend(udp_bytes.to_be_bytes());
    query.extend([0, version, 0x80, 0, 0, 0]);
    query
}

fn read_name(bytes: &[u8], at: &mut usize) -> String {
    let mut name = String::new();
    let mut place = *at;
    let mut has_jumped = false;
    loop {
        let length = usize::from(bytes[place]);
        if length & 0xc0 == 0xc0 {
            if !has_jumped {
                *at = place + 2;
            }
            has_jumped = true;
            place = (length & 0x3f) << 8 | usize::from(bytes[place + 1]);
            continue;
        }
        place += 1;
        if length == 0 {
            if !has_jumped {
                *at = place;
            }
            return if name.is_empty() { ".".to_owned() } else { name };
        }
        name.push_str(std::str::from_utf8(&bytes[place..place + length]).unwrap());
        name.push('.');
        place += length;
    }
}

/// `CODE [tc] [edns] | name KIND value | …`
fn dig(bytes: &[u8]) -> String {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!((number(0), bytes[2] & 0x80, bytes[3] & 0x80), (0xabcd, 0x80, 0x80), "a reply to this query");
    let mut code = u16::from(bytes[3] & 0xf);
    let (mut lines, mut at, mut has_edns) = (Vec::new(), 12, false);
    for _ in 0..number(4) {
        read_name(bytes, &mut at);
        at += 4;
    }
    for _ in 0..number(6) + number(8) + number(10) {
        let name = read_name(bytes, &mut at);
        let (kind, length) = (number(at), usize::from(number(at + 8)));
        let value = &bytes[at + 10..at + 10 + length];
        let shown = match (kind, value) {
            (41, _) => {
                has_edns = true;
                code |= u16::from(bytes[at + 4]) << 4;
                at += 10 + length;
                continue;
            }
            (1, &[a, b, c, d]) => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
            (28, v6) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(v6).unwrap()).to_string(),
            (12, _) => read_name(bytes, &mut (at + 10)),
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes[at + 4..at + 8], TTL_S.to_be_bytes());
        let kind = KINDS.iter().find(|(_, number)| *number == kind).unwrap().0;
        lines.push(format!(" | {name} {kind} {shown}"));
        at += 10 + length;
    }
    assert_eq!(at, bytes.len(), "nothing behind the last record");
    let code = match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        16 => "BADVERS",
        other => panic!("code {other}"),
    };
    let flags = [(bytes[2] & 2 != 0, " tc"), (has_edns, " edns")];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
    format!("{code}{flags}{}", lines.concat())
}

/// Two networks; `web` is on both, `six` and `both` have IPv6, `big` has 100 addresses.
fn tables() -> [Vec<u8>; 2] {
    let mut front = Rows::new("front");
    let mut back = Rows::new("my_app.back");
    let add = |rows: &mut Rows, name: &str, address: &str| rows.add(name, address.parse().unwrap());
    add(&mut front, "web", "10.0.1.2");
    add(&mut front, "six", "fd00::6");
    add(&mut front, "both", "10.0.1.9");
    add(&mut front, "both", "fd00::9");
    for last in ["4", "5", "6"] {
        add(&mut front, "tasks.web", &format!("10.0.1.{last}"));
    }
    for last in 0..100 {
        add(&mut front, "big", &format!("10.0.9.{last}"));
    }
    front.add_reverse("10.0.1.4".parse().unwrap(), "web.1.x");
    front.add_reverse("fd00::9".parse().unwrap(), "both");
    add(&mut back, "web", "10.0.2.2");
    add(&mut back, "db", "10.0.2.3");
    add(&mut back, "six", "10.0.2.6");
    add(&mut back, "tasks.db", "10.0.2.4");
    back.add_reverse("10.0.2.4".parse().unwrap(), "db.1.y");
    [front.to_table(), back.to_table()]
}

fn ask(query: &[u8], unknown: Unknown, transport: Transport, rotation: u32) -> Answer {
    let tables = tables();
    let views = [View::read(&tables[0]).unwrap(), View::read(&tables[1]).unwrap()];
    answer(query, &Scope { tables: &views, unknown }, transport, rotation)
}

fn shown(answer: Answer) -> String {
    match answer {
        Answer::Reply(bytes) => dig(&bytes),
        Answer::Forward => "forward".to_owned(),
        Answer::Ignore => "ignore".to_owned(),
    }
}

fn check(name: &str, kind: &str, expect: &str) {
    let found = shown(ask(&query(name, kind), Unknown::Forward, Transport::Udp, 0));
    assert_eq!(found, expect, "{name} {kind}");
}

#[test]
fn names_of_every_network_are_known_in_whatever_case() {
    check("web", "A", "NOERROR | web. A 10.0.1.2");
    check("WeB.", "A", "NOERROR | WeB. A 10.0.1.2");
    check("db", "A", "NOERROR | db. A 10.0.2.3");
    check("tasks.db", "A", "NOERROR | tasks.db. A 10.0.2.4");
    check(
        "tasks.web",
        "A",
        "NOERROR | tasks.web. A 10.0.1.4 | tasks.web. A 10.0.1.5 | tasks.web. A 10.0.1.6",
    );
}

#[test]
fn a_network_behind_a_name_restricts_it() {
    check("web.front", "A", "NOERROR | web.front. A 10.0.1.2");
    check("web.my_app.back", "A", "NOERROR | web.my_app.back. A 10.0.2.2");
    check("tasks.db.MY_APP.back", "A", "NOERROR | tasks.db.MY_APP.back. A 10.0.2.4");
    check("db.front", "A", "forward");
    check("web.back", "A", "forward");
    check("front", "A", "forward");
}

#[test]
fn a_kind_of_address_that_a_known_name_lacks_is_an_empty_answer() {
    check("web", "AAAA", "NOERROR");
    check("web", "MX", "NOERROR");
    check("web", "TXT", "NOERROR");
    check("both", "AAAA", "NOERROR | both. AAAA fd00::9");
    check("both", "ANY", "NOERROR | both. A 10.0.1.9 | both. AAAA fd00::9");
    check("six", "AAAA", "NOERROR | six. AAAA fd00::6");
    check("six", "A", "NOERROR | six. A 10.0.2.6");
}

#[test]
fn addresses_lead_to_name_and_network() {
    check("4.1.0.10.in-addr.arpa", "PTR", "NOERROR | 4.1.0.10.in-addr.arpa. PTR web.1.x.front.");
    check("4.2.0.10.IN-ADDR.ARPA", "PTR", "NOERROR | 4.2.0.10.IN-ADDR.ARPA. PTR db.1.y.my_app.back.");
    let six = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    check(six, "PTR", &format!("NOERROR | {six}. PTR both.front."));
    check(six, "A", "forward");
    let unknown = [
        "9.9.9.9.in-addr.arpa",
        "1.0.10.in-addr.arpa",
        "a.1.0.10.in-addr.arpa",
        "in-addr.arpa",
        "1.ip6.arpa",
    ];
    for name in unknown {
        check(name, "PTR", "forward");
    }
}

#[test]
fn unknown_names_go_where_the_scope_says() {
    for name in ["example.com", "", "webs", "x.web"] {
        check(name, "A", "forward");
        let ask = |unknown| shown(ask(&query(name, "A"), unknown, Transport::Udp, 0));
        assert_eq!(ask(Unknown::NoSuchName), "NXDOMAIN");
        assert_eq!(ask(Unknown::Fail), "SERVFAIL");
    }
}

#[test]
fn several_addresses_take_turns() {
    let firsts: Vec<String> = (0..7)
        .map(|turn| shown(ask(&query("tasks.web", "A"), Unknown::Forward, Transport::Udp, turn)))
        .map(|shown| shown.split(" A ").nth(1).unwrap()[7..8].to_owned())
        .collect();
    assert_eq!(firsts.concat(), "4564564");
}

#[test]
fn a_long_answer_is_cut_to_what_the_client_takes() {
    let ask = |query: &[u8], transport| match ask(query, Unknown::Forward, transport, 0) {
        Answer::Reply(bytes) => (bytes.len(), dig(&bytes)),
        other => panic!("{other:?}"),
    };
    let plain = query("big", "A");
    for (query, transport, longest, count, is_cut) in [
        (plain.clone(), Transport::Udp, 512, 30, true),
        (with_edns(plain.clone(), 1232, 0), Transport::Udp, 1232, 75, true),
        (with_edns(plain.clone(), 100, 0), Transport::Udp, 512, 30, true),
        (with_edns(plain.clone(), 65535, 0), Transport::Udp, 4096, 100, false),
        (plain, Transport::Tcp, 65535, 100, false),
    ] {
        let (length, shown) = ask(&query, transport);
        assert!(length <= longest, "{length} of {longest}");
        assert_eq!((shown.matches(" A ").count(), shown.contains(" tc")), (count, is_cut));
        assert_eq!(shown.contains(" edns"), query[11] == 1);
    }
}

#[test]
fn queries_that_break_the_rules_are_told_so_and_replies_are_not_answered() {
    let change = |at: usize, byte: u8| {
        let mut query = query("web", "A");
        query[at] = byte;
        shown(ask(&query, Unknown::Forward, Transport::Udp, 0))
    };
    assert_eq!(change(2, 0x81), "ignore");
    assert_eq!(change(2, 0x28), "NOTIMP");
    assert_eq!(change(5, 0), "FORMERR");
    assert_eq!(change(5, 2), "FORMERR");
    assert_eq!(change(12, 0xc0), "FORMERR");
    assert_eq!(change(12, 99), "FORMERR");
    assert_eq!(change(11, 1), "FORMERR", "a record is promised and missing");
    assert_eq!(change(20, 3), "forward", "another class");
    let short = &query("web", "A")[..11];
    assert_eq!(ask(short, Unknown::Forward, Transport::Udp, 0), Answer::Ignore);
    let future = with_edns(query("web", "A"), 1232, 1);
    assert_eq!(shown(ask(&future, Unknown::Forward, Transport::Udp, 0)), "BADVERS edns");
    check(&"a.".repeat(130), "A", "FORMERR");
}

#[test]
fn a_label_with_a_dot_in_it_is_not_two_labels() {
    let mut bytes = query("tasks-web", "A");
    bytes[12 + 6] = b'.';
    assert_eq!(shown(ask(&bytes, Unknown::NoSuchName, Transport::Udp, 0)), "NXDOMAIN");
}

#[test]
fn answers_from_upstream_are_judged() {
    let query = query("example.com", "A");
    let respond = |change: fn(&mut Vec<u8>)| {
        let mut answer = query.clone();
        answer[2] |= 0x80;
        change(&mut answer);
        relay::judge(&answer, &query, 0xabcd)
    };
    assert_eq!(respond(|_| ()), Judgement::Good);
    assert_eq!(respond(|answer| answer[14] = b'y'), Judgement::Foreign);
    assert_eq!(respond(|answer| answer[14].make_ascii_uppercase()), Judgement::Good);
    assert_eq!(respond(|answer| answer[3] = 3), Judgement::Good);
    assert_eq!(respond(|answer| answer[3] = 2), Judgement::Failed);
    assert_eq!(respond(|answer| answer[3] = 5), Judgement::Failed);
    assert_eq!(respond(|answer| answer[2] = 0), Judgement::Foreign);
    assert_eq!(respond(|answer| answer.truncate(11)), Judgement::Foreign);
    assert_eq!(respond(|answer| relay::set_id(answer, 1)), Judgement::Foreign);
    let without_question = |answer: &mut Vec<u8>| {
        answer.truncate(12);
        answer[5] = 0;
    };
    assert_eq!(respond(without_question), Judgement::Foreign);
    let mut refusal = query.clone();
    without_question(&mut refusal);
    refusal[2..4].copy_from_slice(&[0x80, 1]);
    assert_eq!(relay::judge(&refusal, &query, relay::id(&query)), Judgement::Failed);
}

#[test]
fn there_is_a_reply_of_our_own_where_others_have_none() {
    let query = with_edns(query("example.com", "A"), 1232, 0);
    assert_eq!(dig(&relay::failure(&query).unwrap()), "SERVFAIL edns");
    assert_eq!(dig(&relay::truncated(&query).unwrap()), "NOERROR tc edns");
    assert_eq!(relay::failure(b"nonsense"), None);
}

/// Everything that is done with bytes from outside.
fn handle(bytes: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        if let Answer::Reply(reply) = ask(bytes, Unknown::Forward, transport, 7) {
            assert!(reply[..2] == bytes[..2] && reply[2] & 0x80 != 0 && reply.len() >= 12);
            assert!(transport == Transport::Tcp || reply.len() <= 4096);
        }
    }
    let _ = (relay::failure(bytes), relay::truncated(bytes), relay::judge(bytes, &query("web", "A"), 0xabcd));
    let _ = relay::judge(&query("web", "A"), bytes, 0xabcd);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        handle(&bytes);
    }

    #[test]
    fn no_damaged_query_does_harm(
        name in "[a-z0-9.]{0,80}",
        kind in prop::sample::select(vec!["A", "AAAA", "PTR", "ANY"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = with_edns(query(&name, kind), 600, 0);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        handle(&bytes);
        bytes.truncate(length.index(bytes.len() + 1));
        handle(&bytes);
    }
}
