//! One byte budget from the source to the last sink's hand-off. It knows bytes, not who holds them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How many bytes of records may be under way in the process at once.
///
/// One budget for the whole way, not one per queue: batches that wait for an earlier one to be transformed could
/// otherwise fill the queue that the earlier one needs.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    closed: bool,
}

/// A share of the budget; it is given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    shared: Arc<Shared>,
}

/// Why there is no share of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Not so many bytes are free now.
    Full,
    /// The pipeline stops.
    Closed,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { limit, state: Mutex::default(), changed: Condvar::new() }) }
    }

    /// Waits until `bytes` are free and takes them. What is larger than the whole budget is counted as the whole
    /// of it, so it goes through alone. `None` once the budget is closed.
    pub fn acquire(&self, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.shared.limit);
        let mut state = self.shared.lock();
        while !state.closed && state.used + bytes > self.shared.limit {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.used += bytes;
        Some(Permit { _held: Some(Arc::new(Held { bytes, shared: self.shared.clone() })) })
    }

    /// Takes `bytes` as [`Self::acquire`] does, if they are free now.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn try_acquire(&self, bytes: usize) -> Result<Permit, Denied> {
        let bytes = bytes.min(self.shared.limit);
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Denied::Closed);
        }
        if state.used + bytes > self.shared.limit {
            return Err(Denied::Full);
        }
        state.used += bytes;
        Ok(Permit { _held: Some(Arc::new(Held { bytes, shared: self.shared.clone() })) })
    }

    /// Bytes that may be held at once.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Bytes held at this moment.
    pub fn used(&self) -> usize {
        self.shared.lock().used
    }

    /// Lets every waiting and future [`Self::acquire`] return `None`: the pipeline stops.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Permit {
    /// A permit outside any budget, for batches that are made to be thrown away.
    pub fn free() -> Self {
        Self { _held: None }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.lock().used -= self.bytes;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_when_the_last_holder_lets_go() {
        let budget = Budget::new(10);
        let permit = budget.acquire(8).unwrap();
        let other = permit.clone();
        drop(permit);
        assert_eq!(budget.used(), 8);
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_does_not_wait_is_told_why_it_gets_nothing() {
        let budget = Budget::new(10);
        let permit = budget.try_acquire(1000).unwrap();
        assert_eq!(budget.try_acquire(1).unwrap_err(), Denied::Full);
        drop(permit);
        assert!(budget.try_acquire(10).is_ok());
        budget.close();
        assert_eq!(budget.try_acquire(1).unwrap_err(), Denied::Closed);
    }

    #[test]
    fn a_record_larger_than_the_budget_goes_through_alone() {
        let budget = Budget::new(10);
        let permit = budget.acquire(1000).unwrap();
        assert_eq!(budget.used(), 10);
        drop(permit);
    }

    #[test]
    fn who_waits_is_served_when_bytes_come_back_and_sent_away_when_it_closes() {
        let budget = Budget::new(10);
        let first = budget.acquire(10).unwrap();
        let waiting = std::thread::spawn({
            let budget = budget.clone();
            move || budget.acquire(5).is_some()
        });
        drop(first);
        assert!(waiting.join().unwrap());
        budget.close();
        assert!(budget.acquire(1).is_none());
    }
}
