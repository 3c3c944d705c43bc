//! From the sinks of the pipeline file to sinks that are open. It decides nothing about rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::secret::secret;
use super::{Member, named, topics};

use crate::commit::Policy;
use crate::config::{self, PipelineConfig, SinkConfig, SinkName};
use crate::description::Description;
use crate::kafka::Cluster;
use crate::kafka::produce::Compression;
use crate::pipeline::status::SinkCounts;
use crate::plan::History;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::files::{self, FilesConfig, FilesSink, HdfsConfig};
use crate::sink::kafka::{self, KafkaConfig, KafkaSink};
use crate::sink::postgres::{self, PostgresConfig, PostgresSink};
use crate::sink::sqlite::{SqliteConfig, SqliteSink};
use crate::sink::table::{Mode, TableConfig, TableSink, Tally, Wanted};
use crate::sink::{Error, Sink};

/// What a sink without rows advances by, at the latest: it bounds what a restart reads again.
const EMPTY_ADVANCE: u64 = 100_000;

/// Open sinks in the order of their names, each with when it commits.
type Sinks = Vec<(Box<dyn Sink>, Policy)>;

/// Sinks that are open, and what there is to say of them.
pub(super) struct Opened {
    pub(super) sinks: Sinks,
    pub(super) counted: Vec<Counted>,
    /// What a person may want to know who starts the pipeline.
    pub(super) notes: Vec<String>,
}

/// What a sink counts itself.
#[derive(Clone, Debug)]
pub(super) enum Counted {
    Files(Arc<files::Tally>),
    Tables(Arc<Tally>),
    Topics(Arc<kafka::Tally>),
}

impl Counted {
    pub(super) fn so_far(&self) -> SinkCounts {
        match self {
            Self::Files(tally) => {
                SinkCounts { rolled_forward: tally.rolled_forward.get(), ..SinkCounts::default() }
            }
            Self::Tables(tally) => SinkCounts {
                refused: tally.rejected.get(),
                superseded: tally.superseded.get(),
                ..SinkCounts::default()
            },
            Self::Topics(tally) => SinkCounts { refused: tally.rejected.get(), ..SinkCounts::default() },
        }
    }
}

/// Opens the `used` sinks. Tables and topics are made, or looked at, before a record flows. `member` is what this process
/// is in the group in which the records are read, if they come from Kafka.
pub(super) fn open_sinks(
    config: &PipelineConfig,
    description: &Description,
    used: &[(&SinkName, &SinkConfig)],
    member: Option<&Member>,
) -> Result<Opened> {
    if member.is_some() {
        one_moves_the_group(used)?;
    }
    let mut sinks: Sinks = Vec::new();
    let (mut counted, mut notes) = (Vec::new(), Vec::new());
    for (name, sink) in used {
        let opening = || format!("opening sink {name}");
        sinks.push(match sink {
            SinkConfig::Files(files) => {
                let opened = FilesSink::open(files_config(config, name, files));
                let sink = opened.map_err(|e| if_unreachable(config, name, e)).with_context(opening)?;
                counted.push(Counted::Files(sink.tally()));
                let roll = &files.roll;
                (Box::new(sink), policy(roll.bytes, roll.rows.get(), roll.age, roll.idle))
            }
            SinkConfig::Sqlite(tables) => {
                let sink = SqliteSink::open(sqlite_config(config, name, tables)).with_context(opening)?;
                let sink = prepared(sink, config, description, name).with_context(opening)?;
                counted.push(Counted::Tables(sink.tally()));
                (sink, commit_policy(&tables.commit))
            }
            SinkConfig::Postgres(tables) => {
                let settings = postgres_config(config, name, tables).with_context(opening)?;
                let opened = PostgresSink::open(settings);
                let mut sink = opened.map_err(|e| if_unreachable(config, name, e)).with_context(opening)?;
                notes.extend(sink.between().map(|what| format!("sink {name}: {what}")));
                let sink = prepared(sink, config, description, name).with_context(opening)?;
                counted.push(Counted::Tables(sink.tally()));
                (sink, commit_policy(&tables.commit))
            }
            SinkConfig::Kafka(written) => {
                let settings = kafka_config(config, name, written, member).with_context(opening)?;
                let mut sink = KafkaSink::open(settings).with_context(opening)?;
                for Wanted { target, .. } in wanted(config, description, name) {
                    sink.prepare(&target).with_context(opening)?;
                }
                counted.push(Counted::Topics(sink.tally()));
                let commit = &written.commit;
                let policy = policy(commit.bytes, commit.rows.get(), commit.age, commit.idle);
                (Box::new(sink), Policy { eager: true, ..policy })
            }
        });
    }
    Ok(Opened { sinks, counted, notes })
}

