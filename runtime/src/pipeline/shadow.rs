//! How a plan stands that is tried on live records, in one process: what it was compared in, and what that cost. Plain data;
//! it tries nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trial::grouped;
use crate::comparison::Comparison;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::plan::Shadow;

/// How it stands, without what records hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its place in the plan log.
    pub shadow: u64,
    /// The plan that it is compared with.
    pub beside: u64,
    /// The digest of its transform.
    pub digest: Arc<str>,
    /// What it does.
    #[serde(flatten)]
    pub state: ShadowState,
    /// Records that were compared.
    pub records: u64,
    /// Of how many of them something differs.
    pub different: u64,
    /// After so many it ends, if that was said.
    pub of: Option<u64>,
    /// Records that it did not get, since it was busy with others.
    pub skipped: u64,
    /// Records that it did not come to an end with.
    pub unjudged: u64,
    /// Why not, the last time.
    pub trouble: Option<String>,
    /// What the compared records took of a processor, in nanoseconds.
    pub cpu_ns: u64,
    /// What they took under the plan that runs.
    pub cpu_ns_beside: u64,
}

/// What a shadow does in a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "why", rename_all = "kebab-case")]
pub enum ShadowState {
    /// It is being loaded.
    Starting,
    /// It gets records.
    Running,
    /// It cannot go on here, for this reason. What is live knows nothing of it.
    Failed(String),
    /// It has come to its end, in this way.
    Ended(String),
}

/// How it stands, and what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The former.
    pub standing: Standing,
    /// The latter, with some of the records.
    pub comparison: Comparison,
}

impl Report {
    /// Of a shadow that has seen nothing yet.
    pub fn new(place: u64, shadow: &Shadow) -> Self {
        let standing = Standing {
            shadow: place,
            beside: shadow.plan.replaces.unwrap_or_default(),
            digest: shadow.plan.digest.clone(),
            state: ShadowState::Starting,
            records: 0,
            different: 0,
            of: shadow.records,
            skipped: 0,
            unjudged: 0,
            trouble: None,
            cpu_ns: 0,
            cpu_ns_beside: 0,
        };
        Self { standing, comparison: Comparison::default() }
    }

    /// A batch was compared, and took so much of a processor under either plan.
    pub fn compared(&mut self, found: &Comparison, cpu_ns: u64, cpu_ns_beside: u64) {
        self.comparison.add(found);
        self.standing.records = self.comparison.records;
        self.standing.different = self.comparison.different;
        self.standing.cpu_ns += cpu_ns;
        self.standing.cpu_ns_beside += cpu_ns_beside;
    }

    /// So many records came to no comparison.
    pub fn unjudged(&mut self, records: u64, why: String) {
        self.standing.unjudged += records;
        self.standing.trouble = Some(why);
    }

    /// Adds what another process found of the same shadow. One that still has something to do, or cannot, says how it stands.
    pub fn add(&mut self, other: &Self) {
        let (ours, theirs) = (&mut self.standing, &other.standing);
        self.comparison.add(&other.comparison);
        (ours.records, ours.different) = (self.comparison.records, self.comparison.different);
        ours.skipped += theirs.skipped;
        ours.unjudged += theirs.unjudged;
        ours.cpu_ns += theirs.cpu_ns;
        ours.cpu_ns_beside += theirs.cpu_ns_beside;
        if ours.trouble.is_none() {
            ours.trouble.clone_from(&theirs.trouble);
        }
        // Where one cannot try it, that is what counts; else whether it goes on anywhere.
        let fails = matches!(theirs.state, ShadowState::Failed(_));
        if fails || matches!(ours.state, ShadowState::Ended(_)) {
            ours.state = theirs.state.clone();
        }
    }
}

impl Standing {
    /// In one line.
    pub fn told(&self) -> String {
        let (shadow, beside) = (self.shadow, self.beside);
        let of = self.of.map_or_else(String::new, |of| format!(" of {}", grouped(of)));
        let (records, different) = (grouped(self.records), grouped(self.different));
        let left_out = match self.skipped {
            0 => String::new(),
            n => format!(", {} left out", grouped(n)),
        };
        let counted = format!("{records}{of} records compared, {different} different{left_out}");
        match &self.state {
            ShadowState::Starting => format!("shadow {shadow} beside plan {beside}: starting"),
            ShadowState::Running => format!("shadow {shadow} beside plan {beside}: {counted}"),
            ShadowState::Failed(why) => {
                format!("shadow {shadow} beside plan {beside} cannot go on here: {why}; {counted}")
            }
            ShadowState::Ended(how) => format!("shadow {shadow} beside plan {beside}, {how}; {counted}"),
        }
    }

