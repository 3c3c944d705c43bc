//! The integration tests, all in one binary.

mod editors;
mod guests;
mod load;
mod project;
mod run;
mod sandbox;
mod tidy;
mod validate;
