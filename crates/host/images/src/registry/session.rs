//! One conversation with one registry about one repository.
//!
//! In: tags and digests. Out: documents checked against their digest, and streams of blobs from any offset. Answers
//! challenges once per request and keeps the proof. Never retries what failed: that is the caller's.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use docker::{AuthConfig, Reference};
use futures_util::{Stream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};

use super::auth::{self, Proof};
use super::endpoint::Endpoint;
use super::failure::{Refusal, transport};
use crate::errors::PullError;
use crate::ids::Digest;
use crate::manifest;

/// Longest manifest or index. Source: distribution, `registry/handlers`, `maxManifestBodySize`.
const MAX_MANIFEST: usize = 4 << 20;
/// Longest image config. Chosen: labels and history of the largest images have some hundred kilobytes.
const MAX_CONFIG: usize = 16 << 20;
/// Longest error text that is read.
const MAX_ERROR: usize = 64 << 10;

/// A conversation. Shared by the layers of one pull.
pub(crate) struct Session {
    endpoint: Endpoint,
    reference: Reference,
    credentials: Option<AuthConfig>,
    proof: Mutex<Option<Proof>>,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) media_type: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// The bytes of a blob from `offset` on.
pub(crate) struct BlobStream {
    /// Where the stream begins; 0 when the registry does not resume.
    pub(crate) offset: u64,
    pub(crate) chunks: Pin<Box<dyn Stream<Item = Result<Bytes, PullError>> + Send>>,
}

/// Why an answer's body was not read.
pub(crate) enum ReadError {
    TooLong,
    Http(reqwest::Error),
}

impl ReadError {
    pub(crate) fn into_error(self, method: &'static str, url: &str) -> PullError {
        match self {
            ReadError::TooLong => PullError::Invalid(format!("answer of {url} is too long")),
            ReadError::Http(e) => transport(method, url, &e),
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn read_limited(mut answer: Response, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ReadError::Http)? {
        if body.len() + chunk.len() > limit {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Session {
    /// A conversation about `reference`; nothing is sent yet.
    pub(crate) fn new(endpoint: Endpoint, reference: Reference, credentials: Option<AuthConfig>) -> Session {
        // A mirror is somebody else: the user's password for Docker Hub is none of its business.
        let credentials = if endpoint.is_mirror { None } else { credentials };
        Session { endpoint, reference, credentials, proof: Mutex::default() }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The digest the registry has for a tag, without fetching it: that does not count against pull limits.
    /// `None` if the registry does not say.
    pub(crate) async fn head(&self, target: &str) -> Result<Option<Digest>, PullError> {
        let answer = self.request(Method::HEAD, &self.manifest_url(target), &accept()).await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        Ok(digest.and_then(|text| text.parse().ok()))
    }

    /// The manifest or index a tag or digest stands for; a digest is checked.
    pub(crate) async fn manifest(&self, target: &str) -> Result<Found, PullError> {
        let url = self.manifest_url(target);
        let answer = self.request(Method::GET, &url, &accept()).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
        let bytes = read_limited(answer, MAX_MANIFEST).await.map_err(|e| e.into_error("Get", &url))?;
        let digest = Digest::of(&bytes);
        if let Ok(expected) = target.parse::<Digest>()
            && expected != digest
        {
            return Err(PullError::WrongDigest { what: "manifest", expected, found: digest });
        }
        Ok(Found { digest, media_type, bytes })
    }

    /// A small blob in full, checked.
    pub(crate) async fn config(&self, digest: &Digest) -> Result<Vec<u8>, PullError> {
        let url = self.blob_url(digest);
        let answer = self.request(Method::GET, &url, &HeaderMap::new()).await?;
        let bytes = read_limited(answer, MAX_CONFIG).await.map_err(|e| e.into_error("Get", &url))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(PullError::WrongDigest { what: "image config", expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// A blob from `offset` on, not checked.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobStream, PullError> {
        let url = self.blob_url(digest);
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-")).expect("digits are a header value");
            headers.insert(RANGE, range);
        }
        let answer = self.request(Method::GET, &url, &headers).await?;
        let is_resumed =
            answer.status() == StatusCode::PARTIAL_CONTENT && begins_at(answer.headers(), offset);
        let chunks = answer.bytes_stream();
        let chunks = chunks.map(move |chunk| chunk.map_err(|e| transport("Get", &url, &e)));
        Ok(BlobStream { offset: if is_resumed { offset } else { 0 }, chunks: Box::pin(chunks) })
    }

    /// Whether an address is the registry's own.
    fn is_at_home(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint.base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    fn manifest_url(&self, target: &str) -> String {
        format!("{}/v2/{}/manifests/{target}", self.endpoint.base, self.reference.path)
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.endpoint.base, self.reference.path)
    }

    async fn request(&self, method: Method, url: &str, headers: &HeaderMap) -> Result<Response, PullError> {
        self.send(method, url, headers, &|| None).await
    }

    /// The address of something in this repository.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.endpoint.base, self.reference.path)
    }

    /// Sends a request, proving who asks if the registry wants to know. An answer that is no success is an error.
    /// `body` makes the body anew for each attempt.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: &(dyn Fn() -> Option<reqwest::Body> + Sync),
    ) -> Result<Response, PullError> {
        let verb = verb(&method);
        let mut has_answered = false;
        loop {
            let mut request = self.endpoint.client.request(method.clone(), url).headers(headers.clone());
            if let Some(body) = body() {
                request = request.body(body);
            }
            let proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A registry may send uploads elsewhere: the proof is not for others.
            if let Some(proof) = proof.as_ref().filter(|_| self.is_at_home(url)) {
                request = proof.put_on(request);
            }
            let answer = request.send().await.map_err(|e| transport(verb, url, &e))?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            let status = answer.status();
            let wanted: Vec<String> = answer
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|v| v.to_str().ok().map(str::to_owned))
                .collect();
            // The body of an error is for people; if it does not come, the status says enough.
            let body = read_limited(answer, MAX_ERROR).await.unwrap_or_default();
            let refusal = Refusal { method: verb, url: url.to_owned(), status, body };
            let challenge = auth::challenges(wanted.iter().map(String::as_str)).into_iter().next();
            // A proof may have expired since it was given: one new one is tried per request.
            let Some(challenge) = challenge.filter(|_| status == StatusCode::UNAUTHORIZED && !has_answered)
            else {
                return Err(refusal.into_error(&self.reference));
            };
            has_answered = true;
            let path = &self.reference.path;
            let proof =
                auth::answer(&self.endpoint, path, self.credentials.as_ref(), &challenge, &refusal).await?;
            *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
        }
    }
}

/// As Go prints methods.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        Method::PUT => "Put",
        Method::PATCH => "Patch",
        Method::DELETE => "Delete",
        _ => "Get",
    }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))])
}

/// Whether `Content-Range` says what was asked for: a confused proxy must not shift a layer's bytes.
fn begins_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    range
        .strip_prefix("bytes ")
        .and_then(|r| r.split_once('-'))
        .is_some_and(|(from, _)| from.parse() == Ok(offset))
}
