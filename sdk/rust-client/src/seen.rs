//! Which message ids were seen lately: two generations of keys, bounded in number and age.
//!
//! Knows: the key (who published, trace, message id) and when it is forgotten. Does not know: what to do
//! about a frame that comes twice; whoever handles deliveries at least once asks here.

use std::collections::HashMap;

type Keys = HashMap<(String, u128, u64), u64>;

/// Remembers at least the last `capacity` keys of the last `max_age_ms`, at most twice as many.
#[derive(Debug)]
pub struct Seen {
    capacity: usize,
    max_age_ms: u64,
    young: Keys,
    old: Keys,
    turned_ms: u64,
}

impl Default for Seen {
    /// 65 536 keys, 30 s.
    fn default() -> Seen {
        Seen::new(65_536, 30_000)
    }
}

impl Seen {
    /// An empty memory.
    pub fn new(capacity: usize, max_age_ms: u64) -> Seen {
        Seen { capacity, max_age_ms, young: Keys::new(), old: Keys::new(), turned_ms: 0 }
    }

    /// Remember the ids; true when they are new, false when they were seen lately.
    pub fn first(&mut self, publisher: &str, trace_id: u128, msg_id: u64, now_ms: u64) -> bool {
        let key = (publisher.to_owned(), trace_id, msg_id);
        if let Some(seen) = self.young.get(&key).or_else(|| self.old.get(&key)) {
            if now_ms.saturating_sub(*seen) <= self.max_age_ms {
                return false;
            }
        }
        if self.young.len() >= self.capacity || now_ms.saturating_sub(self.turned_ms) > self.max_age_ms {
            self.old = std::mem::take(&mut self.young);
            self.turned_ms = now_ms;
        }
        self.young.insert(key, now_ms);
        true
    }
}
