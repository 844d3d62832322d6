//! Judges and completes what others answer.
//!
//! In: a query as a client sent it, an answer from upstream. Out: whether the one belongs to the other and is worth relaying;
//! replies of our own where there is none. Never changes an answer but for its id.

use crate::query::{self, HEADER_BYTES, Query, u16_at};
use crate::reply::{self, Code, Records};

/// What to think of a message from an upstream resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It answers something else; the true answer may still come.
    Foreign,
    /// The resolver could not or would not help.
    Failed,
    /// An answer, be it that there is no such name.
    Good,
}

/// Writes another id into a message, as messages are matched by.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// The id of a message; 0 when it is too short for one.
pub fn id(message: &[u8]) -> u16 {
    u16_at(message, 0).unwrap_or(0)
}

/// Judges an answer to `query`, which was sent with `id`.
pub fn judge(answer: &[u8], query: &[u8], id: u16) -> Judgement {
    const IS_REPLY: u8 = 0x80;
    const CODE: u8 = 0x0f;
    let (Ok(query), Some(header)) = (query::read(query), answer.first_chunk::<HEADER_BYTES>()) else {
        return Judgement::Foreign;
    };
    let &[a, b, flags, more_flags, ..] = header;
    if u16::from_be_bytes([a, b]) != id || flags & IS_REPLY == 0 {
        return Judgement::Foreign;
    }
    let is_good = matches!(more_flags & CODE, 0 | 3);
    match u16_at(answer, 4) {
        Some(1) if repeats_question(answer, &query) && is_good => Judgement::Good,
        Some(1) if repeats_question(answer, &query) => Judgement::Failed,
        // One that could not read the question doesn't repeat it.
        Some(0) if !is_good => Judgement::Failed,
        _ => Judgement::Foreign,
    }
}

fn repeats_question(answer: &[u8], query: &Query<'_>) -> bool {
    let repeated = answer.get(HEADER_BYTES..HEADER_BYTES + query.question.len());
    repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(query.question))
}

/// The reply when nobody else answers; `None` to what is no query.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let query = query::read(query).ok()?;
    Some(reply::write(&query, Code::Failed, &Records { data: &[], ttl_s: 0 }, 512))
}

/// The reply when the answer is too long for a datagram: ask again by TCP.
pub fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    query::read(query).ok().map(|query| reply::truncated(&query))
}
