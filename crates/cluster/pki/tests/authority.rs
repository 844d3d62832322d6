//! The root, the certificates it signs, and chains over a change of root; `openssl` judges the same files.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::fs;

use common::{DAY, NINETY_DAYS, identity, now, openssl, openssl_ok};
use objects::{Nanos, NodeRole};
use pki::{Authority, GivenRootError, Identity, NodeKey, PkiError, Untrusted, facts, tls_info, verify};

#[test]
fn a_nodes_certificate_names_its_issuer_and_itself() {
    let authority = Authority::create(now()).unwrap();
    let identity = identity("nodeid", NodeRole::Manager);
    let issued = authority.issue(&identity, now(), NINETY_DAYS).unwrap();
    let (root, leaf) = (facts(&authority.certificate).unwrap(), facts(&issued.certificate).unwrap());
    assert_eq!(leaf.issuer, root.subject);
    assert_ne!(leaf.public_key, root.public_key);
    assert_eq!(Identity::of(&issued.certificate).unwrap(), identity);
    assert!((leaf.valid_until.0 - now().0 - NINETY_DAYS.0).abs() < 5_000_000_000);
    assert_eq!(root.valid_until.0 - root.valid_from.0, 630_720_000_000_000_000);
    assert!(issued.key.is_certified_by(&issued.certificate));
    assert!(!NodeKey::generate().unwrap().is_certified_by(&issued.certificate));
}

#[test]
fn a_certificate_is_back_dated_by_an_hour_and_by_no_more_than_it_lasts() {
    let authority = Authority::create(now()).unwrap();
    for (validity, life) in [(7_200, 10_800), (3_600, 7_200), (10, 20)] {
        let issued =
            authority.issue(&identity("n", NodeRole::Worker), now(), Nanos::from_secs(validity)).unwrap();
        let facts = facts(&issued.certificate).unwrap();
        assert_eq!(facts.valid_until.since(facts.valid_from), Nanos::from_secs(life));
    }
}

#[test]
fn the_roots_name_is_written_as_go_writes_it() {
    let authority = Authority::create(now()).unwrap();
    let name = facts(&authority.certificate).unwrap().subject;
    // Tag and length of a printable string. Source: Go, `crypto/x509/pkix`, by which `cfssl` signs.
    assert!(name.ends_with(b"\x13\x08swarm-ca"), "{name:?}");
    let issued = authority.issue(&identity("n", NodeRole::Worker), now(), NINETY_DAYS).unwrap();
    assert_eq!(facts(&issued.certificate).unwrap().issuer, name);
}

#[test]
fn only_who_has_the_key_gets_it_certified() {
    let authority = Authority::create(now()).unwrap();
    let identity = identity("n", NodeRole::Worker);
    let request = NodeKey::generate().unwrap().request().unwrap();
    assert!(authority.certify(&request, &identity, now(), NINETY_DAYS).is_ok());
    // Another body under the same signature, and no request at all.
    let other = NodeKey::generate().unwrap().request().unwrap();
    let (head, tail) = (&request[..request.len() / 2], &other[other.len() / 2..]);
    for bad in [[head, tail].concat(), request.replace("REQUEST", "RUMOUR"), String::new()] {
        let refused = authority.certify(&bad, &identity, now(), NINETY_DAYS);
        assert!(matches!(refused, Err(PkiError::Request(_))), "{bad}");
    }
}

#[test]
fn what_a_request_asks_for_beyond_a_key_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    openssl_ok(
        directory.path(),
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out csr \
         -subj /CN=somebody/OU=swarm-manager -addext basicConstraints=critical,CA:TRUE \
         -addext subjectAltName=DNS:swarm-manager -addext nsComment=odd",
    );
    let request = fs::read_to_string(directory.path().join("csr")).unwrap();
    let authority = Authority::create(now()).unwrap();
    let identity = identity("n", NodeRole::Worker);
    let chain = authority.certify(&request, &identity, now(), NINETY_DAYS).unwrap();
    assert_eq!(verify(&chain, &authority.certificate, now()).unwrap(), identity);
    fs::write(directory.path().join("crt"), &chain).unwrap();
    let text = openssl_ok(directory.path(), "x509 -in crt -noout -text");
    assert!(text.contains("CA:FALSE") && !text.contains("swarm-manager"), "{text}");
}

