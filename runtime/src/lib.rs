//! Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.
pub mod offset;
pub mod budget;
pub mod batch;
pub mod description;
pub mod route;
pub mod rule;
pub mod commit;
pub mod pipeline;
pub mod source;
pub mod plan;
pub mod sink;
