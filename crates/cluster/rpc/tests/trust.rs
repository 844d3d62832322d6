//! Who may talk to whom: foreign, expired, removed, renewed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use objects::NodeRole;
use rpc::{CallError, Client, Credentials, Distrust, ServerOptions, Tls};
use support::{Command, Count, DAY, Echo, Hail, LIMIT, Prove, Swarm, echo, in_time, now, serve, serve_with};
use wire::{Code, Method};

async fn refused<M: Method<Request = support::Text>>(client: &Client, address: &str) -> (Code, String)
where
    M::Response: std::fmt::Debug,
{
    match client.call::<M>(address, &"5".into(), LIMIT).await {
        Err(CallError::Refused(refusal)) => (refusal.code, refusal.message),
        other => panic!("not refused: {other:?}"),
    }
}

async fn distrust(client: &Client, address: &str) -> rpc::Untrusted {
    match echo(client, address).await {
        Err(CallError::Untrusted(untrusted)) => untrusted,
        other => panic!("trusted: {other:?}"),
    }
}

#[tokio::test]
async fn each_role_calls_what_it_may() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let address = &running.address;

    let manager = Client::new(swarm.manager("n"));
    assert_eq!(manager.call::<Command>(address, &"2".into(), LIMIT).await.unwrap().text, "xx");

    let worker = Client::new(swarm.worker("w"));
    let (code, text) = refused::<Command>(&worker, address).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(text.ends_with("remote certificate not part of OUs: [swarm-manager]"), "{text}");

    let joiner = Client::new(Tls::joining(&swarm.authority.certificate).unwrap());
    assert_eq!(joiner.call::<Hail>(address, &"hi".into(), LIMIT).await.unwrap().text, " says hi");
    for (code, text) in [refused::<Prove>(&joiner, address).await, refused::<Echo>(&joiner, address).await] {
        assert_eq!(code, Code::PermissionDenied);
        assert!(text.ends_with("no client certificates in request"), "{text}");
    }
}

#[tokio::test]
async fn only_managers_are_called() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.worker("w"));
    let untrusted = distrust(&Client::new(swarm.worker("v")), &running.address).await;
    assert_eq!(untrusted.why, Distrust::NotManager { names: "swarm-worker, w".to_owned() });
    assert_eq!(
        untrusted.to_string(),
        format!("{}: x509: certificate is valid for swarm-worker, w, not swarm-manager", running.address)
    );
}

#[tokio::test]
async fn another_swarms_manager_is_not_trusted() {
    let (ours, theirs) = (Swarm::new("ours"), Swarm::new("theirs"));
    let running = serve(theirs.manager("m"));
    for tls in [ours.worker("w"), Tls::joining(&ours.authority.certificate).unwrap()] {
        let untrusted = distrust(&Client::new(tls), &running.address).await;
        assert_eq!(untrusted.why, Distrust::Foreign);
        assert_eq!(
            untrusted.to_string(),
            format!("{}: x509: certificate signed by unknown authority", running.address)
        );
    }
}

#[tokio::test]
async fn another_swarms_node_is_told_that_it_is_not_trusted() {
    let (ours, theirs) = (Swarm::new("ours"), Swarm::new("theirs"));
    let running = serve(ours.manager("m"));
    // It trusts our manager, who does not trust it.
    let credentials = theirs.credentials("w", NodeRole::Manager, 0);
    let tls = Tls::new(&Credentials { roots: ours.authority.certificate.clone(), ..credentials }).unwrap();
    let failed = Client::new(tls).call::<Hail>(&running.address, &"x".into(), LIMIT).await.unwrap_err();
    let CallError::Untrusted(untrusted) = failed else { panic!("{failed:?}") };
    // It finds the other name first: the certificate says `ours`.
    assert_eq!(
        untrusted.why,
        Distrust::OtherSwarm { found: "ours".to_owned(), expected: "theirs".to_owned() }
    );
}

/// Twenty times: what the server says must arrive though it closes the connection at once.
#[tokio::test]
async fn the_alert_of_a_server_arrives() {
    let ours = Swarm::new("swarm");
    let theirs = Swarm::new("swarm");
    let running = serve(ours.manager("m"));
    let credentials = theirs.credentials("w", NodeRole::Manager, 0);
    let tls = Tls::new(&Credentials { roots: ours.authority.certificate.clone(), ..credentials }).unwrap();
    for _ in 0..20 {
        let untrusted = distrust(&Client::new(tls.clone()), &running.address).await;
        let Distrust::NotTrustedThere { alert } = &untrusted.why else { panic!("{untrusted}") };
        assert!(alert == "unknown certificate authority" || alert == "error decrypting message", "{alert}");
    }
}

