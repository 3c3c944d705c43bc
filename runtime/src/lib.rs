//! Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.

pub mod batch;
pub mod budget;
pub mod commit;
pub mod config;
pub mod csv;
pub mod description;
pub mod digest;
pub mod offset;
pub mod pipeline;
pub mod plan;
pub mod route;
pub mod rule;
pub mod sink;
pub mod source;
pub mod tables;
