//! The pipeline file as it is written: its keys, their defaults and what they mean. The reference is
//! made from the comments here. Never resolves anything: names, paths and variables stay as they are.

use std::{collections::BTreeMap, num::NonZeroU16, num::NonZeroU32, num::NonZeroU64, thread};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    listen::Listen,
    names::{PipelineName, TargetRef, TopicName},
    quantity::{ByteSize, Fraction, Period},
};

/// What the whole file may hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct File {
    pub(super) pipeline: Pipeline,
    pub(super) source: Source,
    pub(super) transform: Transform,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    /// Where the rows of each route of the transform go. Every route that the transform declares is
    /// named here: with a target `"sink.target"`, with a list of targets, or with `"none"`, which
    /// leaves its rows out on purpose.
    pub(super) routes: BTreeMap<String, Targets>,
    pub(super) dead_letter: DeadLetter,
    /// The places that rows are written to. The name is how routes refer to a sink and how it
    /// appears in metrics: 1 to 63 of a-z, 0-9, `-`, `_`. Each has one kind, such as
    /// `[sinks.lake.files]`.
    pub(super) sinks: BTreeMap<String, Sink>,
    #[serde(default)]
    pub(super) deploy: Deploy,
    #[serde(default)]
    pub(super) admin: Admin,
}

/// Who the pipeline is and where it remembers.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Pipeline {
    /// The name under which sinks remember positions. 1 to 63 of a-z, 0-9, `-`. Another name is
    /// another pipeline, which begins at the start.
    pub(super) name: PipelineName,
    /// The directory for what the pipeline remembers itself: compiled transforms and, where records come from files, the
    /// plan log, with the bytes of every component and table that a plan names, and which file is which partition.
    /// Positions are the sinks'. Relative to this file.
    #[schemars(length(min = 1))]
    pub(super) state: String,
}

/// Where records come from: one kind of source.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct Source {
    pub(super) files: Option<Files>,
    pub(super) kafka: Option<Topics>,
}

/// Records from topics of a Kafka cluster. Every process that runs this file takes a share of their partitions, as a
/// member of the consumer group `weir.<pipeline>`. The plan log and the bytes that plans name are in the topics
/// `weir.<pipeline>.plans` and `weir.<pipeline>.store` of the same cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Topics {
    /// Where the cluster is: `host:port`, or several separated by commas. `${NAME}` is the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) brokers: String,
    /// The topics, which are there already.
    pub(super) topics: Vec<TopicName>,
    /// Where each partition begins when the pipeline first sees it: `"earliest"`, `"latest"`, a time (the first record that
    /// is not older), or offsets, `{ customers-raw = [12, 40] }`, one for each partition. It is written down once and
    /// never used again; partitions that are added to a topic later begin at their first record. Without it
    /// `"earliest"`.
    #[serde(default)]
    #[schemars(with = "Start")]
    pub(super) start: Option<Start>,
    /// Instead of `start`: the checkpoint directory of a query of Spark Structured Streaming that read these topics. Each
    /// partition begins where the last batch ended that the query completed. Relative to this file; `${NAME}` is the
    /// environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) spark_checkpoint: Option<String>,
    /// Settings of the client, in the words of librdkafka: `"security.protocol" = "SASL_SSL"`. Those that what is promised
    /// rests on are refused, each with the reason. `${NAME}` is the environment variable NAME.
    #[serde(default)]
    pub(super) properties: BTreeMap<String, String>,
}

/// A place to begin, by name or time, or the offsets of each topic's partitions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Start {
    Named(String),
    Offsets(BTreeMap<String, Vec<i64>>),
}

