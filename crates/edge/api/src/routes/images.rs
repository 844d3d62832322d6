//! Routes of images: pull, push, import, load, save, list, inspect, history, tag, remove, prune, and what a registry says of a name.
//!
//! In: requests. Out: calls of the image store, progress as JSON lines, and events. Never unpacks anything.

use std::collections::BTreeMap;

use docker::{EventMessage, Filters, ImageDeleteResponse, ImagesPruneReport, ProgressMessage, Reference};
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode};
use images::{
    ImportOptions, ListFilter, ListOptions, Platform, ProgressSender, PullOptions, PushOptions, Removed,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::AppState;
use crate::answer::{Answer, empty, json, stream_until};
use crate::call::Call;
use crate::clock;
use crate::error::ApiError;
use crate::route::{Route, refuse, serve};
use crate::work::{BACKLOG, tell};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(POST "/images/create", 24, create, "pull or import an image, with progress"),
        serve!(POST "/images/load", 24, load, "load images from an archive"),
        serve!(GET "/images/json", 24, list, "list images"),
        refuse!(GET "/images/search", 24, "registries are not searched: look at https://hub.docker.com/search and pull by name"),
        serve!(GET "/images/get", 24, save_all, "save images into one archive"),
        serve!(GET "/images/{name...}/get", 24, save_one, "save an image into an archive"),
        serve!(POST "/images/{name...}/push", 24, push, "push an image, with progress"),
        serve!(POST "/images/prune", 25, prune, "remove images nobody uses"),
        serve!(GET "/images/{name...}/json", 24, inspect, "inspect an image"),
        serve!(GET "/images/{name...}/history", 24, history, "how an image was made"),
        serve!(POST "/images/{name...}/tag", 24, tag, "give an image a further name"),
        serve!(DELETE "/images/{name...}", 24, remove, "remove a name and, with the last one, the image"),
        serve!(GET "/distribution/{name...}/json", 30, distribution, "what a registry has under a name"),
    ]
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let platform = platform(call.query.text("platform"))?;
    let (from, source) = (call.query.text("fromImage").to_owned(), call.query.text("fromSrc").to_owned());
    if !from.is_empty() {
        return pull(call, &from, platform).await;
    }
    if source.is_empty() {
        return Err(ApiError::invalid("one of fromImage and fromSrc is needed"));
    }
    if source != "-" {
        return Err(ApiError::Unimplemented(format!(
            "import from {source}: only the request's body can be imported"
        )));
    }
    import(call, platform).await
}

fn platform(text: &str) -> Result<Option<Platform>, ApiError> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: images::ParsePlatformError| ApiError::invalid(error.to_string())),
    }
}

/// `name` with `tag`, which may also be a digest. Source: moby, `image_routes.go` `postImagesCreate`.
pub(super) fn with_tag(name: &str, tag: &str) -> String {
    match tag {
        "" => name.to_owned(),
        tag if tag.contains(':') => format!("{name}@{tag}"),
        tag => format!("{name}:{tag}"),
    }
}

async fn pull(call: Call, from: &str, platform: Option<Platform>) -> Result<Answer, ApiError> {
    let reference = with_tag(from, call.query.text("tag"));
    check_reference(&reference)?;
    let options = PullOptions { reference, platform, auth: call.registry_auth() };
    let (sender, lines) = mpsc::channel(BACKLOG);
    let (state, shutdown) = (call.state.clone(), call.state.shutdown);
    tell(&shutdown, lines, async move {
        let images = state.images.clone();
        let pull = move || async move { images.pull(options, ProgressSender::new(sender)).await };
        let pulled = on_a_thread(pull).await??;
        publish(&state, "pull", &pulled.reference, &pulled.reference);
        Ok(Vec::new())
    })
    .await
}

