//! Services: create, update, roll back, remove, look up and list.
//!
//! In: specs as the API received them. Out: committed changes, or why not, in Docker's words.
//! Never makes a task: that is `control::step`'s, woken by the commit.

use std::sync::Arc;

use control::{networks, request};
use docker::filters::Filters;
use objects::{Service, ServiceId, ServiceSpec, TaskState, UpdateState, Version};
use serde_json::{Value, json};
use store::{FindError, Object, Store, Write};
use wire::Hidden;
use wire::forward::{CreatedService, Operation, Outcome, RegistryAuthFrom, ServiceUpdate};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::perform::unexpected;
use crate::propose::{Beside, Decided};
use crate::shown::Shown;

/// Longest registry credentials. chosen: HTTP servers accept headers of this size; tokens have some KiB.
const MAX_AUTH_BYTES: usize = 64 * 1024;

impl Manager {
    /// Creates a service; returns when it is committed, with its first tasks on their way.
    pub async fn create_service(
        &self,
        spec: ServiceSpec,
        registry_auth: Option<String>,
    ) -> Result<CreatedService, ManagerError> {
        let id = self.new_id();
        let registry_auth = registry_auth.map(Hidden::from);
        let operation = Operation::CreateService { id, spec: Box::new(spec), registry_auth };
        match self.perform(operation).await? {
            Outcome::Created(created) => Ok(created),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces a service's spec (or rolls it back); returns the warnings.
    pub async fn update_service(
        &self,
        reference: &str,
        update: ServiceUpdate,
    ) -> Result<Vec<String>, ManagerError> {
        let operation =
            Operation::UpdateService { reference: reference.to_owned(), update: Box::new(update) };
        match self.perform(operation).await? {
            Outcome::Updated { warnings } => Ok(warnings),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a service; its tasks are stopped and deleted afterwards.
    pub async fn remove_service(&self, reference: &str) -> Result<(), ManagerError> {
        self.perform(Operation::RemoveService { reference: reference.to_owned() }).await.map(drop)
    }

    /// At the leader: makes a service with this id. Once it is there, nothing is made.
    pub(crate) async fn do_create_service(
        &self,
        id: &ServiceId,
        spec: &ServiceSpec,
        registry_auth: Option<&Hidden>,
    ) -> Result<Decided<Outcome>, ManagerError> {
        let auth = checked(registry_auth)?.unwrap_or_default();
        let created = Outcome::Created(CreatedService { id: id.clone(), warnings: Vec::new() });
        self.change(beside(spec), |store, ids| {
            if store.service(id).is_some() {
                return Ok((created.clone(), Vec::new()));
            }
            let (_, writes) = request::create_service(store, spec.clone(), ids)?;
            let with = |service: Service| {
                let mut service = Service { id: id.clone(), ..service };
                service.internal.registry_auth = auth.clone();
                service
            };
            Ok((created.clone(), each_service(writes, with)))
        })
        .await
    }

    /// At the leader: replaces a service's spec or rolls it back. With `again` a service that is as wanted already is
    /// left as it is.
    pub(crate) async fn do_update_service(
        &self,
        reference: &str,
        update: &ServiceUpdate,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        let auth = checked(update.registry_auth.as_ref())?;
        let version = Version { index: update.version };
        // Which ports a rollback takes is in the store.
        let beside = if update.rollback { Beside::Nobody } else { beside(&update.spec) };
        let updated = Outcome::Updated { warnings: Vec::new() };
        self.change(beside, |store, _| {
            let service = store.find_service(reference)?;
            let is_as_wanted = || match update.rollback {
                true => is_rolling_back(service),
                false => networks::resolved(store, update.spec.clone().normalised())
                    .is_ok_and(|spec| service.spec == spec),
            };
            if again && service.meta.version.index > update.version && is_as_wanted() {
                return Ok((updated.clone(), Vec::new()));
            }
            if update.rollback {
                let writes = request::rollback_service(store, &service.id, version, clock::now())?;
                return Ok((updated.clone(), writes));
            }
            let kept = match update.registry_auth_from {
                RegistryAuthFrom::Spec => &service.internal.registry_auth,
                RegistryAuthFrom::PreviousSpec => &service.internal.previous_registry_auth,
            };
            let auth = auth.as_ref().unwrap_or(kept);
            let writes = request::update_service(store, &service.id, version, update.spec.clone())?;
            let with = |mut service: Service| {
                service.internal.registry_auth.clone_from(auth);
                service
            };
            Ok((updated.clone(), each_service(writes, with)))
        })
        .await
    }

    /// At the leader: removes a service. With `again` one that is gone already is as wanted.
    pub(crate) async fn do_remove_service(
        &self,
        reference: &str,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        self.change(Beside::Others, |store, _| match store.find_service(reference) {
            Err(FindError::NotFound { .. }) if again => Ok((Outcome::Done, Vec::new())),
            found => Ok((Outcome::Done, request::remove_service(store, &found?.id)?)),
        })
        .await
    }

    /// One service by id, name or id prefix, as the API's JSON.
    pub fn service(&self, reference: &str, insert_defaults: bool) -> Result<Value, ManagerError> {
        let store = self.view()?;
        let service = store.find_service(reference)?;
        Ok(if insert_defaults { with_defaults(service).to_api() } else { service.to_api() })
    }

    /// As [`Self::service`], ready to be sent.
    pub fn shown_service(&self, reference: &str, insert_defaults: bool) -> Result<Shown, ManagerError> {
        let store = self.view()?;
        let service = store.find_service(reference)?;
        if insert_defaults {
            return Ok(Shown::of(&with_defaults(service).to_api()));
        }
        Ok(self.inner.texts.service(service))
    }

    /// Services that pass the filters (id, label, mode, name, runtime), as the API's JSON; `status` adds `ServiceStatus`.
    pub fn services(&self, filters: &Filters, status: bool) -> Result<Vec<Shown>, ManagerError> {
        filters.validate(&["id", "label", "mode", "name", "runtime"])?;
        filters.validate_values("mode", &["replicated", "global", "replicated-job", "global-job"])?;
        let store = self.view()?;
        let passes = |service: &&Arc<Service>| {
            filters.matches_prefix("id", service.id.as_str())
                && filters.matches_prefix("name", &service.spec.name)
                && filters.matches_labels("label", &service.spec.labels)
                && filters.matches_exactly("mode", service.spec.mode.as_str())
                && filters.matches_exactly("runtime", runtime(service))
        };
        let found: Vec<&Arc<Service>> = store.services().filter(passes).collect();
        let is_there = |id: &ServiceId| store.service(id).is_some();
        let mut shown = self.inner.texts.each(found.iter().copied(), store.services().count(), is_there);
        if status {
            for (shown, service) in shown.iter_mut().zip(found) {
                *shown = shown.with("ServiceStatus", &counts(&store, service));
            }
        }
        Ok(shown)
    }
}

fn with_defaults(service: &Service) -> Service {
    Service { spec: service.spec.clone().with_defaults(), ..service.clone() }
}

fn is_rolling_back(service: &Service) -> bool {
    use UpdateState::{RollbackCompleted, RollbackPaused, RollbackStarted};
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(state, Some(RollbackStarted | RollbackPaused | RollbackCompleted))
}

fn runtime(service: &Service) -> &str {
    match service.spec.task_template.runtime.as_str() {
        "" => "container",
        runtime => runtime,
    }
}

/// What `ServiceStatus` says.
fn counts(store: &Store, service: &Service) -> Value {
    let tasks = || store.tasks_of_service(&service.id);
    let wanted = tasks().filter(|task| task.desired_state == TaskState::Running).count() as u64;
    json!({
        "RunningTasks": tasks().filter(|task| task.status.state == TaskState::Running && task.is_wanted()).count(),
        "DesiredTasks": service.spec.replicas().unwrap_or(wanted),
        "CompletedTasks": tasks().filter(|task| task.status.state == TaskState::Complete).count(),
    })
}

fn checked(auth: Option<&Hidden>) -> Result<Option<String>, ManagerError> {
    match auth.map(Hidden::reveal) {
        Some(auth) if auth.len() > MAX_AUTH_BYTES => Err(ManagerError::AuthTooLarge { bytes: auth.len() }),
        auth => Ok(auth.map(str::to_owned)),
    }
}

/// Ports and addresses are the swarm's: whoever takes one has to know all that are taken.
fn beside(spec: &ServiceSpec) -> Beside {
    let takes_ports = spec.endpoint_spec.as_ref().is_some_and(|endpoint| !endpoint.ports.is_empty());
    if takes_ports || !spec.networks().is_empty() { Beside::Nobody } else { Beside::Others }
}

/// The writes with their services as `with` makes them.
fn each_service(writes: Vec<Write>, with: impl Fn(Service) -> Service) -> Vec<Write> {
    let fill = |object: Object| match object {
        Object::Service(service) => Object::from(with(Arc::unwrap_or_clone(service))),
        other => other,
    };
    let fill_write = |write| match write {
        Write::Create(object) => Write::Create(fill(object)),
        Write::Update { object, read_version } => Write::Update { object: fill(object), read_version },
        other => other,
    };
    writes.into_iter().map(fill_write).collect()
}