#[tokio::test]
async fn one_authority_does_not_make_two_swarms_one() {
    let ours = Swarm::new("ours");
    let theirs = Swarm { authority: ours.authority.clone(), name: "theirs" };
    let running = serve(ours.manager("m"));
    let untrusted = distrust(&Client::new(theirs.manager("n")), &running.address).await;
    assert_eq!(
        untrusted.why,
        Distrust::OtherSwarm { found: "ours".to_owned(), expected: "theirs".to_owned() }
    );
}

#[tokio::test]
async fn a_node_whose_certificate_has_run_out_may_only_prove_itself() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let expired = Tls::new(&swarm.credentials("w", NodeRole::Worker, -40 * DAY)).unwrap();
    let client = Client::new(expired);
    let answer = client.call::<Prove>(&running.address, &"here".into(), LIMIT).await.unwrap();
    assert_eq!(answer.text, "expired w says here");
    let (code, text) = refused::<Echo>(&client, &running.address).await;
    assert_eq!(code, Code::Unauthenticated);
    let expected = "x509: certificate of node w has expired or is not yet valid: current time ";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn a_node_from_the_future_is_refused_with_both_times() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(Tls::new(&swarm.credentials("w", NodeRole::Worker, DAY)).unwrap());
    let (code, text) = refused::<Prove>(&client, &running.address).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(text.contains(" is before "), "{text}");
}

#[tokio::test]
async fn a_manager_out_of_its_time_is_refused_and_the_clocks_are_compared() {
    let swarm = Swarm::new("swarm");
    for from in [-40 * DAY, DAY] {
        let running = serve(Tls::new(&swarm.credentials("m", NodeRole::Manager, from)).unwrap());
        let client = Client::new(swarm.worker("w"));
        let untrusted = distrust(&client, &running.address).await;
        match untrusted.why {
            Distrust::Expired { end, .. } => assert!(from < 0 && end < now()),
            Distrust::NotYetValid { start, .. } => assert!(from > 0 && start > now()),
            ref other => panic!("{other}"),
        }
        let offset = untrusted.offset.expect("it told the time");
        assert!(offset.0.abs() < 2_000_000_000, "{offset:?}");
        let text = untrusted.to_string();
        assert!(text.contains("x509: certificate has expired or is not yet valid: current time "), "{text}");
        assert!(text.contains(&format!("the clock of {} is 0 s ", running.address)), "{text}");
        assert!(!client.is_connected(&running.address));
    }
}

#[tokio::test]
async fn a_removed_node_is_refused_whatever_it_asks() {
    let swarm = Swarm::new("swarm");
    let options = ServerOptions {
        refuse: Arc::new(|peer, _| (peer.node.as_str() == "gone").then_some(rpc::Unwelcome::Removed)),
        ..ServerOptions::default()
    };
    let running = serve_with(swarm.manager("m"), (Ipv4Addr::LOCALHOST, 0).into(), options);
    let gone = Client::new(swarm.worker("gone"));
    for (code, text) in [
        refused::<Hail>(&gone, &running.address).await,
        refused::<Prove>(&gone, &running.address).await,
        refused::<Echo>(&gone, &running.address).await,
    ] {
        assert_eq!(
            (code, text.as_str()),
            (Code::PermissionDenied, "Permission denied: node has been removed from the swarm")
        );
    }
    assert_eq!(echo(&Client::new(swarm.worker("w")), &running.address).await.unwrap(), "w says hello");
}

#[tokio::test]
async fn a_renewed_identity_is_used_for_new_calls_and_drops_no_stream() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let mut departures = running.server.visitors().departures();
    let tls = swarm.worker("before");
    let client = Client::new(tls.clone());
    let address = running.address.clone();
    let mut stream = client.stream::<Count>(&address, &"3".into(), LIMIT).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 0);
    assert_eq!(echo(&client, &address).await.unwrap(), "before says hello");

    tls.replace(&swarm.credentials("after", NodeRole::Manager, 0)).unwrap();
    assert_eq!(tls.own().unwrap().node.as_str(), "after");
    assert_eq!(echo(&client, &address).await.unwrap(), "after says hello");
    assert_eq!(client.call::<Command>(&address, &"1".into(), LIMIT).await.unwrap().text, "x");
    for expected in [1, 2] {
        assert_eq!(stream.next().await.unwrap().unwrap(), expected);
    }
    // The old connection is over when its last stream is.
    assert!(departures.try_recv().is_err());
    drop(stream);
    assert_eq!(running.line().await, "stream dropped");
    assert_eq!(in_time(departures.recv()).await.unwrap().as_str(), "before");
    assert!(client.is_connected(&address));
}

