//! Metrics for Prometheus (text exposition format 0.0.4). They contain no secrets: only names of providers and
//! counts.

use super::counters::Counters;
use super::route::Routes;
use crate::exchange::Exchanger;
use crate::keeper::{Clock as _, Keeper, SystemClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests without a route.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(super) refused: AtomicU64,
}

impl Metrics {
    /// Returns the page.
    pub fn page(&self, routes: &Routes, keepers: &[Arc<Keeper<Exchanger>>], clock: SystemClock) -> String {
        let mut page = Page(String::new());
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed).to_string();
        page.family("requests_total", "counter", "Answers of the API, by the class of their status.");
        for route in routes.all() {
            for (class, count) in route.counters.by_class.iter().enumerate() {
                let labels = format!("provider=\"{}\",code=\"{}xx\"", route.name(), class + 1);
                page.value("requests_total", &labels, &load(count));
            }
        }
        for (name, kind, help, pick) in [
            (
                "upstream_errors_total",
                "counter",
                "Requests that the API did not answer.",
                (|counters: &Counters| &counters.failed) as fn(&Counters) -> &AtomicU64,
            ),
            ("token_errors_total", "counter", "Requests for which there was no token.", |counters| {
                &counters.without_token
            }),
            ("retries_total", "counter", "Requests sent again after a 401.", |counters| &counters.retried),
            ("requests_open", "gauge", "Requests whose answer has not ended.", |counters| &counters.open),
        ] {
            page.family(name, kind, help);
            for route in routes.all() {
                page.value(name, &format!("provider=\"{}\"", route.name()), &load(pick(&route.counters)));
            }
        }
        page.family("refused_total", "counter", "Requests for nothing that is configured.");
        page.value("refused_total", "", &load(&self.refused));
        page.family("exchanges_total", "counter", "Tokens asked for, by how it ended.");
        for keeper in keepers {
            let counts = keeper.counts();
            for (result, count) in
                [("issued", counts.exchanged), ("failed", counts.failed), ("from_disk", counts.adopted)]
            {
                let labels = format!("provider=\"{}\",result=\"{result}\"", keeper.name());
                page.value("exchanges_total", &labels, &count.to_string());
            }
        }
        let now = clock.now();
        page.family("token_seconds_left", "gauge", "Until the token ends; 0 without one.");
        for keeper in keepers {
            let left = keeper.peek().and_then(|cached| cached.ends_in(now)).unwrap_or_default();
            page.value(
                "token_seconds_left",
                &format!("provider=\"{}\"", keeper.name()),
                &left.as_secs().to_string(),
            );
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!(
            "# HELP postern_identity_{name} {help}\n# TYPE postern_identity_{name} {kind}\n"
        ));
    }

    fn value(&mut self, name: &str, labels: &str, value: &str) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.0.push_str(&format!("postern_identity_{name}{labels} {value}\n"));
    }
}
