//! The integration tests, all in one binary.
#![expect(missing_debug_implementations, reason = "tests")]

mod guests;
mod load;
mod sandbox;
mod tidy;
