//! What a worker thread lends to whoever it runs at the moment.

use std::cell::RefCell;

use crate::telemetry::WorkerMetrics;

/// The largest single read. Large results pass in few system calls; the buffer exists once per thread.
const SCRATCH_BYTES: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
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
}

/// Lends the thread's read buffer. What is in it means nothing, before and after.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        // Lent already, further up on this stack: that never happens, and costs only memory if it does.
        Err(_) => work(&mut vec![0; SCRATCH_BYTES]),
    })
}
