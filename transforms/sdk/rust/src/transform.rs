//! What an author implements, and the instance that runs it over batches. Never keeps anything between batches.

use crate::batch::{Batch, Input, Record};
use crate::description::Description;
use crate::emitter::Emitter;
use crate::lookup::{TableData, Tables};
use crate::output::Output;
use crate::settings::Settings;

/// A pure function from a record to its fate, and what it tells about itself.
///
/// What becomes of a record depends on that record, the settings and the tables alone: the runtime cuts the same
/// records into other batches, runs several instances, and starts again after a failure.
pub trait Transform: Sized + Send + Sync + 'static {
    /// What the transform is, wants and gives under these settings. With none it succeeds and tells at least the
    /// settings; unknown ones have the instance's own error.
    ///
    /// # Errors
    /// Which setting is wrong, and what is expected.
    fn describe(settings: &Settings) -> Result<Description, String>;

    /// Called once, before the first record.
    ///
    /// # Errors
    /// What keeps the pipeline from starting.
    fn init(settings: &Settings, tables: &Tables) -> Result<Self, String>;

    /// Says through `out` what becomes of `record`: rows or the record itself on routes, or reasons to reject it,
    /// or that it is dropped. A record that cannot be used is a reject; a panic is a bug.
    fn record(&self, record: &Record<'_>, out: &mut Emitter<'_>);
}

/// A transform with its settings and tables, as the contract wants it.
#[derive(Debug)]
pub struct Instance<T> {
    transform: T,
    described: Description,
}

impl<T: Transform> Instance<T> {
    /// The contract's `describe`.
    ///
    /// # Errors
    /// Which setting is unknown or wrong.
    pub fn describe(settings: Vec<(String, String)>) -> Result<Description, String> {
        describe::<T>(&Settings::new(settings))
    }

    /// The contract's `init`.
    ///
    /// # Errors
    /// Which setting or table is unknown, missing or wrong.
    pub fn init(settings: Vec<(String, String)>, tables: Vec<TableData>) -> Result<Self, String> {
        let settings = Settings::new(settings);
        let described = describe::<T>(&settings)?;
        let transform = T::init(&settings, &Tables::new(tables))?;
        Ok(Self { transform, described })
    }

    /// What the transform tells under its settings.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.described
    }

    /// The contract's `process`.
    ///
    /// # Errors
    /// Which record the transform left without a fate, or gave two, or what it used and had not described.
    pub fn process(&self, batch: &Batch<'_>) -> Result<Output, String> {
        let input = Input::new(*batch);
        let mut out = Emitter::new(&self.described, &input);
        for index in 0..batch.count {
            out.begin(index);
            self.transform.record(&Record::new(&input, index as usize), &mut out);
            out.end()?;
        }
        out.finish()
    }
}

fn describe<T: Transform>(settings: &Settings) -> Result<Description, String> {
    let described = T::describe(settings)?;
    settings.check(&described.settings)?;
    Ok(described)
}
