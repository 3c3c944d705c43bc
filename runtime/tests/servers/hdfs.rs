//! Customers into HDFS while its servers die, stand still or refuse: the rows of a copy on the local disk, each once, read
//! back by other clients. Each test has a directory of its own, and the cluster alone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir::sink::json::JsonRows;
use weir::sink::state::Nonce;
use weir_services::{Hdfs, Interrupt, Service, Services, until};

const FILE: &str = r#"
[pipeline]
name = "servers"
state = "state"

[source.files]
path = "input"
topic = "customers-raw"

[transform]
component = "customers.wasm"
tables.us_cities = { file = "us_cities.csv" }

[limits]
batch_records = 400
workers = 2

[routes]
usa = ["lake.usa", "copy.usa"]
alerts = ["lake.alerts", "copy.alerts"]
other = ["lake.other", "copy.other"]

[dead_letter]
to = "copy.dead_letters"

[sinks.copy.files]
path = "copy"

[sinks.lake.files]
url = "${WEIR_TEST_HDFS}DIRECTORY"
SETTINGS
"#;

/// Many files, so that something happens between two of them and in the middle of one.
const SMALL_FILES: &str = "roll = { rows = 1000 }";

/// As large as they become.
const LARGE_FILES: &str = "format = \"jsonl\"";

const TARGETS: [&str; 3] = ["alerts", "other", "usa"];

/// For what nobody wants to wait for, on a busy machine.
const SECONDS: Duration = Duration::from_secs(30);

/// For what takes servers that start, and requests that wait for them.
const LONG: Duration = Duration::from_secs(120);

static ALONE: Mutex<()> = Mutex::new(());

/// The cluster in the hands of one test, which leaves it as it was.
pub(crate) struct Cluster {
    pub(crate) hdfs: Hdfs,
    _services: Services,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    pub(crate) fn take() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let services = Services::given().unwrap();
        let hdfs = services.hdfs().unwrap();
        let cluster = Self { hdfs, _services: services, _alone: alone };
        cluster.heal();
        assert!(cluster.hdfs.datanode(3).is_ok(), "it takes --datanodes 3");
        cluster
    }

    fn heal(&self) {
        self.hdfs.start().unwrap();
        self.hdfs.wait_ready().unwrap();
    }

    fn kill_datanodes(&self, numbers: &[u16]) {
        numbers.iter().for_each(|n| self.hdfs.datanode(*n).unwrap().kill().unwrap());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.heal();
    }
}

/// A pipeline in a directory of its own, here and in HDFS.
struct Pipeline {
    local: TempDir,
    directory: String,
    runtime: Runtime,
    client: Client,
}

