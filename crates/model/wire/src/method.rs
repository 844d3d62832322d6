//! What a method is: its name, who may call it, what goes in and what comes out.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Who may call a method. The receiver checks it before the request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Whoever reaches the port; for those that are about to join. Limited per address.
    Anyone,
    /// Any node of the swarm, even when its certificate has run out: it has proved that it holds the key.
    ExpiredToo,
    /// Any node of the swarm with a valid certificate.
    Node,
    /// Managers of the swarm with a valid certificate.
    Manager,
}

/// A call: one request, one answer, at most 4 MiB each.
pub trait Method: Send + Sync + 'static {
    /// Unique among all methods; part of the address of the call.
    const NAME: &'static str;
    /// Who may call.
    const CALLERS: Callers;
    /// What goes in.
    type Request: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What comes out.
    type Response: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// A call that is answered by a stream of items until either side ends it.
pub trait Streaming: Send + Sync + 'static {
    /// Unique among all methods; part of the address of the call.
    const NAME: &'static str;
    /// Who may call.
    const CALLERS: Callers;
    /// What goes in, at most 4 MiB.
    type Request: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What comes out, again and again; at most 64 MiB each.
    type Item: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// A call whose bytes have an encoding of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawMethod {
    /// Unique among all methods; part of the address of the call.
    pub name: &'static str,
    /// Who may call.
    pub callers: Callers,
}
