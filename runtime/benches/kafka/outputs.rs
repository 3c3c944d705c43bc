//! Where a run writes to: what the pipeline file says of it, when something can be seen there, and how much there is at the
//! end. It is looked at as any reader would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder};
use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
use rdkafka::consumer::BaseConsumer;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row as _};
use tokio::runtime::{Builder, Runtime};

use crate::broker::{Broker, shows};
use crate::job::{Counts, ROUTES};

/// A kind of sink, which is also its name in the pipeline file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Parquet,
    Hdfs,
    Kafka,
    Postgres,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Hdfs => "hdfs",
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
        }
    }

    /// The environment variable that says where its server is.
    pub(crate) fn server(self) -> Option<&'static str> {
        match self {
            Self::Parquet => None,
            Self::Hdfs => Some("WEIR_TEST_HDFS"),
            Self::Kafka => Some("WEIR_TEST_KAFKA"),
            Self::Postgres => Some("WEIR_TEST_POSTGRES"),
        }
    }

    /// A place that nothing was written to yet; `name` is new.
    pub(crate) fn open(self, name: &str, directory: &Path) -> Box<dyn Output> {
        let server = self.server().map(crate::given).unwrap_or_default();
        match self {
            Self::Parquet => Box::new(Parquet(directory.join("out"))),
            Self::Hdfs => Box::new(Hdfs::new(server, format!("/{name}"))),
            Self::Kafka => Box::new(Topics::new(Broker(server), name)),
            Self::Postgres => Box::new(Tables::new(&server, name)),
        }
    }
}

/// See the module.
pub(crate) trait Output {
    /// What the pipeline file says of it, but for its name.
    fn section(&self) -> String;
    /// Whether a row of the first route can be seen.
    fn is_visible(&mut self) -> bool;
    /// What can be seen of each route.
    fn counts(&mut self) -> Counts;
    /// Brings the rows of each route, and of the dead letters, into files that the audit reads; says which.
    fn export(&mut self, directory: &Path) -> Vec<(String, PathBuf)>;
    /// Removes all of it.
    fn clear(&mut self);
}

const DEAD_LETTERS: &str = "dead_letters";

/// The targets of a sink are called as the routes are.
fn targets() -> impl Iterator<Item = &'static str> {
    ROUTES.into_iter().chain([DEAD_LETTERS])
}

/// Parquet on the disk.
struct Parquet(PathBuf);

impl Output for Parquet {
    fn section(&self) -> String {
        format!("files]\npath = {:?}\n", self.0)
    }

    fn is_visible(&mut self) -> bool {
        !visible(&self.0.join(ROUTES[0])).is_empty()
    }

    fn counts(&mut self) -> Counts {
        Counts::of(|route| {
            let files = visible(&self.0.join(route));
            files.iter().map(|path| rows(File::open(path).expect("it is there"))).sum()
        })
    }

    fn export(&mut self, _: &Path) -> Vec<(String, PathBuf)> {
        targets().map(|target| (target.to_owned(), self.0.join(target))).collect()
    }

    fn clear(&mut self) {
        fs::remove_dir_all(&self.0).expect("it is ours");
    }
}

/// The files in a directory that readers do not skip.
fn visible(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.expect("readable").path());
    found.filter(|path| path.is_file() && is_visible(path)).collect()
}

fn is_visible(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"_"))
}

fn rows(file: impl ChunkReader + 'static) -> u64 {
    let reader = SerializedFileReader::new(file).expect("it is complete");
    reader.metadata().file_metadata().num_rows() as u64
}

/// Parquet in HDFS.
struct Hdfs {
    runtime: Runtime,
    client: Client,
    server: String,
    directory: String,
}

impl Hdfs {
    fn new(server: String, directory: String) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let client = ClientBuilder::new().with_url(&server).with_io_runtime(runtime.handle().clone());
        Self { client: client.build().expect("a client"), runtime, server, directory }
    }

    fn visible(&self, route: &str) -> Vec<String> {
        let directory = format!("{}/{route}", self.directory);
        let Ok(found) = self.runtime.block_on(self.client.list_status(&directory, false)) else {
            return Vec::new();
        };
        let files = found.into_iter().filter(|file| !file.isdir).map(|file| file.path);
        files.filter(|path| is_visible(Path::new(path))).collect()
    }

    fn read(&self, path: &str) -> Bytes {
        let read = async {
            let mut file = self.client.read(path).await?;
            file.read_bytes(file.file_length()).await
        };
        self.runtime.block_on(read).expect("it can be read")
    }
}

impl Output for Hdfs {
    fn section(&self) -> String {
        format!("files]\nurl = \"{}{}\"\n", self.server, self.directory)
    }

    fn is_visible(&mut self) -> bool {
        !self.visible(ROUTES[0]).is_empty()
    }

