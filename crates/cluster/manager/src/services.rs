//! Services: create, update, roll back, remove, look up and list.
//!
//! In: specs as the API received them. Out: committed changes, or why not, in Docker's words.
//! Never makes a task: that is `control::step`'s, woken by the commit.

use std::sync::Arc;

use control::request;
use docker::filters::Filters;
use objects::{Service, ServiceId, ServiceSpec, TaskState, Version};
use serde_json::{Value, json};
use store::{Object, Store, Write};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;

/// Longest registry credentials. chosen: HTTP servers accept headers of this size; tokens have some KiB.
const MAX_AUTH_BYTES: usize = 64 * 1024;

/// What `POST /services/create` answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CreatedService {
    /// The new service's id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Texts for the user, possibly none.
    #[serde(rename = "Warnings", skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where an update takes the registry's credentials from when it brings none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryAuthFrom {
    /// From the stored spec: `registryAuthFrom=spec`, and the default.
    #[default]
    Spec,
    /// From the spec before that: `registryAuthFrom=previous-spec`.
    PreviousSpec,
}

/// An update as `POST /services/{id}/update` carries it.
#[derive(Clone, Debug)]
pub struct ServiceUpdate {
    /// The version the caller read: `version=`.
    pub version: u64,
    /// The wanted spec; ignored with `rollback`.
    pub spec: ServiceSpec,
    /// The `X-Registry-Auth` header as it came (base64 URL of JSON), if there was one.
    pub registry_auth: Option<String>,
    /// Used when `registry_auth` is `None`.
    pub registry_auth_from: RegistryAuthFrom,
    /// Go back to the previous spec instead: `rollback=previous`.
    pub rollback: bool,
}

impl Manager {
    /// Creates a service; returns when it is committed, with its first tasks on their way.
    pub async fn create_service(
        &self,
        spec: ServiceSpec,
        registry_auth: Option<String>,
    ) -> Result<CreatedService, ManagerError> {
        let auth = checked(registry_auth)?.unwrap_or_default();
        let create = |store: &Store, ids: &mut objects::IdSource| {
            let (id, writes) = request::create_service(store, spec.clone(), ids)?;
            Ok((id, with_auth(writes, &auth)))
        };
        let id = self.change(create).await?;
        Ok(CreatedService { id, warnings: Vec::new() })
    }

    /// Replaces a service's spec (or rolls it back); returns the warnings.
    pub async fn update_service(
        &self,
        reference: &str,
        update: ServiceUpdate,
    ) -> Result<Vec<String>, ManagerError> {
        let auth = checked(update.registry_auth)?;
        let version = Version { index: update.version };
        self.change(|store, _| {
            let service = store.find_service(reference)?;
            let (current, previous) =
                (&service.internal.registry_auth, &service.internal.previous_registry_auth);
            if update.rollback {
                return Ok(((), request::rollback_service(store, &service.id, version, clock::now())?));
            }
            let kept = match update.registry_auth_from {
                RegistryAuthFrom::Spec => current,
                RegistryAuthFrom::PreviousSpec => previous,
            };
            let writes = request::update_service(store, &service.id, version, update.spec.clone())?;
            Ok(((), with_auth(writes, auth.as_ref().unwrap_or(kept))))
        })
        .await?;
        Ok(Vec::new())
    }

    /// Removes a service; its tasks are stopped and deleted afterwards.
    pub async fn remove_service(&self, reference: &str) -> Result<(), ManagerError> {
        self.change(|store, _| {
            let service = store.find_service(reference)?;
            Ok(((), request::remove_service(store, &service.id)?))
        })
        .await
    }

    /// One service by id, name or id prefix, as the API's JSON.
    pub fn service(&self, reference: &str, insert_defaults: bool) -> Result<Value, ManagerError> {
        let store = self.inner.consensus.read();
        let service = store.find_service(reference)?;
        if !insert_defaults {
            return Ok(service.to_api());
        }
        let spec = service.spec.clone().with_defaults();
        Ok(Service { spec, ..(**service).clone() }.to_api())
    }

    /// Services that pass the filters (id, label, mode, name, runtime), as the API's JSON; `status` adds `ServiceStatus`.
    pub fn services(&self, filters: &Filters, status: bool) -> Result<Vec<Value>, ManagerError> {
        filters.validate(&["id", "label", "mode", "name", "runtime"])?;
        filters.validate_values("mode", &["replicated", "global", "replicated-job", "global-job"])?;
        let store = self.inner.consensus.read();
        let passes = |service: &&Arc<Service>| {
            filters.matches_prefix("id", service.id.as_str())
                && filters.matches_prefix("name", &service.spec.name)
                && filters.matches_labels("label", &service.spec.labels)
                && filters.matches_exactly("mode", service.spec.mode.as_str())
                && filters.matches_exactly("runtime", runtime(service))
        };
        let found = store.services().filter(passes);
        Ok(found.map(|service| listed(&store, service, status)).collect())
    }
}

fn runtime(service: &Service) -> &str {
    match service.spec.task_template.runtime.as_str() {
        "" => "container",
        runtime => runtime,
    }
}

fn listed(store: &Store, service: &Service, status: bool) -> Value {
    let mut value = service.to_api();
    if status && let Some(fields) = value.as_object_mut() {
        let tasks = || store.tasks_of_service(&service.id);
        let wanted = tasks().filter(|task| task.desired_state == TaskState::Running).count() as u64;
        let counts = json!({
            "RunningTasks": tasks().filter(|task| task.status.state == TaskState::Running && task.is_wanted()).count(),
            "DesiredTasks": service.spec.replicas().unwrap_or(wanted),
            "CompletedTasks": tasks().filter(|task| task.status.state == TaskState::Complete).count(),
        });
        fields.insert("ServiceStatus".to_owned(), counts);
    }
    value
}

fn checked(auth: Option<String>) -> Result<Option<String>, ManagerError> {
    match auth {
        Some(auth) if auth.len() > MAX_AUTH_BYTES => Err(ManagerError::AuthTooLarge { bytes: auth.len() }),
        auth => Ok(auth),
    }
}

/// The writes with the credentials of the spec in the service they write.
fn with_auth(writes: Vec<Write>, auth: &str) -> Vec<Write> {
    let fill = |object: Object| match object {
        Object::Service(service) => {
            let mut service = Arc::unwrap_or_clone(service);
            service.internal.registry_auth = auth.to_owned();
            Object::from(service)
        }
        other => other,
    };
    let fill_write = |write| match write {
        Write::Create(object) => Write::Create(fill(object)),
        Write::Update { object, read_version } => Write::Update { object: fill(object), read_version },
        other => other,
    };
    writes.into_iter().map(fill_write).collect()
}
