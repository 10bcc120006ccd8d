//! Whether there is memory for new work, as it was found last. Who measures, and how often, is not known here.
//!
//! What would surprise: once there was too much, it must be clearly less before there is room again, so that a proxy at
//! its limit does not change its mind several times a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::trouble::SessionError;

/// Work is taken again below this part of the limit, in hundredths.
const ROOM_AGAIN_PERCENT: u64 = 95;

/// What was found, and what is allowed.
#[derive(Debug)]
pub struct Memory {
    /// Bytes; `None`: no limit.
    limit: Option<u64>,
    resident: AtomicU64,
    full: AtomicBool,
}

impl Memory {
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            resident: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// No new work is to be taken.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// So many bytes are resident. `Some` where that changes something: whether it is full now.
    pub fn measured(&self, resident: u64) -> Option<bool> {
        self.resident.store(resident, Ordering::Relaxed);
        let limit = self.limit?;
        let full = if self.is_full() {
            resident >= limit / 100 * ROOM_AGAIN_PERCENT
        } else {
            resident > limit
        };
        (self.full.swap(full, Ordering::Relaxed) != full).then_some(full)
    }

    /// Why work is refused.
    pub(super) fn refusal(&self) -> SessionError {
        SessionError::OutOfMemory {
            resident: self.resident.load(Ordering::Relaxed),
            limit: self.limit.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_above_the_limit_until_it_is_clearly_below() {
        let memory = Memory::new(Some(1000));
        for (resident, change) in [
            (0, None),
            (1000, None),
            (1001, Some(true)),
            (5000, None),
            (1000, None),
            (950, None),
            (949, Some(false)),
            (1000, None),
            (1001, Some(true)),
            (0, Some(false)),
        ] {
            assert_eq!(memory.measured(resident), change, "{resident}");
        }
        assert_eq!(Memory::new(None).measured(u64::MAX), None);
    }
}
