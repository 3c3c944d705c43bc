//! Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.

pub mod batch;
pub mod budget;
pub mod description;
pub mod offset;
pub mod route;
pub mod sink;