/// Records from a file or from all files of a directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Files {
    /// A file or a directory, relative to this file. `${NAME}` is the environment variable NAME.
    /// Files are moved in complete and never changed.
    #[schemars(length(min = 1))]
    pub(super) path: String,
    /// How a file is cut into records: `csv` (a row, handed on as a JSON object), `jsonl` (a line)
    /// or `raw` (the whole file, all files together in one partition). Without it each file goes by its own
    /// name: `.csv` is `csv`; `.jsonl`, `.ndjson` and `.json` are `jsonl`; any other is left out with a warning.
    /// A file whose name goes on with `.gz` or `.zst` is unpacked while it is read, but for `raw`. Where its data is
    /// broken, the rest is one dead letter and the file ends there; a checksum stands behind what it is for, so
    /// records before that may be damaged too.
    pub(super) format: Option<SourceFormat>,
    /// The topic that the transform and the provenance columns see. 1 to 249 of a-z, A-Z, 0-9, `.`,
    /// `_`, `-`; not one that begins with `weir.`.
    pub(super) topic: TopicName,
}

/// How a file is cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SourceFormat {
    /// A row is a record, as a JSON object with a string for each column of the header.
    Csv,
    /// A line is a record.
    Jsonl,
    /// A file is a record.
    Raw,
}

/// The rules: a WebAssembly component, what it is told and what it may look up. They are part of a
/// plan.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Transform {
    /// The component, relative to this file.
    #[schemars(length(min = 1))]
    pub(super) component: String,
    /// What the transform is told. It declares the keys; a value is a string, an integer or a
    /// boolean and reaches the transform as text. Environment variables are not put in, since
    /// settings are written down with the plan.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
    /// The reference tables that the transform asks for, by the names that it gives them.
    #[serde(default)]
    pub(super) tables: BTreeMap<String, Table>,
}

/// A key that the transform declares; a required one must be here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Setting {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

/// A reference table: a CSV file with a header, or a Parquet file. Which one it is stands in the file itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Table {
    /// The file, relative to this file.
    #[schemars(length(min = 1))]
    pub(super) file: String,
    /// The one character between two fields of a CSV file. The default is found from the header: a comma, a
    /// semicolon, a tab or `|`.
    pub(super) delimiter: Option<char>,
    /// For each column that the transform asks for, the name that it has in the file,
    /// such as `{ city = "City" }`. A column that is not named here is found by its own name, ignoring case,
    /// spaces, `_` and `-`.
    #[serde(default)]
    pub(super) columns: BTreeMap<String, String>,
}

/// What a batch and an instance may cost. `memory`, `deadline`, `output_bytes` and
/// `fuel_per_record` are part of a plan, since they can change what becomes of a record; the others
/// may change freely.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// Size of the memory of one instance of the transform, at most 4 GiB.
    pub memory: ByteSize,
    /// Time that the transform may take for one batch.
    pub deadline: Period,
    /// Size of all that the transform may give back for one batch, at most 256 MiB. A row counts 64 bytes besides what is
    /// in it, a reject its reason's message, and a record that goes on as it came, but for the first time, as much as it has.
    pub output_bytes: ByteSize,
    /// Units of fuel (about one per WebAssembly instruction, and one per byte copied) that the transform may take for
    /// one record. One that takes more is a dead letter, on a fast machine as on a slow one. Counted only where a batch
    /// fails, or takes so much time of the processor (a nanosecond per 256 units) that a record of it may have used so much.
    pub fuel_per_record: NonZeroU64,
    /// Records in one batch.
    pub batch_records: NonZeroU32,
    /// Size of one batch, at most 1 GiB and at most `in_flight_bytes`. A larger record is a batch by
    /// itself.
    pub batch_bytes: ByteSize,
    /// Size per second of what one transform may write to its log; the rest is dropped and counted.
    pub log_bytes_per_second: ByteSize,
    /// Batches that are transformed at the same time, each by its own instance.
    #[schemars(extend("default" = "available cores"))]
    pub workers: NonZeroU32,
    /// Size of all records between the source and the last sink. When it is used up, the source waits.
    pub in_flight_bytes: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(256),
            deadline: Period::seconds(5),
            output_bytes: ByteSize::mib(64),
            fuel_per_record: const { NonZeroU64::new(4_000_000_000).expect("not 0") },
            batch_records: const { NonZeroU32::new(4096).expect("not 0") },
            batch_bytes: ByteSize::mib(1),
            log_bytes_per_second: ByteSize::kib(16),
            workers: available_cores(),
            in_flight_bytes: ByteSize::mib(16),
        }
    }
}

