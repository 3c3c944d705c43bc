//! How a plan stands that is tried on live records, in one process: what it was compared in, and what that cost. Plain data;
//! it tries nothing itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trial::grouped;
use crate::comparison::Comparison;
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
        if matches!(ours.state, ShadowState::Ended(_)) {
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
