//! Streaming standbys of a server.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use pgherd::demo::Server;

use super::{sql, until};

/// Makes `others` hot standbys of `primary`, with its data instead of their own. All are stopped for a moment.
pub fn make_standbys(primary: &Server, others: &[Server]) {
    primary.stop();
    for other in others {
        other.stop();
        fs::remove_dir_all(other.data_dir()).unwrap();
        let copied = Command::new("cp")
            .arg("-Rp")
            .arg(primary.data_dir())
            .arg(other.data_dir())
            .status()
            .unwrap();
        assert!(copied.success());
        follow(other, primary);
    }
    primary.restart().unwrap();
    for other in others {
        other.restart().unwrap();
        assert_eq!(sql(other, "postgres", "SELECT pg_is_in_recovery()"), "t");
    }
}

/// From its next start on `server`, which is stopped, is a standby of `primary`.
pub fn follow(server: &Server, primary: &Server) {
    let data = server.data_dir();
    let owner = fs::metadata(&data).unwrap();
    let signal = data.join("standby.signal");
    fs::write(&signal, "").unwrap();
    chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut settings = OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.auto.conf"))
        .unwrap();
    writeln!(
        settings,
        "primary_conninfo = 'host={} port={} user=postgres'",
        primary.socket_dir().display(),
        primary.port()
    )
    .unwrap();
}

/// Waits until all that the primary has written is on the standby.
pub fn catch_up(primary: &Server, standby: &Server) {
    let written = sql(primary, "postgres", "SELECT pg_current_wal_flush_lsn()");
    until("the standby has caught up", || {
        let behind = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        sql(standby, "postgres", &behind) == "t"
    });
}

pub fn promote(standby: &Server) {
    assert_eq!(sql(standby, "postgres", "SELECT pg_promote()"), "t");
}