fn available_cores() -> NonZeroU32 {
    thread::available_parallelism().ok().and_then(|cores| cores.try_into().ok()).unwrap_or(NonZeroU32::MIN)
}

/// What the transform may import.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Sandbox {
    /// `inert`: the WASI interfaces that toolchains link in by themselves, answered without effect.
    /// `none`: a transform that imports anything is refused.
    pub imports: Imports,
    /// The part of all batches, from 0 to 1, that is transformed a second time, cut otherwise and by a fresh instance,
    /// and compared; so are the first two of every plan. A difference is `E_NONDETERMINISTIC` and stops the
    /// partition. 0: none is.
    pub verify_fraction: Fraction,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { imports: Imports::Inert, verify_fraction: Fraction::millionths(1_000) }
    }
}

/// What a component may import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Imports {
    /// WASI interfaces, answered without effect.
    #[default]
    Inert,
    /// Nothing.
    None,
}

/// A route of the transform: a target, a list of targets, or `"none"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Targets {
    One(String),
    Several(Vec<String>),
}

/// Where records go that the transform rejects or fails on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DeadLetter {
    /// One target, `"sink.target"`, that no route goes to.
    pub to: TargetRef,
    /// After so many records in a row at which the transform itself failed (a trap, an error, an output that
    /// breaks the contract) their partition stops: then the rules are wrong and not the records. Records that the
    /// transform rejects do not count.
    #[serde(default = "DeadLetter::stop_after_consecutive")]
    pub stop_after_consecutive: NonZeroU64,
    /// A record that was sent through again so often is not sent through once more by a replay: it would come back for
    /// ever.
    #[serde(default = "DeadLetter::max_attempts")]
    pub max_attempts: NonZeroU16,
}

impl DeadLetter {
    fn stop_after_consecutive() -> NonZeroU64 {
        const { NonZeroU64::new(1000).expect("not 0") }
    }

    fn max_attempts() -> NonZeroU16 {
        const { NonZeroU16::new(5).expect("not 0") }
    }
}

/// One sink, of one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct Sink {
    pub(super) files: Option<FileSink>,
    pub(super) sqlite: Option<SqliteSink>,
    pub(super) postgres: Option<PostgresSink>,
    pub(super) kafka: Option<KafkaSink>,
}

