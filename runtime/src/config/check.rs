//! Holds the file against what the transform declares, once it is loaded. Never looks into a component itself.

use std::ops::Range;

use super::{
    Diagnostic, Directory, Error, PipelineConfig, SinkConfig, TableConfig, TargetRef, document::Document,
    nearest,
};

/// A setting as the transform declares it.
#[derive(Debug, Clone)]
pub struct DeclaredSetting<'a> {
    pub key: &'a str,
    /// It has no default.
    pub required: bool,
    /// The values it may have; empty: any.
    pub choices: Vec<&'a str>,
}

/// A reference table as the transform declares it.
#[derive(Debug, Clone)]
pub struct DeclaredTable<'a> {
    pub name: &'a str,
    pub required: bool,
    pub columns: Vec<&'a str>,
}

/// A route, or the dead letters, with where its rows go and the columns they have.
#[derive(Debug, Clone)]
pub struct DeclaredRoute<'a> {
    pub name: &'a str,
    pub to: &'a [TargetRef],
    pub columns: Vec<&'a str>,
}

impl PipelineConfig {
    /// Every route that the transform declares is in `[routes]`, and no other.
    pub fn check_routes(&self, declared: &[&str]) -> Result<(), Error> {
        let mut found = Vec::new();
        for route in declared.iter().filter(|route| !self.routes.contains_key(**route)) {
            let message = format!("route `{route}` of the transform is bound nowhere");
            let to = format!("`{route} = \"sink.target\"`, or `{route} = \"none\"` to leave its rows out");
            let help = match self.said_by(&["routes"]) {
                None => format!("add {to}"),
                // No option says where a route goes.
                Some(_) => format!(
                    "write into the file which component it is, and in [routes] {to}; then deploy the file"
                ),
            };
            found.push(self.error(&["routes"], message).help(help));
        }
        for route in self.routes.keys().filter(|route| !declared.contains(&route.as_str())) {
            found.push(self.undeclared(&["routes", route], "no route", declared.iter().copied()));
        }
        self.refuse(found)
    }

