//! Refuses containers that cannot work.

use std::collections::BTreeSet;

use super::{SpecError, invalid, is_image_reference};
use crate::{ContainerSpec, HealthConfig, Nanos};

/// Shortest time of a health check. Source: moby, `api/types/container/health.go`.
const MIN_HEALTH_TIME: Nanos = Nanos::from_millis(1);

pub(super) fn container(spec: &ContainerSpec) -> Result<(), SpecError> {
    if spec.image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    if !is_image_reference(&spec.image) {
        return invalid(format!("ContainerSpec: {:?} is not a valid repository/tag", spec.image));
    }
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        if !targets.insert(&mount.target) {
            return invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target));
        }
    }
    spec.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(check: &HealthConfig) -> Result<(), SpecError> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        if time.0 != 0 && time < MIN_HEALTH_TIME {
            return invalid(format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms"));
        }
    }
    if check.retries < 0 {
        return invalid("ContainerSpec: Retries in HealthConfig cannot be negative");
    }
    Ok(())
}
