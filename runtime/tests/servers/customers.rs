//! The pipeline of the repository as it stands there, from its CSV to topics, files in HDFS and tables at once. What each of
//! them must hold says a second reading of the rule, in Python, which shares nothing with the first; what they do hold is
//! fetched by other clients: the files by Hadoop's own, the topics by Kafka's own, the tables by psql.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use tempfile::TempDir;
use weir::sink::state::Nonce;

use crate::hdfs::Cluster;
use crate::{fetch_topics, given};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const RECORDS: u64 = 1_000;

/// Of those that are in all sinks. The others are in the files alone.
const IN_ALL: [&str; 2] = ["usa", "alerts"];

/// A copy of the pipeline, with a name, topics, a directory in HDFS and a database of its own.
struct Pipeline<'a> {
    dir: TempDir,
    own: String,
    non_usa: &'static str,
    cluster: &'a Cluster,
}

impl<'a> Pipeline<'a> {
    fn new(cluster: &'a Cluster, non_usa: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("customers-{}", Nonce::random().short());
        let pipeline = Self { dir, own, non_usa, cluster };
        for parent in ["data", "transforms/customers"] {
            fs::create_dir_all(pipeline.path(parent)).unwrap();
        }
        for file in ["data/us_cities.csv", "data/customers.csv"] {
            fs::copy(Path::new(REPOSITORY).join(file), pipeline.path(file)).unwrap();
        }
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("transforms/customers/customers.wasm")).unwrap();
        let mut file = fs::read_to_string(Path::new(REPOSITORY).join(FILE)).unwrap();
        for (there, ours) in [
            ("name = \"customers\"", format!("name = \"{}\"", pipeline.own)),
            ("\"customers-raw\"", format!("\"{}\"", pipeline.topic("raw"))),
            ("[sinks.topics.kafka]", format!("[sinks.topics.kafka]\ntargets = {}", pipeline.topics())),
            ("non_usa = \"other\"", format!("non_usa = \"{non_usa}\"")),
        ] {
            assert!(file.contains(there), "{there} is not in {FILE}");
            file = file.replace(there, &ours);
        }
        fs::write(pipeline.path(FILE), file).unwrap();
        psql(&given("WEIR_TEST_POSTGRES"), &format!("CREATE DATABASE \"{}\"", pipeline.own));
        pipeline
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn topic(&self, of: &str) -> String {
        format!("{}-{of}", self.own)
    }

    fn topics(&self) -> String {
        let target = |of: &&str| format!("customers-{of}.topic = \"{}\"", self.topic(of));
        format!("{{ {} }}", IN_ALL.iter().map(target).collect::<Vec<_>>().join(", "))
    }

    fn database(&self) -> String {
        let url = given("WEIR_TEST_POSTGRES");
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}", self.own)
    }

    fn directory(&self) -> String {
        format!("/weir-tests/{}", self.own)
    }

    fn weir(&self, arguments: &[&str]) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(arguments).current_dir(self.dir.path());
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        weir.env("KAFKA_BROKERS", given("WEIR_TEST_KAFKA")).env("WEIR_BROKERS", given("WEIR_TEST_KAFKA"));
        weir.env("HDFS_ROOT", given("WEIR_TEST_HDFS") + &self.directory());
        weir.env("DATABASE_URL", self.database());
        succeeded(&mut weir)
    }

    /// As in the README, to the end of the input. Returns what the program says of it.
    fn run(&self) -> Value {
        serde_json::from_slice(&self.weir(&["run", FILE, "--once", "--json"]).stdout).unwrap()
    }

    /// What the second reading says of the CSV file: for each route how many rows, and a digest of them.
    fn expected(&self) -> Map<String, Value> {
        let mut oracle = python("oracle.py");
        oracle.arg(format!("--non-usa={}", self.non_usa));
        oracle.args([self.path("data/us_cities.csv"), self.path("data/customers.csv")]);
        serde_json::from_slice(&succeeded(&mut oracle).stdout).unwrap()
    }

    /// Compares what each of the sinks holds with that.
    fn check(&self, expected: &Map<String, Value>) {
        let fetched = tempfile::tempdir_in(self.dir.path()).unwrap();
        let at = |name: String| fetched.path().join(name);
        let lake = at("lake".to_owned());
        self.cluster.hdfs.fs(&["-get", &self.directory(), lake.to_str().unwrap()]).unwrap();
        let mut paths = Vec::new();
        for route in expected.keys() {
            let name = if route == "dead_letters" { route.clone() } else { format!("customers_{route}") };
            // Where no row ever came there is no directory.
            let rows: Vec<_> = rows_below(&lake.join(name)).iter().map(|row| format!("{row}\n")).collect();
            let lines = at(format!("lake-{route}.jsonl"));
            fs::write(&lines, rows.concat()).unwrap();
            paths.push((route.as_str(), lines));
        }
        audit("HDFS", expected, &paths);

        let mut in_all = expected.clone();
        in_all.retain(|route, _| IN_ALL.contains(&route.as_str()));
        let paths = IN_ALL.map(|route| (route, at(format!("topic-{route}.jsonl"))));
        fetch_topics(paths.iter().map(|(route, lines)| (self.topic(route), lines.clone())));
        audit("Kafka", &in_all, &paths);
        let paths = IN_ALL.map(|route| {
            let table = at(format!("table-{route}.csv"));
            let to = format!("TO '{}' WITH (FORMAT csv, HEADER, NULL '\\N')", table.display());
            psql(&self.database(), &format!("\\copy customers_{route} {to}"));
            (route, table)
        });
        audit("PostgreSQL", &in_all, &paths);
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        // A second panic would end the tests, and leave servers behind.
        if std::thread::panicking() {
            return;
        }
        psql(&given("WEIR_TEST_POSTGRES"), &format!("DROP DATABASE \"{}\" WITH (FORCE)", self.own));
    }
}