#[test]
fn openssl_accepts_a_managers_certificate_for_both_ends_of_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(now()).unwrap();
    let issued = authority.issue(&identity("nodeid", NodeRole::Manager), now(), NINETY_DAYS).unwrap();
    fs::write(directory.path().join("root"), &authority.certificate).unwrap();
    fs::write(directory.path().join("crt"), &issued.certificate).unwrap();
    for purpose in
        ["sslserver -verify_hostname swarm-manager", "sslserver -verify_hostname nodeid", "sslclient"]
    {
        openssl_ok(directory.path(), &format!("verify -x509_strict -CAfile root -purpose {purpose} crt"));
    }
    let wrong = "verify -CAfile root -purpose sslserver -verify_hostname swarm-worker crt";
    assert!(!openssl(directory.path(), wrong).status.success());
    let text = openssl_ok(directory.path(), "x509 -in crt -noout -text");
    for part in ["O = swarmid, OU = swarm-manager, CN = nodeid", "prime256v1", "CA:FALSE", "DNS:swarm-ca"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn old_and_new_root_both_trust_leaves_during_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::create(now()).unwrap(), Authority::create(now()).unwrap());
    let cross_signed = old.cross_sign(&new.certificate, now()).unwrap();
    let identity = identity("nodeid", NodeRole::Worker);
    let leaf = new.issue(&identity, now(), NINETY_DAYS).unwrap().certificate;
    let chain = leaf.clone() + &cross_signed;
    assert_eq!(verify(&chain, &old.certificate, now()), Ok(identity.clone()));
    assert_eq!(verify(&chain, &new.certificate, now()), Ok(identity));
    assert_eq!(verify(&leaf, &old.certificate, now()), Err(Untrusted::UnknownAuthority));
    let stranger = Authority::create(now()).unwrap();
    assert_eq!(verify(&chain, &stranger.certificate, now()), Err(Untrusted::UnknownAuthority));
    // The issuer that the API shows is the new root, whichever root is trusted.
    let shown = tls_info(&new.certificate, &new.certificate).unwrap();
    let seen = tls_info(&old.certificate, &chain).unwrap();
    assert_eq!(seen.cert_issuer_public_key, shown.cert_issuer_public_key);
    assert_eq!(seen.trust_root, old.certificate);

    for (name, text) in
        [("old", &old.certificate), ("new", &new.certificate), ("leaf", &leaf), ("cross", &cross_signed)]
    {
        fs::write(directory.path().join(name), text).unwrap();
    }
    openssl_ok(directory.path(), "verify -x509_strict -CAfile old -untrusted cross -purpose sslclient leaf");
    openssl_ok(directory.path(), "verify -x509_strict -CAfile new -purpose sslclient leaf");
    assert!(!openssl(directory.path(), "verify -CAfile old leaf").status.success());
}

#[test]
fn a_certificate_of_another_time_is_refused_with_both_clocks() {
    let authority = Authority::create(now()).unwrap();
    let issued = authority.issue(&identity("n", NodeRole::Worker), now(), NINETY_DAYS).unwrap();
    let late = now() + Nanos::from_secs(91 * DAY);
    let early = now() + Nanos::from_secs(-DAY);
    let expired = verify(&issued.certificate, &authority.certificate, late).unwrap_err();
    assert!(matches!(expired, Untrusted::Expired { .. }), "{expired}");
    let fresh = verify(&issued.certificate, &authority.certificate, early).unwrap_err();
    assert!(fresh.to_string().contains("is the clock right?"), "{fresh}");
}

#[test]
fn a_root_that_has_run_out_certifies_nobody() {
    let authority = Authority::create(now() + Nanos::from_secs(-21 * 365 * DAY)).unwrap();
    let leaf = authority.issue(&identity("n", NodeRole::Worker), now(), NINETY_DAYS).unwrap().certificate;
    let refused = verify(&leaf, &authority.certificate, now()).unwrap_err();
    assert!(matches!(refused, Untrusted::Expired { .. }), "{refused}");
}

