//! Any object, any write, any change: what goes through the log and what comes out.
//!
//! Never looks at what an object means.

use std::fmt;
use std::sync::Arc;

use objects::{Cluster, Config, Meta, Network, Node, Secret, Service, Task, Version};
use serde::{Deserialize, Serialize};

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The one cluster.
    Cluster,
    /// A machine.
    Node,
    /// A service.
    Service,
    /// A task.
    Task,
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

impl Kind {
    /// The word in messages and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Any object; cheap to clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// The one cluster.
    Cluster(Arc<Cluster>),
    /// A machine.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A network.
    Network(Arc<Network>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
}

impl Object {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Node(_) => Kind::Node,
            Self::Service(_) => Kind::Service,
            Self::Task(_) => Kind::Task,
            Self::Network(_) => Kind::Network,
            Self::Secret(_) => Kind::Secret,
            Self::Config(_) => Kind::Config,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Cluster(object) => object.id.as_str(),
            Self::Node(object) => object.id.as_str(),
            Self::Service(object) => object.id.as_str(),
            Self::Task(object) => object.id.as_str(),
            Self::Network(object) => object.id.as_str(),
            Self::Secret(object) => object.id.as_str(),
            Self::Config(object) => object.id.as_str(),
        }
    }

    /// Its version and times.
    pub fn meta(&self) -> Meta {
        match self {
            Self::Cluster(object) => object.meta,
            Self::Node(object) => object.meta,
            Self::Service(object) => object.meta,
            Self::Task(object) => object.meta,
            Self::Network(object) => object.meta,
            Self::Secret(object) => object.meta,
            Self::Config(object) => object.meta,
        }
    }

    /// The name that must be unique among its kind; `None` for kinds whose names may repeat.
    pub fn unique_name(&self) -> Option<&str> {
        match self {
            Self::Cluster(object) => Some(&object.spec.name),
            Self::Service(object) => Some(&object.spec.name),
            Self::Network(object) => Some(&object.spec.name),
            Self::Secret(object) => Some(&object.spec.name),
            Self::Config(object) => Some(&object.spec.name),
            Self::Node(_) | Self::Task(_) => None,
        }
    }

    /// The same object with other version and times.
    pub(crate) fn with_meta(&self, meta: Meta) -> Self {
        match self {
            Self::Cluster(object) => Self::Cluster(Arc::new(Cluster { meta, ..(**object).clone() })),
            Self::Node(object) => Self::Node(Arc::new(Node { meta, ..(**object).clone() })),
            Self::Service(object) => Self::Service(Arc::new(Service { meta, ..(**object).clone() })),
            Self::Task(object) => Self::Task(Arc::new(Task { meta, ..(**object).clone() })),
            Self::Network(object) => Self::Network(Arc::new(Network { meta, ..(**object).clone() })),
            Self::Secret(object) => Self::Secret(Arc::new(Secret { meta, ..(**object).clone() })),
            Self::Config(object) => Self::Config(Arc::new(Config { meta, ..(**object).clone() })),
        }
    }

    /// The task, when it is one.
    pub fn as_task(&self) -> Option<&Arc<Task>> {
        if let Self::Task(task) = self { Some(task) } else { None }
    }

    /// The service, when it is one.
    pub fn as_service(&self) -> Option<&Arc<Service>> {
        if let Self::Service(service) = self { Some(service) } else { None }
    }

    /// The network, when it is one.
    pub fn as_network(&self) -> Option<&Arc<Network>> {
        if let Self::Network(network) = self { Some(network) } else { None }
    }

    /// The node, when it is one.
    pub fn as_node(&self) -> Option<&Arc<Node>> {
        if let Self::Node(node) = self { Some(node) } else { None }
    }
}

macro_rules! objects_from {
    ($($name:ident),+) => { $(
        impl From<$name> for Object {
            fn from(object: $name) -> Self {
                Self::$name(Arc::new(object))
            }
        }
        impl From<Arc<$name>> for Object {
            fn from(object: Arc<$name>) -> Self {
                Self::$name(object)
            }
        }
    )+ };
}
objects_from!(Cluster, Node, Service, Task, Network, Secret, Config);

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Write {
    /// Makes an object; refused when its id or unique name is taken.
    Create(Object),
    /// Replaces an object; refused when it is not of the version that was read.
    Update {
        /// What it becomes; its own meta is ignored.
        object: Object,
        /// The version the writer read.
        read_version: Version,
    },
    /// Removes an object; refused when it is not of the version that was read.
    Remove {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The version the writer read.
        read_version: Version,
    },
    /// Writes nothing; refuses the transaction when the object is not of the version that was read.
    Check {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The version the writer read.
        read_version: Version,
    },
}

impl Write {
    /// An update of an object whose `meta` still is what was read.
    pub fn update(object: impl Into<Object>) -> Self {
        let object = object.into();
        Self::Update { read_version: object.meta().version, object }
    }

    /// A removal of an object as it was read.
    pub fn remove(object: impl Into<Object>) -> Self {
        let object = object.into();
        Self::Remove { kind: object.kind(), id: object.id().to_owned(), read_version: object.meta().version }
    }

    /// Kind and id of the object it is about.
    pub fn target(&self) -> (Kind, &str) {
        match self {
            Self::Create(object) | Self::Update { object, .. } => (object.kind(), object.id()),
            Self::Remove { kind, id, .. } | Self::Check { kind, id, .. } => (*kind, id),
        }
    }
}

/// What a write did to an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Kind of the object.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// What it was; `None` when it was made.
    pub before: Option<Object>,
    /// What it is; `None` when it was removed.
    pub after: Option<Object>,
}
