//! What became of the records of a run, and what was checked: one JSON object, the same for every command that
//! runs records. It counts nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::pipeline::Tally;

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What ran; absent if nothing could.
    pub transform: Option<TransformId>,
    /// Records taken in.
    pub records: u64,
    /// Per route, the records with a row on it.
    pub routed: BTreeMap<Arc<str>, u64>,
    /// Per reason, the records refused for it first, by the source or the transform.
    pub rejected: BTreeMap<Arc<str>, u64>,
    /// Records left out on purpose.
    pub dropped: u64,
    /// Records at which the transform failed.
    pub failed: u64,
    /// Whether every record has exactly one fate.
    pub conserved: bool,
    /// What was looked at, in this order.
    pub checks: Vec<Check>,
    /// How long it took.
    pub timing: Timing,
}

/// Which transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransformId {
    /// Its name.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// `sha256:` and the digest of its bytes.
    pub digest: Arc<str>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable and short.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, for people.
    pub detail: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How long it took, by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// From the bytes of the component to one that can start; short if it was compiled before.
    pub load_ms: f64,
    /// For all records together.
    pub run_ms: f64,
    /// Absent where nothing ran.
    pub records_per_second: Option<f64>,
    /// Absent where nothing ran.
    pub ns_per_record: Option<f64>,
}

impl Report {
    /// Takes over what `tally` says of the records, which took `run`.
    pub fn count(&mut self, tally: &Tally, run: Duration) {
        self.records = tally.records;
        self.routed = tally.routed.clone();
        self.rejected = tally.rejected.clone();
        (self.dropped, self.failed) = (tally.dropped, tally.failed);
        self.conserved = tally.conserved();
        let through = tally.n_routed + tally.n_rejected + tally.dropped + tally.failed;
        self.timing = Timing::of(self.timing.load_ms, run, through);
    }

    /// Adds a check that went well.
    pub fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, ok: true, detail: detail.into(), hint: None });
    }

    /// Adds a check that did not.
    pub fn not_ok(&mut self, name: &'static str, detail: impl Into<String>, hint: Option<String>) {
        self.checks.push(Check { name, ok: false, detail: detail.into(), hint });
    }

    /// Whether all checks went well.
    pub fn all_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

impl Timing {
    /// `load_ms` stays; the rates follow from the rest.
    pub fn of(load_ms: f64, run: Duration, records: u64) -> Self {
        let seconds = run.as_secs_f64();
        let ran = records > 0 && seconds > 0.0;
        Self {
            load_ms: rounded(load_ms),
            run_ms: rounded(seconds * 1e3),
            records_per_second: ran.then(|| (records as f64 / seconds).round()),
            ns_per_record: ran.then(|| (seconds * 1e9 / records as f64).round()),
        }
    }
}

/// A duration in milliseconds, as reports have it.
pub fn milliseconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_nothing_has_no_rates() {
        let nothing = Timing::of(1.0, Duration::ZERO, 0);
        assert_eq!((nothing.records_per_second, nothing.ns_per_record), (None, None));
        let some = Timing::of(1.0, Duration::from_millis(2), 1_000);
        assert_eq!((some.records_per_second, some.ns_per_record), (Some(500_000.0), Some(2_000.0)));
    }

    #[test]
    fn one_check_that_fails_is_enough() {
        let mut report = Report::default();
        report.ok("loads", "well");
        assert!(report.all_ok());
        report.not_ok("starts", "badly", None);
        report.ok("conserved", "well");
        assert!(!report.all_ok());
    }
}