/// The error with the keys that say where the server is, if that may be to blame and the sink knows no better.
pub(super) fn if_unreachable(config: &PipelineConfig, name: &SinkName, error: Error) -> Error {
    let (table, what) = match &config.sinks[name] {
        SinkConfig::Postgres(_) => ("postgres", "PostgreSQL"),
        SinkConfig::Files(files) if matches!(files.root, config::Root::Hdfs(_)) => ("files", "the NameNode"),
        SinkConfig::Files(_) | SinkConfig::Sqlite(_) | SinkConfig::Kafka(_) => return error,
    };
    match error {
        Error::Transient(problem) if problem.hint.is_none() => {
            let has_url = config.says(&["sinks", name.as_str(), table, "url"]);
            let keys = if has_url { "`url`" } else { "what `host` and `port` say" };
            let hint =
                format!("see that {keys} in [sinks.{name}.{table}] is right, and that {what} runs there");
            Error::Transient(problem.hint(hint))
        }
        other => other,
    }
}

fn policy(bytes: config::ByteSize, rows: u64, age: config::Period, idle: config::Period) -> Policy {
    let (bytes, age, idle) = (bytes.bytes(), age.duration(), idle.duration());
    Policy { bytes, rows, age, idle, eager: false, offsets: EMPTY_ADVANCE }
}

/// A transaction costs little; a file that is rolled at once stays small for ever.
fn commit_policy(commit: &config::CommitWhen) -> Policy {
    Policy { eager: true, ..policy(commit.bytes, commit.rows.get(), commit.age, commit.idle) }
}

pub(super) fn files_config(
    config: &PipelineConfig,
    name: &SinkName,
    files: &config::FilesSink,
) -> FilesConfig {
    let mut settings = FilesConfig {
        format: format_of(files.format),
        directories: files.directories.iter().filter_map(directory_of).collect(),
        provenance: files.provenance,
        compact_after: files.compact_after.get(),
        ..FilesConfig::new(root_of(config, &files.root), config.name.as_str(), name.as_str())
    };
    for (target, own) in files.targets() {
        let target: Arc<str> = target.as_str().into();
        settings.formats.extend(own.format.map(|format| (target.clone(), format_of(format))));
        let own = own.directories.as_ref().map(|own| own.iter().filter_map(directory_of).collect());
        settings.directories_of.extend(own.map(|own| (target, own)));
    }
    settings
}

fn root_of(config: &PipelineConfig, root: &config::Root) -> files::Root {
    match root {
        config::Root::Disk(path) => files::Root::Disk(path.clone()),
        config::Root::Hdfs(hdfs) => files::Root::Hdfs(HdfsConfig {
            cluster: hdfs.cluster.clone(),
            directory: hdfs.directory.clone(),
            properties: hdfs.properties.clone(),
            spool: config.state.join("spool"),
        }),
    }
}