    /// Every required setting is given, every given one is declared, and has one of its choices.
    pub fn check_settings(&self, declared: &[DeclaredSetting<'_>]) -> Result<(), Error> {
        let given = &self.transform.settings;
        let mut found = Vec::new();
        for setting in declared.iter().filter(|setting| setting.required && !given.contains_key(setting.key))
        {
            let message = format!("the transform requires the setting `{}`", setting.key);
            let place = ["transform", "settings"];
            let help = match self.said_by(&place) {
                None => format!("add `{} = \"...\"` to [transform.settings]", setting.key),
                Some(_) => format!("give it with `--set {}=VALUE`", setting.key),
            };
            found.push(self.error(&place, message).help(help));
        }
        for (key, value) in given {
            let place = ["transform", "settings", key];
            match declared.iter().find(|setting| setting.key == key) {
                Some(setting) => found.extend(self.not_a_choice(&place, value, &setting.choices)),
                None => found.push(self.undeclared(
                    &place,
                    "no setting",
                    declared.iter().map(|setting| setting.key),
                )),
            }
        }
        self.refuse(found)
    }

    fn not_a_choice(&self, place: &[&str], value: &str, choices: &[&str]) -> Option<Diagnostic> {
        if choices.is_empty() || choices.contains(&value) {
            return None;
        }
        let key = place.last().expect("a setting has a name");
        let help = nearest::hint(value, choices.iter().copied());
        Some(self.error(place, format!("the setting `{key}` cannot be `{value}`")).maybe_help(help))
    }

    /// Every required table is given, every given one is declared, and so are its columns.
    pub fn check_tables(&self, declared: &[DeclaredTable<'_>]) -> Result<(), Error> {
        let given = &self.transform.tables;
        let mut found = Vec::new();
        for table in declared.iter().filter(|table| table.required && !given.contains_key(table.name)) {
            let message = format!("the transform requires the table `{}`", table.name);
            let help = match self.said_by(&["transform"]) {
                None => format!("add [transform.tables.{}] with its `file`", table.name),
                Some(_) => format!("give it with `--table {}=FILE`", table.name),
            };
            found.push(self.error(&["transform"], message).help(help));
        }
        for (name, table) in given {
            match declared.iter().find(|known| known.name == name) {
                Some(known) => found.extend(self.unasked_columns(name, table, &known.columns)),
                None => {
                    let names = declared.iter().map(|known| known.name);
                    found.push(self.undeclared(&["transform", "tables", name], "no table", names));
                }
            }
        }
        self.refuse(found)
    }

    /// Every column that directories go by is in all rows that go there, and of a type that `takes` says will do.
    pub fn check_directories(
        &self,
        declared: &[DeclaredRoute<'_>],
        takes: &dyn Fn(&Directory, &DeclaredRoute<'_>) -> bool,
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for (route, to) in declared.iter().flat_map(|route| route.to.iter().map(move |to| (route, to))) {
            let Some(SinkConfig::Files(sink)) = self.sinks.get(&to.sink) else { continue };
            for directory in sink.directories_of(&to.target) {
                let Some(column) = directory.column.as_deref() else { continue };
                let (sink, target) = (to.sink.as_str(), to.target.as_str());
                let what = match route.columns.contains(&column) {
                    true if takes(directory, route) => continue,
                    true => format!(
                        "column `{column}` of `{}`, which goes to `{to}`, is of a type that names no directory",
                        route.name
                    ),
                    false => format!(
                        "`{}`, which goes to `{to}`, has no column `{column}` for its directories",
                        route.name
                    ),
                };
                let own = ["sinks", sink, "files", "targets", target, "directories"];
                let place = if self.at(&own).is_some() { &own[..] } else { &own[..3] };
                let near =
                    nearest::nearest(column, route.columns.iter().copied().filter(|name| *name != column));
                let otherwise =
                    format!("give [sinks.{sink}.files.targets.{target}] `directories` of its own");
                let help = near.map_or(otherwise, |near| format!("did you mean `{near}`?"));
                found.push(self.error(place, what).help(help));
            }
        }
        self.refuse(found)
    }

    fn unasked_columns(&self, name: &str, table: &TableConfig, known: &[&str]) -> Vec<Diagnostic> {
        let unasked = table.columns.keys().filter(|column| !known.contains(&column.as_str()));
        let path = |column| ["transform", "tables", name, "columns", column];
        let what = format!("a table `{name}` without the column");
        unasked.map(|column| self.undeclared(&path(column), &what, known.iter().copied())).collect()
    }

    /// The last key of `path` is a name that the transform does not declare.
    fn undeclared<'a>(
        &self,
        path: &[&str],
        what: &str,
        declared: impl IntoIterator<Item = &'a str>,
    ) -> Diagnostic {
        let name = path.last().expect("what is declared has a name");
        let place = Document::parse(&self.text).ok().and_then(|document| document.key(path));
        let found = Diagnostic::error(place, format!("the transform has {what} `{name}`"));
        self.where_it_was_said(path, found).maybe_help(nearest::hint(name, declared))
    }

    /// At `path`, or at the table around it if the file does not have it.
    pub(super) fn error(&self, path: &[&str], message: String) -> Diagnostic {
        let place = (1..=path.len()).rev().find_map(|n| self.at(&path[..n]));
        self.where_it_was_said(path, Diagnostic::error(place, message))
    }

    fn where_it_was_said(&self, path: &[&str], found: Diagnostic) -> Diagnostic {
        match self.said_by(path) {
            None => found,
            Some(by) => found.given(by),
        }
    }

    /// Whether the file has something at `path`, where several keys would do.
    pub fn says(&self, path: &[&str]) -> bool {
        self.at(path).is_some()
    }

    /// Where the file has `path`, if it does.
    fn at(&self, path: &[&str]) -> Option<Range<usize>> {
        Document::parse(&self.text).ok().and_then(|document| document.place(path))
    }

    pub(super) fn refuse(&self, found: Vec<Diagnostic>) -> Result<(), Error> {
        if found.is_empty() { Ok(()) } else { Err(Error::Refused(self.report(found))) }
    }
}
