//! Many changes with few system calls, for families where the kernel applies each message on its own.
//!
//! In: changes in the order in which they shall happen. Out: all of them tried, and the first refusal that matters: what is
//! refused does not stop what follows. Never interprets a payload.

use rustix::net::RecvFlags;

use crate::NetlinkError;
use crate::socket::{self, Socket};
use crate::wire::{self, Encoder};

/// chosen: a refusal takes about a kilobyte of the receive queue (208 KiB), and every message of a piece may be refused.
const MESSAGES_AT_ONCE: usize = 100;

/// Changes to be sent together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    operation: &'static str,
    message: Encoder,
    /// What is to go may be gone, what is to be added may be there.
    is_done_when: fn(&NetlinkError) -> bool,
}

/// For changes whose every refusal matters.
pub(crate) fn never(_: &NetlinkError) -> bool {
    false
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change; a refusal that `is_done_when` knows counts as success.
    pub(crate) fn push(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        is_done_when: fn(&NetlinkError) -> bool,
        build: impl FnOnce(&mut Encoder),
    ) {
        let mut message = Encoder::new();
        let mark = message.start(kind, flags | socket::REQUEST, 0);
        build(&mut message);
        message.finish(mark);
        self.changes.push(Change { operation, message, is_done_when });
    }
}

impl Socket {
    /// Applies all changes, which together are an `operation`. All are tried; the first refusal that matters is told.
    pub(crate) fn commit(&mut self, operation: &'static str, batch: Batch) -> Result<(), NetlinkError> {
        let mut changes = batch.changes;
        let mut result = Ok(());
        for piece in changes.chunks_mut(MESSAGES_AT_ONCE) {
            result = result.and(self.commit_piece(operation, piece)?);
        }
        result
    }

    /// The outer error: nobody knows what was done.
    fn commit_piece(
        &mut self,
        operation: &'static str,
        piece: &mut [Change],
    ) -> Result<Result<(), NetlinkError>, NetlinkError> {
        let Some(last) = piece.len().checked_sub(1) else { return Ok(Ok(())) };
        let mut first = 0;
        let mut bytes = Encoder::new();
        for (position, change) in piece.iter_mut().enumerate() {
            let sequence = self.next_sequence();
            first = if position == 0 { sequence } else { first };
            // Only the last one is answered in any case; before it, only refusals are.
            change.message.number(sequence, if position == last { socket::ACK } else { 0 });
            bytes.raw(change.message.bytes());
        }
        self.send(operation, bytes.bytes())?;
        let mut result = Ok(());
        loop {
            let datagram = self.receive(RecvFlags::empty());
            let datagram = datagram.map_err(|e| NetlinkError::Receive { operation, source: e.into() })?;
            for message in wire::messages(datagram).filter(socket::is_acknowledgement) {
                let position = message.sequence.wrapping_sub(first) as usize;
                let Some(change) = piece.get(position) else { continue };
                let outcome = socket::outcome(change.operation, &message);
                result =
                    result.and(outcome.or_else(|e| if (change.is_done_when)(&e) { Ok(()) } else { Err(e) }));
                if position == last {
                    return Ok(result);
                }
            }
        }
    }
}
