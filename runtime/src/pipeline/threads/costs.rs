//! What the records of each plan took of the workers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pipeline::status::Cost;

/// Of so many plans it is told, the newest: a plan is looked at beside the one that it replaced.
const KEPT: usize = 2;

/// All workers count here.
#[derive(Debug, Default)]
pub(super) struct Costs(Mutex<BTreeMap<u64, Cost>>);

impl Costs {
    /// Plan `plan` made so many records, in so many nanoseconds of a processor.
    pub(super) fn add(&self, plan: u64, records: usize, cpu_ns: u64) {
        let mut costs = self.lock();
        let cost = costs.entry(plan).or_insert(Cost { plan, records: 0, cpu_ns: 0 });
        cost.records += records as u64;
        cost.cpu_ns += cpu_ns;
        while costs.len() > KEPT {
            costs.pop_first();
        }
    }

    /// The newest plan comes last.
    pub(super) fn all(&self) -> Vec<Cost> {
        self.lock().values().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Cost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_two_newest_plans_it_is_told_what_their_records_took() {
        let costs = Costs::default();
        for (plan, records, cpu_ns) in [(0, 10, 20), (3, 1, 500), (0, 10, 40), (4, 2, 8), (0, 99, 99)] {
            costs.add(plan, records, cpu_ns);
        }
        let told: Vec<_> = costs.all().iter().map(|cost| (cost.plan, cost.records, cost.cpu_ns)).collect();
        assert_eq!(told, [(3, 1, 500), (4, 2, 8)]);
    }
}
