//! For tests in which a number decides everything: the randomness that comes from it, and the loop over many numbers
//! that names the one that failed.
//!
//! `WEIR_SIM_SEEDS=100000` runs so many seeds, `WEIR_SIM_SEED=42` one of them, again.

use std::panic::{RefUnwindSafe, catch_unwind};

/// SplitMix64; see [`crate::route::row_hash`].
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::route::row_hash(self.0, 0, 0) as u64
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What `run` answered for each seed, and whether they are many: of a single one nothing can be counted.
///
/// # Panics
/// With the first seed that fails.
pub(crate) fn try_each<T>(
    default: u64,
    run: impl Fn(u64) -> Result<T, String> + RefUnwindSafe,
) -> (Vec<T>, bool) {
    let told = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().expect("a number"));
    let one = told("WEIR_SIM_SEED");
    let seeds = match one {
        Some(one) => one..one + 1,
        None => 0..told("WEIR_SIM_SEEDS").unwrap_or(default),
    };
    let try_one = |seed| match catch_unwind(|| run(seed)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(violation)) => panic!("seed {seed}: {violation}; again with WEIR_SIM_SEED={seed}"),
        Err(_) => panic!("seed {seed} panicked; again with WEIR_SIM_SEED={seed}"),
    };
    (seeds.map(try_one).collect(), one.is_none())
}