#[test]
fn a_node_cannot_sign_for_others() {
    let authority = Authority::create(now()).unwrap();
    let node = authority.issue(&identity("n", NodeRole::Manager), now(), NINETY_DAYS).unwrap();
    let posing = Authority { certificate: node.certificate.clone(), key: node.key.pem().into() };
    let forged = posing.issue(&identity("forged", NodeRole::Manager), now(), NINETY_DAYS).unwrap();
    let chain = forged.certificate + &node.certificate;
    assert_eq!(verify(&chain, &authority.certificate, now()), Err(Untrusted::UnknownAuthority));
}

#[test]
fn roots_that_users_bring_sign_and_are_cross_signed() {
    let kinds = [
        ("ec -pkeyopt ec_paramgen_curve:P-256", "/CN=corp root"),
        ("ec -pkeyopt ec_paramgen_curve:P-384", "/C=CH/O=Example Ltd/OU=Security/CN=corp root"),
        ("rsa:2048", "/CN=corp root"),
        ("ed25519", "/CN=corp root/emailAddress=ca@example.org"),
    ];
    for (kind, subject) in kinds {
        let directory = tempfile::tempdir().unwrap();
        let subject = subject.replace(' ', "_");
        openssl_ok(
            directory.path(),
            &format!("req -x509 -newkey {kind} -nodes -keyout key -out root -days 800 -subj {subject}"),
        );
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let given =
            Authority::given(&read("root"), &read("key")).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let old = Authority::create(now()).unwrap();
        let cross_signed = old.cross_sign(&given.certificate, now()).unwrap();
        let identity = identity("n", NodeRole::Worker);
        let leaf = given.issue(&identity, now(), NINETY_DAYS).unwrap().certificate;
        let chain = leaf.clone() + &cross_signed;
        assert_eq!(verify(&chain, &old.certificate, now()), Ok(identity.clone()), "{kind}");
        assert_eq!(verify(&chain, &given.certificate, now()), Ok(identity), "{kind}");
        for (name, text) in [("old", &old.certificate), ("leaf", &leaf), ("cross", &cross_signed)] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        openssl_ok(directory.path(), "verify -CAfile old -untrusted cross -purpose sslclient leaf");
        openssl_ok(directory.path(), "verify -CAfile root -purpose sslclient leaf");
    }
}

#[test]
fn roots_that_cannot_sign_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 800";
    openssl_ok(directory.path(), &format!("{make} -keyout key -out root -subj /CN=root"));
    openssl_ok(
        directory.path(),
        &format!("{make} -keyout key2 -out multi -subj /CN=root+OU=x -multivalue-rdn"),
    );
    openssl_ok(directory.path(), &format!("{make} -keyout key4 -out twice -subj /OU=a/OU=b/CN=root"));
    let leaf = "-addext basicConstraints=critical,CA:FALSE";
    openssl_ok(directory.path(), &format!("{make} -keyout key3 -out leaf -subj /CN=leaf {leaf}"));
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let refused = |certificate: &str, key: &str| Authority::given(certificate, key).err().expect("a refusal");
    let (root, key) = (read("root"), read("key"));
    assert!(matches!(refused("", &key), GivenRootError::Certificate));
    assert!(matches!(refused("-----BEGIN CERTIFICATE-----\nMII=\n", &key), GivenRootError::Certificate));
    assert!(matches!(refused(&[root.as_str(), &root].concat(), &key), GivenRootError::Multiple));
    assert!(matches!(refused(&root, "no key"), GivenRootError::Key(_)));
    assert!(matches!(refused(&root, &read("key2")), GivenRootError::Mismatch));
    assert!(matches!(refused(&read("multi"), &read("key2")), GivenRootError::Name));
    assert!(matches!(refused(&read("twice"), &read("key4")), GivenRootError::Name));
    assert!(matches!(refused(&read("leaf"), &read("key3")), GivenRootError::NotAnAuthority));
    assert!(Authority::given(&root, "").is_ok());
    // The usual form does not depend on what is around the certificate.
    let untidy = format!("# our root\r\n{}", root.replace('\n', "\r\n"));
    assert_eq!(Authority::given(&untidy, &key).unwrap().certificate, root);
}
