//! Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.
//!
//! A [`source`] cuts its input into batches of records, each of one partition. Workers hand every batch to the
//! transform of the plan that is due for its offsets; the [`sandbox`] runs it and checks what comes back. Each
//! record then has one fate: rows on a [`route`], a rejection with reasons, or dropped on purpose. The rows go to the
//! sinks in offset order, and a [`sink`] stores them together with its own position, so that after a crash the
//! pipeline reads again from the least of all positions and every sink skips what it has. What runs from which offset
//! stands in the [`plan`] log. The [`pipeline`] alone knows this order.
//!
//! The modules, in the order in which a record meets them:

pub mod batch;
pub mod budget;
mod cell;
pub mod commit;
pub mod comparison;
mod cpu;
pub mod csv;
pub mod description;
pub mod digest;
pub mod kafka;
pub mod offset;
pub mod origin;
pub mod pipeline;
pub mod plan;
pub mod purity;
pub mod route;
pub mod rule;
pub mod sandbox;
pub mod sink;
pub mod source;
pub mod tables;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod errors;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod project;
pub mod report;
pub mod validate;

#[cfg(test)]
mod seeds;