impl Pipeline {
    fn new(cluster: &Cluster, settings: &str) -> Self {
        let local = tempfile::tempdir().unwrap();
        let directory = format!("/weir-tests/{}", Nonce::random());
        let runtime = Runtime::new().unwrap();
        let builder = ClientBuilder::new().with_url(cluster.hdfs.url());
        let client = builder.with_io_runtime(runtime.handle().clone()).build().unwrap();
        let pipeline = Self { local, directory, runtime, client };
        fs::create_dir(pipeline.path("input")).unwrap();
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).unwrap();
        fs::write(pipeline.path("us_cities.csv"), "city\nBoston\nAustin\n").unwrap();
        let file = FILE.replace("DIRECTORY", &pipeline.directory).replace("SETTINGS", settings);
        fs::write(pipeline.path("pipeline.toml"), file).unwrap();
        pipeline
    }

    fn path(&self, name: &str) -> PathBuf {
        self.local.path().join(name)
    }

    /// So many customers, of whom each fourth has no address.
    fn input(&self, records: u32) {
        self.long_input(records, 0);
    }

    /// Whose addresses for mail are longer than usual.
    fn long_input(&self, records: u32, by: usize) {
        let mail = "m".repeat(by);
        let mut text = "id,first_name,last_name,email,age,location\n".to_owned();
        for n in 0..records {
            let place = ["Boston", "Lyon", "austin, Texas", ""][n as usize % 4];
            writeln!(text, "c{n},Ada,Lovelace,{mail}{n}@example.com,{},\"{place}\"", n % 90).unwrap();
        }
        fs::write(self.path("input/a.csv"), text).unwrap();
    }

    fn start(&self) -> Running<'_> {
        self.start_with("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
    }

    fn start_with(&self, variable: &str, value: &str) -> Running<'_> {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["run", "--once", "--json"]).arg(self.path("pipeline.toml"));
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        weir.env(variable, value);
        weir.stdout(File::create(self.path("said")).unwrap());
        weir.stderr(File::create(self.path("told")).unwrap());
        Running { child: weir.spawn().unwrap(), pipeline: self }
    }

    /// Runs to the end of the input.
    fn finish(&self) {
        self.start().finish();
    }

    /// The rows of a target in HDFS, as JSON, sorted.
    fn rows(&self, target: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for path in self.files(target) {
            let read = async {
                let mut file = self.client.read(&path).await?;
                file.read_bytes(file.file_length()).await
            };
            rows.extend(rows_of(&path, self.runtime.block_on(read).unwrap()));
        }
        rows.sort();
        rows
    }

    fn files(&self, target: &str) -> Vec<String> {
        let directory = format!("{}/{target}", self.directory);
        let found = self.runtime.block_on(self.client.list_status(&directory, false));
        found.unwrap_or_default().into_iter().map(|status| status.path).collect()
    }

    /// Whether files of rows are being sent.
    fn are_files_under_way(&self) -> bool {
        let places = format!("{}/_weir/servers", self.directory);
        let found = self.runtime.block_on(self.client.list_status(&places, true)).unwrap_or_default();
        let staged = |path: &str| path.contains("/staging/") && !path.contains("/record-");
        found.iter().any(|status| !status.isdir && staged(&status.path))
    }

    /// All rows are there that are in the copy, and no row twice.
    fn assert_whole(&self, records: usize) {
        let mut all = 0;
        for target in TARGETS {
            let rows = self.rows(target);
            assert_eq!(rows, rows_below(&self.path(&format!("copy/{target}"))), "{target}");
            all += rows.len();
        }
        assert_eq!(all, records);
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        drop(self.runtime.block_on(self.client.delete(&self.directory, true)));
    }
}

/// A program under way, which is killed if its test gives up.
struct Running<'a> {
    child: Child,
    pipeline: &'a Pipeline,
}

impl Running<'_> {
    /// Waits until `is_so`, while it runs.
    fn wait_until(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let look = || {
            let so = is_so();
            assert!(
                so || self.child.try_wait().unwrap().is_none(),
                "it ended before: {what}: {}",
                self.told()
            );
            Ok::<_, weir_services::Error>(so.then_some(()))
        };
        let came = until(&Interrupt::default(), LONG, look).unwrap();
        assert!(came.is_some(), "it never came: {what}: {}", self.told());
    }

    /// Waits until files are visible.
    fn wait_for_files(&mut self, n: usize) {
        let pipeline = self.pipeline;
        self.wait_until("files", || pipeline.files("other").len() >= n);
    }

    fn wait_for_word(&mut self, word: &str) {
        let told = self.pipeline.path("told");
        self.wait_until(word, || fs::read_to_string(&told).unwrap().contains(word));
    }

    fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = until(&Interrupt::default(), limit, || {
            Ok::<_, weir_services::Error>(self.child.try_wait().unwrap())
        });
        ended.unwrap().unwrap_or_else(|| panic!("it does not end: {}", self.told()))
    }

    fn finish(&mut self) {
        let status = self.end_within(LONG);
        assert!(status.success(), "{}", self.told());
        let said = fs::read_to_string(self.pipeline.path("said")).unwrap();
        assert!(said.contains("\"conserved\":true") || said.contains("\"conserved\": true"), "{said}");
    }

    fn told(&self) -> String {
        fs::read_to_string(self.pipeline.path("told")).unwrap()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("it is ours");
            self.child.wait().expect("it was killed");
        }
    }
}

