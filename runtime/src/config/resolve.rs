//! From what a file says to what it means: paths, variables, sinks. Never reports what the
//! schema has already found.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    ByteSize, Complaint, FilesSink, FilesSource, Limits, PipelineConfig, SinkConfig, SinkName, SourceConfig,
    TableConfig, TargetName, TransformConfig,
    diagnostic::Diagnostic,
    document::Document,
    file::{self, Setting},
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
        let transform = self.transform(written.transform);
        let warnings = self.warnings(&sinks, &routes, &written.dead_letter.to);
        let state = self.base.join(written.pipeline.state);
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
            file: self.file.to_owned(),
            text: self.text.to_owned(),
            warnings,
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
        self.at_most("memory", limits.memory, ByteSize::mib(4096));
        self.at_most("batch_bytes", batch, ByteSize::mib(1024));
    }

    fn at_most(&mut self, key: &str, value: ByteSize, most: ByteSize) {
        if value > most {
            self.report(&["limits", key], format!("`{key}` in [limits]: {value} is more than {most}"), None);
        }
    }

    fn source(&mut self, source: file::Source) -> Option<SourceConfig> {
        let files = source.files?;
        let path = &["source", "files", "path"];
        let expanded = self.expand(path, &files.path);
        Some(SourceConfig::Files(FilesSource {
            path: self.base.join(expanded),
            format: files.format,
            topic: files.topic,
        }))
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
            let Some(files) = sink.files.and_then(|files| self.file_sink(&name, files)) else { continue };
            let twin = resolved.iter().find(|(_, SinkConfig::Files(other))| other.path == files.path);
            if let Some((twin, _)) = twin {
                let message = format!("sinks `{twin}` and `{name}` have the same directory");
                let help = Some(
                    "a sink keeps its positions in its directory: use one sink with two targets".to_owned(),
                );
                self.report(&["sinks", &name, "files"], message, help);
            }
            resolved.extend(parsed.ok().map(|name| (name, SinkConfig::Files(files))));
        }
        resolved
    }

    fn file_sink(&mut self, name: &str, sink: file::FileSink) -> Option<FilesSink> {
        let path = self.directory(name, sink.path, sink.url);
        let mut formats = BTreeMap::new();
        for (target, file::FileTarget { format }) in sink.targets {
            match TargetName::parse(&target) {
                Ok(target) => drop(formats.insert(target, format)),
                Err(complaint) => self.complain(&["sinks", name, "files", "targets", &target], complaint),
            }
        }
        Some(FilesSink {
            path: path?,
            format: sink.format,
            roll: sink.roll,
            provenance: sink.provenance,
            compact_after: sink.compact_after,
            formats,
        })
    }

    fn directory(&mut self, name: &str, path: Option<String>, url: Option<String>) -> Option<PathBuf> {
        let table = ["sinks", name, "files"];
        match (path, url) {
            (Some(path), None) => Some(self.base.join(self.expand(&["sinks", name, "files", "path"], &path))),
            (None, Some(url)) => {
                let place = ["sinks", name, "files", "url"];
                let url = self.expand(&place, &url);
                local_path(&url).map_err(|complaint| self.complain(&place, complaint)).ok()
            }
            (both, _) => {
                let has = if both.is_some() { "both `path` and `url`" } else { "neither `path` nor `url`" };
                let help = Some(
                    "`path` is a directory relative to this file, `url` is file:///absolute/path".to_owned(),
                );
                self.report(&table, format!("[sinks.{name}.files] has {has}"), help);
                None
            }
        }
    }

    /// Puts the values of environment variables in the place of `${NAME}`.
    fn expand(&mut self, place: &[&str], text: &str) -> String {
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

/// The URL may hold the value of a variable, so no complaint shows more of it than its scheme.
fn local_path(url: &str) -> Result<PathBuf, Complaint> {
    let example = "such as \"file:///data/lake\"; a directory relative to this file is a `path`";
    match url.split_once("://") {
        Some(("file", path)) if path.contains(['%', '?', '#']) => {
            Err(Complaint::new("the file URL has characters with a second meaning (%, ?, #)", "use `path`"))
        }
        Some(("file", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(("file", _)) => Err(Complaint::new("the file URL is not absolute", example)),
        Some(("hdfs", _)) => {
            Err(Complaint { message: "this build has no hdfs sink yet".to_owned(), help: None })
        }
        _ => Err(Complaint::new("not a URL that a file sink knows", example)),
    }
}
