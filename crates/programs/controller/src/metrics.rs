//! Metrics for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// All metrics of the program.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    watch_errors: Family<Kind, Counter>,
    last_event: Family<Kind, Gauge<f64, AtomicU64>>,
    writes: Family<Kind, Counter>,
    failures: Counter,
    reconciled: Counter,
    contested: Counter,
    restarted: Counter,
    is_leader: Gauge,
    admissions: Family<Outcome, Counter>,
    admission_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 3.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("postern_controller"),
            watch_errors: Family::default(),
            last_event: Family::default(),
            writes: Family::default(),
            failures: Counter::default(),
            reconciled: Counter::default(),
            contested: Counter::default(),
            restarted: Counter::default(),
            is_leader: Gauge::default(),
            admissions: Family::default(),
            admission_seconds: Histogram::new(buckets),
        };
        let registry = &mut metrics.registry;
        registry.register("watch_errors", "Failed watches, by kind", metrics.watch_errors.clone());
        registry.register(
            "watch_last_event_timestamp_seconds",
            "When a watch last told of something, by kind",
            metrics.last_event.clone(),
        );
        registry.register("writes", "Objects that were changed, by kind", metrics.writes.clone());
        registry.register("write_failures", "Changes that failed", metrics.failures.clone());
        registry.register(
            "reconciled_namespaces",
            "Namespaces that were looked at",
            metrics.reconciled.clone(),
        );
        registry.register(
            "contested_serviceaccounts",
            "Changes that wait because another client undoes them",
            metrics.contested.clone(),
        );
        registry.register(
            "restarted_pods",
            "Pods that were recreated to pull again",
            metrics.restarted.clone(),
        );
        registry.register("is_leader", "Whether this replica reconciles", metrics.is_leader.clone());
        registry.register("admissions", "Pods at admission, by outcome", metrics.admissions.clone());
        registry.register("admission_seconds", "Time of an admission", metrics.admission_seconds.clone());
        metrics
    }
}

impl Metrics {
    /// The text for Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn watch_event(&self, kind: &'static str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_event.get_or_create(&Kind { kind }).set(now.as_secs_f64());
    }

    pub(crate) fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    pub(crate) fn wrote(&self, kind: &'static str, count: u64) {
        self.writes.get_or_create(&Kind { kind }).inc_by(count);
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    pub(crate) fn reconciled(&self) {
        self.reconciled.inc();
    }

    pub(crate) fn contested(&self) {
        self.contested.inc();
    }

    pub(crate) fn restarted(&self) {
        self.restarted.inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.is_leader.set(i64::from(leads));
    }

    pub(crate) fn admitted(&self, outcome: &'static str, time: Duration) {
        self.admissions.get_or_create(&Outcome { outcome }).inc();
        self.admission_seconds.observe(time.as_secs_f64());
    }
}