/// Rows into files. Each target is a directory below the sink's. A file appears when it is complete
/// and never changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FileSink {
    /// The directory, relative to this file. Either this or `url`. `${NAME}` is the environment
    /// variable NAME.
    #[schemars(length(min = 1))]
    pub(super) path: Option<String>,
    /// The directory as `file:///absolute/path`, or in HDFS as `hdfs://namenode:8020/directory`. Either this or `path`.
    /// `hdfs://service/directory` is what the `hdfs-site.xml` in `$HADOOP_CONF_DIR`, or in `$HADOOP_HOME/etc/hadoop`, knows
    /// by that name, with all its NameNodes. The user is `$HADOOP_USER_NAME`, or who has the Kerberos ticket where
    /// `hadoop.security.authentication` says `kerberos`. Files wait in `spool` below the pipeline's state until they are
    /// in HDFS as a whole. `${NAME}` is the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) url: Option<String>,
    /// For HDFS, settings of Hadoop's clients such as `{ "dfs.replication" = 2 }`, which count before those in
    /// `core-site.xml` and `hdfs-site.xml`. `dfs.replication` and `dfs.blocksize`, in bytes, count only if they stand here;
    /// otherwise files are as the NameNode says.
    #[serde(default)]
    pub(super) properties: BTreeMap<String, Property>,
    /// `parquet` or `jsonl` (one JSON object per line).
    #[serde(default)]
    pub(super) format: FileFormat,
    /// When the files that a partition of the input has open are complete, all of them at once: as soon as one of
    /// these is reached, and at a clean stop.
    #[serde(default)]
    pub(super) roll: Roll,
    /// Whether rows carry the columns `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and
    /// `weir_plan`: from which record they come, by which plan; and `weir_attempt`, if it was sent through again. Without
    /// them an audit compares counts only.
    #[serde(default = "yes")]
    pub(super) provenance: bool,
    /// The directories below each target's, from the outer to the inner, as Hive has them. `{ date = "day" }` is
    /// `dt=2026-11-23/`, by the time of the record, in UTC, which records from files do not have; `date` is `month`, `day` or `hour` (`dt=2026-11-23-05/`).
    /// `{ date = "day", column = "ordered" }` takes the time from a column with dates or times. `{ column = "country" }`
    /// is `country=USA/`, percent-encoded. Rows without a time or value are in `__HIVE_DEFAULT_PARTITION__`; those whose
    /// time is not in the years 1 to 9999 go to `weir_rejects`. A column stays in the rows as well. A partition of the
    /// input has 64 files open at most; when rows want one more, the longest is complete and all are committed.
    #[serde(default)]
    pub(super) directories: Vec<Directory>,
    /// After how many claims and commits of a partition the sink's log of it is compacted: one file then
    /// takes the place of one per claim and commit.
    #[serde(default = "FileSink::compact_after")]
    pub(super) compact_after: NonZeroU64,
    /// What differs for one target, by its name.
    #[serde(default)]
    pub(super) targets: BTreeMap<String, FileTarget>,
}

/// A setting of Hadoop's clients; its name stands in quotes, since it has points in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Property {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl FileSink {
    fn compact_after() -> NonZeroU64 {
        const { NonZeroU64::new(100).expect("not 0") }
    }
}

fn yes() -> bool {
    true
}

/// One target of a file sink, where it differs from the others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FileTarget {
    /// `parquet` or `jsonl`, instead of the sink's format.
    pub(super) format: Option<FileFormat>,
    /// Instead of the sink's directories; `[]` for none.
    pub(super) directories: Option<Vec<Directory>>,
}

/// One level of directories: by time, or by the value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Directory {
    /// A directory for each month, day or hour of the record, or of `column`.
    pub date: Option<DateSpan>,
    /// A column that every route to the target has. Alone: a directory for each of its values, which are text, whole
    /// numbers, decimals, booleans or dates. With `date`: a date or a time.
    #[schemars(length(min = 1))]
    pub column: Option<String>,
}

impl Directory {
    /// What stands before the `=` of its name.
    pub(super) fn name(&self) -> Option<&str> {
        self.date.map(|_| "dt").or(self.column.as_deref())
    }
}

/// The rows of how long a time share a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DateSpan {
    /// `dt=2026-11`
    Month,
    /// `dt=2026-11-23`
    Day,
    /// `dt=2026-11-23-05`
    Hour,
}

/// How rows are written to a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum FileFormat {
    /// Apache Parquet.
    #[default]
    Parquet,
    /// One JSON object per line.
    Jsonl,
}

/// When the files that a partition of the input has open are complete, all of them at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Roll {
    /// Their size, together.
    pub bytes: ByteSize,
    /// Their rows, together.
    pub rows: NonZeroU64,
    /// Time since their first row.
    pub age: Period,
    /// Time without a further row.
    pub idle: Period,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            bytes: ByteSize::mib(128),
            rows: const { NonZeroU64::new(1_000_000).expect("not 0") },
            age: Period::seconds(60),
            idle: Period::seconds(10),
        }
    }
}