fn rows_of(path: &str, file: Bytes) -> Vec<String> {
    if path.ends_with(".jsonl") {
        return String::from_utf8(file.into()).unwrap().lines().map(str::to_owned).collect();
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let texts = |rows: RecordBatch| {
        let json = JsonRows::new(&rows).unwrap();
        let text = |row| {
            let mut text = Vec::new();
            json.write(row, &mut text);
            String::from_utf8(text).unwrap()
        };
        (0..rows.num_rows()).map(text).collect::<Vec<_>>()
    };
    reader.flat_map(|rows| texts(rows.unwrap())).collect()
}

/// Of all files in a local directory.
fn rows_below(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| rows_of(path.to_str().unwrap(), fs::read(&path).unwrap().into());
    let mut rows: Vec<_> = files.flat_map(of).collect();
    rows.sort();
    rows
}

#[test]
fn hadoops_own_client_reads_the_rows_of_the_local_copy_and_a_second_run_adds_none() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(4_000);
    pipeline.finish();
    pipeline.assert_whole(4_000);
    pipeline.finish();
    for target in TARGETS {
        let (there, here) =
            (format!("{}/{target}", pipeline.directory), pipeline.path(&format!("got-{target}")));
        cluster.hdfs.fs(&["-get", &there, here.to_str().unwrap()]).unwrap();
        assert_eq!(rows_below(&here), rows_below(&pipeline.path(&format!("copy/{target}"))), "{target}");
    }
    let all = cluster.hdfs.fs(&["-ls", "-R", &pipeline.directory]).unwrap();
    let left = all.lines().find(|line| line.starts_with('-') && line.contains("/staging/"));
    assert_eq!(left, None, "{all}");
    assert_eq!(fs::read_dir(pipeline.path("state/spool")).unwrap().count(), 0);
}

/// A killed process leaves what a sink that is stopped inside a test does not: files that are open in HDFS.
#[cfg(feature = "failpoints")]
#[test]
fn killed_between_any_two_steps_it_comes_to_the_rows_of_the_local_copy() {
    use std::os::unix::process::ExitStatusExt;

    let cluster = Cluster::take();
    for point in [
        "claim.after_temp_record",
        "file.mid_write",
        "file.before_close",
        "file.after_close",
        "file.after_temp_record",
        "file.after_put",
        "file.between_renames",
        "file.compact.between",
    ] {
        let pipeline = Pipeline::new(&cluster, &format!("{SMALL_FILES}\ncompact_after = 2"));
        pipeline.input(3_000);
        // The copy comes by there, too.
        for n in [1, 3] {
            let killed = pipeline.start_with("WEIR_KILL_AT", &format!("{point}:{n}")).end_within(LONG);
            assert!(n > 1 || killed.signal() == Some(9), "nothing comes by {point}");
        }
        pipeline.finish();
        pipeline.assert_whole(3_000);
    }
}

#[test]
fn a_datanode_that_dies_in_the_middle_of_files_costs_no_row() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, LARGE_FILES);
    // 40 MB for the lake, in three files.
    pipeline.long_input(20_000, 2_000);
    let mut running = pipeline.start();
    running.wait_until("files under way", || pipeline.are_files_under_way());
    cluster.kill_datanodes(&[1]);
    running.finish();
    pipeline.assert_whole(20_000);
}

#[test]
fn two_datanodes_of_three_that_die_are_done_without_and_all_three_are_told_and_waited_for() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(40_000);
    let mut running = pipeline.start();
    running.wait_for_files(2);
    cluster.kill_datanodes(&[1, 3]);
    running.wait_for_files(2 + pipeline.files("other").len());
    cluster.kill_datanodes(&[2]);
    running.wait_for_word("no DataNode is up, or none has room");
    // What is there may have been on those two alone.
    cluster.heal();
    running.finish();
    pipeline.assert_whole(40_000);
}

