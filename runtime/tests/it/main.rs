//! The integration tests, all in one binary.

mod guests;
mod load;
mod sandbox;
mod tidy;
