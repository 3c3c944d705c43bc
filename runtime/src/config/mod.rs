//! The pipeline file, parsed once into validated types. What is wrong with it is told with the line it stands
//! on. Never opens what the file names: whether a component or a directory is there is for others to find out.

mod absent;
mod bind;
mod check;
mod database;
mod diagnostic;
mod document;
mod file;
mod given;
mod json_schema;
mod kafka;
mod limit;
mod listen;
mod names;
pub(crate) mod nearest;
mod quantity;
#[cfg(test)]
mod reference;
mod resolve;
mod root;
mod schema;
mod standing;
mod start;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::SocketAddr,
    num::NonZeroU64,
    path::{self, Path, PathBuf},
};

pub use absent::Absent;
pub(crate) use absent::is_misnamed;
pub use check::{DeclaredRoute, DeclaredSetting, DeclaredTable};
#[cfg(all(test, feature = "servers"))]
pub(crate) use database::server_at;
pub use database::{PostgresServer, Secret};
pub use diagnostic::{Diagnostic, Report, Severity};
pub use file::{
    CommitWhen, Compression, DateSpan, DeadLetter, Deploy, Directory, FileFormat, Imports, Limits, Roll,
    Rollback, Sandbox, SourceFormat, Tls, Transact,
};
pub use json_schema::json_schema;
pub use kafka::KafkaCluster;
pub use listen::Listen;
pub use names::{Complaint, PipelineName, SinkName, TargetName, TargetRef, TopicName};
pub use quantity::{ByteSize, Fraction, Period};
pub use root::{HdfsRoot, Root};

use document::Document;
use resolve::Resolver;

/// A whole pipeline file. Names are checked, every target's sink is defined, and paths are resolved
/// against the directory of the file; nothing that the paths name has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    pub name: PipelineName,
    pub state: PathBuf,
    pub source: SourceConfig,
    pub transform: TransformConfig,
    pub limits: Limits,
    pub sandbox: Sandbox,
    /// Where the rows of each route go; no target means "none", on purpose. Whether the transform
    /// has these routes is not known before it is loaded: see [`PipelineConfig::check_routes`].
    pub routes: BTreeMap<String, Vec<TargetRef>>,
    pub dead_letter: DeadLetter,
    pub sinks: BTreeMap<SinkName, SinkConfig>,
    pub deploy: Deploy,
    pub admin: AdminConfig,
    /// The file this was read from, as it was given.
    pub file: PathBuf,
    /// What the file says, to show its lines in later findings.
    text: String,
    warnings: Vec<Diagnostic>,
    /// What says something in place of the file.
    given: Option<given::Given>,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    Files(FilesSource),
    Kafka(KafkaSource),
}

/// Records from topics of a Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSource {
    pub cluster: KafkaCluster,
    /// At least one, no two the same.
    pub topics: Vec<TopicName>,
    pub start: StartAt,
}

/// Where partitions begin that were never read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    /// At the first record that is not older, in milliseconds since 1970-01-01T00:00:00Z.
    Time(i64),
    /// Of each partition, in order.
    Offsets(BTreeMap<TopicName, Vec<i64>>),
    /// Where a query of Spark stands, by its checkpoint directory.
    Spark(PathBuf),
}

/// Records from a file or from all files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSource {
    pub path: PathBuf,
    /// `None`: each file by its own name.
    pub format: Option<SourceFormat>,
    pub topic: TopicName,
}

/// The rules: a component, what it is told and what it may look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformConfig {
    pub component: PathBuf,
    /// Integers and booleans as text.
    pub settings: BTreeMap<String, String>,
    pub tables: BTreeMap<String, TableConfig>,
}

/// A reference table: a CSV file with a header, or a Parquet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableConfig {
    pub file: PathBuf,
    /// Of a CSV file, one ASCII byte. Absent: to be found from the header.
    pub delimiter: Option<u8>,
    /// The transform's name of a column to the name in the header of the file.
    pub columns: BTreeMap<String, String>,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConfig {
    Files(FilesSink),
    Sqlite(SqliteSink),
    Postgres(PostgresSink),
    Kafka(KafkaSink),
}

/// Rows into files below a directory, in one directory per target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSink {
    pub root: Root,
    pub format: FileFormat,
    pub roll: Roll,
    pub provenance: bool,
    pub compact_after: NonZeroU64,
    /// From the outer to the inner; no two of one name.
    pub directories: Vec<Directory>,
    /// Targets that differ.
    targets: BTreeMap<TargetName, FilesTarget>,
}

/// What a target of a file sink has of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesTarget {
    pub format: Option<FileFormat>,
    pub directories: Option<Vec<Directory>>,
}

/// Rows into tables of a SQLite database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSink {
    pub path: PathBuf,
    pub commit: CommitWhen,
    pub provenance: bool,
    /// Targets of which something is said; the others append to the table of their own name.
    pub tables: BTreeMap<TargetName, TargetTable>,
}

