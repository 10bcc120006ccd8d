//! What a worker thread lends to whoever it runs at the moment.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::telemetry::WorkerMetrics;

/// The largest single read. Large results pass in few system calls; the buffer exists once per thread.
const SCRATCH_BYTES: usize = 128 * 1024;

/// Timers that a thread keeps when nothing is timed.
const TIMERS_MAX: usize = 64;

type TimerPlace = Pin<Box<Option<Sleep>>>;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
    static TIMERS: RefCell<Vec<TimerPlace>> = const { RefCell::new(Vec::new()) };
}

/// One worker: its number among all, and what it counts.
#[derive(Debug)]
pub struct Worker {
    pub index: usize,
    pub metrics: WorkerMetrics,
}

impl Worker {
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            metrics: WorkerMetrics::new(index),
        }
    }

    /// No worker: for work in the background that borrows a connection, which the next one who borrows it moves.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            index: usize::MAX - 1,
            metrics: WorkerMetrics::nobodys(),
        }
    }
}

/// A timer whose memory the thread lends; what waits with one stays small, and waiting often costs no memory.
pub struct Timer(Option<TimerPlace>);

impl Timer {
    #[must_use]
    pub fn new(after: Duration) -> Self {
        let mut place = TIMERS
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| Box::pin(None));
        place.set(Some(sleep(after)));
        Self(Some(place))
    }

    /// Ready when it is time.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .as_mut()
            .and_then(|place| place.as_mut().as_pin_mut());
        sleep.map_or(Poll::Ready(()), |sleep| sleep.poll(cx))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else {
            return;
        };
        // The runtime forgets it.
        place.set(None);
        TIMERS.with_borrow_mut(|timers| {
            if timers.len() < TIMERS_MAX {
                timers.push(place);
            }
        });
    }
}

/// Lends the thread's read buffer. What is in it means nothing, before and after.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        // Lent already, further up on this stack: that never happens, and costs only memory if it does.
        Err(_) => work(&mut vec![0; SCRATCH_BYTES]),
    })
}