#[test]
fn a_namenode_that_is_killed_and_comes_back_is_waited_for() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(30_000);
    let mut running = pipeline.start();
    running.wait_for_files(2);
    cluster.hdfs.namenode().kill().unwrap();
    cluster.heal();
    running.finish();
    pipeline.assert_whole(30_000);
}

#[test]
fn a_namenode_in_safe_mode_is_named_and_waited_for() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(60_000);
    let mut running = pipeline.start();
    running.wait_for_files(2);
    cluster.hdfs.admin(&["-safemode", "enter"]).unwrap();
    running.wait_for_word("the NameNode is in safe mode");
    cluster.hdfs.admin(&["-safemode", "leave"]).unwrap();
    running.finish();
    pipeline.assert_whole(60_000);
}

#[test]
fn a_namenode_that_stands_still_is_waited_for() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(30_000);
    let mut running = pipeline.start();
    running.wait_for_files(2);
    cluster.hdfs.namenode().pause().unwrap();
    running.wait_for_word("no answer");
    cluster.hdfs.namenode().resume().unwrap();
    running.finish();
    pipeline.assert_whole(30_000);
}

#[test]
fn a_directory_of_somebody_else_is_refused_by_name_before_a_record_flows() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(10);
    let mut running = pipeline.start_with("HADOOP_USER_NAME", "alice");
    assert_eq!(running.end_within(SECONDS).code(), Some(3));
    let told = running.told();
    assert!(told.contains("user=alice, access=WRITE") && told.contains("HADOOP_USER_NAME"), "{told}");
    assert!(!told.contains("\tat org."), "no stack of the server's: {told}");
}

#[test]
fn a_quota_that_is_used_up_is_named_and_the_rows_come_when_there_is_room() {
    let cluster = Cluster::take();
    let pipeline =
        Pipeline::new(&cluster, "roll = { rows = 1000 }\nproperties = { \"dfs.blocksize\" = 1048576 }");
    pipeline.input(30_000);
    cluster.hdfs.fs(&["-mkdir", "-p", &pipeline.directory]).unwrap();
    // For one block with two replicas beside what the self test leaves, and not for three at once.
    cluster.hdfs.admin(&["-setSpaceQuota", "5m", &pipeline.directory]).unwrap();
    let mut running = pipeline.start();
    running.wait_for_word("E_SINK_FULL");
    cluster.hdfs.admin(&["-clrSpaceQuota", &pipeline.directory]).unwrap();
    running.finish();
    pipeline.assert_whole(30_000);
}

/// The disks of all DataNodes, full until this is dropped.
struct FullDisks<'a>(&'a Cluster);

impl<'a> FullDisks<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let full = Self(cluster);
        full.reserve("1000000000000000");
        full
    }

    /// So many bytes of each disk are not for HDFS.
    fn reserve(&self, bytes: &str) {
        for n in 1..=3 {
            let datanode = self.0.hdfs.datanode(n).unwrap();
            datanode.set("dfs.datanode.du.reserved", bytes).unwrap();
            datanode.stop().unwrap();
        }
        self.0.heal();
    }
}

impl Drop for FullDisks<'_> {
    fn drop(&mut self) {
        self.reserve("0");
    }
}

#[test]
fn disks_of_datanodes_that_are_full_are_told_and_waited_for() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(60_000);
    let mut running = pipeline.start();
    running.wait_for_files(2);
    let full = FullDisks::new(&cluster);
    // And not those that are down for a moment.
    running.wait_for_word("There are 3 datanode(s) running");
    drop(full);
    running.finish();
    pipeline.assert_whole(60_000);
}

#[test]
fn a_cluster_that_is_not_there_is_told_within_seconds() {
    let cluster = Cluster::take();
    let pipeline = Pipeline::new(&cluster, SMALL_FILES);
    pipeline.input(10);
    let mut running = pipeline.start_with("WEIR_TEST_HDFS", "hdfs://127.0.0.1:7");
    assert_eq!(running.end_within(SECONDS).code(), Some(3));
    let told = running.told();
    assert!(told.contains("no connection: Connection refused"), "{told}");
}
