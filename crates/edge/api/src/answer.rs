//! Answers: JSON, empty, streamed, or a connection taken over.
//!
//! In: values and streams. Out: what the connection sends. A streamed answer pulls from its source only as fast as the
//! client reads; dropping it (the client went away) drops the source.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::takeover::Takeover;

/// A body of ours. An error in a stream is sent as the stream's last piece or cuts the connection; it is never a body
/// error of its own.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a handler answers.
pub(crate) enum Answer {
    /// An HTTP response.
    Http(Response<Body>),
    /// The connection leaves HTTP.
    Takeover(Takeover),
}

/// Content type of every JSON answer. Source: moby, `httputils.WriteJSON`.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// 200 with a value as JSON and a newline, as Go's encoder writes it.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Answer, ApiError> {
    json_with(StatusCode::OK, value)
}

/// A value as JSON with another status.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Result<Answer, ApiError> {
    let mut bytes = serde_json::to_vec(value).map_err(ApiError::serialise)?;
    bytes.push(b'\n');
    Ok(Answer::Http(bytes_with(status, JSON, bytes)))
}

/// A ready response.
pub(crate) fn bytes_with(status: StatusCode, kind: HeaderValue, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::from(bytes).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    Answer::Http(response)
}

/// 200 and nothing else.
pub(crate) fn ok() -> Answer {
    empty(StatusCode::OK)
}

/// 204.
pub(crate) fn no_content() -> Answer {
    empty(StatusCode::NO_CONTENT)
}

/// 200 with pieces as they come; the head goes out at once.
pub(crate) fn stream(kind: HeaderValue, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let frames = pieces.map(|piece| Ok(Frame::data(piece)));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Answer::Http(response)
}

/// As [`stream`], ended when the daemon stops: for streams that could go on for ever.
pub(crate) fn stream_until(
    shutdown: &CancellationToken,
    kind: HeaderValue,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Answer {
    stream(kind, pieces.take_until(shutdown.clone().cancelled_owned()))
}

/// One value as a line of a JSON stream. Docker ends the lines of progress with `\r\n`.
pub(crate) fn line<T: Serialize>(value: &T, end: &'static [u8]) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("shapes of the API always serialise");
    bytes.extend_from_slice(end);
    Bytes::from(bytes)
}
