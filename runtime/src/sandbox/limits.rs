//! How much memory one instance may have: all its memories and tables together. It never asks the operating
//! system.

use wasmtime::ResourceLimiter;

/// Adds up what a store holds and refuses what goes beyond.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    used: usize,
    refused: bool,
}

/// What an entry of a table takes up on the host.
const TABLE_ENTRY: usize = 8;

impl Limiter {
    /// # Arguments
    /// `limit` in bytes, for all memories and tables of the store.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of memories and tables. They never shrink.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Whether something was refused since the last call of this.
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn grow(&mut self, more: usize) -> bool {
        let wanted = self.used.saturating_add(more);
        let granted = wanted <= self.limit;
        if granted {
            self.used = wanted;
        }
        self.refused |= !granted;
        granted
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, now: usize, wanted: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        if most.is_some_and(|most| wanted > most) {
            return Ok(false);
        }
        Ok(self.grow(wanted.saturating_sub(now)))
    }

    fn table_growing(&mut self, now: usize, wanted: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        if most.is_some_and(|most| wanted > most) {
            return Ok(false);
        }
        Ok(self.grow(wanted.saturating_sub(now).saturating_mul(TABLE_ENTRY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = Limiter::new(1_000);
        assert!(limiter.memory_growing(0, 600, None).unwrap());
        assert!(limiter.memory_growing(0, 300, None).unwrap());
        assert!(limiter.table_growing(0, 12, None).unwrap());
        assert!(!limiter.table_growing(12, 13, None).unwrap());
        assert_eq!(limiter.used(), 996);
        assert!(limiter.take_refused() && !limiter.take_refused());
    }

    #[test]
    fn numbers_beyond_all_bounds_are_refused() {
        let mut limiter = Limiter::new(usize::MAX - 1);
        assert!(!limiter.table_growing(0, usize::MAX, None).unwrap());
        assert!(!limiter.memory_growing(0, 2, Some(1)).unwrap());
    }
}
