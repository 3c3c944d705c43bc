//! What is named, and is not there. It looks nowhere itself: whoever did says what was found.

use std::io;

use super::{Error, PipelineConfig};

/// Whether the system says that there is nothing of that name, or something of another kind. Whoever named it can mend
/// that; all else, such as a denial, lies outside.
pub(crate) fn is_misnamed(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound};
    [NotFound, NotADirectory, IsADirectory, AlreadyExists, InvalidFilename].contains(&error.kind())
}

/// Something that the file names and that is not there.
#[derive(Debug)]
pub struct Absent<'a> {
    /// The keys that lead to its name.
    pub path: Vec<&'a str>,
    /// Lower case, one sentence, without a period.
    pub message: String,
    /// What a person can do.
    pub help: Option<String>,
}

impl PipelineConfig {
    /// Shows all that is not there, each in the line that names it.
    ///
    /// # Errors
    /// If there is any.
    pub fn refuse_absent(&self, absent: Vec<Absent<'_>>) -> Result<(), Error> {
        let shown = |Absent { path, message, help }: Absent<'_>| self.error(&path, message).maybe_help(help);
        self.refuse(absent.into_iter().map(shown).collect())
    }
}
