//! The notifications that wait for one client: put in by listeners, taken out by its session when it is at rest.
//!
//! Nobody waits for a client that does not take them: what is beyond the limit empties the box, and the client is told
//! that notifications were lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use crate::error::{Severity, SqlState};
use crate::wire::encode;

/// What may wait for one client. All that wait for the same notification share its bytes.
const MAILBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an entry takes besides its bytes.
const ENTRY_BYTES: usize = 64;

const OVERFLOWED: &str = "notifications were lost: more came than this session has taken";
const MISSED: &str =
    "notifications may have been missed: the connection that listens was lost and made again";

/// One channel of one listener, from its first subscriber to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelId(pub u64);

#[derive(Debug)]
enum Mail {
    /// A whole NotificationResponse.
    Notification(ChannelId, Bytes),
    /// Some may be missing here.
    Gap,
}

#[derive(Debug, Default)]
struct Waiting {
    mail: VecDeque<Mail>,
    bytes: usize,
    overflowed: bool,
}

#[derive(Debug)]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    has_mail: AtomicBool,
    /// The session's task.
    waker: Waker,
}

impl Mailbox {
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Self {
            waiting: Mutex::default(),
            has_mail: AtomicBool::new(false),
            waker,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // What is kept here is whole between any two statements.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something waits; found out without a lock.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    fn ring(&self) {
        if !self.has_mail.swap(true, Ordering::AcqRel) {
            self.waker.wake_by_ref();
        }
    }

    /// Gives how many notifications had to go for it.
    pub(super) fn put(&self, channel: ChannelId, notification: &Bytes) -> usize {
        let mut waiting = self.waiting();
        let bytes = notification.len() + ENTRY_BYTES;
        let mut lost = 0;
        if waiting.bytes + bytes > MAILBOX_BYTES_MAX {
            let is_notification = |mail: &&Mail| matches!(mail, Mail::Notification(..));
            lost = waiting.mail.iter().filter(is_notification).count();
            waiting.mail = VecDeque::new();
            waiting.bytes = 0;
            waiting.overflowed = true;
        }
        waiting.bytes += bytes;
        let mail = Mail::Notification(channel, notification.clone());
        waiting.mail.push_back(mail);
        self.ring();
        lost
    }

    /// Notifications may be missing between those of before and those to come.
    pub(super) fn put_gap(&self) {
        let mut waiting = self.waiting();
        // A server that comes and goes cannot fill the box.
        if !matches!(waiting.mail.back(), Some(Mail::Gap)) {
            waiting.bytes += ENTRY_BYTES;
            waiting.mail.push_back(Mail::Gap);
        }
        self.ring();
    }

    /// Drops what waits of these channels.
    pub fn forget(&self, concerns: impl Fn(ChannelId) -> bool) {
        let mut waiting = self.waiting();
        let waiting = &mut *waiting;
        waiting.mail.retain(|mail| match mail {
            Mail::Notification(channel, bytes) if concerns(*channel) => {
                waiting.bytes -= bytes.len() + ENTRY_BYTES;
                false
            }
            _ => true,
        });
        let empty = waiting.mail.is_empty() && !waiting.overflowed;
        self.has_mail.store(!empty, Ordering::Release);
    }

    /// Appends what waits to `out` until that has `bytes_max`; without warnings where the client wants none. Gives the
    /// number of notifications.
    pub fn take(&self, out: &mut Vec<u8>, bytes_max: usize, warns: bool) -> u64 {
        let warn = |out: &mut Vec<u8>, text| {
            if warns {
                encode::notice(out, Severity::Warning, SqlState::WARNING, text);
            }
        };
        let mut count = 0;
        let mut waiting = self.waiting();
        if std::mem::take(&mut waiting.overflowed) {
            warn(out, OVERFLOWED);
        }
        while out.len() < bytes_max {
            match waiting.mail.pop_front() {
                Some(Mail::Notification(_, bytes)) => {
                    waiting.bytes -= bytes.len() + ENTRY_BYTES;
                    out.extend_from_slice(&bytes);
                    count += 1;
                }
                Some(Mail::Gap) => {
                    waiting.bytes -= ENTRY_BYTES;
                    warn(out, MISSED);
                }
                None => {
                    waiting.mail = VecDeque::new();
                    self.has_mail.store(false, Ordering::Release);
                    break;
                }
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Mailbox {
        Mailbox::new(Waker::noop().clone())
    }

    fn taken(mailbox: &Mailbox) -> String {
        let mut out = Vec::new();
        mailbox.take(&mut out, usize::MAX, true);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn mail_is_taken_in_order_and_a_channel_can_be_forgotten() {
        let mailbox = mailbox();
        for (channel, text) in [(1, "a"), (2, "b"), (1, "c")] {
            mailbox.put(ChannelId(channel), &Bytes::from(text));
        }
        mailbox.forget(|channel| channel == ChannelId(2));
        assert!(mailbox.has_mail());
        let mut out = Vec::new();
        assert_eq!(mailbox.take(&mut out, 1, true), 1);
        assert!(mailbox.has_mail());
        assert_eq!(taken(&mailbox), "c");
        assert!(!mailbox.has_mail());
        assert_eq!(mailbox.waiting().bytes, 0);
    }

    #[test]
    fn what_is_too_much_is_lost_and_told_of_once() {
        let mailbox = mailbox();
        let large = Bytes::from(vec![b'x'; MAILBOX_BYTES_MAX / 4]);
        let lost: usize = (0..5).map(|_| mailbox.put(ChannelId(1), &large)).sum();
        assert_eq!(lost, 3);
        mailbox.put(ChannelId(1), &Bytes::from("last"));
        let text = taken(&mailbox);
        assert_eq!(text.matches(OVERFLOWED).count(), 1);
        assert!(text.ends_with("last") && text.find("01000") < text.find("xxx"));
        assert_eq!(taken(&mailbox), "");
    }

    #[test]
    fn one_gap_is_told_of_once_and_to_nobody_who_wants_no_warnings() {
        let mailbox = mailbox();
        mailbox.put_gap();
        mailbox.put_gap();
        assert_eq!(taken(&mailbox).matches(MISSED).count(), 1);
        mailbox.put_gap();
        let mut out = Vec::new();
        mailbox.take(&mut out, usize::MAX, false);
        assert!(out.is_empty() && !mailbox.has_mail());
    }
}
