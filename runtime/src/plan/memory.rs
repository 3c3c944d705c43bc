//! A plan log in memory, shared by clones; for tests and simulations. It survives no process.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Entry, Error, PlanLog};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl PlanLog for MemoryLog {
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((from..).zip(entries.iter().skip(from as usize).cloned()).collect())
    }

    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let free = entries.len() as u64 == at;
        if free {
            entries.push(entry.clone());
        }
        Ok(free)
    }
}
