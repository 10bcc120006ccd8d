//! The resident memory of the process, and how much of it there may be.
//!
//! Source: proc(5), and Linux's documentation of control groups (`memory.max` of version 2, `memory.limit_in_bytes` of
//! version 1). What would surprise: a control group is bound by the limits of all groups above it, and a container may
//! see its own group as the root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::MemoryMax;
use crate::frontend::{Change, Gate};
use crate::telemetry::ResidentBytes;

/// How often the memory is measured.
const LOOK: Duration = Duration::from_millis(250);

/// What is read of the status of the process; the line that is looked for is in the first third.
const STATUS_BYTES: usize = 4096;

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// What the setting means on this machine, in bytes. `None`: no limit.
pub(super) fn limit(setting: MemoryMax) -> Option<u64> {
    match setting {
        MemoryMax::Off => None,
        MemoryMax::Bytes(bytes) => Some(bytes),
        MemoryMax::Auto => {
            let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let group = group_limit(&groups, Path::new(CONTROL_GROUPS));
            let machine = fs::read_to_string("/proc/meminfo").ok();
            let machine = machine.and_then(|text| kib_of(&text, "MemTotal:"));
            let least = [group, machine].into_iter().flatten().min()?;
            Some(least / 5 * 4)
        }
    }
}

/// Measures, and tells the gate.
pub(super) struct Watch {
    gate: Arc<Gate>,
    status: Option<File>,
    gauge: ResidentBytes,
}

impl Watch {
    /// Has looked once, so that whoever comes or scrapes first finds the memory measured.
    pub fn begin(gate: Arc<Gate>) -> Self {
        if let Some(limit) = gate.memory.limit() {
            tracing::info!(limit, "above so much resident memory no new work is taken");
        }
        let watch = Self {
            gate,
            status: File::open("/proc/self/status").ok(),
            gauge: ResidentBytes::default(),
        };
        if !watch.look() && watch.gate.memory.limit().is_some() {
            tracing::warn!(
                "the memory of the process cannot be measured here; memory_max has no effect"
            );
        }
        watch
    }

    /// For as long as the proxy runs.
    pub async fn go_on(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.look() {
                return;
            }
        }
    }

    /// `false` where the memory cannot be measured.
    fn look(&self) -> bool {
        let Some(resident) = self.status.as_ref().and_then(resident) else {
            return false;
        };
        let memory = &self.gate.memory;
        self.gauge.set(resident);
        match memory.measured(resident) {
            Some(Change::Full) => tracing::warn!(
                resident,
                limit = memory.limit(),
                "short of memory: no new clients and no new transactions are taken"
            ),
            Some(Change::Room) => {
                tracing::info!(resident, "there is memory again: new work is taken");
            }
            Some(Change::Kept) => tracing::warn!(
                resident,
                limit = memory.limit(),
                "the memory does not fall, so new work is taken again unless it rises"
            ),
            None => {}
        }
        if memory.is_full() {
            // Without new work nobody else would.
            for database in self.gate.databases.all() {
                database.tidy_up();
            }
        }
        true
    }
}

/// Read from the beginning of the file, anew each time.
fn resident(status: &File) -> Option<u64> {
    let mut text = [0; STATUS_BYTES];
    let length = status.read_at(&mut text, 0).ok()?;
    kib_of(std::str::from_utf8(text.get(..length)?).ok()?, "VmRSS:")
}

/// A line such as `VmRSS:   1616 kB`, in bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    (words.next() == Some("kB")).then(|| number.saturating_mul(1024))
}

/// The least limit of the control groups that this text (`/proc/self/cgroup`) names, and of those above them.
fn group_limit(groups: &str, mount: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (folder, file) = if controllers.is_empty() {
            (mount.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        Path::new(path.trim_start_matches('/'))
            .ancestors()
            .filter_map(|group| fs::read_to_string(folder.join(group).join(file)).ok())
            // Without a limit it is the word "max", or a number that no machine has.
            .filter_map(|text| text.trim().parse().ok())
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_a_group_and_of_those_above_it_counts() {
        let mount =
            std::env::temp_dir().join(format!("pgherd-control-groups-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = mount.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{text}\n")).unwrap();
        };
        write("memory.max", "max");
        write("a/memory.max", "3000");
        write("a/b/memory.max", "max");
        write("a/c/memory.max", "2000");
        write("memory/memory.limit_in_bytes", "9223372036854771712");
        write("memory/d/memory.limit_in_bytes", "1000");
        for (groups, expected) in [
            ("0::/\n", None),
            ("0::/a\n", Some(3000)),
            ("0::/a/b\n", Some(3000)),
            ("0::/a/c/unknown\n", Some(2000)),
            // Of a container that sees its own group as the root, but still has the name that others know.
            ("4:memory:/docker/1\n", Some(9_223_372_036_854_771_712)),
            ("5:cpu:/d\n4:cpuset,memory:/d/e\n0::/a\n", Some(1000)),
            ("5:cpu:/d\n", None),
            ("nonsense\n", None),
        ] {
            assert_eq!(group_limit(groups, &mount), expected, "{groups}");
        }
        fs::remove_dir_all(&mount).unwrap();
    }

    #[test]
    fn this_machine_has_memory_and_this_process_less() {
        let limit = limit(MemoryMax::Auto).unwrap();
        let status = File::open("/proc/self/status").unwrap();
        let resident = resident(&status).unwrap();
        assert!(resident > 0 && resident < limit, "{resident} of {limit}");
    }
}
