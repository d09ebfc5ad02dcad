//! What the daemon exports, read from its source, and what is wrong with an expression over it.

use std::collections::{BTreeMap, BTreeSet};

use crate::promql::{self, Use};

/// Prometheus's own, and those of every process.
const OTHERS: [&str; 3] = ["up", "ALERTS", "process_resident_memory_bytes"];
const HISTOGRAM_SERIES: [&str; 3] = ["_bucket", "_count", "_sum"];
/// What leaves of several copies of one series one.
const SAFE_FOLDS: [&str; 2] = ["max", "min"];

/// Metrics by name; whether each is a histogram.
pub struct Catalogue(BTreeMap<String, bool>);

impl Catalogue {
    /// From `coordinator/node/src/metrics.rs`: constants of names, and a table of entries.
    pub fn read(source: &str) -> Self {
        let constants: BTreeMap<&str, &str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("const ")?.strip_suffix("\";")?.split_once(": &str = \""))
            .collect();
        let entries = source.lines().filter_map(|line| line.trim_start().strip_prefix("entry("));
        let entry = |entry: &str| {
            let (constant, rest) = entry.split_once(", ")?;
            Some(((*constants.get(constant)?).to_owned(), rest.starts_with("Kind::Histogram")))
        };
        Self(entries.filter_map(entry).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn has(&self, series: &str) -> bool {
        OTHERS.contains(&series) || self.metric(series).is_some()
    }

    /// The metric that a series is of.
    fn metric<'a>(&self, series: &'a str) -> Option<&'a str> {
        if self.0.get(series) == Some(&false) {
            return Some(series);
        }
        let base = HISTOGRAM_SERIES.iter().find_map(|end| series.strip_suffix(end))?;
        (self.0.get(base) == Some(&true)).then_some(base)
    }

    /// The metrics that none of these expressions asks for.
    pub fn unseen<'a>(&self, expressions: impl IntoIterator<Item = &'a str>) -> Vec<&str> {
        let uses = expressions.into_iter().flat_map(promql::uses);
        let seen: BTreeSet<String> = uses.filter_map(|one| self.metric(&one.name).map(str::to_owned)).collect();
        self.0.keys().filter(|name| !seen.contains(*name)).map(String::as_str).collect()
    }

    /// What names no metric of the daemon, and what counts twice where two Prometheus scrape the same.
    pub fn faults(&self, expression: &str) -> Vec<String> {
        let uses = promql::uses(expression);
        if uses.is_empty() {
            return vec![format!("no metric in {expression}")];
        }
        uses.iter().flat_map(|one| self.use_faults(one)).collect()
    }

    fn use_faults(&self, one: &Use) -> Vec<String> {
        let name = &one.name;
        if !self.has(name) {
            return vec![format!("{name} is no metric of the daemon")];
        }
        if ["up", "ALERTS"].contains(&name.as_str()) {
            return Vec::new();
        }
        let Some(fold) = one.fold.as_ref().filter(|fold| SAFE_FOLDS.contains(&fold.operation.as_str())) else {
            return vec![format!("{name} counts twice with two Prometheus: fold it by max first")];
        };
        let mut needed = vec!["cluster"];
        if name.ends_with("_bucket") {
            needed.push("le");
        }
        let missing = needed.into_iter().filter(|label| !fold.labels.iter().any(|known| known == label));
        missing.map(|label| format!("{name} is folded without {label}")).collect()
    }
}

#[test]
fn unknown_metrics_and_sums_over_copies_are_caught() {
    let source = "const A: &str = \"onespend_a\";\nconst B: &str = \"onespend_b_seconds\";\n    entry(A, Kind::Gauge, U, \
                  \"a\"),\n    entry(B, Kind::Histogram(X), U, \"b\"),\n";
    let catalogue = Catalogue::read(source);
    assert_eq!(catalogue.count(), 2);
    let faults = |expression: &str| catalogue.faults(expression).len();
    assert_eq!(faults("sum by (cluster) (max by (cluster, node) (onespend_a)) > 1 and absent(up{job=\"x\"})"), 0);
    assert_eq!(faults("histogram_quantile(0.9, max by (cluster, le) (rate(onespend_b_seconds_bucket[5m])))"), 0);
    assert_eq!(faults("max by (cluster) (onespend_c)"), 1, "it does not exist");
    assert_eq!(faults("max by (cluster) (onespend_b_seconds)"), 1, "a histogram has no series of its own name");
    assert_eq!(faults("max by (cluster) (onespend_a_count)"), 1, "a gauge has no count");
    assert_eq!(faults("sum by (cluster) (onespend_a)"), 1);
    assert_eq!(faults("onespend_a > 1"), 1);
    assert_eq!(faults("max by (node) (onespend_a)"), 1, "two clusters may have a node 1");
    assert_eq!(faults("max by (cluster) (rate(onespend_b_seconds_bucket[5m]))"), 1, "without le");
    assert_eq!(faults("vector(1)"), 1);
    assert_eq!(catalogue.unseen(["max by (cluster) (onespend_a)", "up"]), ["onespend_b_seconds"]);
    assert_eq!(catalogue.unseen(["onespend_b_seconds_count", "onespend_a_sum"]), ["onespend_a"]);
}
