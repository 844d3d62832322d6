//! Routes of builds: the classic `POST /build`, and what is left of BuildKit's.
//!
//! In: a context as the request's body, options in the query. Out: the builder's lines as JSON. A client that asks for
//! BuildKit is refused before anything else, so that it falls back. Source: moby 28, `api/server/router/build`.

use std::collections::BTreeMap;

use build::{BuildError, BuildOptions, Limits, Output, Source};
use docker::{AuthConfig, HostConfig, ProgressMessage, Reference, Ulimit};
use http::HeaderName;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::images::{on_a_thread, publish};
use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, refuse, serve};
use crate::work::{BACKLOG, tell};

/// Credentials for several registries. Source: moby, `build_routes.go`, `getAuthConfigs`.
const REGISTRY_CONFIG: HeaderName = HeaderName::from_static("x-registry-config");

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(POST "/build", 24, build, "build an image from a Dockerfile, with progress"),
        serve!(POST "/build/prune", 31, prune, "free the build cache: there is none but images"),
        refuse!(POST "/build/cancel", 31, "a build ends when its request does"),
        refuse!(POST "/session", 31, "there is no BuildKit"),
        refuse!(POST "/grpc", 40, "there is no BuildKit"),
    ]
}

async fn build(call: Call) -> Result<Answer, ApiError> {
    let options = options(&call)?;
    let (is_quiet, remote) = (call.query.flag("q"), call.query.text("remote").to_owned());
    let (sender, lines) = mpsc::channel(BACKLOG);
    let (state, shutdown) = (call.state.clone(), call.state.shutdown.clone());
    let source = match remote.as_str() {
        "" => Source::Archive(Box::pin(call.into_stream())),
        "client-session" => {
            return Err(ApiError::Unimplemented("there is no BuildKit: send a tar archive".to_owned()));
        }
        _ => Source::Remote(remote),
    };
    tell(&shutdown, lines, async move {
        let engine = state.engine.clone();
        let tags = options.tags.clone();
        let work = move || async move {
            let out = Output::new(sender, is_quiet);
            let built = build::build(&engine, source, &options, &out).await;
            if built.is_err() {
                out.tell_all().await;
            }
            built
        };
        match on_a_thread(work).await? {
            Ok(id) => {
                for tag in tags.iter().filter_map(|tag| Reference::parse(tag).ok()) {
                    publish(&state, "tag", id.as_str(), &tag.with_default_tag().familiar());
                }
                let quiet = is_quiet.then(|| ProgressMessage::stream(format!("{id}\n")));
                Ok(quiet.into_iter().collect())
            }
            Err(error @ BuildError::Command { .. }) => Ok(vec![failed(&error)]),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// The last line of a build whose command failed: the client ends with the command's exit code.
fn failed(error: &BuildError) -> ProgressMessage {
    let mut line = ProgressMessage::error(error.to_string());
    if let Some(detail) = &mut line.error_detail {
        detail.code = error.exit_code();
    }
    line
}

/// Source: moby 28, `build_routes.go`, `newImageBuildOptions`.
fn options(call: &Call) -> Result<BuildOptions, ApiError> {
    let query = &call.query;
    match query.text("version") {
        "" | "1" => {}
        "2" => {
            return Err(ApiError::Unimplemented(
                "there is no BuildKit: build with DOCKER_BUILDKIT=0".to_owned(),
            ));
        }
        other => return Err(ApiError::invalid(format!("invalid version {other}"))),
    }
    if query.flag("squash") {
        return Err(ApiError::invalid("squash is only supported with experimental mode"));
    }
    if !query.text("outputs").is_empty() && query.text("outputs") != "null" && query.text("outputs") != "[]" {
        return Err(ApiError::Unimplemented(
            "outputs need BuildKit, which this engine does not have".to_owned(),
        ));
    }
    let always_removes = query.flag("forcerm");
    let removes = always_removes || query.text("rm").is_empty() || query.flag("rm");
    let platform = match query.text("platform") {
        "" => None,
        text => Some(
            text.parse().map_err(|error: images::ParsePlatformError| ApiError::invalid(error.to_string()))?,
        ),
    };
    Ok(BuildOptions {
        dockerfile: query.text("dockerfile").to_owned(),
        tags: tags(call)?,
        arguments: parsed(query.text("buildargs"), "build args")?,
        labels: parsed(query.text("labels"), "labels")?,
        target: query.text("target").to_owned(),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        removes,
        always_removes,
        platform,
        auth: registries(call),
        limits: Limits(limits(call)?),
    })
}

/// JSON of the query; empty is the default.
fn parsed<T: DeserializeOwned + Default>(text: &str, what: &str) -> Result<T, ApiError> {
    match text {
        "" => Ok(T::default()),
        text => serde_json::from_str::<Option<T>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid(format!("error reading {what}: {error}"))),
    }
}

/// Source: moby, `builder/builder.go` of `api/server/backend/build`, `sanitizeRepoAndTags`.
fn tags(call: &Call) -> Result<Vec<String>, ApiError> {
    let mut tags: Vec<String> = Vec::new();
    for text in call.query.all("t").filter(|text| !text.is_empty()) {
        let parsed = Reference::parse(text).map_err(|error| ApiError::invalid(error.to_string()))?;
        if parsed.digest.is_some() {
            return Err(ApiError::invalid("build tag cannot contain a digest"));
        }
        let name = parsed.with_default_tag().canonical();
        if !tags.contains(&name) {
            tags.push(name);
        }
    }
    Ok(tags)
}

/// A header that cannot be read counts as none, as for pulls.
fn registries(call: &Call) -> BTreeMap<String, AuthConfig> {
    AuthConfig::registries_from_header(call.header(&REGISTRY_CONFIG)).unwrap_or_default()
}

/// What the containers of `RUN` get.
fn limits(call: &Call) -> Result<HostConfig, ApiError> {
    let query = &call.query;
    let number = |key: &str| Ok::<i64, ApiError>(query.integer(key)?.unwrap_or_default());
    let extra_hosts: Vec<String> = query.all("extrahosts").map(str::to_owned).collect();
    Ok(HostConfig {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        cgroup_parent: query.text("cgroupparent").to_owned(),
        shm_size: number("shmsize")?,
        ulimits: parsed::<Vec<Ulimit>>(query.text("ulimits"), "ulimits")?,
        network_mode: query.text("networkmode").to_owned(),
        extra_hosts: (!extra_hosts.is_empty()).then_some(extra_hosts),
        security_opt: parsed::<Option<Vec<String>>>(query.text("securityopt"), "security options")?,
        ..HostConfig::default()
    })
}

/// What `docker builder prune` removes: nothing on its own.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// The steps of the classic builder are images: `image prune` removes them with the image that they led to.
/// Source: moby 28 without BuildKit, which has no cache of its own, either.
async fn prune(call: Call) -> Result<Answer, ApiError> {
    call.query.filters()?;
    json(&Pruned { caches_deleted: None, space_reclaimed: 0 })
}
