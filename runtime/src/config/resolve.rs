//! From what a file says to what it means: paths, variables, sinks. Never reports what the
//! schema has already found.

use std::{collections::BTreeMap, path::Path};

use super::limit::{MOST_MEMORY, MOST_OUTPUT};
use super::{
    AdminConfig, ByteSize, Complaint, Directory, FilesSink, FilesSource, FilesTarget, Limits, PipelineConfig,
    SinkConfig, SinkName, SourceConfig, SqliteSink, TableConfig, TargetName, TargetTable, TransformConfig,
    diagnostic::Diagnostic,
    document::Document,
    file::{self, Setting, TableMode},
};

pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) text: &'a str,
    pub(super) file: &'a Path,
    /// Relative paths are below it.
    pub(super) base: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// The sinks that are defined, also those that are wrong.
    pub(super) sinks: Vec<String>,
    pub(super) found: Vec<Diagnostic>,
}

impl Resolver<'_> {
    /// The configuration, or all that is wrong.
    pub(super) fn resolve(mut self, written: file::File) -> Result<PipelineConfig, Vec<Diagnostic>> {
        self.limits(&written.limits);
        let routes = self.routes(written.routes);
        self.dead_letter(&written.dead_letter.to, &routes);
        let source = self.source(written.source);
        let sinks = self.sinks(written.sinks);
        self.unnamed_targets(&sinks, &routes, &written.dead_letter.to);
        let transform = self.transform(written.transform);
        let mut warnings = self.warnings(&sinks, &routes, &written.dead_letter.to);
        if matches!(source, Some(SourceConfig::Files(_))) {
            warnings.extend(self.timeless(&sinks));
        }
        let state = self.base.join(written.pipeline.state);
        let admin = self.admin(written.admin, &state);
        let (Some(source), []) = (source, &self.found[..]) else { return Err(self.found) };
        Ok(PipelineConfig {
            name: written.pipeline.name,
            state,
            source,
            transform,
            limits: written.limits,
            sandbox: written.sandbox,
            routes,
            dead_letter: written.dead_letter,
            sinks,
            deploy: written.deploy,
            admin,
            file: self.file.to_owned(),
            text: self.text.to_owned(),
            warnings,
            given: None,
        })
    }

    fn limits(&mut self, limits: &Limits) {
        let (batch, in_flight) = (limits.batch_bytes, limits.in_flight_bytes);
        if batch > in_flight {
            let message = format!(
                "a batch of `batch_bytes` = {batch} does not fit into `in_flight_bytes` = {in_flight}"
            );
            let written = self.document.place(&["limits", "batch_bytes"]);
            let place = written.or_else(|| self.document.place(&["limits", "in_flight_bytes"]));
            self.found.push(Diagnostic::error(place, message));
        }
        self.at_most("memory", limits.memory, MOST_MEMORY);
        self.at_most("batch_bytes", batch, ByteSize::mib(1024));
        self.at_most("output_bytes", limits.output_bytes, MOST_OUTPUT);
    }

    fn at_most(&mut self, key: &str, value: ByteSize, most: ByteSize) {
        if value > most {
            self.report(&["limits", key], format!("`{key}` in [limits]: {value} is more than {most}"), None);
        }
    }

    fn source(&mut self, source: file::Source) -> Option<SourceConfig> {
        if let Some(topics) = source.kafka {
            return Some(SourceConfig::Kafka(self.kafka_source(topics)));
        }
        let files = source.files?;
        let path = &["source", "files", "path"];
        let expanded = self.expand(path, &files.path);
        if let Some(complaint) = super::kafka::topic_name(files.topic.as_str()) {
            self.complain(&["source", "files", "topic"], complaint);
        }
        Some(SourceConfig::Files(FilesSource {
            path: self.base.join(expanded),
            format: files.format,
            topic: files.topic,
        }))
    }

    fn admin(&mut self, admin: file::Admin, state: &Path) -> AdminConfig {
        let socket = admin.socket.map(|socket| self.base.join(self.expand(&["admin", "socket"], &socket)));
        AdminConfig { listen: admin.listen.address(), socket: socket.unwrap_or_else(|| state.join("admin")) }
    }

    fn transform(&mut self, transform: file::Transform) -> TransformConfig {
        let tables = transform.tables.into_iter().map(|(name, table)| {
            let table = self.table(&name, table);
            (name, table)
        });
        let tables = tables.collect();
        let settings = transform.settings.into_iter().map(|(key, value)| (key, text(value))).collect();
        TransformConfig { component: self.base.join(transform.component), settings, tables }
    }

    fn table(&mut self, name: &str, table: file::Table) -> TableConfig {
        let delimiter = table.delimiter.and_then(|c| u8::try_from(c).ok().filter(u8::is_ascii));
        if let (Some(c), None) = (table.delimiter, delimiter) {
            let message =
                format!("`delimiter` in [transform.tables.{name}]: `{c}` is not an ASCII character");
            self.report(&["transform", "tables", name, "delimiter"], message, None);
        }
        TableConfig { file: self.base.join(table.file), delimiter, columns: table.columns }
    }

    fn sinks(&mut self, sinks: BTreeMap<String, file::Sink>) -> BTreeMap<SinkName, SinkConfig> {
        let mut resolved: BTreeMap<SinkName, SinkConfig> = BTreeMap::new();
        for (name, sink) in sinks {
            let parsed = SinkName::parse(&name);
            if let Err(complaint) = &parsed {
                let place = self.document.key(&["sinks", &name]);
                self.found
                    .push(Diagnostic::error(place, &complaint.message).maybe_help(complaint.help.clone()));
            }
            let sink = match (sink.files, sink.sqlite, sink.postgres, sink.kafka) {
                (Some(files), None, None, None) => self.file_sink(&name, files).map(SinkConfig::Files),
                (None, Some(sqlite), None, None) => Some(SinkConfig::Sqlite(self.sqlite_sink(&name, sqlite))),
                (None, None, Some(postgres), None) => {
                    self.postgres_sink(&name, postgres).map(SinkConfig::Postgres)
                }
                (None, None, None, Some(kafka)) => Some(SinkConfig::Kafka(self.kafka_sink(&name, kafka))),
                // The schema has found it.
                _ => None,
            };
            let Some(sink) = sink else { continue };
            if let Some((twin, _)) = resolved.iter().find(|(_, other)| same_directory(other, &sink)) {
                let message = format!("sinks `{twin}` and `{name}` have the same directory");
                let help = Some(
                    "a sink keeps its positions in its directory: use one sink with two targets".to_owned(),
                );
                self.report(&["sinks", &name, "files"], message, help);
            }
            resolved.extend(parsed.ok().map(|name| (name, sink)));
        }
        resolved
    }

    fn sqlite_sink(&mut self, name: &str, sink: file::SqliteSink) -> SqliteSink {
        let path = self.base.join(self.expand(&["sinks", name, "sqlite", "path"], &sink.path));
        let tables = self.tables(name, "sqlite", sink.targets);
        SqliteSink { path, commit: sink.commit, provenance: sink.provenance, tables }
    }

    /// The tables of a sink of `kind`.
    pub(super) fn tables(
        &mut self,
        name: &str,
        kind: &str,
        targets: BTreeMap<String, file::TableTarget>,
    ) -> BTreeMap<TargetName, TargetTable> {
        let mut tables: BTreeMap<TargetName, TargetTable> = BTreeMap::new();
        for (target, table) in targets {
            let place = ["sinks", name, kind, "targets", &target];
            let parsed = match TargetName::parse(&target) {
                Ok(parsed) => parsed,
                Err(complaint) => {
                    self.complain(&place, complaint);
                    continue;
                }
            };
            let table = self.table_target(&place, &target, table);
            let twin = tables.iter().find(|(_, other)| other.table.eq_ignore_ascii_case(&table.table));
            if let Some((twin, _)) = twin {
                let message =
                    format!("targets `{twin}` and `{target}` have the same table `{}`", table.table);
                let help = Some("let both routes go to one target".to_owned());
                self.report(&place, message, help);
            }
            tables.insert(parsed, table);
        }
        tables
    }

    fn table_target(&mut self, place: &[&str; 5], target: &str, table: file::TableTarget) -> TargetTable {
        let at = |key| [&place[..], &[key]].concat();
        let name = table.table.unwrap_or_else(|| target.to_owned());
        if let Some(complaint) = table_name(&name) {
            self.complain(&at("table"), complaint);
        }
        let key = match (table.mode, &table.key[..]) {
            (TableMode::Append, []) => None,
            (TableMode::Upsert, []) => {
                let message = format!("target `{target}` has mode \"upsert\" and no key");
                let help = "add the columns by which a row is known, such as `key = [\"id\"]`".to_owned();
                self.report(&at("mode"), message, Some(help));
                None
            }
            (TableMode::Append, _) => {
                let message = format!("target `{target}` has a key, which mode \"append\" does not use");
                let help = "write `mode = \"upsert\"`, or leave `key` out".to_owned();
                self.report(&at("key"), message, Some(help));
                None
            }
            (TableMode::Upsert, key) => {
                let twice = |i: usize| key[..i].iter().any(|other| other.eq_ignore_ascii_case(&key[i]));
                if let Some(i) = (0..key.len()).find(|i| twice(*i)) {
                    self.report(&at("key"), format!("column `{}` is in the key twice", key[i]), None);
                }
                Some(table.key)
            }
        };
        TargetTable { table: name, key }
    }

    fn file_sink(&mut self, name: &str, mut sink: file::FileSink) -> Option<FilesSink> {
        let root = self.root(name, &mut sink);
        self.directories(&["sinks", name, "files", "directories"], &sink.directories);
        let mut targets = BTreeMap::new();
        for (target, file::FileTarget { format, directories }) in sink.targets {
            let place = ["sinks", name, "files", "targets", &target, "directories"];
            self.directories(&place, directories.as_deref().unwrap_or_default());
            match TargetName::parse(&target) {
                Ok(target) => drop(targets.insert(target, FilesTarget { format, directories })),
                Err(complaint) => self.complain(&["sinks", name, "files", "targets", &target], complaint),
            }
        }
        Some(FilesSink {
            root: root?,
            format: sink.format,
            roll: sink.roll,
            provenance: sink.provenance,
            compact_after: sink.compact_after,
            directories: sink.directories,
            targets,
        })
    }

    /// Each level has something to go by, and a name that no other has, ignoring case.
    fn directories(&mut self, place: &[&str], directories: &[Directory]) {
        let mut names: Vec<String> = Vec::new();
        for (i, directory) in directories.iter().enumerate() {
            let i = i.to_string();
            let place = [place, &[i.as_str()]].concat();
            let Some(name) = directory.name() else {
                let help = "such as `{ date = \"day\" }` or `{ column = \"country\" }`".to_owned();
                self.report(&place, "a directory goes by neither `date` nor `column`".to_owned(), Some(help));
                continue;
            };
            if names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                self.report(&place, format!("two directories are called `{name}=...`"), None);
            }
            names.push(name.to_owned());
        }
    }

    /// Puts the values of environment variables in the place of `${NAME}`.
    pub(super) fn expand(&mut self, place: &[&str], text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.report(place, "`${` has no `}` behind it".to_owned(), None);
                return expanded;
            };
            match (self.env)(name) {
                Some(value) => expanded.push_str(&value),
                None => self.report(place, format!("the environment variable `{name}` is not set"), None),
            }
            rest = after;
        }
        expanded + rest
    }

    pub(super) fn complain(&mut self, place: &[&str], complaint: Complaint) {
        self.report(place, complaint.message, complaint.help);
    }

    pub(super) fn report(&mut self, path: &[&str], message: String, help: Option<String>) {
        let place = self.document.place(path);
        self.found.push(Diagnostic::error(place, message).maybe_help(help));
    }
}

fn text(setting: Setting) -> String {
    match setting {
        Setting::Text(text) => text,
        Setting::Integer(integer) => integer.to_string(),
        Setting::Boolean(boolean) => boolean.to_string(),
    }
}

/// Two sinks may share a database, where each has its own positions, but not a directory.
fn same_directory(one: &SinkConfig, other: &SinkConfig) -> bool {
    matches!((one, other), (SinkConfig::Files(one), SinkConfig::Files(other)) if one.root.is_same(&other.root))
}

/// What is wrong with the name of a table, if anything is. SQLite ignores case in names.
pub(super) fn table_name(name: &str) -> Option<Complaint> {
    let lower = name.to_ascii_lowercase();
    if let Some(prefix) = ["weir_", "sqlite_"].into_iter().find(|prefix| lower.starts_with(prefix)) {
        let message = format!("`{name}` is not a name for a table: what begins with `{prefix}` is taken");
        return Some(Complaint { message, help: None });
    }
    control_characters(name)
}

/// No name in a database has any.
pub(super) fn control_characters(name: &str) -> Option<Complaint> {
    let message = "a name in a database has no control characters".to_owned();
    name.chars().any(char::is_control).then_some(Complaint { message, help: None })
}
