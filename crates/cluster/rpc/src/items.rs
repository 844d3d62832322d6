//! A stream of items as it is sent.
//!
//! In: what a handler's stream gives. Out: pieces of a body; small items that are ready at the same time share one.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use serde::Serialize;
use wire::{Code, Refusal};

use crate::frame::{self, Kind};
use crate::limits;

/// A piece is sent once it has this many bytes. Source: RFC 9113, 4.2 (the usual size of a frame).
const PIECE: usize = 16 * 1024;

/// No piece is shorter. Source: h2 0.4, `proto/streams/counts.rs`: a connection is given up when too many frames below
/// this wait for a slow reader.
const SHORTEST: usize = 256;

/// Items on their way out, up to the first refusal.
pub(crate) struct Items<T, S> {
    /// `None` after the end.
    stream: Option<Pin<Box<S>>>,
    piece: BytesMut,
    item: PhantomData<fn() -> T>,
}

impl<T, S> Items<T, S>
where
    T: Serialize,
    S: Stream<Item = Result<T, Refusal>>,
{
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: Some(Box::pin(stream)), piece: BytesMut::new(), item: PhantomData }
    }

    fn add(&mut self, item: Result<T, Refusal>) {
        let written = item.and_then(|item| {
            let body = serde_json::to_vec(&item)
                .map_err(|error| Refusal::new(Code::Internal, format!("cannot write an item: {error}")))?;
            let text = || format!("an item of {} bytes is too long", body.len());
            if body.len() > limits::ITEM {
                return Err(Refusal::new(Code::ResourceExhausted, text()));
            }
            Ok(body)
        });
        match written {
            Ok(body) => frame::write(&mut self.piece, Kind::Item, &body),
            Err(refusal) => {
                let body = serde_json::to_vec(&refusal).expect("a refusal has nothing that JSON has not");
                frame::write(&mut self.piece, Kind::Refusal, &body);
                self.stream = None;
            }
        }
    }

    fn take(&mut self) -> Bytes {
        let missing = SHORTEST.saturating_sub(self.piece.len());
        if missing > 0 {
            frame::write_padding(&mut self.piece, missing);
        }
        self.piece.split().freeze()
    }
}

impl<T, S> Stream for Items<T, S>
where
    T: Serialize,
    S: Stream<Item = Result<T, Refusal>>,
{
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while this.piece.len() < PIECE {
            let Some(stream) = this.stream.as_mut() else { break };
            match stream.as_mut().poll_next(context) {
                Poll::Ready(Some(item)) => this.add(item),
                Poll::Ready(None) => this.stream = None,
                Poll::Pending if this.piece.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!this.piece.is_empty()).then(|| Ok(this.take())))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};

    use super::*;

    fn decoded(piece: &[u8]) -> Vec<(Kind, Bytes)> {
        let mut arrived = BytesMut::from(piece);
        std::iter::from_fn(|| frame::decode(&mut arrived, limits::ITEM).unwrap()).collect()
    }

    #[test]
    fn items_that_are_ready_together_share_a_piece_and_none_is_short() {
        let items =
            stream::iter([Ok(1), Ok(2)]).chain(stream::once(async { Ok(3) })).chain(stream::pending());
        let mut items = Items::<u8, _>::new(items);
        let piece = items.next().now_or_never().flatten().unwrap().unwrap();
        assert_eq!(piece.len(), SHORTEST);
        let bodies: Vec<_> = decoded(&piece).into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, [&b"1"[..], b"2", b"3"]);
        assert!(items.next().now_or_never().is_none(), "nothing is sent when nothing is there");
    }

    #[test]
    fn nothing_follows_a_refusal() {
        let items = [Ok(1), Err(Refusal::new(Code::Aborted, "enough")), Ok(2)];
        let mut items = Items::<u8, _>::new(stream::iter(items));
        let piece = items.next().now_or_never().flatten().unwrap().unwrap();
        let kinds: Vec<_> = decoded(&piece).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Item, Kind::Refusal]);
        assert!(items.next().now_or_never().unwrap().is_none());
    }

    #[test]
    fn a_piece_does_not_grow_without_end() {
        let mut items = Items::<u64, _>::new(stream::iter(0..).map(Ok));
        let piece = items.next().now_or_never().flatten().unwrap().unwrap();
        assert!((PIECE..PIECE + 64).contains(&piece.len()), "{}", piece.len());
    }
}
