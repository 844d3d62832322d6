//! Collects changes of nf_tables objects for one transaction.
//!
//! In: names and values. Out: the bytes of a batch, complete with its opening and closing message. An object may be
//! used by later entries of the same batch. Names and numbers are those of linux/netfilter/nf_tables.h.

use super::element::{MapKey, MapValue, put_element};
use super::{Family, Rule, SUBSYSTEM, Verdict};
use crate::socket;
use crate::wire::Encoder;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const DESCRIPTION_SIZE: u16 = 1;
const SET_ID: u16 = 10;
const SET_USER_DATA: u16 = 13;
const FLAG_ANONYMOUS: u32 = 1;
const FLAG_CONSTANT: u32 = 2;
const FLAG_MAP: u32 = 8;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_SET_ID: u16 = 4;
pub(super) const LIST_ITEM: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// User data `key byte order = host`, again only for `nft list`. Source: libnftnl, include/udata.h.
const KEY_IN_HOST_ORDER: [u8; 6] = {
    let order = 1u32.to_ne_bytes();
    [0, 4, order[0], order[1], order[2], order[3]]
};
/// chosen: 500 elements of at most 100 bytes each stay below the 64 KiB of one nest.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Kinds of base chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection.
    Nat,
    /// Sees every packet that this machine makes, and has it routed again when it changes the mark.
    Route,
}

/// Where a base chain sees packets. Source: linux/netfilter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Coming in, before routing.
    Prerouting = 0,
    /// For this machine.
    Input = 1,
    /// Passing through.
    Forward = 2,
    /// Made by this machine.
    Output = 3,
    /// Going out, after routing.
    Postrouting = 4,
}

/// A chain that the kernel enters by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// Lower runs first: -300 raw, -100 destination nat, 0 filter, 100 source nat.
    pub priority: i32,
}

/// Changes that are to happen together. Messages are numbered when the batch is sent.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Encoder>,
    anonymous: u32,
}

/// A batch ready to be sent.
pub(super) struct Sealed {
    pub(super) encoder: Encoder,
    /// Sequence number of the opening message.
    pub(super) first: u32,
    /// Sequence number of the last change, the one that asks for an acknowledgement.
    pub(super) last: u32,
    pub(super) messages: u32,
}