/// Rows into tables of a SQLite database on a local disk. Each target is a table; it is made if it is not there, and
/// compared with the columns of the route if it is. Rows that the database refuses for what is in them are in its
/// table `weir_reject`, positions in `weir_position`. Foreign keys are checked; they may refer to no table of the same
/// sink, since its rows may come in any order.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SqliteSink {
    /// The database file, relative to this file; made if it is not there. `${NAME}` is the environment variable
    /// NAME. Other programs may read it at any time, and write to it for a moment.
    #[schemars(length(min = 1))]
    pub(super) path: String,
    /// When rows are committed: as soon as one of these is reached, and at a clean stop. Until then they are kept in
    /// memory.
    #[serde(default)]
    pub(super) commit: CommitWhen,
    /// Whether rows carry the columns `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and
    /// `weir_plan`: from which record they come, by which plan; and `weir_attempt`, if it was sent through again. Without
    /// them an audit compares counts only.
    #[serde(default = "yes")]
    pub(super) provenance: bool,
    /// The tables, by the names of the targets. A target that is not named here is appended to the table of its own
    /// name.
    #[serde(default)]
    pub(super) targets: BTreeMap<String, TableTarget>,
}

/// Rows into tables of a PostgreSQL database. Each target is a table; it is compared with the columns of the route.
/// Rows that the database refuses for what is in them are in its table `weir_reject`, positions in `weir_position`.
/// Foreign keys may refer to no table of the same sink, since its rows may come in any order. Poolers that lend a
/// connection for a transaction at a time will do; `weir run` says at its start if there is one. Of the environment,
/// `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY` and `PGOPTIONS` count as they do for psql.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PostgresSink {
    /// `postgres://user@host:5432/database`. Either this or `host`, `database` and `user`. `${NAME}` is the
    /// environment variable NAME: a URL with a password comes as a whole from one.
    #[schemars(length(min = 1))]
    pub(super) url: Option<String>,
    /// The server's name or address; a directory with its socket, if it begins with `/`. `${NAME}` is the environment
    /// variable NAME.
    #[schemars(length(min = 1))]
    pub(super) host: Option<String>,
    /// The server's port; without it 5432.
    pub(super) port: Option<NonZeroU16>,
    /// The name of the database. `${NAME}` is the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) database: Option<String>,
    /// The name of the user. `${NAME}` is the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) user: Option<String>,
    /// The name of the environment variable that holds the password.
    #[schemars(length(min = 1))]
    pub(super) password_env: Option<String>,
    /// The file that holds the password, relative to this file; a line break at its end does not count. One that is empty, or
    /// that everybody may read, is refused.
    #[schemars(length(min = 1))]
    pub(super) password_file: Option<String>,
    /// `disable`: none. `require`: nobody reads along, but whoever answers is believed to be the server. `verify-ca`:
    /// its certificate is believed. `verify-full`: and is for its name. Without it `verify-full`, or what the URL says
    /// by `sslmode`; `disable` on this machine.
    pub(super) tls: Option<Tls>,
    /// The certificates of those to believe, in PEM, relative to this file; without it those that the system believes.
    #[schemars(length(min = 1))]
    pub(super) ca_file: Option<String>,
    /// The schema that all tables of the sink are in, `weir_position` and `weir_reject` too.
    #[serde(default = "PostgresSink::schema")]
    #[schemars(length(min = 1))]
    pub(super) schema: String,
    /// Whether tables are made that are not there, `weir_position` and `weir_reject` too. Otherwise the statement that
    /// makes one is told.
    #[serde(default = "yes")]
    pub(super) create: bool,
    /// When rows are committed: as soon as one of these is reached, and at a clean stop. Until then they are kept in
    /// memory.
    #[serde(default)]
    pub(super) commit: CommitWhen,
    /// Whether rows carry the columns `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and
    /// `weir_plan`: from which record they come, by which plan; and `weir_attempt`, if it was sent through again. Without
    /// them an audit compares counts only.
    #[serde(default = "yes")]
    pub(super) provenance: bool,
    /// The tables, by the names of the targets. A target that is not named here is appended to the table of its own
    /// name.
    #[serde(default)]
    pub(super) targets: BTreeMap<String, TableTarget>,
}

