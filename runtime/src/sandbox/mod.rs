//! Where transforms run: WebAssembly components with a deadline, a memory limit and no way out. Only this folder
//! knows wasmtime; no type of it is in any signature here.
//!
//! A [`Sandbox`] compiles bytes to a [`Transform`]; a transform describes itself under some settings and starts
//! [`Instance`]s; an instance turns batches into outputs. Whatever a guest returns is checked value by value
//! before anyone sees it, and an instance that failed is never asked again: [`verdict`] finds the guilty record
//! with fresh ones.

mod bindings;
mod cache;
pub mod child;
mod columns;
mod compile;
mod describe;
mod engine;
mod instance;
mod limits;
mod load_error;
mod log;
mod lower;
mod output;
mod precheck;
mod transform;
pub mod verdict;
pub mod wasi;

pub use compile::{MAX_COMPONENT_BYTES, compile_ahead};
pub use engine::{EngineError, Imports, Sandbox, SandboxOptions};
pub use instance::{Init, Instance, InstanceLimits, StartError};
pub use load_error::LoadError;
pub(crate) use log::escape;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use output::fuzzing::any_output;
pub use transform::Transform;
