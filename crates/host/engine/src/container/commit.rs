//! Turns what a container has changed into an image, as `docker commit` does.
//!
//! In: a container, running or not. Out: an image of its image's layers and one more. What is mounted in it is left
//! out; its processes are frozen meanwhile unless the caller says otherwise.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use docker::ContainerConfig;
use futures_util::StreamExt;
use images::{CommitOptions, ImportError, What};

use super::archive::{Outgoing, outgoing};
use super::changes::is_mount_point;
use super::files::check_present;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::watch::Status;

/// What an image of a container is to be.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// `name[:tag]`; `None` leaves the image without a name.
    pub reference: Option<String>,
    /// In place of the container's config; its empty fields are taken from there.
    pub config: Option<ContainerConfig>,
    /// Dockerfile instructions, one each.
    pub changes: Vec<String>,
    /// The comment in history.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// Whether the container's processes are frozen meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container and returns its id.
    pub async fn commit(&self, container: &str, request: CommitRequest) -> Result<String, EngineError> {
        let found = self.inner.registry.find(container)?;
        check_present(&found)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let pauses = request.pause && found.status() == Status::Running;
            if pauses {
                engine.pause(&found.id).await?;
            }
            let record = found.record();
            let options = CommitOptions {
                base: record.image_id.clone(),
                reference: request.reference.clone(),
                config: image_config(request.config, &record.config),
                changes: request.changes,
                comment: request.comment.clone(),
                author: request.author,
            };
            let upper = engine.inner.roots.overlay(&found.id).join("upper");
            let committed = engine.commit_layer(&upper, options).await;
            // Whatever came of it: the container goes on. It may have been removed or thawed by somebody else.
            if pauses && let Err(error) = engine.unpause(&found.id).await {
                tracing::warn!(container.id = %found.id, error = &error as &dyn std::error::Error, "not thawed");
            }
            let id = committed?;
            let reference = request.reference.unwrap_or_default();
            let attributes =
                [("comment", request.comment), ("imageID", id.clone()), ("imageRef", reference)];
            engine.inner.events.container(&found, "commit", &attributes);
            Ok(id)
        })
        .await
    }

    /// Hands the upper directory to the image store, as a layer.
    async fn commit_layer(&self, upper: &Path, options: CommitOptions) -> Result<String, EngineError> {
        let failed = |source| EngineError::File { what: "open", path: upper.to_owned(), source };
        let folder = File::open(upper).map_err(failed)?;
        let (mut out, pieces): (Outgoing, _) = outgoing();
        let pack = tokio::task::spawn_blocking(move || {
            images::pack(folder.as_fd(), What::Layer, &is_mount_point, &mut out)
        });
        // The last piece of a layer that could not be read is an error, so that no half of it becomes an image.
        let end = futures_util::stream::once(async move {
            match pack.await {
                Ok(Ok(())) => Ok(bytes::Bytes::new()),
                Ok(Err(error)) => Err(std::io::Error::other(error)),
                Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        });
        let layer = Box::pin(pieces.map(Ok).chain(end));
        let images = self.images().clone();
        let committed = images.commit(layer, options).await;
        committed.map(|id| id.to_string()).map_err(|error| match error {
            ImportError::InvalidReference(_) | ImportError::InvalidChange(_) => {
                EngineError::invalid(error.to_string())
            }
            error => EngineError::Images(Box::new(error)),
        })
    }
}

/// The config of the image: what was asked for, the rest from the container, without what belongs to a single run.
fn image_config(asked: Option<ContainerConfig>, own: &ContainerConfig) -> ContainerConfig {
    let mut config = own.clone();
    if let Some(asked) = asked {
        overlay(&mut config, asked);
    }
    ContainerConfig {
        hostname: String::new(),
        domainname: String::new(),
        attach_stdin: false,
        attach_stdout: false,
        attach_stderr: false,
        tty: false,
        open_stdin: false,
        stdin_once: false,
        image: String::new(),
        mac_address: String::new(),
        ..config
    }
}

/// Puts the fields of `asked` that say something over `config`. Source: moby, `daemon/commit.go`, `merge`.
fn overlay(config: &mut ContainerConfig, asked: ContainerConfig) {
    fn put<T: Default + PartialEq>(to: &mut T, from: T) {
        if from != T::default() {
            *to = from;
        }
    }
    put(&mut config.user, asked.user);
    put(&mut config.cmd, asked.cmd);
    put(&mut config.entrypoint, asked.entrypoint);
    put(&mut config.working_dir, asked.working_dir);
    put(&mut config.stop_signal, asked.stop_signal);
    put(&mut config.healthcheck, asked.healthcheck);
    put(&mut config.shell, asked.shell);
    config.exposed_ports.extend(asked.exposed_ports);
    config.labels.extend(asked.labels);
    if let Some(volumes) = asked.volumes {
        config.volumes.get_or_insert_default().extend(volumes);
    }
    for variable in asked.env {
        let name = variable.split('=').next().unwrap_or_default().to_owned() + "=";
        config.env.retain(|known| !known.starts_with(&name));
        config.env.push(variable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_goes_over_what_the_container_has() {
        let own = ContainerConfig {
            hostname: "abc".into(),
            tty: true,
            user: "me".into(),
            env: vec!["A=1".into(), "B=2".into()],
            cmd: Some(vec!["own".to_owned()].into()),
            ..Default::default()
        };
        let plain = image_config(None, &own);
        assert_eq!((plain.hostname.as_str(), plain.tty, plain.user.as_str()), ("", false, "me"));
        let asked = ContainerConfig { env: vec!["A=3".into()], user: "you".into(), ..Default::default() };
        let mixed = image_config(Some(asked), &own);
        assert_eq!((mixed.user.as_str(), mixed.env), ("you", vec!["B=2".to_owned(), "A=3".to_owned()]));
        assert_eq!(mixed.cmd, own.cmd);
    }
}
