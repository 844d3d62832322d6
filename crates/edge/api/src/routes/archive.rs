//! Files of a container as archives: `docker cp` in both directions, and `docker export`.
//!
//! In: requests. Out: calls of the engine, archives as they are made and as they arrive. Never holds an archive.

use docker::PathStat;
use engine::PutOptions;
use http::{HeaderName, HeaderValue};

use crate::AppState;
use crate::answer::{Answer, ok, stream_until};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

/// Source: moby, `api/server/router/container/copy.go`.
const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
/// Source: moby, `api/server/router/container/container_routes.go`, `getContainersExport`.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(HEAD "/containers/{name}/archive", 24, stat, "what is at a path of a container"),
        serve!(GET "/containers/{name}/archive", 24, get, "copy files out of a container"),
        serve!(PUT "/containers/{name}/archive", 24, put, "copy files into a container"),
        serve!(GET "/containers/{name}/export", 24, export, "a container's root file system as an archive"),
    ]
}

/// Source: moby, `api/server/httputils/form.go`, `ArchiveFormValues`.
fn path(call: &Call) -> Result<&str, ApiError> {
    match call.query.text("path") {
        "" => Err(ApiError::invalid("bad parameter: 'path' cannot be empty")),
        path => Ok(path),
    }
}

fn describe(answer: &mut Answer, stat: &PathStat) -> Result<(), ApiError> {
    let text = docker::auth::encode_base64(&serde_json::to_vec(stat).map_err(ApiError::serialise)?);
    let value = HeaderValue::try_from(text).expect("base64 is made of letters that a header may have");
    if let Answer::Http(response) = answer {
        response.headers_mut().insert(PATH_STAT, value);
    }
    Ok(())
}

async fn stat(call: Call) -> Result<Answer, ApiError> {
    let stat = call.state.engine.path_stat(call.param("name"), path(&call)?).await?;
    let mut answer = ok();
    describe(&mut answer, &stat)?;
    Ok(answer)
}

async fn get(call: Call) -> Result<Answer, ApiError> {
    let (stat, pieces) = call.state.engine.archive(call.param("name"), path(&call)?).await?;
    let mut answer = stream_until(&call.state.shutdown, TAR, pieces);
    describe(&mut answer, &stat)?;
    Ok(answer)
}

async fn put(call: Call) -> Result<Answer, ApiError> {
    let options = PutOptions {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let (engine, name, path) =
        (call.state.engine.clone(), call.param("name").to_owned(), path(&call)?.to_owned());
    engine.put_archive(&name, &path, options, Box::pin(call.into_stream())).await?;
    Ok(ok())
}

async fn export(call: Call) -> Result<Answer, ApiError> {
    let pieces = call.state.engine.export(call.param("name")).await?;
    Ok(stream_until(&call.state.shutdown, OCTETS, pieces))
}