    fn counts(&mut self) -> Counts {
        Counts::of(|route| self.visible(route).iter().map(|path| rows(self.read(path))).sum())
    }

    fn export(&mut self, directory: &Path) -> Vec<(String, PathBuf)> {
        let fetched = targets().map(|target| {
            let copies = directory.join(format!("hdfs-{target}"));
            fs::create_dir_all(&copies).expect("the directory is ours");
            for path in self.visible(target) {
                let name = Path::new(&path).file_name().expect("a file has a name");
                fs::write(copies.join(name), self.read(&path)).expect("there is room");
            }
            (target.to_owned(), copies)
        });
        fetched.collect()
    }

    fn clear(&mut self) {
        self.runtime.block_on(self.client.delete(&self.directory, true)).expect("it is ours");
    }
}

/// Topics, three of them, and one for dead letters.
struct Topics {
    broker: Broker,
    name: String,
    /// Until it has shown something.
    peephole: Option<BaseConsumer>,
}

impl Topics {
    fn new(broker: Broker, name: &str) -> Self {
        for target in targets() {
            broker.create(&format!("{name}.{target}"));
        }
        let peephole = Some(broker.peephole(&format!("{name}.{}", ROUTES[0])));
        Self { broker, name: name.to_owned(), peephole }
    }

    fn topic(&self, route: &str) -> String {
        format!("{}.{route}", self.name)
    }
}

impl Output for Topics {
    fn section(&self) -> String {
        let topics = targets().map(|target| format!("targets.{target}.topic = {:?}\n", self.topic(target)));
        format!("kafka]\nbrokers = {:?}\n{}", self.broker.0, topics.collect::<String>())
    }

    fn is_visible(&mut self) -> bool {
        self.peephole.take_if(|peephole| shows(peephole));
        self.peephole.is_none()
    }

    fn counts(&mut self) -> Counts {
        Counts::of(|route| self.broker.records(&self.topic(route)))
    }

    fn export(&mut self, directory: &Path) -> Vec<(String, PathBuf)> {
        let peeked = targets().map(|target| {
            let lines = directory.join(format!("kafka-{target}.jsonl"));
            crate::peek(
                &self.broker,
                &self.topic(target),
                File::create(&lines).expect("the directory is ours"),
            );
            (target.to_owned(), lines)
        });
        peeked.collect()
    }

    fn clear(&mut self) {
        self.broker.delete(&format!("{}.", self.name));
    }
}

/// Tables in a schema of their own.
struct Tables {
    runtime: Runtime,
    connection: PgConnection,
    url: String,
    schema: String,
}

impl Tables {
    fn new(url: &str, name: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(PgConnection::connect(url)).expect("the server answers");
        let schema = name.replace('-', "_");
        let mut tables = Self { runtime, connection, url: url.to_owned(), schema };
        tables.tell(format!("CREATE SCHEMA {}", tables.schema));
        tables
    }

    fn tell(&mut self, sql: String) {
        let told = self.runtime.block_on(self.connection.execute(AssertSqlSafe(sql)));
        told.expect("the server does it");
    }

    /// `None` where there is no such table.
    fn ask(&mut self, what: &str, table: &str) -> Option<i64> {
        let sql = format!("SELECT {what} FROM {}.{table}", self.schema);
        let row = self.runtime.block_on(self.connection.fetch_optional(AssertSqlSafe(sql))).ok()??;
        row.try_get(0).ok()
    }
}

impl Output for Tables {
    fn section(&self) -> String {
        let Self { url, schema, .. } = self;
        format!("postgres]\nurl = {url:?}\nschema = {schema:?}\n")
    }

    fn is_visible(&mut self) -> bool {
        let one = format!("{} LIMIT 1", ROUTES[0]);
        self.ask("1::bigint", &one).is_some()
    }

    fn counts(&mut self) -> Counts {
        Counts::of(|route| self.ask("count(*)", route).map_or(0, |n| n as u64))
    }

    fn export(&mut self, directory: &Path) -> Vec<(String, PathBuf)> {
        let copied = targets().map(|target| {
            let path = directory.join(format!("postgres-{target}.csv"));
            if self.ask("count(*)", target).is_none() {
                return (target.to_owned(), path);
            }
            let copy = format!(
                "\\copy {}.{target} TO '{}' WITH (FORMAT csv, HEADER, NULL '\\N')",
                self.schema,
                path.display()
            );
            let mut psql = std::process::Command::new("psql");
            psql.args(["--quiet", "--no-psqlrc", "--command", &copy, &self.url]);
            assert!(psql.status().is_ok_and(|status| status.success()), "psql: {copy}");
            (target.to_owned(), path)
        });
        copied.collect()
    }

    fn clear(&mut self) {
        self.tell(format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}
