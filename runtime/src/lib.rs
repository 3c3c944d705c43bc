//! Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.

pub mod offset;
pub mod budget;
pub mod batch;
pub mod description;
pub mod tables;
pub mod route;
pub mod rule;
pub mod sandbox;
pub mod csv;
pub mod digest;
pub mod source;
pub mod sink;
pub mod plan;
pub mod commit;
pub mod pipeline;
pub mod config;
pub mod report;
pub mod validate;
pub mod cli;
