//! What managers and this machine's network tell each other about encrypted networks.
//!
//! In: keys that a session told; the generation of what the kernel holds. Out: the keys in the network, and a session that tells
//! the generation of now. Keys are passed on and never written down.

use network::Network;
use tokio_util::sync::CancellationToken;

use crate::ties::Ties;

/// Passes on what is told, until `stopping`; what the kernel holds stays then, and serves.
pub(crate) async fn run(network: Network, ties: Ties, stopping: CancellationToken) {
    let mut generation = network.encryption_generation();
    let mut keys = ties.network_keys.subscribe();
    keys.mark_changed();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            Ok(()) = generation.changed() => {
                let generation = *generation.borrow_and_update();
                if ties.encryption_generation.send_replace(generation) != generation {
                    // Sessions change over, and tell it.
                    ties.description.send_modify(|_| ());
                }
            }
            Ok(()) = keys.changed() => {
                let told = keys.borrow_and_update().clone();
                if !told.is_empty() {
                    network.tell_keys(told).await;
                }
            }
        }
    }
}