/// The sink's word for a level of directories. One that goes by nothing is refused before.
pub(super) fn directory_of(directory: &config::Directory) -> Option<files::Directory> {
    let column = directory.column.as_deref().map(Arc::from);
    Some(match directory.date {
        Some(config::DateSpan::Month) => files::Directory::Date(files::Span::Month, column),
        Some(config::DateSpan::Day) => files::Directory::Date(files::Span::Day, column),
        Some(config::DateSpan::Hour) => files::Directory::Date(files::Span::Hour, column),
        None => files::Directory::Column(column?),
    })
}

fn format_of(format: config::FileFormat) -> files::Format {
    match format {
        config::FileFormat::Parquet => files::Format::Parquet,
        config::FileFormat::Jsonl => files::Format::JsonLines,
    }
}

pub(super) fn sqlite_config(
    config: &PipelineConfig,
    name: &SinkName,
    tables: &config::SqliteSink,
) -> SqliteConfig {
    SqliteConfig {
        provenance: tables.provenance,
        targets: table_configs(&tables.tables),
        ..SqliteConfig::new(&tables.path, config.name.as_str(), name.as_str())
    }
}

pub(super) fn postgres_config(
    config: &PipelineConfig,
    name: &SinkName,
    tables: &config::PostgresSink,
) -> Result<PostgresConfig> {
    let server = &tables.server;
    named::of_database(config, name, "password_file", server.password_file.as_deref())?;
    named::of_database(config, name, "ca_file", server.ca_file.as_deref())?;
    let password = match &server.password_file {
        Some(file) => Some(secret(file)?),
        None => server.password.as_ref().map(|config::Secret(password)| password.clone()),
    };
    let server = postgres::Server {
        host: server.host.clone(),
        port: server.port,
        database: server.database.clone(),
        user: server.user.clone(),
        password: password.map(postgres::Password),
        tls: match server.tls {
            config::Tls::Disable => postgres::Tls::Disable,
            config::Tls::Require => postgres::Tls::Require,
            config::Tls::VerifyCa => postgres::Tls::VerifyCa,
            config::Tls::VerifyFull => postgres::Tls::VerifyFull,
        },
        ca_file: server.ca_file.clone(),
    };
    Ok(PostgresConfig {
        schema: tables.schema.clone(),
        create: tables.create,
        provenance: tables.provenance,
        targets: table_configs(&tables.tables),
        ..PostgresConfig::new(server, config.name.as_str(), name.as_str())
    })
}

fn table_configs(
    tables: &BTreeMap<config::TargetName, config::TargetTable>,
) -> BTreeMap<Arc<str>, TableConfig> {
    let table = |table: &config::TargetTable| TableConfig {
        table: table.table.clone(),
        mode: table.key.clone().map_or(Mode::Append, |key| Mode::Upsert { key }),
    };
    tables.iter().map(|(target, of)| (target.as_str().into(), table(of))).collect()
}

pub(super) fn kafka_config(
    config: &PipelineConfig,
    name: &SinkName,
    written: &config::KafkaSink,
    member: Option<&Member>,
) -> Result<KafkaConfig> {
    let cluster = topics::cluster_of(&written.cluster, &format!("sinks.{name}.kafka"))?;
    if let Some(member) = member {
        same_cluster(&member.cluster, &cluster)?;
    }
    let named = written.topics.iter();
    Ok(KafkaConfig {
        member: member.map(|member| member.who.clone()),
        provenance: written.provenance,
        create: written.create,
        compression: match written.compression {
            config::Compression::None => Compression::None,
            config::Compression::Gzip => Compression::Gzip,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        },
        topics: named.map(|(target, topic)| (target.as_str().into(), topic.to_string())).collect(),
        ..KafkaConfig::new(cluster, config.name.as_str(), name.as_str())
    })
}

/// A transaction cannot move the offsets of a group that is in another cluster.
pub(super) fn same_cluster(source: &Cluster, sink: &Cluster) -> Result<()> {
    if source == sink {
        return Ok(());
    }
    let (read, written) = (source.id()?, sink.id()?);
    if read != written {
        return Err(OtherCluster { read, written }.into());
    }
    Ok(())
}

