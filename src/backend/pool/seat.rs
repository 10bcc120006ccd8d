//! Where a client waits for a server: its ticket is in the pool's queue, and the answer comes to its seat.
//!
//! Like a channel for one value, but a worker uses its seats again, so that waiting needs no memory.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::PoolError;
use crate::backend::server::Server;

/// Seats that a worker keeps when nobody waits.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Arc<Seat>>> = const { RefCell::new(Vec::new()) };
}

type Outcome = Result<Box<Server>, PoolError>;

#[derive(Debug, Default)]
enum Place {
    #[default]
    Empty,
    Waits(Waker),
    Answered(Outcome),
    /// The client waits no longer.
    Left,
    /// The ticket is gone, and there will be no answer.
    Forgotten,
}

#[derive(Debug, Default)]
struct Seat(Mutex<Place>);

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Place> {
        // One value, whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a client in the queue.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Seat>);

/// What the client waits for: a server or an error, or `None` where the pool has forgotten it.
#[derive(Debug)]
pub(super) struct Answer(Arc<Seat>);

/// A free seat.
pub(super) fn seat() -> (Ticket, Answer) {
    let spare = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    (Ticket(Arc::clone(&spare)), Answer(spare))
}

impl Ticket {
    /// The client waits no longer.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.lock(), Place::Left)
    }

    /// # Errors
    /// The outcome itself, where the client waits no longer.
    pub fn send(self, outcome: Outcome) -> Result<(), Outcome> {
        self.put(Place::Answered(outcome))
            .map_err(|returned| match returned {
                Place::Answered(outcome) => outcome,
                _ => Err(PoolError::Closed),
            })
    }

    fn put(&self, answer: Place) -> Result<(), Place> {
        let mut seat = self.0.lock();
        let before = match &*seat {
            Place::Empty | Place::Waits(_) => std::mem::replace(&mut *seat, answer),
            Place::Answered(_) | Place::Left | Place::Forgotten => return Err(answer),
        };
        drop(seat);
        if let Place::Waits(waker) = before {
            waker.wake();
        }
        Ok(())
    }
}

impl Drop for Ticket {
    /// Changes nothing behind an answer.
    fn drop(&mut self) {
        let _ = self.put(Place::Forgotten);
    }
}

impl Future for Answer {
    type Output = Option<Outcome>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let mut seat = self.0.lock();
        match &mut *seat {
            Place::Waits(waker) => {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            Place::Empty => {
                *seat = Place::Waits(cx.waker().clone());
                return Poll::Pending;
            }
            Place::Answered(_) | Place::Left | Place::Forgotten => {}
        }
        Poll::Ready(match std::mem::replace(&mut *seat, Place::Forgotten) {
            Place::Answered(outcome) => Some(outcome),
            _ => None,
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // An answer that came too late is dropped outside of the lock, for a server takes the pool's when it goes.
        let before = std::mem::replace(&mut *self.0.lock(), Place::Left);
        drop(before);
        if let Some(seat) = Arc::get_mut(&mut self.0) {
            // Its ticket is gone, so nobody else knows this seat.
            *seat = Seat::default();
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_MAX {
                    spare.push(Arc::clone(&self.0));
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(answer: &mut Answer) -> Poll<Option<Outcome>> {
        Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_comes_once_and_its_seat_is_free_again() {
        let (ticket, mut answer) = seat();
        assert!(poll(&mut answer).is_pending() && !ticket.is_closed());
        ticket.send(Err(PoolError::Closed)).unwrap();
        assert!(matches!(
            poll(&mut answer),
            Poll::Ready(Some(Err(PoolError::Closed)))
        ));
        let place = Arc::as_ptr(&answer.0);
        drop(answer);
        let (ticket, mut answer) = seat();
        assert_eq!(Arc::as_ptr(&answer.0), place);
        assert!(poll(&mut answer).is_pending() && !ticket.is_closed());
    }

    #[test]
    fn who_left_gets_nothing_and_its_seat_is_not_used_while_its_ticket_is_in_the_queue() {
        let (ticket, answer) = seat();
        drop(answer);
        assert!(ticket.is_closed());
        let (_, other) = seat();
        assert!(!Arc::ptr_eq(&other.0, &ticket.0));
        assert!(ticket.send(Err(PoolError::Closed)).is_err());
    }

    #[test]
    fn a_ticket_that_is_dropped_ends_the_waiting() {
        let (ticket, mut answer) = seat();
        assert!(poll(&mut answer).is_pending());
        drop(ticket);
        assert!(matches!(poll(&mut answer), Poll::Ready(None)));
    }
}