/// The columns of a customer, or what a record had, and which one it was.
const COMPARED: [&str; 10] = [
    "id",
    "first_name",
    "last_name",
    "email",
    "age",
    "country",
    "value",
    "value_bytes",
    "weir_partition",
    "weir_offset",
];

const FILE: &str = "transforms/customers/pipeline.kafka.toml";

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {told}");
    output
}

fn python(program: &str) -> Command {
    let mut python = Command::new("python3");
    // It keeps no compiled code among the sources.
    python.arg("-B").arg(Path::new(REPOSITORY).join("runtime/tests/audit").join(program));
    python
}

fn psql(url: &str, sql: &str) {
    succeeded(Command::new("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url]));
}

/// Whether the rows of these routes are those that were expected, and no others.
fn audit(sink: &str, expected: &Map<String, Value>, paths: &[(&str, PathBuf)]) {
    let must = paths[0].1.with_extension("expected");
    serde_json::to_writer(File::create(&must).unwrap(), expected).unwrap();
    let mut audit = python("audit.py");
    audit.arg(must).args(paths.iter().map(|(route, path)| format!("{route}={}", path.display())));
    let output = audit.output().unwrap();
    let told = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "in {sink}:\n{told}");
}

/// Of all Parquet files in a directory, each with those of its values as text that are compared.
fn rows_below(directory: &Path) -> Vec<Value> {
    let files = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let batches = files.flat_map(|path| {
        let file = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        file.unwrap().build().unwrap().map(Result::unwrap)
    });
    batches.flat_map(|batch| (0..batch.num_rows()).map(|n| row(&batch, n)).collect::<Vec<_>>()).collect()
}

fn row(batch: &RecordBatch, n: usize) -> Value {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let values =
        fields.filter(|(field, _)| COMPARED.contains(&field.name().as_str())).map(|(field, column)| {
            let text = column.is_valid(n).then(|| array_value_to_string(column, n).unwrap());
            (field.name().clone(), text.into())
        });
    Value::Object(values.collect())
}

#[test]
fn every_sink_holds_what_a_second_reading_of_the_rule_says_and_a_second_run_changes_nothing() {
    let cluster = Cluster::take();
    // The first is what the file says, the others are what the two old jobs did.
    for non_usa in ["other", "drop", "alerts"] {
        let pipeline = Pipeline::new(&cluster, non_usa);
        let (from, to) = ("data/customers.csv", pipeline.topic("raw"));
        pipeline.weir(&["produce", from, "--topic", &to, "--create", "--partitions", "1"]);
        let expected = pipeline.expected();
        let kept: u64 = expected.values().map(|route| route["count"].as_u64().unwrap()).sum();
        assert!(expected["usa"]["count"].as_u64() >= Some(100), "{expected:?}");
        assert_eq!(kept < RECORDS, non_usa == "drop", "{expected:?}");
        let said = pipeline.run();
        assert_eq!((&said["records"], &said["conserved"]), (&RECORDS.into(), &true.into()), "{said}");
        assert_eq!(said["dropped"], RECORDS - kept, "{said}");
        pipeline.check(&expected);
        assert_eq!(pipeline.run()["records"], 0);
        pipeline.check(&expected);
    }
}
