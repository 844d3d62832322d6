//! What is asked of an authority outside of the swarm, and what of its answers is believed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::outside::{Manner, Outside, outside};
use common::{identity, now};
use objects::{NodeRole, RootRotation};
use pki::{Authority, ExternalUrls, NodeKey, SignError, Signer, facts, verify};

async fn sign_with(outside: &Outside) -> Result<String, SignError> {
    let request = NodeKey::generate().unwrap().request().unwrap();
    let identity = identity("nodeid", NodeRole::Worker);
    Signer::of(&outside.cluster()).sign(&outside.client(), &request, &identity, now()).await
}

#[tokio::test]
async fn an_authority_outside_certifies_nodes() {
    let outside = outside(Manner::Honest).await;
    let chain = sign_with(&outside).await.unwrap();
    assert_eq!(verify(&chain, &outside.root(), now()).unwrap(), identity("nodeid", NodeRole::Worker));
}

#[tokio::test]
async fn what_an_authority_outside_signs_is_checked() {
    for manner in [Manner::SignsForAnother, Manner::SignsAnotherKey] {
        let signed = sign_with(&outside(manner).await).await;
        assert!(matches!(signed, Err(SignError::Foreign)), "{signed:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_authoritys_words() {
    let refused = sign_with(&outside(Manner::Refuses).await).await.unwrap_err().to_string();
    assert!(refused.contains("policy (code 5300)"), "{refused}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let refused = sign_with(&outside(Manner::TalksForever).await).await.unwrap_err().to_string();
    assert!(refused.contains("is too long"), "{refused}");
}

#[tokio::test]
async fn only_an_authority_of_its_root_counts_as_reachable() {
    let (ours, other) = (outside(Manner::Honest).await, outside(Manner::Honest).await);
    let cluster = ours.cluster();
    ours.client().check_reachable(&ExternalUrls::of(&cluster, &ours.root())).await.unwrap();
    // It listens, but another root certifies it.
    let mut stranger = cluster.clone();
    stranger.spec.ca_config.external_cas[0].url = other.url();
    assert!(ours.client().check_reachable(&ExternalUrls::of(&stranger, &ours.root())).await.is_err());
    let mut plain = cluster.clone();
    plain.spec.ca_config.external_cas[0].url = ours.url().replace("https", "http");
    assert!(ours.client().check_reachable(&ExternalUrls::of(&plain, &ours.root())).await.is_err());
    assert!(ExternalUrls::of(&cluster, &other.root()).is_empty());
}

#[tokio::test]
async fn nobody_signs_for_a_root_without_key_and_authority() {
    let outside = outside(Manner::Honest).await;
    let mut cluster = outside.cluster();
    cluster.spec.ca_config.external_cas.clear();
    let request = NodeKey::generate().unwrap().request().unwrap();
    let identity = identity("nodeid", NodeRole::Worker);
    let signed = Signer::of(&cluster).sign(&outside.client(), &request, &identity, now()).await;
    assert!(matches!(signed, Err(SignError::Nobody)));
}

#[tokio::test]
async fn a_swarm_returns_from_an_authority_outside_to_its_own_root() {
    let outside = outside(Manner::Honest).await;
    let mut cluster = outside.cluster();
    let new = Authority::create(now()).unwrap();
    let urls = ExternalUrls::of(&cluster, &outside.root());
    let cross_signed = outside.client().cross_sign(&urls, &new, now()).await.unwrap();
    assert_eq!(facts(&cross_signed).unwrap().subject, facts(&new.certificate).unwrap().subject);
    let (certificate, key) = (new.certificate.clone(), new.key.clone());
    cluster.internal.root_rotation =
        Some(RootRotation { ca_certificate: certificate, ca_key: key, cross_signed });

    let request = NodeKey::generate().unwrap().request().unwrap();
    let worker = identity("nodeid", NodeRole::Worker);
    let signer = Signer::of(&cluster);
    let chain = signer.sign(&outside.client(), &request, &worker, now()).await.unwrap();
    assert_eq!(verify(&chain, &outside.root(), now()), Ok(worker.clone()));
    assert_eq!(verify(&chain, &new.certificate, now()), Ok(worker));
    assert_eq!(signer.trusted(), outside.root() + &new.certificate);
}
