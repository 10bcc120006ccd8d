//! Histograms that need no memory for a value: two additions, and the text that Prometheus reads is made when somebody
//! scrapes.
//!
//! The exporter's own keep every value with its time until they are tidied up, which is megabytes in a busy second.
//! Handles come from the `metrics` crate as those of counters do: [`Recorder`] passes everything else on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Upper bounds of the buckets, in seconds; the last bucket has none.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 120.0,
];

const NANOS_OF_SECOND: f64 = 1e9;

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; SECONDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = SECONDS.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Durations are not negative, and centuries of them fit.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let nanos = (value * NANOS_OF_SECOND) as u64;
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// All histograms of the process.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    /// By name, and then by labels as they are written.
    known: Mutex<BTreeMap<String, BTreeMap<String, Arc<Buckets>>>>,
}

impl Histograms {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Arc<Buckets>>>> {
        // What is kept here is whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &Key) -> Arc<Buckets> {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        let mut known = self.lock();
        let named = known.entry(key.name().to_owned()).or_default();
        Arc::clone(named.entry(written(labels)).or_default())
    }

    /// Appends all of them in the text format of Prometheus; `meaning` is the line of help for a name.
    pub fn render(&self, out: &mut String, meaning: impl Fn(&str) -> &'static str) {
        for (name, by_labels) in &*self.lock() {
            let _ = writeln!(out, "# HELP {name} {}", meaning(name));
            let _ = writeln!(out, "# TYPE {name} histogram");
            for (labels, buckets) in by_labels {
                render_one(out, name, labels, buckets);
            }
            out.push('\n');
        }
    }
}

fn render_one(out: &mut String, name: &str, labels: &str, buckets: &Buckets) {
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = SECONDS.iter().map(ToString::to_string);
    let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
    let mut count = 0;
    for (bound, bucket) in bounds.zip(&buckets.counts) {
        count += bucket.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        );
    }
    // Exact to the nanosecond for the first hundred days.
    #[allow(clippy::cast_precision_loss)]
    let sum = buckets.sum_nanos.load(Ordering::Relaxed) as f64 / NANOS_OF_SECOND;
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

fn written<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{key}=\"");
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}

/// The exporter's recorder, but for the histograms.
pub(super) struct Recorder {
    pub exporter: PrometheusRecorder,
    pub histograms: Arc<Histograms>,
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.exporter.describe_counter(key, unit, meaning);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.exporter.describe_gauge(key, unit, meaning);
    }

    /// See [`Histograms::render`].
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.of(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_every_bucket_whose_bound_it_does_not_exceed() {
        let histograms = Histograms::default();
        let key = Key::from_parts("seconds", vec![metrics::Label::new("user", "a\"b\\c\nd")]);
        // The same labels are the same histogram.
        for seconds in [0.00005, 0.0001, 0.0002, 0.25, 600.0] {
            histograms.of(&key).record(seconds);
        }
        let mut text = String::new();
        histograms.render(&mut text, |_| "What it means.");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "# HELP seconds What it means.");
        assert_eq!(lines[1], "# TYPE seconds histogram");
        let labels = r#"user="a\"b\\c\nd""#;
        for (bound, count) in [
            ("0.0001", 2),
            ("0.00025", 3),
            ("0.1", 3),
            ("0.25", 4),
            ("120", 4),
            ("+Inf", 5),
        ] {
            let line = format!("seconds_bucket{{{labels},le=\"{bound}\"}} {count}");
            assert!(lines.contains(&line.as_str()), "{line}\n{text}");
        }
        assert!(
            lines.contains(&format!("seconds_sum{{{labels}}} 600.25035").as_str()),
            "{text}"
        );
        assert!(
            lines.contains(&format!("seconds_count{{{labels}}} 5").as_str()),
            "{text}"
        );
    }
}