    /// Whether it still gets records, or is about to.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ShadowState::Starting | ShadowState::Running)
    }
}

/// So many runs of offsets are kept apart of a partition.
const RUNS: usize = 1_000;

/// Which records were compared: they come again where a sink failed.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<TopicPartition, BTreeMap<Offset, Offset>>);

impl Seen {
    /// Notes a batch, unless some of it was noted before.
    pub fn is_new(&mut self, at: &TopicPartition, range: OffsetRange) -> bool {
        let runs = self.0.entry(at.clone()).or_default();
        let before = runs.range(..range.end).next_back().map(|(start, end)| (*start, *end));
        if before.is_some_and(|(_, end)| end > range.start) {
            return false;
        }
        let start = match before {
            Some((start, end)) if end == range.start => start,
            _ => range.start,
        };
        let end = runs.remove(&range.end).unwrap_or(range.end);
        runs.insert(start, end);
        // What lies between the first two is taken for noted: it is left out, should it come.
        while runs.len() > RUNS {
            let (first, _) = runs.pop_first().expect("there are many");
            let (_, end) = runs.pop_first().expect("there are many");
            runs.insert(first, end);
        }
        true
    }

    /// Whether the record at an offset was noted.
    pub fn has(&self, at: &TopicPartition, offset: Offset) -> bool {
        let run = self.0.get(at).and_then(|runs| runs.range(..=offset).next_back());
        run.is_some_and(|(_, end)| *end > offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::shadow;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset::new(start), Offset::new(end))
    }

    #[test]
    fn a_record_is_compared_once_in_whatever_order_batches_come_and_however_they_are_cut_again() {
        let (at, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let mut seen = Seen::default();
        for (start, end, new) in [
            (10, 20, true),
            (30, 40, true),
            (20, 30, true),
            (10, 40, false),
            (15, 25, false),
            (5, 11, false),
            (39, 50, false),
            (0, 100, false),
            (40, 50, true),
            (0, 10, true),
        ] {
            assert_eq!(seen.is_new(&at, range(start, end)), new, "{start}..{end}");
        }
        assert_eq!(seen.0[&at], BTreeMap::from([(Offset::ZERO, Offset::new(50))]));
        assert!(seen.has(&at, Offset::new(49)) && !seen.has(&at, Offset::new(50)));
        assert!(!seen.has(&other, Offset::ZERO) && seen.is_new(&other, range(0, 1)));
    }

    #[test]
    fn what_is_kept_of_batches_that_were_left_out_is_bounded() {
        let at = TopicPartition::new("t", 0);
        let mut seen = Seen::default();
        for i in 0..3 * RUNS as i64 {
            assert!(seen.is_new(&at, range(2 * i, 2 * i + 1)));
        }
        assert_eq!(seen.0[&at].len(), RUNS);
        assert!((0..3 * RUNS as i64).all(|i| seen.has(&at, Offset::new(2 * i))));
    }

    #[test]
    fn what_processes_found_adds_up_and_one_that_goes_on_says_so() {
        let found = Comparison { records: 10, different: 1, ..Comparison::default() };
        let mut ours = Report::new(3, &shadow(0, "b"));
        ours.compared(&found, 5, 7);
        ours.standing.state = ShadowState::Ended("done".to_owned());
        let mut theirs = Report::new(3, &shadow(0, "b"));
        theirs.compared(&found, 5, 7);
        theirs.unjudged(4, "it stalls".to_owned());
        theirs.standing.state = ShadowState::Running;
        ours.add(&theirs);
        let standing = &ours.standing;
        assert_eq!((standing.records, standing.different, standing.unjudged), (20, 2, 4));
        assert_eq!((standing.cpu_ns, standing.cpu_ns_beside), (10, 14));
        assert_eq!(standing.told(), "shadow 3 beside plan 0: 20 records compared, 2 different");
        let text = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), ours);
    }
}
