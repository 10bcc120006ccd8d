//! Logs to standard error, as text or JSON lines. Reading a filter that is wrong falls back to `info` and says so.

use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process; a second call changes nothing.
pub fn start_logs(json: bool, level: &str) {
    let (filter, problem) = match EnvFilter::try_new(level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init()
    };
    if let (Ok(()), Some(error)) = (started, problem) {
        tracing::warn!(%error, "the log level is not a filter that can be read; logging at info");
    }
}
