//! The connections of a client: one per address, made once for all that wait for it.
//!
//! In: an address and the identity of the moment. Out: a connection, or why there is none. A connection of a former
//! identity is left to the streams that use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{ClientOptions, Offset};
use crate::connection::{Connection, Dial, unreachable};
use crate::error::CallError;
use crate::tls::Current;

/// A connection, or an attempt at one.
#[derive(Clone)]
struct Attempt {
    /// Of which identity it is.
    generation: u64,
    made: Arc<OnceLock<Result<Arc<Connection>, CallError>>>,
    /// Cancelled when `made` is known.
    settled: CancellationToken,
}

impl Attempt {
    fn live(&self) -> Option<&Arc<Connection>> {
        self.made.get()?.as_ref().ok().filter(|connection| !connection.is_closed())
    }

    fn is_usable(&self, generation: u64) -> bool {
        // One that is still being made is waited for.
        let is_made = self.made.get().is_some() || self.settled.is_cancelled();
        self.generation >= generation && (!is_made || self.live().is_some())
    }
}

/// The connections of a client.
pub(crate) struct Pool {
    options: ClientOptions,
    tasks: TaskTracker,
    places: Mutex<HashMap<String, Place>>,
}

#[derive(Default)]
struct Place {
    attempt: Option<Attempt>,
    offset: Option<Offset>,
}

impl Pool {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self { options, tasks: TaskTracker::new(), places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to an address; made when there is none.
    ///
    /// The attempt belongs to the pool: it goes on when whoever asked first has run out of time.
    pub(crate) async fn connection(
        &self,
        address: &str,
        current: Arc<Current>,
    ) -> Result<Arc<Connection>, CallError> {
        let attempt = self.attempt(address, current);
        attempt.settled.cancelled().await;
        let cut_short = || Err(unreachable(address, std::io::ErrorKind::Interrupted.into()));
        attempt.made.get().cloned().unwrap_or_else(cut_short)
    }

    fn attempt(&self, address: &str, current: Arc<Current>) -> Attempt {
        let mut places = self.places();
        if !places.contains_key(address) {
            // Addresses change over the years: those without a connection are forgotten when a new one comes.
            places.retain(|_, place| place.attempt.as_ref().is_some_and(|attempt| attempt.is_usable(0)));
        }
        let place = places.entry(address.to_owned()).or_default();
        if let Some(attempt) = place.attempt.as_ref().filter(|attempt| attempt.is_usable(current.generation))
        {
            return attempt.clone();
        }
        let generation = current.generation;
        let attempt = Attempt { generation, made: Arc::default(), settled: CancellationToken::new() };
        let dial =
            Dial { address: address.to_owned(), current, options: self.options, tasks: self.tasks.clone() };
        let Attempt { made, settled, .. } = attempt.clone();
        self.tasks.spawn(async move {
            // Whoever waits is told even when the runtime ends in the middle.
            let _settled = settled.drop_guard();
            let connection = dial.connect().await.map(Arc::new);
            made.get_or_init(|| connection);
        });
        place.attempt = Some(attempt.clone());
        attempt
    }

    /// Lets the next call make a new connection.
    pub(crate) fn forget(&self, address: &str) {
        if let Some(place) = self.places().get_mut(address) {
            place.attempt = None;
        }
    }

    /// Takes a connection out that is of no use, unless it was replaced already.
    pub(crate) fn discard(&self, connection: &Arc<Connection>) {
        let mut places = self.places();
        let Some(place) = places.get_mut(&connection.address) else { return };
        let made = place.attempt.as_ref().and_then(|attempt| attempt.made.get());
        let is_same = made.is_some_and(|made| made.as_ref().is_ok_and(|made| Arc::ptr_eq(made, connection)));
        if is_same {
            place.attempt = None;
        }
    }

    pub(crate) fn learn(&self, address: &str, offset: Offset) {
        if let Some(place) = self.places().get_mut(address) {
            place.offset = Some(offset);
        }
    }

    pub(crate) fn offset(&self, address: &str) -> Option<Offset> {
        self.places().get(address)?.offset
    }

    /// The connection that the next call would use; `None` when one had to be made.
    pub(crate) fn ready(&self, address: &str, generation: u64) -> Option<Arc<Connection>> {
        let places = self.places();
        let attempt = places.get(address)?.attempt.as_ref()?;
        attempt.live().filter(|_| attempt.generation >= generation).cloned()
    }

    /// The token of the live connection's end.
    pub(crate) fn live(&self, address: &str) -> Option<CancellationToken> {
        Some(self.places().get(address)?.attempt.as_ref()?.live()?.closed.clone())
    }
}
