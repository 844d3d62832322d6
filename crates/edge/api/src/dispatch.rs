//! Leads a request to its handler: version negotiation, routing, headers of every answer, errors.
//!
//! In: a request of hyper. Out: a response, or a takeover left in the connection's slot. Generic in what the handlers
//! work on, so that it is tested without a daemon. Source: moby, `api/server/middleware/version.go`.

use std::sync::Arc;

use docker::ApiVersion;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::answer::{Answer, Body};
use crate::call::Call;
use crate::error::ApiError;
use crate::leftover::{Leftover, RequestBody};
use crate::query::Query;
use crate::route::{Action, Params, Route, decode, split_version};
use crate::takeover::Slot;

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");

/// The routes and what they work on.
pub(crate) struct Dispatcher<S> {
    state: S,
    routes: Vec<Route<S>>,
    server: HeaderValue,
    api_version: HeaderValue,
}

impl<S: Clone + Send + Sync + 'static> Dispatcher<S> {
    /// `server` is what the `Server` header says.
    pub(crate) fn new(state: S, routes: Vec<Route<S>>, server: HeaderValue) -> Arc<Self> {
        let api_version = HeaderValue::from_str(&ApiVersion::MAX.to_string()).expect("digits and a dot");
        Arc::new(Self { state, routes, server, api_version })
    }

    /// Answers one request. Never returns once a handler took the connection over.
    pub(crate) async fn dispatch(
        self: Arc<Self>,
        request: Request<Incoming>,
        slot: Slot,
        leftover: Leftover,
    ) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let described = (request.method().clone(), request.uri().path().to_owned());
        let answer = match self.handle(request.map(|body| leftover.watch(body))).await {
            Ok(answer) => answer,
            Err(error) => {
                log_failure(&described, &error);
                error.answer()
            }
        };
        let mut response = match answer {
            Answer::Http(response) => response,
            Answer::Takeover(takeover) => {
                slot.fill(takeover);
                std::future::pending().await
            }
        };
        if is_head && response.status() != StatusCode::OK {
            *response.body_mut() = Body::default();
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, self.server.clone());
        headers.insert(API_VERSION, self.api_version.clone());
        headers.insert(OSTYPE, HeaderValue::from_static("linux"));
        response
    }

    async fn handle(&self, request: Request<RequestBody>) -> Result<Answer, ApiError> {
        let (parts, body) = request.into_parts();
        let target = split_version(parts.uri.path());
        let version = negotiate(target.version)?;
        let path = decode(target.path, false).ok_or_else(|| ApiError::invalid("invalid path"))?;
        let (route, params) = self.find(&parts.method, &path, version).ok_or(ApiError::NoSuchPage)?;
        let serve = match route.action {
            Action::Serve(serve) => serve,
            Action::Refuse(reason) => {
                return Err(ApiError::NotSupported {
                    method: route.method.to_string(),
                    path: route.path,
                    reason,
                });
            }
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        serve(Call { state: self.state.clone(), version, params, query, parts, body }).await
    }

    fn find(&self, method: &Method, path: &str, version: ApiVersion) -> Option<(&Route<S>, Params)> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let mut fitting =
            self.routes.iter().filter(|route| route.method == *method && route.since <= version);
        fitting.find_map(|route| route.fits(&segments).map(|params| (route, params)))
    }
}

/// The version a request speaks; none asked for is the newest.
fn negotiate(asked: Option<&str>) -> Result<ApiVersion, ApiError> {
    let Some(text) = asked else { return Ok(ApiVersion::MAX) };
    // `1` is read as `1.0`, and rubbish such as `1..2` as too old, as by dockerd's comparison.
    let version = text.parse().or_else(|_| format!("{text}.0").parse()).unwrap_or(ApiVersion::v1(0));
    if version > ApiVersion::MAX {
        return Err(ApiError::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        )));
    }
    if version < ApiVersion::MIN {
        return Err(ApiError::invalid(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            ApiVersion::MIN
        )));
    }
    Ok(version)
}