#[tokio::test]
async fn a_servers_renewed_identity_counts_from_the_next_connection_on() {
    let swarm = Swarm::new("swarm");
    let tls = swarm.manager("before");
    let running = serve(tls.clone());
    let client = Client::new(swarm.worker("w"));
    let mut stream = client.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    tls.replace(&swarm.credentials("after", NodeRole::Manager, 0)).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 0);
    client.forget(&running.address);
    let again = client.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    assert_eq!(again.peer().unwrap().node.as_str(), "after");
    assert_eq!(stream.peer().unwrap().node.as_str(), "before");
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_connection_made_with_a_certificate_that_has_run_out_meanwhile_costs_no_call() {
    let swarm = Swarm::new("swarm");
    let old = swarm.credentials("m", NodeRole::Manager, 2 - 30 * DAY);
    let end = pki::facts(&old.certificate).unwrap().valid_until;
    let tls = Tls::new(&old).unwrap();
    let running = serve(tls.clone());
    let client = Client::new(swarm.worker("w"));
    let first = client.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    tls.replace(&swarm.credentials("m", NodeRole::Manager, 0)).unwrap();
    while now() <= end {
        echo(&client, &running.address).await.unwrap();
        tokio::task::yield_now().await;
    }
    let next = client.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    assert_eq!(first.peer().unwrap().not_after, end);
    assert!(next.peer().unwrap().not_after > end, "another connection, not an error");
}

#[tokio::test]
async fn during_a_rotation_both_roots_are_trusted() {
    let old = Swarm::new("swarm");
    let new = Swarm::new("swarm");
    let both = format!("{}{}", old.authority.certificate, new.authority.certificate);
    let with_both =
        |credentials: Credentials| Tls::new(&Credentials { roots: both.clone(), ..credentials }).unwrap();
    let running = serve(with_both(new.credentials("m", NodeRole::Manager, 0)));
    let client = Client::new(with_both(old.credentials("w", NodeRole::Worker, 0)));
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");

    // A node that only knows the old root follows the cross-signed certificate to it.
    let cross = old.authority.cross_sign(&new.authority.certificate, now()).unwrap();
    let crossed = |mut credentials: Credentials| {
        credentials.certificate += &cross;
        with_both(credentials)
    };
    let running = serve(crossed(new.credentials("m", NodeRole::Manager, 0)));
    let client = Client::new(old.worker("w"));
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
    let running = serve(old.manager("m"));
    let client = Client::new(crossed(new.credentials("w", NodeRole::Worker, 0)));
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
}

#[tokio::test]
async fn connections_of_a_node_can_be_closed() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let mut departures = running.server.visitors().departures();
    let (one, two) = (Client::new(swarm.worker("one")), Client::new(swarm.worker("two")));
    let mut first = one.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    let mut second = two.stream::<Count>(&running.address, &"3".into(), LIMIT).await.unwrap();
    for stream in [&mut first, &mut second] {
        for expected in 0..3 {
            assert_eq!(stream.next().await.unwrap().unwrap(), expected);
        }
    }
    running.server.visitors().disconnect(|peer| peer.node.as_str() == "one");
    assert!(in_time(first.next()).await.unwrap().is_err());
    in_time(one.disconnected(&running.address)).await;
    assert_eq!(in_time(departures.recv()).await.unwrap().as_str(), "one");
    assert!(two.is_connected(&running.address));
    let next = tokio::time::timeout(Duration::from_millis(20), second.next()).await;
    assert!(next.is_err(), "the other one's stream goes on");
}

#[test]
fn credentials_that_do_not_fit_are_refused() {
    let swarm = Swarm::new("swarm");
    let good = swarm.credentials("w", NodeRole::Worker, 0);
    let other = swarm.credentials("w", NodeRole::Worker, 0);
    let root = swarm.authority.certificate.clone();
    for (what, bad) in [
        ("another key", Credentials { key: other.key.clone(), ..good.clone() }),
        ("no key", Credentials { key: String::new(), ..good.clone() }),
        ("no certificate", Credentials { certificate: String::new(), ..good.clone() }),
        ("a root as certificate", Credentials { certificate: root, ..good.clone() }),
        ("no roots", Credentials { roots: String::new(), ..good.clone() }),
    ] {
        let tls = Tls::new(&bad);
        assert!(tls.is_err(), "{what}");
        assert!(!format!("{:?}", tls.err()).contains("PRIVATE"), "{what}");
    }
    assert!(!format!("{good:?}").contains("PRIVATE"));
    assert!(Tls::new(&good).is_ok());
}
