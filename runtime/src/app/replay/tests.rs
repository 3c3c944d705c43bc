//! What the tests of all replay inputs have in common.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What failpoints do is one table for all tests of this program, and the steps of all replay inputs have the same names.
static ALONE: Mutex<()> = Mutex::new(());

pub(super) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