/// What is our fault is an error; what the client did wrong is only worth a look when one looks for it.
fn log_failure((method, path): &(Method, String), error: &ApiError) {
    let status = error.status();
    if status == StatusCode::NOT_MODIFIED {
        return;
    }
    if status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::SERVICE_UNAVAILABLE
    {
        tracing::error!(%method, path, status = status.as_u16(), error = error.message(), "request failed");
    } else {
        tracing::debug!(%method, path, status = status.as_u16(), error = error.message(), "request refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{bytes_with, ok};
    use crate::route::{refuse, serve};
    use crate::testing;

    async fn hello(call: Call<()>) -> Result<Answer, ApiError> {
        let text = format!("{} {}", call.param("name"), call.version).into_bytes();
        Ok(Answer::Http(bytes_with(StatusCode::OK, HeaderValue::from_static("text/plain"), text)))
    }

    async fn read(mut call: Call<()>) -> Result<Answer, ApiError> {
        call.json::<docker::VolumeCreateRequest>().await?;
        Ok(ok())
    }

    async fn fail(_call: Call<()>) -> Result<Answer, ApiError> {
        Err(ApiError::NotFound("none of them".into()))
    }

    fn routes() -> Vec<Route<()>> {
        vec![
            serve!(GET "/hello/{name}", 24, hello, "says hello"),
            serve!(GET "/new/{name}", 44, hello, "came with 1.44"),
            serve!(POST "/read", 24, read, "reads a body"),
            serve!(GET "/fail", 24, fail, "fails"),
            serve!(POST "/fail", 24, fail, "fails without a look at the body"),
            refuse!(GET "/later/{name...}", 24, "comes later"),
        ]
    }

    async fn check(method: &str, path: &str, status: &str, body: &str) {
        let (head, found) = testing::serve(routes()).ask(method, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
        assert_eq!(found, body, "{method} {path}");
        let head = head.to_ascii_lowercase();
        for header in ["api-version: 1.51", "ostype: linux", "server: docker/test (linux)"] {
            assert!(head.contains(header), "{method} {path}: {head}");
        }
    }

    #[tokio::test]
    async fn versions_are_negotiated_in_dockers_words() {
        check("GET", "/hello/you", "200", "you 1.51").await;
        check("GET", "/v1.24/hello/you", "200", "you 1.24").await;
        check("GET", "/v1.51/hello/a%20b", "200", "a b 1.51").await;
        let too_new =
            "{\"message\":\"client version 1.99 is too new. Maximum supported API version is 1.51\"}\n";
        check("GET", "/v1.99/hello/you", "400", too_new).await;
        let too_old = "{\"message\":\"client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\"}\n";
        check("GET", "/v1.9/hello/you", "400", too_old).await;
    }

    #[tokio::test]
    async fn unknown_pages_are_404_whatever_the_method() {
        let page = "{\"message\":\"page not found\"}\n";
        check("GET", "/nope", "404", page).await;
        check("DELETE", "/hello/you", "404", page).await;
        check("GET", "/v1.43/new/you", "404", page).await;
        check("GET", "/v1.44/new/you", "200", "you 1.44").await;
        check("GET", "/hello/", "404", page).await;
    }

    #[tokio::test]
    async fn refusals_name_the_route_and_the_reason() {
        let later = "{\"message\":\"GET /later/{name...} is not supported by this engine: comes later\"}\n";
        check("GET", "/later/a/b", "501", later).await;
        check("GET", "/fail", "404", "{\"message\":\"none of them\"}\n").await;
        let escape = "{\"message\":\"invalid query: bad escape in \\\"a=%zz\\\"\"}\n";
        check("GET", "/fail?a=%zz", "400", escape).await;
    }

    async fn post(head: &str, body: &str) -> String {
        let mut client = testing::serve(routes());
        let length = body.len();
        client.send(&format!("POST /read HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}")).await;
        client.rest().await
    }

    #[tokio::test]
    async fn a_client_that_still_sends_reads_why_nobody_wants_it() {
        let mut client = testing::serve(routes());
        // More than fits between the two.
        let body = "x".repeat(1 << 20);
        let length = body.len();
        client
            .send(&format!("POST /fail HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
        let answer = client.read_until("{\"message\":\"none of them\"}\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        // And the connection is good for the next request.
        let (head, body) = client.ask("GET", "/hello/you").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "you 1.51", "{head} {body}");
    }

    #[tokio::test]
    async fn bodies_are_checked_before_a_handler_sees_them() {
        let json = "Content-Type: application/json\r\n";
        assert!(post(json, "{}").await.starts_with("HTTP/1.1 200 "));
        assert!(post("", "").await.starts_with("HTTP/1.1 200 "));
        let plain = post("Content-Type: text/plain\r\n", "{}").await;
        assert!(
            plain.starts_with("HTTP/1.1 400 ")
                && plain.contains("unsupported Content-Type header (text/plain)")
        );
        let broken = post(json, "{\"Name\":").await;
        assert!(broken.starts_with("HTTP/1.1 400 ") && broken.contains("invalid JSON: "), "{broken}");
        let mut client = testing::serve(routes());
        let huge = "POST /read HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
        client.send(huge).await;
        assert!(client.read_until("\r\n").await.starts_with("HTTP/1.1 413 "));
    }
}