impl Batch {
    /// An empty batch for objects of one table.
    pub fn new(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), messages: Vec::new(), anonymous: 0 }
    }

    /// True when nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Makes the table, or leaves it as it is when it exists.
    pub fn add_table(&mut self) {
        self.push(NEW_TABLE, socket::CREATE, |encoder, table| {
            encoder.text(TABLE_NAME, table);
            encoder.u32_be(TABLE_FLAGS, 0);
        });
    }

    /// Deletes the table with everything in it; it must exist.
    pub fn delete_table(&mut self) {
        self.push(DELETE_TABLE, 0, |encoder, table| encoder.text(TABLE_NAME, table));
    }

    /// Makes the table anew and empty, whether it existed or not.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// Makes a chain that only other chains enter, or leaves it as it is.
    pub fn add_chain(&mut self, name: &str) {
        self.push(NEW_CHAIN, socket::CREATE, |encoder, table| {
            encoder.text(CHAIN_TABLE, table);
            encoder.text(CHAIN_NAME, name);
        });
    }

    /// Makes a chain that the kernel enters; packets that it does not decide about are accepted.
    pub fn add_base_chain(&mut self, name: &str, base: BaseChain) {
        self.put_base_chain(name, base, true);
    }

    /// Makes a chain that the kernel enters; packets that it does not decide about are dropped.
    pub fn add_dropping_chain(&mut self, name: &str, base: BaseChain) {
        self.put_base_chain(name, base, false);
    }

    fn put_base_chain(&mut self, name: &str, base: BaseChain, accepts: bool) {
        self.push(NEW_CHAIN, socket::CREATE, |encoder, table| {
            encoder.text(CHAIN_TABLE, table);
            encoder.text(CHAIN_NAME, name);
            let hook = encoder.nest(CHAIN_HOOK);
            encoder.u32_be(HOOK_NUMBER, base.hook as u32);
            encoder.u32_be(HOOK_PRIORITY, base.priority.cast_unsigned());
            encoder.end(hook);
            encoder.u32_be(CHAIN_POLICY, u32::from(accepts));
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            };
            encoder.text(CHAIN_TYPE, kind);
        });
    }

    /// Deletes a chain with its rules; nothing may lead to it any more.
    pub fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, |encoder, table| {
            encoder.text(CHAIN_TABLE, table);
            encoder.text(CHAIN_NAME, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.push(DELETE_RULE, 0, |encoder, table| {
            encoder.text(RULE_TABLE, table);
            encoder.text(RULE_CHAIN, name);
        });
    }

    /// Appends a rule to a chain. Anonymous maps of the rule must come from this batch.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.push(NEW_RULE, socket::CREATE | socket::APPEND, |encoder, table| {
            encoder.text(RULE_TABLE, table);
            encoder.text(RULE_CHAIN, chain);
            let expressions = encoder.nest(RULE_EXPRESSIONS);
            rule.put(encoder);
            encoder.end(expressions);
        });
    }

    /// Makes a named map; keys and values are like the samples, which are not added.
    pub fn add_map(&mut self, name: &str, key: MapKey, value: &MapValue) {
        self.anonymous += 1;
        let id = self.anonymous;
        self.put_map(name, key, Some(value), FLAG_MAP, id, None);
    }

    /// Makes a named set; its elements are like the sample, which is not added.
    pub fn add_set(&mut self, name: &str, key: MapKey) {
        self.anonymous += 1;
        let id = self.anonymous;
        self.put_map(name, key, None, 0, id, None);
    }

    /// Makes a constant map for one rule of this batch; the rule names it by the returned number.
    pub fn add_anonymous_map(&mut self, elements: &[(MapKey, MapValue)]) -> Option<u32> {
        let (key, value) = elements.first()?;
        self.anonymous += 1;
        let id = self.anonymous;
        let flags = FLAG_MAP | FLAG_ANONYMOUS | FLAG_CONSTANT;
        self.put_map(super::rule::ANONYMOUS_NAME, *key, Some(value), flags, id, Some(elements.len()));
        self.put_elements(
            super::rule::ANONYMOUS_NAME,
            Some(id),
            elements.iter().map(|(key, value)| (*key, Some(value))),
        );
        Some(id)
    }

    /// Adds elements to a named map.
    pub fn add_elements(&mut self, map: &str, elements: &[(MapKey, MapValue)]) {
        self.put_elements(map, None, elements.iter().map(|(key, value)| (*key, Some(value))));
    }

    /// Adds elements to a named set.
    pub fn add_keys(&mut self, set: &str, keys: &[MapKey]) {
        self.put_elements(set, None, keys.iter().map(|key| (*key, None)));
    }

    /// Deletes elements of a named map or set; they must exist.
    pub fn delete_elements(&mut self, map: &str, keys: &[MapKey]) {
        for chunk in keys.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(DELETE_ELEMENTS, 0, |encoder, table| {
                encoder.text(LIST_TABLE, table);
                encoder.text(LIST_SET, map);
                let list = encoder.nest(LIST_ELEMENTS);
                for key in chunk {
                    put_element(encoder, *key, None);
                }
                encoder.end(list);
            });
        }
    }

    fn put_map(
        &mut self,
        name: &str,
        key: MapKey,
        value: Option<&MapValue>,
        flags: u32,
        id: u32,
        size: Option<usize>,
    ) {
        self.push(NEW_SET, socket::CREATE, |encoder, table| {
            encoder.text(SET_TABLE, table);
            encoder.text(SET_NAME, name);
            encoder.u32_be(SET_FLAGS, flags);
            encoder.u32_be(SET_KEY_TYPE, key.shown_type());
            encoder.u32_be(SET_KEY_LENGTH, u32::try_from(key.bytes().len()).expect("keys are short"));
            if let Some(value) = value {
                encoder.u32_be(SET_DATA_TYPE, value.shown_type());
                encoder.u32_be(SET_DATA_LENGTH, value.length());
            }
            encoder.u32_be(SET_ID, id);
            if let Some(size) = size {
                let description = encoder.nest(SET_DESCRIPTION);
                encoder.u32_be(DESCRIPTION_SIZE, u32::try_from(size).unwrap_or(u32::MAX));
                encoder.end(description);
            }
            if matches!(key, MapKey::Number(_)) {
                encoder.attribute(SET_USER_DATA, &KEY_IN_HOST_ORDER);
            }
        });
    }

    fn put_elements<'a>(
        &mut self,
        map: &str,
        id: Option<u32>,
        elements: impl Iterator<Item = (MapKey, Option<&'a MapValue>)>,
    ) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.push(NEW_ELEMENTS, socket::CREATE, |encoder, table| {
                encoder.text(LIST_TABLE, table);
                encoder.text(LIST_SET, map);
                if let Some(id) = id {
                    encoder.u32_be(LIST_SET_ID, id);
                }
                let list = encoder.nest(LIST_ELEMENTS);
                for (key, value) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                    put_element(encoder, key, value);
                }
                encoder.end(list);
            });
        }
    }

    fn push(&mut self, kind: u16, flags: u16, build: impl FnOnce(&mut Encoder, &str)) {
        let mut encoder = Encoder::new();
        let mark = encoder.start(kind, flags | socket::REQUEST, 0);
        encoder.raw(&[self.family as u8, 0, 0, 0]);
        build(&mut encoder, &self.table);
        encoder.finish(mark);
        self.messages.push(encoder);
    }

    /// Numbers the messages from `first` and adds the opening and closing one; `None` when there is nothing to send.
    pub(super) fn seal(mut self, first: u32) -> Option<Sealed> {
        let count = u32::try_from(self.messages.len()).expect("a batch has far fewer messages");
        let mut sealed = Encoder::new();
        put_frame(&mut sealed, BATCH_BEGIN, first);
        let last = first + count;
        for (message, sequence) in self.messages.iter_mut().zip(first + 1..) {
            message.number(sequence, if sequence == last { socket::ACK } else { 0 });
            sealed.raw(message.bytes());
        }
        put_frame(&mut sealed, BATCH_END, last + 1);
        (count > 0).then_some(Sealed { encoder: sealed, first, last, messages: count + 1 })
    }
}

fn put_frame(encoder: &mut Encoder, kind: u16, sequence: u32) {
    let mark = encoder.start(kind, socket::REQUEST, sequence);
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    encoder.raw(&[0, 0, high, low]);
    encoder.finish(mark);
}

/// Appends the nest that holds a verdict.
pub(super) fn put_verdict(encoder: &mut Encoder, verdict: &Verdict) {
    let nest = encoder.nest(DATA_VERDICT);
    encoder.u32_be(VERDICT_CODE, verdict.code().cast_unsigned());
    if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
        encoder.text(VERDICT_CHAIN, chain);
    }
    encoder.end(nest);
}

#[cfg(test)]
mod tests;
