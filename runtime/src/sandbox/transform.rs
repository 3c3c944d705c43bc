//! A compiled transform: immutable, known by the digest of its bytes. It runs nothing itself.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::bindings::TransformComponentPre;
use super::engine::{Sandbox, Use};
use super::instance::{Init, Instance, InstanceLimits, StartError};
use super::wasi::{Host, Import};
use crate::description::Description;

/// A compiled component that exports the contract. Cheap to clone.
#[derive(Clone)]
pub struct Transform {
    shared: Arc<Shared>,
}

struct Shared {
    sandbox: Sandbox,
    digest: Arc<str>,
    imports: Vec<Import>,
    pre: TransformComponentPre<Host>,
    /// What the judge compiles when it is first needed.
    bytes: Box<[u8]>,
    judge: OnceLock<TransformComponentPre<Host>>,
    /// Held while that is compiled, by one for all. Why it never can be, once that is known.
    no_judge: Mutex<Option<String>>,
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transform").field("digest", &self.shared.digest).finish_non_exhaustive()
    }
}

impl Transform {
    pub(super) fn new(
        sandbox: Sandbox,
        digest: Arc<str>,
        imports: Vec<Import>,
        pre: TransformComponentPre<Host>,
        bytes: Box<[u8]>,
    ) -> Self {
        let (judge, no_judge) = (OnceLock::new(), Mutex::default());
        Self { shared: Arc::new(Shared { sandbox, digest, imports, pre, bytes, judge, no_judge }) }
    }

    /// `sha256:` and the digest of the component's bytes, in hexadecimal.
    pub fn digest(&self) -> &Arc<str> {
        &self.shared.digest
    }

    /// What it imports, and what it gets.
    pub fn imports(&self) -> &[Import] {
        &self.shared.imports
    }

    /// Asks a fresh instance, within `limits`, what the transform is, wants and gives under `settings`; those not given
    /// take their defaults. Names and types are checked.
    ///
    /// # Errors
    /// See [`StartError`]; one of [`StartError::Refused`] comes from the transform itself.
    pub fn describe(
        &self,
        settings: &[(String, String)],
        limits: &InstanceLimits,
    ) -> Result<Description, StartError> {
        Instance::describe(self, settings, limits)
    }

    /// Starts an instance and has it take its settings and tables.
    ///
    /// # Errors
    /// See [`StartError`]: it would be the same again, so the pipeline cannot run.
    pub fn instance(&self, init: &Init) -> Result<Instance, StartError> {
        Instance::start(self, init, Use::Work)
    }

    /// Starts an instance that has [`InstanceLimits::fuel_per_record`] for each call, to find out which record of a
    /// batch is to blame. The first time compiles the component once more, or takes that from the cache.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn judge(&self, init: &Init) -> Result<Instance, StartError> {
        Instance::start(self, init, Use::Judge)
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.shared.sandbox
    }

    pub(super) fn pre(&self, of: Use) -> Result<&TransformComponentPre<Host>, StartError> {
        match of {
            Use::Work => Ok(&self.shared.pre),
            Use::Judge => {
                if let Some(judge) = self.shared.judge.get() {
                    return Ok(judge);
                }
                let mut why_not = self.shared.no_judge.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(why_not) = &*why_not {
                    return Err(StartError::Judge(why_not.clone()));
                }
                if let Some(judge) = self.shared.judge.get() {
                    return Ok(judge);
                }
                let linked = self.sandbox().link(&self.shared.bytes, self.digest(), of);
                let (_, judge) = linked.map_err(|error| {
                    // Anything else may go well the next time.
                    *why_not = error.is_final().then(|| error.to_string());
                    StartError::Judge(error.to_string())
                })?;
                Ok(self.shared.judge.get_or_init(|| judge))
            }
        }
    }
}
