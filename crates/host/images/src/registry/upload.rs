//! Sends blobs and manifests: whether they are there, mounts from other repositories, uploads.
//!
//! In: digests and files. Out: what the registry has afterwards. Never retries what failed: that is the caller's.
//! Source: OCI distribution specification, "Pushing blobs".

use std::io;
use std::path::Path;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::io::AsyncReadExt;

use super::session::Session;
use crate::errors::PullError;
use crate::ids::Digest;
use crate::index::Descriptor;

/// Bytes read at once. Chosen: large enough that a system call is rare.
const PIECE: usize = 128 * 1024;

/// How an upload begins.
pub(crate) enum Begun {
    /// The registry took the blob from the other repository.
    Mounted,
    /// Send it here.
    At(String),
}

impl Session {
    /// Whether the repository has the blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, PullError> {
        let url = self.url(&format!("blobs/{digest}"));
        match self.send(Method::HEAD, &url, &HeaderMap::new(), &|| None).await {
            Ok(_) => Ok(true),
            Err(PullError::ManifestUnknown { .. } | PullError::RepositoryUnknown { .. }) => Ok(false),
            Err(PullError::Registry { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins an upload; with `from`, asks for the blob of that repository first.
    pub(crate) async fn begin_upload(&self, digest: &Digest, from: Option<&str>) -> Result<Begun, PullError> {
        let mut url = self.url("blobs/uploads/");
        if let Some(from) = from {
            url.push_str(&format!("?mount={digest}&from={}", super::auth::percent_encode(from)));
        }
        let answer = self.send(Method::POST, &url, &HeaderMap::new(), &|| Some(Body::from(""))).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        location(&url, &answer).map(Begun::At)
    }

    /// Sends a file as the blob whose upload began at `location`. `report` is told how many bytes are read.
    pub(crate) async fn upload(
        &self,
        location: &str,
        blob: &Descriptor,
        path: &Path,
        report: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<(), PullError> {
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{joint}digest={}", super::auth::percent_encode(blob.digest.as_str()));
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(blob.size)),
        ]);
        let body = || Some(Body::wrap_stream(pieces(path.to_owned(), report.clone())));
        self.send(Method::PUT, &url, &headers, &body).await.map(drop)
    }

    /// Gives a manifest a tag; the digest the registry has for it.
    pub(crate) async fn put_manifest(
        &self,
        tag: &str,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Option<Digest>, PullError> {
        let url = self.url(&format!("manifests/{tag}"));
        let media_type = HeaderValue::try_from(&manifest.media_type)
            .map_err(|_| PullError::UnsupportedMediaType(manifest.media_type.clone()))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type)]);
        let body = || Some(Body::from(bytes.to_vec()));
        let answer = self.send(Method::PUT, &url, &headers, &body).await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        Ok(digest.and_then(|text| text.parse().ok()))
    }
}

/// Where the answer sends us; a relative address belongs to the one that was asked.
fn location(asked: &str, answer: &Response) -> Result<String, PullError> {
    let found = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let joined = found.and_then(|found| reqwest::Url::parse(asked).ok()?.join(found).ok());
    let joined = joined.map(String::from);
    joined.ok_or_else(|| PullError::Invalid(format!("{asked} began an upload without saying where")))
}

/// A file's bytes as they are read.
fn pieces(
    path: std::path::PathBuf,
    report: impl Fn(u64) + Send + 'static,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    let state = (None::<tokio::fs::File>, 0u64, path, report);
    futures_util::stream::try_unfold(state, async |(file, read, path, report)| {
        let mut file = match file {
            Some(file) => file,
            None => tokio::fs::File::open(&path).await?,
        };
        let mut piece = vec![0; PIECE];
        let n = file.read(&mut piece).await?;
        if n == 0 {
            return Ok(None);
        }
        piece.truncate(n);
        let read = read + n as u64;
        report(read);
        Ok(Some((Bytes::from(piece), (Some(file), read, path, report))))
    })
}
