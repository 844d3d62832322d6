//! The JSON shapes of the Docker Engine API (1.24 to 1.51), image references, filters, durations and sizes.
//!
//! In: request bodies, query strings and headers as clients send them. Out: typed values, and responses with the
//! `null`, `[]` and `{}` habits that clients of dockerd rely on. Decides nothing about what is supported: a shape holds
//! every field of the API, and whoever acts on it refuses what it cannot honour. Never does I/O.
//!
//! ```text
//! body bytes ── lenient::from_slice ──► Parsed { value, unknown } ──► engine, manager
//!                (any case, null = absent)                              │
//! response bytes ◄──────────────── serde_json ◄──────────── shapes ◄────┘
//! ```

#[macro_use]
mod shape;

pub mod api_version;
pub mod archive;
pub mod auth;
pub mod container;
pub mod container_config;
pub mod event;
pub mod exec;
pub mod filters;
#[cfg(test)]
mod filters_tests;
pub mod host_config;
pub mod image;
pub mod lenient;
pub mod mount;
pub mod network;
mod pattern;
pub mod port;
pub mod progress;
pub mod reference;
#[cfg(test)]
mod reference_tests;
pub mod stats;
pub mod system;
pub mod units;
#[cfg(test)]
mod units_tests;
pub mod volume;

pub use api_version::ApiVersion;
pub use archive::PathStat;
pub use auth::{AuthConfig, AuthResponse};
pub use container::{
    Change, ContainerInspect, ContainerSummary, ContainerUpdate, ContainersPruneReport, Health, HealthLog,
    NetworkSettings, State, SummaryHostConfig, SummaryNetworkSettings, TopResponse, UpdateResponse,
    WaitError, WaitResponse,
};
pub use container_config::{
    ContainerConfig, ContainerCreateRequest, ContainerCreateResponse, EndpointIpamConfig, EndpointSettings,
    HealthcheckConfig, NetworkingConfig,
};
pub use event::{Actor, EventMessage};
pub use exec::{ExecConfig, ExecCreateResponse, ExecInspect, ExecProcess, ExecStart};
pub use filters::Filters;
pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
pub use image::{
    DistributionInspect, GraphDriver, HistoryItem, ImageConfig, ImageDeleteResponse, ImageInspect,
    ImageMetadata, ImageSummary, ImagesPruneReport, OciDescriptor, OciPlatform, RootFs,
};
pub use mount::{BindOptions, ImageOptions, Mount, MountPoint, TmpfsOptions, VolumeOptions};
pub use network::{
    ConfigReference, Ipam, IpamConfig, NetworkConnect, NetworkContainer, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnect, NetworkInspect, NetworksPruneReport,
};
pub use objects::{Nanos, Timestamp};
pub use port::{ContainerPort, Port, PortBinding, PortMap, Protocol};
pub use progress::{ProgressDetail, ProgressMessage};
pub use reference::Reference;
pub use shape::null_as_default;
pub use system::{
    AddressPool, Commit, ComponentVersion, DiskUsage, PluginsInfo, RegistryServiceConfig, Runtime, SwarmInfo,
    SwarmPeer, SystemInfo, SystemVersion, VersionPlatform,
};
pub use volume::{VolumeCreateRequest, VolumeInspect, VolumeListResponse, VolumeUsage, VolumesPruneReport};

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorBody {
    /// Docker's wording where a client matches on it.
    pub message: String,
}

/// An object with an id and nothing else (`POST /containers/{id}/exec`, `POST /commit`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdResponse {
    /// The id of what was created.
    #[serde(rename = "Id")]
    pub id: String,
}
