//! Routes of one container: create, inspect, start, stop, wait, remove and what else changes it.
//!
//! In: requests. Out: calls of the engine. Lists, logs and attach have files of their own. Never decides what a container
//! gets: the engine does.

use bytes::Bytes;
use docker::container_config::CreateBodyRest;
use docker::{ContainerConfig, ContainerCreateRequest, ContainerUpdate};
use engine::{RemoveOptions, StopOptions, WaitCondition};
use futures_util::stream::once;
use http::{StatusCode, header};

use crate::AppState;
use crate::answer::{Answer, JSON, json, json_with, line, no_content, stream_until};
use crate::call::{Call, parse_json};
use crate::error::ApiError;
use crate::query::Query;
use crate::route::{Route, serve};
use crate::versions;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(POST "/containers/create", 24, create, "create a container"),
        serve!(GET "/containers/{name}/json", 24, inspect, "inspect a container"),
        serve!(POST "/containers/{name}/start", 24, start, "start a container"),
        serve!(POST "/containers/{name}/stop", 24, stop, "stop a container"),
        serve!(POST "/containers/{name}/restart", 24, restart, "restart a container"),
        serve!(POST "/containers/{name}/kill", 24, kill, "send a signal to a container"),
        serve!(POST "/containers/{name}/wait", 24, wait, "wait until a container ends or is gone"),
        serve!(POST "/containers/{name}/pause", 24, pause, "freeze a container"),
        serve!(POST "/containers/{name}/unpause", 24, unpause, "thaw a container"),
        serve!(POST "/containers/{name}/rename", 24, rename, "rename a container"),
        serve!(POST "/containers/{name}/update", 24, update, "change limits and restart policy"),
        serve!(GET "/containers/{name}/top", 24, top, "list a container's processes"),
        serve!(DELETE "/containers/{name}", 24, remove, "remove a container"),
    ]
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let bytes = call.json_bytes().await?;
    if bytes.is_empty() {
        // Source: moby, `runconfig/errors.go`.
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    }
    let (mut request, unknown) = read_create(&bytes)?;
    request.name = call.query.text("name").to_owned();
    request.platform = call.query.text("platform").to_owned();
    versions::check_networks(&request, call.version)?;
    versions::adjust_container(&mut request, call.version, &call.state.host);
    let mut created = call.state.engine.create(request).await?;
    created.warnings.extend(versions::unknown_warnings(&unknown));
    json_with(StatusCode::CREATED, &created)
}

/// The three parts of a create body, and the members nobody reads. The config's fields lie beside the two nested
/// objects, so the bytes are read once for each.
fn read_create(bytes: &Bytes) -> Result<(ContainerCreateRequest, Vec<String>), ApiError> {
    let config = parse_json::<ContainerConfig>(bytes)?;
    let rest = parse_json::<CreateBodyRest>(bytes)?;
    let nested =
        |path: &str| path.eq_ignore_ascii_case("HostConfig") || path.eq_ignore_ascii_case("NetworkingConfig");
    let mut unknown: Vec<String> = config.unknown.into_iter().filter(|path| !nested(path)).collect();
    unknown.extend(rest.unknown.into_iter().filter(|path| path.contains('.')));
    let request = ContainerCreateRequest {
        config: config.value,
        host_config: rest.value.host_config.unwrap_or_default(),
        networking_config: rest.value.networking_config.unwrap_or_default(),
        ..ContainerCreateRequest::default()
    };
    Ok((request, unknown))
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.inspect(call.param("name"), call.query.flag("size")).await?)
}

async fn start(call: Call) -> Result<Answer, ApiError> {
    let length = call.parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or_default();
    // `{}` and `null` with white space are what clients send who mean nothing. Source: moby, `postContainersStart`.
    if length > 7 {
        let text = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24";
        return Err(ApiError::invalid(text));
    }
    call.state.engine.start(call.param("name")).await?;
    Ok(no_content())
}

fn stop_options(query: &Query, version_has_signal: bool) -> Result<StopOptions, ApiError> {
    let signal = query.text("signal");
    Ok(StopOptions {
        signal: (version_has_signal && !signal.is_empty()).then(|| signal.to_owned()),
        timeout: query.integer("t")?,
    })
}

async fn stop(call: Call) -> Result<Answer, ApiError> {
    let options = stop_options(&call.query, call.is_at_least(42))?;
    call.state.engine.stop(call.param("name"), options).await?;
    Ok(no_content())
}

async fn restart(call: Call) -> Result<Answer, ApiError> {
    let options = stop_options(&call.query, call.is_at_least(42))?;
    call.state.engine.restart(call.param("name"), options).await?;
    Ok(no_content())
}

async fn kill(call: Call) -> Result<Answer, ApiError> {
    let signal = call.query.get("signal").filter(|signal| !signal.is_empty());
    call.state.engine.kill(call.param("name"), signal).await?;
    Ok(no_content())
}

/// The head goes out as soon as the wait has begun: `docker run` starts the container only then.
async fn wait(call: Call) -> Result<Answer, ApiError> {
    let condition: WaitCondition =
        if call.is_at_least(30) { call.query.text("condition").parse()? } else { WaitCondition::NotRunning };
    let waiter = call.state.engine.wait(call.param("name"), condition).await?;
    let result = once(async move { line(&waiter.finished().await, b"\n") });
    Ok(stream_until(&call.state.shutdown, JSON, result))
}

async fn pause(call: Call) -> Result<Answer, ApiError> {
    call.state.engine.pause(call.param("name")).await?;
    Ok(no_content())
}

async fn unpause(call: Call) -> Result<Answer, ApiError> {
    call.state.engine.unpause(call.param("name")).await?;
    Ok(no_content())
}

async fn rename(call: Call) -> Result<Answer, ApiError> {
    let name = call.query.text("name");
    if name.is_empty() {
        // Source: moby, `daemon/rename.go`.
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    }
    call.state.engine.rename(call.param("name"), name).await?;
    Ok(no_content())
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let update: ContainerUpdate = call.json().await?.value;
    json(&call.state.engine.update(call.param("name"), update).await?)
}

async fn top(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.top(call.param("name"), call.query.text("ps_args")).await?)
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    if call.query.flag("link") {
        return Err(ApiError::Unimplemented(
            "links between containers are not supported by this engine".into(),
        ));
    }
    let options = RemoveOptions { force: call.query.flag("force"), volumes: call.query.flag("v") };
    call.state.engine.remove(call.param("name"), options).await?;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_body_is_read_into_its_three_parts() {
        let body = br#"{"Image":"nginx","Cmd":["a"],"Wrong":1,"HostConfig":{"AutoRemove":true,"Odd":"x"},
            "NetworkingConfig":{"EndpointsConfig":{"web":null}}}"#;
        let (request, unknown) = read_create(&Bytes::from_static(body)).unwrap();
        assert_eq!(request.config.image, "nginx");
        assert!(request.host_config.auto_remove);
        assert!(request.networking_config.endpoints_config.contains_key("web"));
        assert_eq!(unknown, ["Wrong", "HostConfig.Odd"]);
    }

    #[test]
    fn stop_takes_a_signal_since_1_42() {
        let query = Query::parse("signal=SIGINT&t=3").unwrap();
        let options = stop_options(&query, true).unwrap();
        assert_eq!((options.signal.as_deref(), options.timeout), (Some("SIGINT"), Some(3)));
        assert_eq!(stop_options(&query, false).unwrap().signal, None);
        assert!(stop_options(&Query::parse("t=soon").unwrap(), true).is_err());
    }
}
