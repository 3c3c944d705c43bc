//! Settings: declared once with a type, read by it. An error names the key, what was given and what is expected.
//! Never reads anything but what the pipeline says.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use crate::description::SettingDescription;

/// What the pipeline says, by key.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    given: Vec<(String, String)>,
}

/// A setting of any type, as `describe` lists it.
pub trait Setting: Debug {
    fn describe(&self) -> SettingDescription;
}

/// One of a few words; the first is the default.
#[derive(Debug, Clone, Copy)]
pub struct Choice<T: 'static> {
    key: &'static str,
    choices: &'static [(&'static str, T)],
    doc: &'static str,
}

/// A whole number within bounds.
#[derive(Debug, Clone)]
pub struct Integer {
    key: &'static str,
    default: i64,
    range: RangeInclusive<i64>,
    doc: &'static str,
}

/// Any text.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    key: &'static str,
    default: Option<&'static str>,
    doc: &'static str,
}

/// A setting that gives a `Value`.
pub trait Typed: Setting {
    type Value;

    fn key(&self) -> &'static str;

    /// The value where the pipeline says nothing; `None` if it has to.
    fn default_value(&self) -> Option<Self::Value>;

    /// # Errors
    /// What is expected instead.
    fn parse(&self, given: &str) -> Result<Self::Value, String>;
}

impl Settings {
    #[must_use]
    pub fn new(given: Vec<(String, String)>) -> Self {
        Self { given }
    }

    /// The value of a setting, or its default.
    ///
    /// # Errors
    /// That it is missing, or what was given and what is expected; both name the key.
    pub fn get<S: Typed>(&self, setting: &S) -> Result<S::Value, String> {
        let key = setting.key();
        match self.given.iter().find(|(given, _)| given == key) {
            Some((_, given)) => setting.parse(given).map_err(|expected| refusal(key, given, &expected)),
            None => setting.default_value().ok_or(format!("setting `{key}` is required")),
        }
    }

    /// Every key is one of `known`.
    pub(crate) fn check(&self, known: &[SettingDescription]) -> Result<(), String> {
        let unknown = self.given.iter().find(|(key, _)| known.iter().all(|setting| setting.key != *key));
        let Some((key, _)) = unknown else { return Ok(()) };
        let known: Vec<_> = known.iter().map(|setting| setting.key.as_str()).collect();
        Err(format!("there is no setting `{key}`; there are: {}", known.join(", ")))
    }
}

fn refusal(key: &str, given: &str, expected: &str) -> String {
    format!("setting `{key}` is `{given}`, which is not {expected}")
}

impl<T: Copy + Debug> Choice<T> {
    /// # Panics
    /// At compile time, if there is nothing to choose from.
    #[must_use]
    pub const fn new(key: &'static str, choices: &'static [(&'static str, T)], doc: &'static str) -> Self {
        assert!(!choices.is_empty(), "a choice has at least its default");
        Self { key, choices, doc }
    }

    fn words(&self, separator: &str) -> String {
        self.choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(separator)
    }
}

impl Integer {
    #[must_use]
    pub const fn new(key: &'static str, default: i64, range: RangeInclusive<i64>, doc: &'static str) -> Self {
        Self { key, default, range, doc }
    }
}

impl Text {
    #[must_use]
    pub const fn new(key: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self { key, default: Some(default), doc }
    }

    /// A text without a default.
    #[must_use]
    pub const fn required(key: &'static str, doc: &'static str) -> Self {
        Self { key, default: None, doc }
    }
}

impl<T: Copy + Debug> Setting for Choice<T> {
    fn describe(&self) -> SettingDescription {
        let choices = vec![("choices".to_owned(), self.words("|"))];
        describe(self.key, Some(self.choices[0].0.to_owned()), self.doc, choices)
    }
}

impl<T: Copy + Debug> Typed for Choice<T> {
    type Value = T;

    fn key(&self) -> &'static str {
        self.key
    }

    fn default_value(&self) -> Option<T> {
        Some(self.choices[0].1)
    }

    fn parse(&self, given: &str) -> Result<T, String> {
        let chosen = self.choices.iter().find(|(word, _)| *word == given);
        chosen.map(|(_, value)| *value).ok_or_else(|| format!("one of {}", self.words(", ")))
    }
}

impl Setting for Integer {
    fn describe(&self) -> SettingDescription {
        let range = vec![
            ("type".to_owned(), "integer".to_owned()),
            ("min".to_owned(), self.range.start().to_string()),
            ("max".to_owned(), self.range.end().to_string()),
        ];
        describe(self.key, Some(self.default.to_string()), self.doc, range)
    }
}

impl Typed for Integer {
    type Value = i64;

    fn key(&self) -> &'static str {
        self.key
    }

    fn default_value(&self) -> Option<i64> {
        Some(self.default)
    }

    fn parse(&self, given: &str) -> Result<i64, String> {
        let expected = || format!("a whole number from {} to {}", self.range.start(), self.range.end());
        given.parse().ok().filter(|value| self.range.contains(value)).ok_or_else(expected)
    }
}

impl Setting for Text {
    fn describe(&self) -> SettingDescription {
        describe(self.key, self.default.map(str::to_owned), self.doc, Vec::new())
    }
}

impl Typed for Text {
    type Value = String;

    fn key(&self) -> &'static str {
        self.key
    }

    fn default_value(&self) -> Option<String> {
        self.default.map(str::to_owned)
    }

    fn parse(&self, given: &str) -> Result<String, String> {
        Ok(given.to_owned())
    }
}

fn describe(
    key: &str,
    default_value: Option<String>,
    doc: &str,
    annotations: Vec<(String, String)>,
) -> SettingDescription {
    SettingDescription { key: key.to_owned(), default_value, doc: doc.to_owned(), annotations }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: Choice<u8> = Choice::new("mode", &[("slow", 1), ("fast", 2)], "how");
    const LIMIT: Integer = Integer::new("limit", 5, 0..=9, "how many");
    const NAME: Text = Text::required("name", "whose");

    fn given(key: &str, value: &str) -> Settings {
        Settings::new(vec![(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_the_pipeline_does_not_say_has_its_default() {
        assert_eq!(Settings::default().get(&MODE), Ok(1));
        assert_eq!(Settings::default().get(&LIMIT), Ok(5));
        assert_eq!(Settings::default().get(&NAME), Err("setting `name` is required".to_owned()));
    }

    #[test]
    fn a_value_has_the_type_of_its_setting() {
        assert_eq!(given("mode", "fast").get(&MODE), Ok(2));
        assert_eq!(given("limit", "9").get(&LIMIT), Ok(9));
        assert_eq!(given("name", "x").get(&NAME), Ok("x".to_owned()));
    }

    #[test]
    fn a_refusal_names_the_key_and_what_is_expected() {
        let refused = given("mode", "Fast").get(&MODE);
        assert_eq!(refused, Err("setting `mode` is `Fast`, which is not one of slow, fast".to_owned()));
        let refused = given("limit", "10").get(&LIMIT);
        assert_eq!(
            refused,
            Err("setting `limit` is `10`, which is not a whole number from 0 to 9".to_owned())
        );
        let unknown = given("mod", "x").check(&[MODE.describe(), LIMIT.describe()]);
        assert_eq!(unknown, Err("there is no setting `mod`; there are: mode, limit".to_owned()));
    }

    #[test]
    fn choices_are_told_to_tools() {
        let described = MODE.describe();
        assert_eq!(described.default_value.as_deref(), Some("slow"));
        assert_eq!(described.annotations, [("choices".to_owned(), "slow|fast".to_owned())]);
    }
}
