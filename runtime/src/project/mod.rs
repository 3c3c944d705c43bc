//! Transform projects: made from a template, and built to a component that the sandbox has accepted. Nothing here
//! runs a record.

mod build;
pub mod cargo;
mod create;
mod manifest;
mod name;

pub use build::{Announce, BuildError, Built, build};
pub use create::{CreateError, Created, create, is_free};
pub use manifest::ManifestError;
pub use name::{Name, NameError};