impl PostgresSink {
    fn schema() -> String {
        "public".to_owned()
    }
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Tls {
    /// Not at all.
    Disable,
    /// Nobody reads along.
    Require,
    /// And the server's certificate is believed.
    VerifyCa,
    /// And it is for the server's name.
    VerifyFull,
}

/// The table of a target.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TableTarget {
    /// The table's name, instead of the target's. No two targets have the same.
    #[schemars(length(min = 1))]
    pub(super) table: Option<String>,
    /// `append`: each row is added. `upsert`: each row takes the place of the row with its key, if there is one, and
    /// a row that deletes removes it; the last row of a key stays.
    #[serde(default)]
    pub(super) mode: TableMode,
    /// For `upsert`: the columns of the key, which together are the table's PRIMARY KEY or UNIQUE. A key stays in one
    /// input partition, or the order of its rows is not known.
    #[serde(default)]
    pub(super) key: Vec<String>,
}

/// How rows get into a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum TableMode {
    /// They are added.
    #[default]
    Append,
    /// They take the place of those with their key.
    Upsert,
}

/// When rows are committed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct CommitWhen {
    /// Size of the rows, in memory: in PostgreSQL of those of all partitions, in SQLite of a partition.
    pub bytes: ByteSize,
    /// Rows: in PostgreSQL of all partitions, in SQLite of a partition.
    pub rows: NonZeroU64,
    /// Time since the first row of a partition.
    pub age: Period,
    /// Time without a further row of a partition.
    pub idle: Period,
}

impl Default for CommitWhen {
    fn default() -> Self {
        Self {
            bytes: ByteSize::mib(16),
            rows: const { NonZeroU64::new(100_000).expect("not 0") },
            age: Period::milliseconds(250),
            idle: Period::milliseconds(100),
        }
    }
}

/// What is done about a plan that `weir deploy` puts. It may change freely.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Deploy {
    /// When a plan is taken back by itself: `"none"`, or a table of these. A plan is on trial for its first `records` in a
    /// process, or for `time` from the first of them on if it made 100 by then. It is taken back if its part of rejected records
    /// is larger by `rejected` than under the plan before, or its part of those at which the transform failed by `failed`;
    /// each from 0 to 1, and by more than chance explains of so many records. Fewer than 100 decide nothing. A plan with which
    /// a partition cannot go on is taken back at once: `E_STALL`, `E_FAILING` and whatever else its transform stops one
    /// for. Then the last plan that was not on trial, or passed, is put once more, `weir history` tells why, and all partitions
    /// go on with that one from where the sinks stand: what the plan has not made by then in that process it does not make any
    /// more. A process that starts has it on trial, too, if nobody has made anything with it, or it was put less than `time` ago;
    /// there only failures decide, against all that the sinks have counted ever. What is not on trial: what the file says at a start, a plan that
    /// takes another back, by itself or by `weir rollback`, and what is deployed with `--no-trial` or by `weir run --watch`. Of
    /// the plan before, its last records in the same process count; where they are fewer than 100, rejects decide nothing.
    pub rollback: WhenTakenBack,
}

/// When a plan is taken back by itself, if ever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum WhenTakenBack {
    /// Never.
    Never(Never),
    /// When it does worse.
    Worse(Rollback),
}

impl Default for WhenTakenBack {
    fn default() -> Self {
        Self::Worse(Rollback::default())
    }
}

impl Deploy {
    /// By what a plan is tried, if it is.
    pub fn limits(&self) -> Option<&Rollback> {
        match &self.rollback {
            WhenTakenBack::Never(Never::None) => None,
            WhenTakenBack::Worse(rollback) => Some(rollback),
        }
    }
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Never {
    /// No plan is.
    None,
}

/// By what a plan is tried.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Rollback {
    /// Records after which it stays.
    pub records: NonZeroU64,
    /// Time after which it stays, from its first record on.
    pub time: Period,
    /// By how much larger its part of rejected records may be.
    pub rejected: Fraction,
    /// By how much larger its part of records may be at which the transform fails.
    pub failed: Fraction,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            records: const { NonZeroU64::new(10_000).expect("not 0") },
            time: Period::seconds(60),
            rejected: Fraction::millionths(50_000),
            failed: Fraction::millionths(1_000),
        }
    }
}