/// Runs registry work on a thread of its own. Its future borrows in a way that the compiler cannot prove to be movable
/// between threads, so it stays on one. Dropping this future stops the work.
pub(super) async fn on_a_thread<T, F, Work>(begin: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Work + Send + 'static,
    Work: Future<Output = T>,
{
    let (stop, runtime) = (CancellationToken::new(), tokio::runtime::Handle::current());
    let _stop_when_dropped = stop.clone().drop_guard();
    let work = tokio::task::spawn_blocking(move || {
        runtime.block_on(async { stop.run_until_cancelled(begin()).await })
    });
    // Only the daemon's end stops work that somebody still waits for.
    work.await.ok().flatten().ok_or(ApiError::ShuttingDown)
}

async fn import(call: Call, platform: Option<Platform>) -> Result<Answer, ApiError> {
    let (repo, message) = (call.query.text("repo"), call.query.text("message"));
    let reference = (!repo.is_empty()).then(|| with_tag(repo, call.query.text("tag")));
    if let Some(reference) = &reference {
        check_reference(reference)?;
    }
    let options = ImportOptions {
        reference,
        message: (!message.is_empty()).then(|| message.to_owned()),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        platform,
    };
    let (sender, lines) = mpsc::channel(BACKLOG);
    let (state, shutdown) = (call.state.clone(), call.state.shutdown.clone());
    let archive = Box::pin(call.into_stream());
    tell(&shutdown, lines, async move {
        let id = state.images.import(archive, options, ProgressSender::new(sender)).await?;
        publish(&state, "import", id.as_str(), id.as_str());
        Ok(Vec::new())
    })
    .await
}

async fn load(call: Call) -> Result<Answer, ApiError> {
    let (sender, lines) = mpsc::channel(BACKLOG);
    let progress =
        if call.query.flag("quiet") { ProgressSender::none() } else { ProgressSender::new(sender) };
    let (state, shutdown) = (call.state.clone(), call.state.shutdown.clone());
    let archive = Box::pin(call.into_stream());
    tell(&shutdown, lines, async move {
        let loaded = state.images.load(archive, progress).await?;
        for (id, _) in &loaded {
            publish(&state, "load", id.as_str(), id.as_str());
        }
        let names = loaded.into_iter().map(|(id, name)| match name {
            Some(name) => ProgressMessage::stream(format!("Loaded image: {name}\n")),
            None => ProgressMessage::stream(format!("Loaded image ID: {}\n", id.as_str())),
        });
        Ok(names.collect())
    })
    .await
}

async fn save_all(call: Call) -> Result<Answer, ApiError> {
    let names: Vec<String> =
        call.query.all("names").flat_map(|names| names.split(',')).map(str::to_owned).collect();
    save(&call, &names)
}

async fn save_one(call: Call) -> Result<Answer, ApiError> {
    save(&call, &[call.param("name").to_owned()])
}

/// Source: moby 28, `image_routes.go` `getImagesGet`.
fn save(call: &Call, names: &[String]) -> Result<Answer, ApiError> {
    let wanted = json_platforms(call)?;
    let archive = call.state.images.save(names, wanted.first())?;
    for name in names {
        let id = call.state.images.resolve(name).map_or_else(|_| name.clone(), |id| id.to_string());
        publish(&call.state, "save", &id, &id);
    }
    // An archive that breaks off has no end mark: clients see that it is cut.
    let pieces = archive.take_while(|piece| {
        if let Err(error) = piece {
            tracing::error!(%error, "archive of images broke off");
        }
        std::future::ready(piece.is_ok())
    });
    let pieces = pieces.filter_map(|piece| std::future::ready(piece.ok()));
    Ok(stream_until(&call.state.shutdown, HeaderValue::from_static("application/x-tar"), pieces))
}

/// `platform` of API 1.46 and later: JSON of one platform, or of several.
/// Source: moby 28, `httputils.DecodePlatform`.
fn json_platforms(call: &Call) -> Result<Vec<Platform>, ApiError> {
    #[derive(serde::Deserialize)]
    struct Wanted {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let read = |text: &str| match serde_json::from_str::<Wanted>(text) {
        Ok(wanted) => Ok(Platform::new(&wanted.os, &wanted.architecture, &wanted.variant)),
        Err(error) => Err(ApiError::invalid(format!("failed to parse platform: {error}"))),
    };
    call.query.all("platform").filter(|text| !text.is_empty()).map(read).collect()
}

async fn push(call: Call) -> Result<Answer, ApiError> {
    let (name, tag) = (call.param("name").to_owned(), call.query.text("tag").to_owned());
    let reference = with_tag(&name, &tag);
    check_reference(&reference)?;
    let platform = json_platforms(&call)?.into_iter().next();
    let options = PushOptions { reference, platform, auth: call.registry_auth() };
    let (sender, lines) = mpsc::channel(BACKLOG);
    let (state, shutdown) = (call.state.clone(), call.state.shutdown);
    tell(&shutdown, lines, async move {
        let images = state.images.clone();
        let push = move || async move { images.push(options, ProgressSender::new(sender)).await };
        for pushed in on_a_thread(push).await?? {
            publish(&state, "push", &pushed.reference, &pushed.reference);
        }
        Ok(Vec::new())
    })
    .await
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let options = ListOptions {
        all: call.query.flag("all"),
        shared_size: call.query.flag("shared-size"),
        containers: false,
        filters: list_filter(&call.query.filters()?, call.query.text("filter"))?,
    };
    let mut list = call.state.images.list(&options).await?;
    if !call.is_at_least(44) {
        for image in &mut list {
            image.virtual_size = Some(image.size);
        }
    }
    json(&list)
}

/// Source: moby, `daemon/images/images.go` `acceptedImageFilters`. `legacy` is the query `filter` of API < 1.41.
fn list_filter(filters: &Filters, legacy: &str) -> Result<ListFilter, ApiError> {
    filters.validate(&["dangling", "label", "before", "since", "reference", "until"])?;
    let all = |field: &str| filters.get(field).map(str::to_owned).collect::<Vec<_>>();
    let until = match filters.get("until").next() {
        None => None,
        Some(text) => {
            let moment = docker::units::parse_moment(text, clock::now());
            moment
                .map_err(|error| ApiError::invalid(error.to_string()))?
                .map(|at| at.0.div_euclid(1_000_000_000))
        }
    };
    let mut reference = all("reference");
    reference.extend((!legacy.is_empty()).then(|| legacy.to_owned()));
    Ok(ListFilter {
        reference,
        label: all("label"),
        dangling: filters.boolean("dangling")?,
        before: all("before"),
        since: all("since"),
        until,
    })
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    let mut image = call.state.images.inspect(call.param("name")).await?;
    if !call.is_at_least(44) {
        image.virtual_size = Some(image.size);
    }
    if !call.is_at_least(48) {
        image.descriptor = None;
    }
    json(&image)
}

async fn history(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.images.history(call.param("name")).await?)
}

async fn tag(call: Call) -> Result<Answer, ApiError> {
    let target = with_tag(call.query.text("repo"), call.query.text("tag"));
    check_reference(&target)?;
    let id = call.state.images.tag(call.param("name"), &target).await?;
    let name = Reference::parse(&target).map_or(target, |parsed| parsed.with_default_tag().familiar());
    publish(&call.state, "tag", id.as_str(), &name);
    Ok(empty(StatusCode::CREATED))
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    let removed = call.state.images.remove(call.param("name"), call.query.flag("force")).await?;
    json(&told(&call.state, removed))
}

/// What was removed as the API shows it, with an event for each image and name.
fn told(state: &AppState, removed: Vec<Removed>) -> Vec<ImageDeleteResponse> {
    let row = |removed| match removed {
        Removed::Untagged { reference, image } => {
            publish(state, "untag", image.as_str(), &reference);
            ImageDeleteResponse { untagged: Some(reference), deleted: None }
        }
        Removed::Image(id) => {
            publish(state, "delete", id.as_str(), id.as_str());
            ImageDeleteResponse { untagged: None, deleted: Some(id.as_str().to_owned()) }
        }
        Removed::Layer(id) => ImageDeleteResponse { untagged: None, deleted: Some(id.as_str().to_owned()) },
    };
    removed.into_iter().map(row).collect()
}

async fn prune(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    filters.validate(&["dangling", "label", "label!", "until"])?;
    let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
    let mut filter = list_filter(&without(&filters, "label!"), "")?;
    filter.dangling = only_dangling.then_some(true);
    let options =
        ListOptions { containers: true, shared_size: true, filters: filter, ..ListOptions::default() };
    let mut report = ImagesPruneReport::default();
    let mut deleted = Vec::new();
    for image in call.state.images.list(&options).await? {
        let labels = image.labels.clone().unwrap_or_default();
        let is_kept = filters.contains("label!") && filters.matches_labels("label!", &labels);
        if image.containers > 0 || is_kept {
            continue;
        }
        let names = if image.repo_tags.is_empty() { vec![image.id.clone()] } else { image.repo_tags.clone() };
        for name in names {
            // Somebody may have begun to use it meanwhile: then it stays.
            if let Ok(removed) = call.state.images.remove(&name, false).await {
                if removed.iter().any(|step| matches!(step, Removed::Image(_))) {
                    let own = image.size - image.shared_size.max(0);
                    report.space_reclaimed += u64::try_from(own).unwrap_or_default();
                }
                deleted.extend(told(&call.state, removed));
            }
        }
    }
    report.images_deleted = (!deleted.is_empty()).then_some(deleted);
    json(&report)
}

/// The filters without one field.
fn without(filters: &Filters, field: &str) -> Filters {
    let mut kept = Filters::default();
    for name in ["dangling", "label", "label!", "until"] {
        if name != field {
            filters.get(name).for_each(|value| kept.add(name, value));
        }
    }
    kept
}

async fn distribution(call: Call) -> Result<Answer, ApiError> {
    let (name, auth) = (call.param("name").to_owned(), call.registry_auth());
    check_reference(&name)?;
    let images = call.state.images.clone();
    let ask = move || async move { images.distribution(&name, auth.as_ref()).await };
    json(&on_a_thread(ask).await??)
}

fn check_reference(text: &str) -> Result<(), ApiError> {
    Reference::parse(text).map(|_| ()).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Source: moby, `daemon/images/image_events.go`.
pub(super) fn publish(state: &AppState, action: &str, id: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    state.engine.publish(EventMessage::local("image", action, id, attributes, clock::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_join_names() {
        assert_eq!(with_tag("a/b", "1"), "a/b:1");
        assert_eq!(with_tag("a/b", "sha256:0"), "a/b@sha256:0");
        assert_eq!(with_tag("a/b:2", ""), "a/b:2");
    }

    #[test]
    fn list_filters_are_checked() {
        let filters = |text: &str| Filters::parse(text).unwrap();
        let filter = list_filter(&filters(r#"{"dangling":{"true":true},"label":["a=b"]}"#), "nginx").unwrap();
        assert_eq!((filter.dangling, filter.label.len(), filter.reference.len()), (Some(true), 1, 1));
        let text = |filter: &str| list_filter(&filters(filter), "").err().unwrap().to_string();
        assert_eq!(text(r#"{"nope":["1"]}"#), "invalid filter 'nope'");
        assert_eq!(text(r#"{"dangling":["maybe"]}"#), "invalid filter 'dangling=[maybe]'");
    }
}
