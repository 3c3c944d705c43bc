//! What says of the transform and its routes what the file says of them otherwise: a plan of the past, and options of a command.
//! So a mistake is told where it was made, and not in a line of the file that has no part in it.

use super::PipelineConfig;

/// What stands in the place of what the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// Such as `plan 3`.
    by: String,
    /// The keys of what an option says, and the option as it was typed.
    options: Vec<(Vec<String>, String)>,
}

/// What a plan says.
const OF_PLANS: [&str; 3] = ["transform", "routes", "limits"];

impl PipelineConfig {
    /// All that a plan says is said by `by` from now on.
    pub fn say_by(&mut self, by: &str) {
        self.given = Some(Given { by: by.to_owned(), options: Vec::new() });
    }

    /// What is at `path` is said by an option of the command, as it was typed.
    pub fn say_by_option(&mut self, path: &[&str], option: &str) {
        if let Some(given) = &mut self.given {
            given.options.push((path.iter().map(ToString::to_string).collect(), option.to_owned()));
        }
    }

    /// Who says what is at `path`, where that is not the file.
    pub(super) fn said_by(&self, path: &[&str]) -> Option<&str> {
        let given = self.given.as_ref().filter(|_| path.first().is_some_and(|key| OF_PLANS.contains(key)))?;
        let option = given.options.iter().find(|(keys, _)| keys == path);
        Some(option.map_or(&*given.by, |(_, option)| option))
    }
}
