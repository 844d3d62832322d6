//! What clients ask of volumes: create, list, inspect, remove, prune.

use docker::{Filters, VolumeCreateRequest, VolumeInspect, VolumeListResponse, VolumesPruneReport};

use super::{ANONYMOUS_LABEL, VolumeRecord, make_named, remove_volume};
use crate::engine::{Engine, Inner, new_id};
use crate::error::EngineError;

impl Engine {
    /// Makes a volume; one that exists already is returned as it is.
    pub async fn volume_create(&self, request: VolumeCreateRequest) -> Result<VolumeInspect, EngineError> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(EngineError::invalid(format!(
                "error looking up volume plugin {0}: plugin \"{0}\" not found",
                request.driver
            )));
        }
        if let Some((option, _)) = request.driver_opts.first_key_value() {
            return Err(EngineError::NotSupported(format!("volume driver option `{option}`")));
        }
        if request.cluster_volume_spec.is_some() {
            return Err(EngineError::NotSupported("ClusterVolumeSpec".into()));
        }
        let engine = self.clone();
        self.to_the_end(async move {
            let inner = &engine.inner;
            let mut labels = request.labels;
            let name = match request.name {
                name if name.is_empty() => {
                    labels.insert(ANONYMOUS_LABEL.into(), String::new());
                    new_id()?
                }
                name => name,
            };
            if make_named(inner, None, &name, &labels).await? {
                inner.events.volume(&name, "create", &[]);
            }
            inspect(inner, &name)
        })
        .await
    }

    /// One volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<VolumeInspect, EngineError> {
        inspect(&self.inner, name)
    }

    /// The volumes that pass `dangling`, `driver`, `label`, `name`.
    pub async fn volume_list(&self, filters: &Filters) -> Result<VolumeListResponse, EngineError> {
        let invalid = |error: docker::filters::FilterError| EngineError::invalid(error.to_string());
        filters.validate(&["dangling", "driver", "label", "name"]).map_err(invalid)?;
        let dangling = filters.boolean("dangling").map_err(invalid)?;
        let all = self.inner.volumes.all();
        let volumes = all
            .values()
            .filter(|volume| {
                dangling.is_none_or(|wanted| wanted == volume.users.is_empty())
                    && filters.matches_exactly("driver", "local")
                    && filters.matches_labels("label", &volume.record.labels)
                    && (!filters.contains("name")
                        || filters.get("name").any(|part| volume.record.name.contains(part)))
            })
            .map(|volume| show(&self.inner, &volume.record))
            .collect();
        Ok(VolumeListResponse { volumes, warnings: None })
    }

    /// Removes a volume that no container mounts. `force` only makes an unknown name fine.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let (engine, name) = (self.clone(), name.to_owned());
        self.to_the_end(async move {
            match remove_volume(&engine.inner, &name).await {
                Err(EngineError::NoSuchVolume(_)) if force => Ok(()),
                other => other,
            }
        })
        .await
    }

    /// Removes volumes that no container mounts: anonymous ones, with the filter `all=true` also named ones.
    pub async fn volumes_prune(&self, filters: &Filters) -> Result<VolumesPruneReport, EngineError> {
        let invalid = |error: docker::filters::FilterError| EngineError::invalid(error.to_string());
        filters.validate(&["all", "label"]).map_err(invalid)?;
        let all = filters.boolean("all").map_err(invalid)?.unwrap_or(false);
        let candidates: Vec<String> = {
            let volumes = self.inner.volumes.all();
            let is_wanted = |record: &VolumeRecord| {
                (all || record.labels.contains_key(ANONYMOUS_LABEL))
                    && filters.matches_labels("label", &record.labels)
            };
            volumes
                .values()
                .filter(|volume| volume.users.is_empty() && is_wanted(&volume.record))
                .map(|volume| volume.record.name.clone())
                .collect()
        };
        let engine = self.clone();
        self.to_the_end(async move {
            let mut report = VolumesPruneReport { volumes_deleted: Some(Vec::new()), space_reclaimed: 0 };
            for name in candidates {
                let dir = engine.inner.roots.volume_data(&name);
                let size = crate::files::blocking(move || Ok(crate::files::tree_size(&dir))).await?;
                // A container may have taken it meanwhile.
                if remove_volume(&engine.inner, &name).await.is_ok() {
                    report.space_reclaimed += size;
                    report.volumes_deleted.get_or_insert_default().push(name);
                }
            }
            Ok(report)
        })
        .await
    }
}

fn inspect(inner: &Inner, name: &str) -> Result<VolumeInspect, EngineError> {
    let all = inner.volumes.all();
    let volume = all.get(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
    Ok(show(inner, &volume.record))
}

fn show(inner: &Inner, record: &VolumeRecord) -> VolumeInspect {
    // Docker shows whole seconds here.
    let seconds = objects::Timestamp::from_secs(record.created.0.div_euclid(1_000_000_000));
    VolumeInspect {
        created_at: Some(seconds.to_string()),
        driver: "local".into(),
        labels: (!record.labels.is_empty()).then(|| record.labels.clone()),
        mountpoint: inner.roots.volume_data(&record.name).display().to_string(),
        name: record.name.clone(),
        options: None,
        scope: "local".into(),
        usage_data: None,
    }
}