/// Records come from one cluster and go to another.
#[derive(Debug, thiserror::Error)]
#[error(
    "E_OTHER_CLUSTER: the records come from cluster {read} and are to go to cluster {written}: a transaction, in which \
     rows and positions move together, is in one cluster"
)]
pub struct OtherCluster {
    read: String,
    written: String,
}

/// The offsets of a group are the position of the sink in whose transaction they move.
pub(super) fn one_moves_the_group(used: &[(&SinkName, &SinkConfig)]) -> Result<(), TwoMoveTheGroup> {
    let mut topics = used.iter().filter(|(_, sink)| matches!(sink, SinkConfig::Kafka(_)));
    match (topics.next(), topics.next()) {
        (Some((one, _)), Some((other, _))) => {
            Err(TwoMoveTheGroup { one: one.to_string(), other: other.to_string() })
        }
        _ => Ok(()),
    }
}

/// Two sinks of one pipeline write to Kafka, and its records come from there.
#[derive(Debug, thiserror::Error)]
#[error(
    "E_TWO_KAFKA_SINKS: sinks {one} and {other} both write to Kafka, where the records come from: the offsets of their \
     group move in the transactions of one sink"
)]
pub struct TwoMoveTheGroup {
    one: String,
    other: String,
}

/// The sink, with the tables for all that is bound to it.
fn prepared<S: TableSink + 'static>(
    mut sink: S,
    config: &PipelineConfig,
    description: &Description,
    name: &SinkName,
) -> Result<Box<S>> {
    for Wanted { target, route, schema } in wanted(config, description, name) {
        sink.prepare(&target, &route, &schema)?;
    }
    Ok(Box::new(sink))
}

/// What is bound to a sink: each of its targets with every route that goes there, dead letters last.
pub(super) fn wanted(config: &PipelineConfig, description: &Description, name: &SinkName) -> Vec<Wanted> {
    let dead = [(DEAD_LETTERS, dead_letters_schema(), std::slice::from_ref(&config.dead_letter.to))];
    let routes = description.routes.iter().map(|route| {
        let targets = config.routes.get(&*route.name).map(Vec::as_slice).unwrap_or_default();
        (&*route.name, route.schema(), targets)
    });
    let ours = routes.chain(dead).flat_map(|(route, schema, targets)| {
        let ours = targets.iter().filter(|target| target.sink == *name);
        ours.map(move |to| Wanted {
            target: to.target.as_str().into(),
            route: route.into(),
            schema: schema.clone(),
        })
    });
    ours.collect()
}

/// The sinks that a route goes to, or went to in a run before, in the order of their names.
///
/// # Errors
/// [`NewSink`]: what a partition had before a sink was there, that sink would never get.
pub(super) fn sinks_of<'a>(
    config: &'a PipelineConfig,
    history: &History,
) -> Result<Vec<(&'a SinkName, &'a SinkConfig)>, NewSink> {
    let bound = |name: &SinkName| {
        let targets = config.routes.values().flatten();
        targets.chain([&config.dead_letter.to]).any(|target| target.sink == *name)
    };
    let knows = |sinks: &BTreeSet<String>, name: &SinkName| sinks.contains(name.as_str());
    for name in config.sinks.keys().filter(|name| bound(name)) {
        let without = history.started.values().filter(|sinks| !knows(sinks, name)).count();
        if without > 0 {
            return Err(NewSink { sink: name.to_string(), without });
        }
    }
    let was_used = |name: &SinkName| history.started.values().any(|sinks| knows(sinks, name));
    Ok(config.sinks.iter().filter(|(name, _)| bound(name) || was_used(name)).collect())
}

/// A sink was added to a pipeline that has run without it.
#[derive(Debug, thiserror::Error)]
#[error(
    "E_NEW_SINK: {without} partitions were begun without sink {sink}, which would never get what they had by then"
)]
pub struct NewSink {
    sink: String,
    without: usize,
}
