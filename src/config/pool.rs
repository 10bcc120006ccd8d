//! The settings of pools: those of the section `[pool]`, what a database changes of them, and what a user changes of
//! both.

use std::num::NonZeroU32;
use std::time::Duration;

use super::check::Check;
use super::file;
use super::problems::join;
use super::{Caps, OnSessionState, PoolMode, PoolSettings, Reset, Reuse, Timeouts};

const POSITIVE: Duration = Duration::from_millis(1);

/// What a pool is where nothing is written.
impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            size: at_least_one(20),
            size_min: 0,
            reserve_size: 0,
            reserve_timeout: Duration::from_secs(5),
            reuse: Reuse::Lifo,
            wait_timeout: Duration::from_secs(30),
            wait_notice: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            connect_parallelism: at_least_one(4),
            connect_query: None,
            idle_timeout: Duration::from_secs(10 * 60),
            lifetime: Duration::from_secs(60 * 60),
            check_after: Duration::from_secs(30),
            reset: Reset::Auto,
            reset_query: Some("DISCARD ALL".to_owned()),
            on_session_state: OnSessionState::Track,
            timeouts: Timeouts::default(),
        }
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// 0 in the file means no cap.
pub(super) fn caps(connections_max: Option<u32>, clients_max: Option<u32>) -> Caps {
    Caps {
        connections_max: connections_max.and_then(NonZeroU32::new),
        clients_max: clients_max.and_then(NonZeroU32::new),
    }
}

impl Check<'_> {
    /// The settings of a pool; what is not written comes from `base`.
    pub fn pool(&mut self, path: &str, written: &file::Pool, base: &PoolSettings) -> PoolSettings {
        let mode = self.choice(
            &join(path, "mode"),
            written.mode.as_deref(),
            base.mode,
            &[
                ("session", PoolMode::Session),
                ("transaction", PoolMode::Transaction),
                ("statement", PoolMode::Statement),
            ],
        );
        let reuse = self.choice(
            &join(path, "reuse"),
            written.reuse.as_deref(),
            base.reuse,
            &[("lifo", Reuse::Lifo), ("round-robin", Reuse::RoundRobin)],
        );
        let reset = self.choice(
            &join(path, "reset"),
            written.reset.as_deref(),
            base.reset,
            &[("auto", Reset::Auto), ("always", Reset::Always)],
        );
        let on_session_state = self.choice(
            &join(path, "on_session_state"),
            written.on_session_state.as_deref(),
            base.on_session_state,
            &[
                ("track", OnSessionState::Track),
                ("pin", OnSessionState::Pin),
                ("refuse", OnSessionState::Refuse),
            ],
        );
        let size = written.size.and_then(NonZeroU32::new).unwrap_or(base.size);
        let size_min = written.size_min.unwrap_or(base.size_min);
        if size_min > size.get() {
            self.findings.report(
                &join(path, "size_min"),
                format!("{size_min} is more than the size of the pool, {size}"),
                "write a smaller size_min or a larger size",
            );
        }
        let pool = PoolSettings {
            mode,
            size,
            size_min,
            reserve_size: written.reserve_size.unwrap_or(base.reserve_size),
            reserve_timeout: base.reserve_timeout,
            reuse,
            wait_timeout: base.wait_timeout,
            wait_notice: base.wait_notice,
            connect_timeout: base.connect_timeout,
            connect_parallelism: written
                .connect_parallelism
                .and_then(NonZeroU32::new)
                .unwrap_or(base.connect_parallelism),
            connect_query: self.query(
                path,
                "connect_query",
                written.connect_query.as_ref(),
                base.connect_query.as_ref(),
            ),
            idle_timeout: base.idle_timeout,
            lifetime: base.lifetime,
            check_after: base.check_after,
            reset,
            reset_query: self.query(
                path,
                "reset_query",
                written.reset_query.as_ref(),
                base.reset_query.as_ref(),
            ),
            on_session_state,
            timeouts: base.timeouts,
        };
        self.durations(path, written, pool)
    }

    fn durations(
        &mut self,
        path: &str,
        written: &file::Pool,
        mut pool: PoolSettings,
    ) -> PoolSettings {
        let timeouts = &mut pool.timeouts;
        for (key, text, value, least) in [
            (
                "wait_timeout",
                &written.wait_timeout,
                &mut pool.wait_timeout,
                POSITIVE,
            ),
            (
                "connect_timeout",
                &written.connect_timeout,
                &mut pool.connect_timeout,
                POSITIVE,
            ),
            (
                "reserve_timeout",
                &written.reserve_timeout,
                &mut pool.reserve_timeout,
                Duration::ZERO,
            ),
            (
                "wait_notice",
                &written.wait_notice,
                &mut pool.wait_notice,
                Duration::ZERO,
            ),
            (
                "idle_timeout",
                &written.idle_timeout,
                &mut pool.idle_timeout,
                Duration::ZERO,
            ),
            (
                "lifetime",
                &written.lifetime,
                &mut pool.lifetime,
                Duration::ZERO,
            ),
            (
                "check_after",
                &written.check_after,
                &mut pool.check_after,
                Duration::ZERO,
            ),
            (
                "query_timeout",
                &written.query_timeout,
                &mut timeouts.query,
                Duration::ZERO,
            ),
            (
                "transaction_timeout",
                &written.transaction_timeout,
                &mut timeouts.transaction,
                Duration::ZERO,
            ),
            (
                "idle_in_transaction_timeout",
                &written.idle_in_transaction_timeout,
                &mut timeouts.idle_in_transaction,
                Duration::ZERO,
            ),
            (
                "client_idle_timeout",
                &written.client_idle_timeout,
                &mut timeouts.client_idle,
                Duration::ZERO,
            ),
        ] {
            *value = self.duration(&join(path, key), text.as_deref(), *value, least);
        }
        pool
    }

    /// An empty text means that there is none.
    fn query(
        &mut self,
        path: &str,
        key: &str,
        written: Option<&String>,
        base: Option<&String>,
    ) -> Option<String> {
        let Some(text) = written else {
            return base.cloned();
        };
        if text.contains('\0') {
            self.findings.report(
                &join(path, key),
                "holds a zero byte",
                "write the statements as psql would take them",
            );
        }
        (!text.trim().is_empty()).then(|| text.clone())
    }

    fn choice<T: Copy>(
        &mut self,
        path: &str,
        written: Option<&str>,
        base: T,
        choices: &[(&str, T)],
    ) -> T {
        let Some(word) = written else { return base };
        if let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == word) {
            return *value;
        }
        let words: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        self.word(path, word, &words);
        base
    }
}
