//! Speaks HTTP with the daemon, over its unix socket or TCP.
//!
//! In: a method, a path, a body. Out: JSON, a stream of bytes, or a hijacked connection. One connection per request:
//! the socket is local and a connection costs microseconds.

use crate::CliError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Newest API version that this client was written for; the daemon of the same release speaks it.
pub const API_VERSION: &str = "1.51";
/// Where the daemon listens unless told otherwise. Source: docker/cli `opts/hosts.go`.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// An error body longer than this is cut. chosen: a message is a line or two.
const ERROR_BODY_MAX: usize = 64 * 1024;

type Body =
    Either<Full<Bytes>, StreamBody<futures_util::stream::BoxStream<'static, io::Result<Frame<Bytes>>>>>;

/// A connection after `101 UPGRADED`.
pub type Hijacked = TokioIo<hyper::upgrade::Upgraded>;

#[derive(Debug, Clone)]
enum Host {
    Unix(PathBuf),
    Tcp(String),
}

/// One daemon to talk to.
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
    shown: String,
}

/// A request under construction.
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

impl Client {
    /// Takes `unix:///path`, `tcp://host:port` or `http://host:port`.
    ///
    /// # Errors
    /// When the address has another form.
    pub fn new(host: &str) -> Result<Client, CliError> {
        let parsed = if let Some(path) = host.strip_prefix("unix://") {
            Host::Unix(PathBuf::from(path))
        } else if let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) {
            Host::Tcp(address.trim_end_matches('/').to_owned())
        } else {
            return Err(CliError::new(format!("unable to parse docker host `{host}`")));
        };
        Ok(Client { host: parsed, shown: host.to_owned() })
    }

    /// Starts a request for `path` below the API version.
    pub fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call {
            client: self,
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Either::Left(Full::default()),
        }
    }

    /// Starts a GET.
    pub fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::GET, path)
    }

    /// Starts a POST.
    pub fn post(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::POST, path)
    }

    /// Starts a DELETE.
    pub fn delete(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, CliError> {
        match &self.host {
            Host::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, request).await
            }
            Host::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, request).await
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> CliError {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return CliError::new(format!(
                "permission denied while trying to connect to the Docker daemon socket at {}: {error}",
                self.shown
            ));
        }
        CliError::new(format!(
            "Cannot connect to the Docker daemon at {}. Is the docker daemon running?\nStart one with `skep daemon`.",
            self.shown
        ))
    }

    async fn exchange<S>(&self, stream: S, request: Request<Body>) -> Result<Response<Incoming>, CliError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| CliError::new(format!("error during connect: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The connection ends with the response body; the process ends soon after, so nobody waits for this task.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(broken)
    }
}

impl Call<'_> {
    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds a query parameter if `value` is there and not empty.
    #[must_use]
    pub fn query_some(self, key: &str, value: Option<impl ToString>) -> Self {
        match value.map(|value| value.to_string()).filter(|value| !value.is_empty()) {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// Adds `key=1` if `on`.
    #[must_use]
    pub fn flag(self, key: &str, on: bool) -> Self {
        if on { self.query(key, "1") } else { self }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends `body` as JSON.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("the client's own values serialise");
        self.headers.push(("content-type", "application/json".to_owned()));
        self.body = Either::Left(Full::new(Bytes::from(text)));
        self
    }

    /// Sends a stream of bytes as `content_type`.
    #[must_use]
    pub fn stream<S>(mut self, content_type: &str, stream: S) -> Self
    where
        S: futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        use futures_util::StreamExt as _;
        self.headers.push(("content-type", content_type.to_owned()));
        self.body = Either::Right(StreamBody::new(stream.map(|part| part.map(Frame::data)).boxed()));
        self
    }

    /// Sends the request; a status of 400 or more is an error with the daemon's message.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub async fn send(self) -> Result<Response<Incoming>, CliError> {
        let response = self.client.send(self.request()?).await?;
        if response.status().as_u16() < 400 { Ok(response) } else { Err(refusal(response).await) }
    }

    fn request(self) -> Result<Request<Body>, CliError> {
        let mut uri = format!("/v{API_VERSION}{}", self.path);
        for (at, (key, value)) in self.query.iter().enumerate() {
            uri.push(if at == 0 { '?' } else { '&' });
            uri.push_str(&format!("{key}={}", escape(value)));
        }
        let mut request = Request::builder().method(self.method).uri(uri).header("host", "docker");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(self.body).map_err(|error| CliError::new(format!("request cannot be built: {error}")))
    }

    /// Sends the request and reads the answer as JSON; an empty answer is null.
    ///
    /// # Errors
    /// As [`Call::send`], and when the answer is not JSON.
    pub async fn value(self) -> Result<Value, CliError> {
        let text = self.text().await?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| CliError::new(format!("the daemon's answer is not JSON: {error}")))
    }

    /// Sends the request and reads the answer as text.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn text(self) -> Result<String, CliError> {
        let response = self.send().await?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| CliError::new(format!("read answer: {error}")))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    /// Asks for a hijacked connection.
    ///
    /// # Errors
    /// As [`Call::send`], and when the daemon does not switch protocols.
    pub async fn hijack(self) -> Result<Hijacked, CliError> {
        let response = self.header("connection", "Upgrade").header("upgrade", "tcp").send().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(CliError::new(format!("unable to upgrade to tcp, received {}", response.status())));
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded
            .map(TokioIo::new)
            .map_err(|error| CliError::new(format!("unable to upgrade to tcp: {error}")))
    }
}

async fn refusal(response: Response<Incoming>) -> CliError {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ERROR_BODY_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|value| value["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| if text.is_empty() { status.to_string() } else { text });
    CliError {
        status: Some(status.as_u16()),
        ..CliError::new(format!("Error response from daemon: {}", message.trim()))
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
