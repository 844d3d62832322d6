//! Changes limits and restart policy of a container that exists.

use docker::{ContainerUpdate, HostConfig, UpdateResponse};
use runtime::cgroup::Cgroup;

use super::{start, validate};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::files::blocking;
use crate::spec_build::limits;

impl Engine {
    /// Changes what the update names; what is absent or zero stays.
    pub async fn update(
        &self,
        container: &str,
        update: ContainerUpdate,
    ) -> Result<UpdateResponse, EngineError> {
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let inner = &engine.inner;
            let _turn = container.turn.lock().await;
            container.check_exists()?;
            let before = container.live().record.host_config.clone();
            let after = apply(before.clone(), &update);
            validate::host_config(&after, inner.cpus)?;
            if container.status().has_process() {
                let parent = start::cgroup_parent(inner, &container.live().record);
                let (name, limits) = (container.id.clone(), limits::build(&after));
                blocking(move || {
                    Cgroup::open(&parent, &name)
                        .and_then(|cgroup| cgroup.update(&limits))
                        .map_err(|error| EngineError::Cgroup(Box::new(error)))
                })
                .await?;
            }
            container.live().record.host_config = after;
            if let Err(error) = inner.save(&container).await {
                container.live().record.host_config = before;
                return Err(error);
            }
            inner.events.container(&container, "update", &[]);
            Ok(UpdateResponse { warnings: Vec::new() })
        })
        .await
    }
}

fn apply(mut host: HostConfig, update: &ContainerUpdate) -> HostConfig {
    fn set<T: Copy + Default + PartialEq>(value: &mut T, new: Option<T>) {
        if let Some(new) = new.filter(|new| *new != T::default()) {
            *value = new;
        }
    }
    set(&mut host.cpu_shares, update.cpu_shares);
    set(&mut host.memory, update.memory);
    set(&mut host.nano_cpus, update.nano_cpus);
    set(&mut host.blkio_weight, update.blkio_weight);
    set(&mut host.cpu_period, update.cpu_period);
    set(&mut host.cpu_quota, update.cpu_quota);
    set(&mut host.cpu_realtime_period, update.cpu_realtime_period);
    set(&mut host.cpu_realtime_runtime, update.cpu_realtime_runtime);
    set(&mut host.memory_reservation, update.memory_reservation);
    set(&mut host.memory_swap, update.memory_swap);
    for (value, new) in
        [(&mut host.cpuset_cpus, &update.cpuset_cpus), (&mut host.cpuset_mems, &update.cpuset_mems)]
    {
        if let Some(new) = new.as_ref().filter(|new| !new.is_empty()) {
            value.clone_from(new);
        }
    }
    if update.pids_limit.is_some() {
        host.pids_limit = update.pids_limit;
    }
    if let Some(policy) = update.restart_policy.as_ref().filter(|policy| !policy.name.is_empty()) {
        host.restart_policy = policy.clone();
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_update_does_not_name_stays() {
        let host = HostConfig { memory: 1 << 30, cpu_shares: 5, ..Default::default() };
        let update = ContainerUpdate { memory: Some(2 << 30), cpu_shares: Some(0), ..Default::default() };
        let after = apply(host, &update);
        assert_eq!((after.memory, after.cpu_shares), (2 << 30, 5));
    }
}