/// How a running pipeline is looked at and told something. It may change freely.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Admin {
    /// Where each process answers `/healthz`, `/readyz`, `/metrics` and `/status` over HTTP: an address and a port, or
    /// `none`. If the port is taken, the next that is free; `weir run` tells which. Whoever reaches it may read all of
    /// that, without a password and without TLS; nobody can change anything.
    pub(super) listen: Listen,
    /// The directory with a socket for each process, relative to this file; without it `admin` in the state directory.
    /// Through it `weir status`, `weir pause` and `weir resume` reach them; only the user who runs them may. `${NAME}` is
    /// the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) socket: Option<String>,
}

/// Rows into topics of a Kafka cluster. Each target is a topic, and each row a record: a JSON object as its value, or, on
/// a route of records and for dead letters, the value of the record as it came. Key, headers and time of a row for which
/// the transform sets none are those of its record; a row that deletes is a tombstone. Keys go to the partitions that Java
/// clients give them. Rows become visible, with their positions, in one transaction, to readers with
/// `isolation.level=read_committed`. Rows that a topic refuses for what is in them are in the topic
/// `weir.PIPELINE.rejects`, positions in `weir.PIPELINE.progress`: both are made.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct KafkaSink {
    /// Where the cluster is: `host:port`, or several with commas between. `${NAME}` is the environment variable NAME.
    #[schemars(length(min = 1))]
    pub(super) brokers: String,
    /// What the client is told besides, in the words of librdkafka, such as `"security.protocol" = "SASL_SSL"`. What
    /// exactly once rests on is not to be set. `${NAME}` is the environment variable NAME; a password comes from one.
    #[serde(default)]
    pub(super) properties: BTreeMap<String, String>,
    /// When rows are committed: as soon as one of these is reached, and at a clean stop. Until then they are kept in
    /// memory. A commit is one transaction for all partitions of the input.
    #[serde(default)]
    pub(super) commit: Transact,
    /// Whether topics are made that are not there, with as many partitions and copies as the cluster makes by default.
    /// Otherwise the command that makes one is told.
    #[serde(default = "yes")]
    pub(super) create: bool,
    /// How records are packed: `none`, `gzip`, `lz4` or `zstd`.
    #[serde(default)]
    pub(super) compression: Compression,
    /// Whether rows carry the header `weir-origin`: from which record they come (topic, partition, offset, number of the
    /// row among those of the record) and by which plan, as `customers-raw/3/1042/0/7`; and `weir-attempt`, if
    /// that was sent through again. Without it an audit compares counts only. Headers that a record came with and that begin with `weir-` are left out either way.
    #[serde(default = "yes")]
    pub(super) provenance: bool,
    /// The topics, by the names of the targets. The rows of a target that is not named here go to the topic of its own
    /// name.
    #[serde(default)]
    pub(super) targets: BTreeMap<String, TopicTarget>,
}

/// The topic of a target.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TopicTarget {
    /// The topic's name, instead of the target's. No two targets have the same.
    pub(super) topic: Option<TopicName>,
}

/// How records are packed on their way, and in their topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip.
    Gzip,
    /// LZ4.
    #[default]
    Lz4,
    /// Zstandard.
    Zstd,
}

/// When rows are committed in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Transact {
    /// Size of the rows of all partitions, in memory.
    pub bytes: ByteSize,
    /// Rows of all partitions.
    pub rows: NonZeroU64,
    /// Time since the first row of a partition.
    pub age: Period,
    /// Time without a further row of a partition.
    pub idle: Period,
}

impl Default for Transact {
    fn default() -> Self {
        Self {
            bytes: ByteSize::mib(32),
            rows: const { NonZeroU64::new(50_000).expect("not 0") },
            age: Period::milliseconds(100),
            idle: Period::milliseconds(50),
        }
    }
}