/// Rows into tables of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSink {
    pub server: PostgresServer,
    pub schema: String,
    pub create: bool,
    pub commit: CommitWhen,
    pub provenance: bool,
    /// Targets of which something is said; the others append to the table of their own name.
    pub tables: BTreeMap<TargetName, TargetTable>,
}

/// How a process is looked at and told something while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where everybody may look; nowhere if absent.
    pub listen: Option<SocketAddr>,
    /// The directory with a socket for each process.
    pub socket: PathBuf,
}

/// Rows into topics of a Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSink {
    pub cluster: KafkaCluster,
    pub commit: Transact,
    pub create: bool,
    pub provenance: bool,
    pub compression: Compression,
    /// Targets of which something is said; the others go to the topic of their own name.
    pub topics: BTreeMap<TargetName, TopicName>,
}

/// The table of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    pub table: String,
    /// Names of columns, at least one, where a row takes the place of the one with its key; absent: it is added.
    pub key: Option<Vec<String>>,
}

/// How a WebAssembly component begins.
const WASM: &[u8] = b"\0asm";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the pipeline file `{}`", file.display())]
    Read { file: PathBuf, source: io::Error },
    /// Something else was named in its place.
    #[error("`{}` is a WebAssembly component, and no pipeline file", file.display())]
    Component { file: PathBuf },
    /// Errors in the file, all that were found at once.
    #[error("{0}")]
    Refused(Report),
}

impl PipelineConfig {
    /// Reads a pipeline file. Relative paths in it become absolute, against the directory of the
    /// file. `${NAME}` is taken from the environment of this process.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { file: file.to_owned(), source };
        let bytes = fs::read(file).map_err(read)?;
        if bytes.starts_with(WASM) {
            return Err(Error::Component { file: file.to_owned() });
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let absolute = path::absolute(file).map_err(read)?;
        Self::parse_below(&text, file, directory(&absolute), &|name| env::var(name).ok())
    }

    /// The same for a command that asks clusters something and is gone: clients of Kafka connect sooner, unless the file says
    /// when. One that stays must not: where a cluster is down, it would knock, and say so, some 30 times a second.
    pub fn in_haste(mut self) -> Self {
        if let SourceConfig::Kafka(source) = &mut self.source {
            source.cluster.in_haste();
        }
        for sink in self.sinks.values_mut() {
            if let SinkConfig::Kafka(sink) = sink {
                sink.cluster.in_haste();
            }
        }
        self
    }

    /// Parses `text` as if it stood in `file`, which is not opened; relative paths are resolved
    /// against its directory. `env` tells the environment variables.
    pub fn parse(text: &str, file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        Self::parse_below(text, file, directory(file), env)
    }

    fn parse_below(
        text: &str,
        file: &Path,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let refused = |found| Error::Refused(Report::new(file.to_owned(), text, found));
        let document = Document::parse(text).map_err(refused)?;
        let found = schema::check(&document);
        let written: file::File = match document.deserialize() {
            Ok(written) => written,
            Err(_) if !found.is_empty() => return Err(refused(found)),
            Err(error) => return Err(refused(vec![error])),
        };
        let sinks = written.sinks.keys().cloned().collect();
        Resolver { document: &document, text, file, base, env, sinks, found }
            .resolve(written)
            .map_err(refused)
    }

    /// What is allowed and still looks like a mistake.
    pub fn warnings(&self) -> Report {
        self.report(self.warnings.clone())
    }

    fn report(&self, found: Vec<Diagnostic>) -> Report {
        Report::new(self.file.clone(), &self.text, found)
    }
}

impl SinkConfig {
    /// What it is called in the file.
    fn kind(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Kafka(_) => "kafka",
        }
    }

    /// Targets of which something is said.
    pub(crate) fn targets(&self) -> Vec<&TargetName> {
        match self {
            Self::Files(sink) => sink.targets.keys().collect(),
            Self::Sqlite(sink) => sink.tables.keys().collect(),
            Self::Postgres(sink) => sink.tables.keys().collect(),
            Self::Kafka(sink) => sink.topics.keys().collect(),
        }
    }
}

impl FilesSink {
    /// Targets that differ.
    pub fn targets(&self) -> impl Iterator<Item = (&TargetName, &FilesTarget)> {
        self.targets.iter()
    }

    /// How the rows of a target are written.
    pub fn format_of(&self, target: &TargetName) -> FileFormat {
        self.targets.get(target).and_then(|target| target.format).unwrap_or(self.format)
    }

    /// The directories below that of a target.
    pub fn directories_of(&self, target: &TargetName) -> &[Directory] {
        let own = self.targets.get(target).and_then(|target| target.directories.as_ref());
        own.unwrap_or(&self.directories)
    }
}

impl Error {
    /// For a terminal: as `Display`, in colours if wanted.
    pub fn render(&self, colour: bool) -> String {
        match self {
            Self::Read { .. } | Self::Component { .. } => self.to_string(),
            Self::Refused(report) => report.render(colour),
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::Component { .. })
            .then_some("the pipeline file comes first, such as in `weir deploy PIPELINE COMPONENT`")
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}
