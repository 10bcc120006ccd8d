//! What a worker thread lends to whoever it runs at the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest single read. Large results pass in few system calls; the buffer exists once per worker.
const SCRATCH_BYTES: usize = 128 * 1024;

/// One worker: its number, and a buffer for the read under way.
#[derive(Debug)]
pub struct Worker {
    pub index: usize,
    scratch: Mutex<Box<[u8]>>,
}

impl Worker {
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            scratch: Mutex::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
        }
    }

    /// The worker's read buffer, for as long as no other task of the worker runs: never across an `await`.
    pub fn scratch(&self) -> MutexGuard<'_, Box<[u8]>> {
        // Bytes of a read that panicked mean nothing to the next one.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
