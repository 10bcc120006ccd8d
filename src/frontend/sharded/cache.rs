//! What was worked out for texts of clients, within bounds: two generations, so that what is used stays and what was
//! sent once is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

/// Entries of one generation.
const ENTRIES_MAX: usize = 2048;
/// Bytes of the keys of one generation.
const KEY_BYTES_MAX: usize = 8 << 20;

type Generation<V> = HashMap<Arc<[u8]>, V, RandomState>;

pub(super) struct Cache<V> {
    young: Generation<V>,
    young_bytes: usize,
    old: Generation<V>,
    /// Entries that were thrown out since somebody asked.
    evicted: usize,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            young: Generation::default(),
            young_bytes: 0,
            old: Generation::default(),
            evicted: 0,
        }
    }
}

impl<V: Clone> Cache<V> {
    pub fn find(&mut self, key: &[u8]) -> Option<V> {
        if let Some(known) = self.young.get(key) {
            return Some(known.clone());
        }
        let (key, known) = self.old.remove_entry(key)?;
        self.keep(key, known.clone());
        Some(known)
    }

    pub fn keep(&mut self, key: Arc<[u8]>, value: V) {
        if let Some(known) = self.young.get_mut(&key) {
            *known = value;
            return;
        }
        if self.young.len() >= ENTRIES_MAX || self.young_bytes + key.len() > KEY_BYTES_MAX {
            self.evicted += self.old.len();
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += key.len();
        self.young.insert(key, value);
    }

    /// How many entries were thrown out since this was asked last.
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_again_outlives_what_was_used_once() {
        let mut cache = Cache::default();
        cache.keep(b"kept"[..].into(), 0);
        for number in 1..ENTRIES_MAX * 5 {
            cache.keep(number.to_be_bytes()[..].into(), number);
            if number % 1000 == 0 {
                assert_eq!(cache.find(b"kept"), Some(0));
            }
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * ENTRIES_MAX);
        assert_eq!(cache.find(&1usize.to_be_bytes()), None);
        assert!(cache.take_evicted() >= ENTRIES_MAX);
        // Another value takes no other place.
        for value in 0..ENTRIES_MAX * 3 {
            cache.keep(b"kept"[..].into(), value);
        }
        assert_eq!(cache.find(b"kept"), Some(ENTRIES_MAX * 3 - 1));
        assert_eq!(cache.take_evicted(), 0);
    }

    #[test]
    fn long_texts_count_by_their_bytes() {
        let mut cache = Cache::default();
        let long = |first: u8| -> Arc<[u8]> {
            let mut key = vec![0; KEY_BYTES_MAX / 2];
            key[0] = first;
            key.into()
        };
        for first in 0..10 {
            cache.keep(long(first), first);
        }
        assert!(cache.young.len() + cache.old.len() <= 4);
        assert_eq!(cache.find(&long(9)), Some(9));
    }
}
