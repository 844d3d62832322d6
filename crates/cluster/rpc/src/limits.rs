//! How often and how much strangers may ask, and the limits of every message.
//!
//! In: an address and the time. Out: yes or no. Never delays anybody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Longest request, response, and header of an upload. Source: swarmkit, `manager/manager.go` (gRPC's 4 MiB).
pub(crate) const MESSAGE: usize = 4 * 1024 * 1024;

/// Longest item of a stream. Chosen: a node's complete set with a hundred secrets of the largest size (500 KB).
pub(crate) const ITEM: usize = 64 * 1024 * 1024;

/// Longest head of a request. Chosen: ours have a few hundred bytes.
pub(crate) const HEADERS: u32 = 16 * 1024;

/// Requests at a time on one connection. Chosen: forwarded operations of a busy manager, with room.
pub(crate) const STREAMS: u32 = 1024;

/// Connections at a time that have not shown a certificate. Chosen: each costs a few pages.
const STRANGERS: usize = 1024;

/// And how many of them from one address. Chosen: a rack behind one address comes back at once, and a flood from one
/// machine leaves room for others.
const STRANGERS_EACH: usize = 64;

/// How long a handshake may take. Chosen: five round trips of a second.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a connection without a certificate may live. Chosen: joining takes 20 s at most.
pub(crate) const ANONYMOUS_LIFE: Duration = Duration::from_secs(30);

/// How long the body of a request may take. Chosen: 4 MiB over a link of 2 Mbit/s.
pub(crate) const BODY: Duration = Duration::from_secs(20);

/// Requests that an address may make at once without showing who it is. Chosen: a rack behind one address joins.
const BURST: f64 = 30.0;

/// And how many more each second. Chosen: no join waits longer than people would; guessing 128 bits gains nothing.
const PER_SECOND: f64 = 5.0;

/// Addresses remembered. Chosen: 4,096 of about 64 bytes.
const ADDRESSES: usize = 4096;

/// How often those that have been quiet may be looked for. Chosen: a flood costs no more than a lookup each.
const SWEEP: Duration = Duration::from_secs(1);

/// Who has asked how often.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    buckets: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.left = (self.left + gained).min(BURST);
        self.at = now;
    }
}

impl Allowance {
    /// Takes one request from an address's allowance; whether there was one.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let mut address = subscriber(address);
        if self.buckets.len() >= ADDRESSES && !self.buckets.contains_key(&address) {
            self.sweep(now);
            if self.buckets.len() >= ADDRESSES {
                // A flood from everywhere: whoever is new shares one allowance, and memory stays bounded.
                address = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket { left: BURST, at: now });
        bucket.refill(now);
        let has_one = bucket.left >= 1.0;
        if has_one {
            bucket.left -= 1.0;
        }
        has_one
    }

    /// Forgets who has been quiet.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.left < BURST
        });
    }
}

/// Connections that have not shown a certificate, by address.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    all: usize,
    from: HashMap<IpAddr, usize>,
}

impl Strangers {
    /// Counts one more; whether there is room for it.
    pub(crate) fn enter(&mut self, address: IpAddr) -> bool {
        let from = self.from.entry(subscriber(address)).or_default();
        let has_room = self.all < STRANGERS && *from < STRANGERS_EACH;
        if has_room {
            *from += 1;
            self.all += 1;
        } else if *from == 0 {
            self.from.remove(&subscriber(address));
        }
        has_room
    }

    /// Takes back what [`Strangers::enter`] counted.
    pub(crate) fn leave(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut from) = self.from.entry(subscriber(address)) {
            self.all -= 1;
            *from.get_mut() -= 1;
            if *from.get() == 0 {
                from.remove();
            }
        }
    }
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(allowance: &mut Allowance, address: &str, now: Instant) -> usize {
        let address: IpAddr = address.parse().unwrap();
        (0..100).filter(|_| allowance.take(address, now)).count()
    }

    #[test]
    fn an_address_that_asks_too_often_waits_and_others_do_not() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        assert_eq!(asked(&mut allowance, "10.0.0.1", start), 30);
        assert_eq!(asked(&mut allowance, "::ffff:10.0.0.1", start), 0);
        assert_eq!(asked(&mut allowance, "10.0.0.2", start), 30);
        assert_eq!(asked(&mut allowance, "10.0.0.1", start + Duration::from_secs(2)), 10);
        assert_eq!(asked(&mut allowance, "2001:db8::1", start), 30);
        assert_eq!(asked(&mut allowance, "2001:db8::2", start), 0, "the same subscriber");
    }

    #[test]
    fn strangers_from_one_address_leave_room_for_others() {
        let mut strangers = Strangers::default();
        let (flood, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!((0..1000).filter(|_| strangers.enter(flood)).count(), STRANGERS_EACH);
        assert!(strangers.enter(other));
        strangers.leave(flood);
        assert!(strangers.enter(flood));
        for number in 0..5000_u32 {
            strangers.enter(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)));
        }
        assert_eq!(strangers.all, STRANGERS);
        (0..STRANGERS_EACH).for_each(|_| strangers.leave(flood));
        strangers.leave(other);
        (0..5000_u32).for_each(|number| strangers.leave(IpAddr::V4(std::net::Ipv4Addr::from_bits(number))));
        assert_eq!((strangers.all, strangers.from.len()), (0, 0));
    }

    #[test]
    fn a_flood_from_everywhere_takes_no_more_memory() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        for number in 0..20_000 {
            allowance.take(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)), start);
        }
        assert!(allowance.buckets.len() <= ADDRESSES + 1);
        assert!(allowance.take(IpAddr::from([1, 2, 3, 4]), start + Duration::from_secs(60)));
        assert_eq!(allowance.buckets.len(), 1, "who has been quiet is forgotten");
    }
}
