//! Which cores the workers keep to, where the configuration says that each has its own.
//!
//! Only cores that this process may use count: `taskset` and control groups may have left it a few. Everything else of
//! the process, the helpers and the background, stays where the system puts it.

/// A core, by the system's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Core(usize);

/// One core for each worker; none for any where there are not enough, since two on one core could not use a free one.
pub(super) fn for_workers(count: usize, pinned: bool) -> Vec<Option<Core>> {
    let mut cores = if pinned { usable() } else { Vec::new() };
    if pinned && cores.len() < count {
        tracing::warn!(
            workers = count,
            cores = cores.len(),
            "workers are not pinned: there are more of them than cores that may be used"
        );
        cores.clear();
    }
    let mut cores = cores.into_iter();
    (0..count).map(|_| cores.next()).collect()
}

#[cfg(target_os = "linux")]
fn usable() -> Vec<Core> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU)
            .filter(|&core| set.is_set(core))
            .map(Core)
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "the system does not say which cores may be used");
            Vec::new()
        }
    }
}

#[cfg(target_os = "linux")]
impl Core {
    /// Keeps the thread that calls on this core.
    pub fn keep_to(self) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(self.0);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(%error, core = self.0, "a worker could not be pinned");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn usable() -> Vec<Core> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
impl Core {
    pub fn keep_to(self) {}
}
