//! Refuses what Docker has and this engine cannot honour yet, by name.
//!
//! A field that is silently ignored is a promise broken later; each of these becomes supported with its own feature.

use super::SpecError;
use crate::{ClusterSpec, ContainerSpec, MountType, ServiceSpec, TaskSpec};

fn refuse(what: &str) -> Result<(), SpecError> {
    Err(SpecError::Unsupported(format!("{what} not supported yet")))
}

pub(super) fn service(spec: &ServiceSpec) -> Result<(), SpecError> {
    if spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some() {
        return refuse("service jobs are");
    }
    task(&spec.task_template)
}

fn task(spec: &TaskSpec) -> Result<(), SpecError> {
    let is_container = matches!(spec.runtime.as_str(), "" | "container");
    if spec.plugin_spec.is_some() || spec.network_attachment_spec.is_some() || !is_container {
        return refuse("runtimes other than `container` are");
    }
    if spec.reservations().is_some_and(|resources| !resources.generic_resources.is_empty()) {
        return refuse("reservations of generic resources are");
    }
    spec.container_spec.as_ref().map_or(Ok(()), container)
}

fn container(spec: &ContainerSpec) -> Result<(), SpecError> {
    if !spec.secrets.is_empty() {
        return refuse("secrets are");
    }
    if !spec.configs.is_empty() {
        return refuse("configs are");
    }
    if spec.isolation != crate::Isolation::Default {
        return refuse("isolation modes of Windows are");
    }
    for mount in &spec.mounts {
        match mount.kind {
            MountType::Cluster => return refuse("cluster volumes are"),
            MountType::Npipe => return refuse("named pipes of Windows are"),
            MountType::Image => return refuse("image mounts are"),
            MountType::Volume | MountType::Bind | MountType::Tmpfs => {}
        }
    }
    let Some(privileges) = &spec.privileges else { return Ok(()) };
    if privileges.credential_spec.as_ref().is_some_and(|spec| *spec != crate::CredentialSpec::default()) {
        return refuse("credential specs of Windows are");
    }
    if privileges.selinux_context.as_ref().is_some_and(|context| *context != crate::SelinuxContext::default())
    {
        return refuse("SELinux labels are");
    }
    Ok(())
}

pub(super) fn cluster(spec: &ClusterSpec) -> Result<(), SpecError> {
    if !spec.ca_config.external_cas.is_empty() {
        return refuse("external certificate authorities are");
    }
    if spec.encryption_config.auto_lock_managers {
        return refuse("locked managers (autolock) are");
    }
    Ok(())
}
