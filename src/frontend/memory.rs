//! Whether there is memory for new work, as it was found last. Who measures, and how often, is not known here.
//!
//! Once there was too much, it must be clearly less before there is room again, so that a proxy at its limit does not
//! change its mind several times a second. What would surprise: memory that was let go of may stay resident, because
//! the allocator keeps it for the next who asks. Refusing work does not bring it down, and work that uses it again does
//! not bring it up. So where it does not fall for a while and is not far above the limit, work is taken again for as
//! long as it does not rise either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::trouble::SessionError;

/// Work is taken again below this part of the limit, in hundredths.
const ROOM_AGAIN_PERCENT: u64 = 95;

/// Above this part of the limit it must fall, whatever the allocator keeps.
const NEVER_ABOVE_PERCENT: u64 = 112;

/// What counts as falling or rising, in hundredths of the limit.
const STEP_PERCENT: u64 = 2;

/// So many times in a row it was measured and did not fall.
const STUCK_LOOKS: u32 = 40;

/// What was found, and what is allowed.
#[derive(Debug)]
pub struct Memory {
    /// Bytes; `None`: no limit.
    limit: Option<u64>,
    resident: AtomicU64,
    full: AtomicBool,
    course: Mutex<Course>,
}

/// How it went so far.
#[derive(Debug, Default)]
struct Course {
    /// Where it is full, when that is above the limit.
    raised: u64,
    /// The least that was found since it is full.
    least: u64,
    looks: u32,
}

/// What a measurement has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Full,
    /// It is clearly below the limit.
    Room,
    /// It is above the limit and does not fall.
    Kept,
}

impl Memory {
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            resident: AtomicU64::new(0),
            full: AtomicBool::new(false),
            course: Mutex::default(),
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

    /// So many bytes are resident. To be called several times a second.
    pub fn measured(&self, resident: u64) -> Option<Change> {
        self.resident.store(resident, Ordering::Relaxed);
        let limit = self.limit?;
        let part = |percent| limit / 100 * percent;
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = resident < part(ROOM_AGAIN_PERCENT);
        if has_room {
            course.raised = 0;
        }
        let change = if !self.is_full() {
            (resident > limit.max(course.raised)).then_some(Change::Full)
        } else if has_room {
            Some(Change::Room)
        } else {
            if resident + part(STEP_PERCENT) <= course.least {
                (course.least, course.looks) = (resident, 0);
            }
            course.looks += 1;
            let stuck = course.looks > STUCK_LOOKS && resident <= part(NEVER_ABOVE_PERCENT);
            stuck.then_some(Change::Kept)
        };
        match change {
            Some(Change::Full) => (course.least, course.looks) = (resident, 0),
            Some(Change::Kept) => course.raised = resident + part(STEP_PERCENT),
            Some(Change::Room) | None => {}
        }
        if let Some(change) = change {
            self.full.store(change == Change::Full, Ordering::Relaxed);
        }
        change
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
            (1001, Some(Change::Full)),
            (5000, None),
            (1000, None),
            (950, None),
            (949, Some(Change::Room)),
            (1000, None),
            (1001, Some(Change::Full)),
            (0, Some(Change::Room)),
        ] {
            assert_eq!(memory.measured(resident), change, "{resident}");
            assert!(change.is_none() || memory.is_full() == (change == Some(Change::Full)));
        }
        assert_eq!(Memory::new(None).measured(u64::MAX), None);
    }

    /// How often it was measured until something changed.
    fn looks(memory: &Memory, resident: impl Fn(u32) -> u64) -> (u32, Option<Change>) {
        let changed = (1..=10 * STUCK_LOOKS)
            .find_map(|look| memory.measured(resident(look)).map(|change| (look, change)));
        changed.map_or((0, None), |(look, change)| (look, Some(change)))
    }

    #[test]
    fn what_does_not_fall_keeps_nobody_out_for_ever_and_may_not_rise() {
        let memory = Memory::new(Some(1000));
        memory.measured(1050);
        let kept = (STUCK_LOOKS + 1, Some(Change::Kept));
        // It may tremble.
        assert_eq!(looks(&memory, |look| 1050 - u64::from(look % 19)), kept);
        assert!(!memory.is_full());
        assert_eq!(looks(&memory, |_| 1065), (0, None));
        assert_eq!(memory.measured(1071), Some(Change::Full));
        assert_eq!(looks(&memory, |_| 1071), kept);
        // Each time a little more, but not for ever.
        assert_eq!(memory.measured(1121), Some(Change::Full));
        assert_eq!(looks(&memory, |_| 1121), (0, None));
        // Once there was room, the limit is what it was.
        assert_eq!(memory.measured(900), Some(Change::Room));
        assert_eq!(memory.measured(1112), Some(Change::Full));
        // While it falls, it is waited for.
        let falling = |look: u32| 1112 - u64::from(look / 30 * 20);
        let (fell, change) = looks(&memory, falling);
        assert_eq!(change, Some(Change::Room));
        assert!(fell > 3 * STUCK_LOOKS, "{fell}");
    }
}
