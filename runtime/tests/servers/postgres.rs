//! Customers into PostgreSQL: the same rows as into SQLite, once, and the poisoned ones apart.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ColumnIndex, ConnectOptions, Connection, Decode, Executor, PgConnection, Row};
use tempfile::TempDir;
use weir::sink::state::Nonce;

/// Where the server is, as a URL.
const URL: &str = "WEIR_TEST_POSTGRES";

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
usa = ["base.usa", "local.usa"]
alerts = ["base.alerts", "local.alerts"]
other = ["base.other", "local.other"]

[dead_letter]
to = "base.dead_letters"

[sinks.local.sqlite]
path = "local.db"
commit = { rows = 700 }
targets.usa = { table = "customers", mode = "MODE", KEY }

[sinks.base.postgres]
url = "${WEIR_TEST_POSTGRES}"
schema = "SCHEMA"
commit = { rows = 1000 }
targets.usa = { table = "customers", mode = "MODE", KEY }
"#;

/// A pipeline in a directory and a schema of its own.
struct Pipeline {
    dir: TempDir,
    schema: String,
}

impl Pipeline {
    fn new(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = Self { dir, schema: format!("weir_{}", Nonce::random().short()) };
        fs::create_dir(pipeline.path("input")).expect("writable");
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).expect("writable");
        fs::write(pipeline.path("us_cities.csv"), "city\nBoston\nAustin\n").expect("writable");
        let (mode, key) = match key {
            Some(key) => ("upsert", format!("key = [\"{key}\"]")),
            None => ("append", "key = []".to_owned()),
        };
        let file = FILE.replace("MODE", mode).replace("KEY", &key).replace("SCHEMA", &pipeline.schema);
        fs::write(pipeline.path("pipeline.toml"), file).expect("writable");
        pipeline.ask(&format!("CREATE SCHEMA {}", pipeline.schema));
        pipeline
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Customers, American every other time; `change` makes the fields of one.
    fn input(&self, records: u32, change: impl Fn(u32, &mut [String; 6])) {
        let mut text = "id,first_name,last_name,email,age,location\n".to_owned();
        for n in 0..records {
            let place = ["Boston", "Lyon", "austin, Texas", ""][n as usize % 4];
            let mut fields = [
                format!("c{n}"),
                "Ada".to_owned(),
                "Lovelace".to_owned(),
                format!("{n}@example.com"),
                (n % 90).to_string(),
                place.to_owned(),
            ];
            change(n, &mut fields);
            let [id, first, last, email, age, place] = fields;
            writeln!(text, "{id},{first},{last},{email},{age},\"{place}\"").expect("memory takes text");
        }
        fs::write(self.path("input/a.csv"), text).expect("writable");
    }

    fn program(&self, kill_at: Option<&str>) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["run", "--once", "--json"]).arg(self.path("pipeline.toml"));
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        weir.envs(kill_at.map(|point| ("WEIR_KILL_AT", point)));
        weir
    }

    fn run(&self, kill_at: Option<&str>) -> Output {
        self.program(kill_at).output().expect("the program starts")
    }

    /// Runs to the end of the input, and returns what the program says of it.
    fn finish(&self) -> Value {
        let output = self.run(None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.schema, sql)
    }

    /// What SQLite answers, likewise.
    fn ask_local(&self, sql: &str) -> Vec<String> {
        let file = SqliteConnectOptions::new().filename(self.path("local.db"));
        let rows = runtime().block_on(async {
            let mut connection = file.connect().await?;
            let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(rows)
        });
        rows.expect("the database answers").iter().map(text).collect()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.ask(&format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}

/// What PostgreSQL answers about a schema, a text per row.
pub(crate) fn ask(schema: &str, sql: &str) -> Vec<String> {
    let url = std::env::var(URL).unwrap_or_else(|_| {
        panic!(
            "{URL} does not say where a PostgreSQL server is: cargo run -p weir-services -- run postgres -- \
             cargo test -p weir --features servers --test servers"
        )
    });
    let sql = format!("SET search_path TO {schema}; {sql}");
    let rows = runtime().block_on(async {
        let mut connection = PgConnection::connect(&url).await?;
        let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(rows)
    });
    rows.expect("the server answers").iter().map(text).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn text<R: Row>(row: &R) -> String
where
    usize: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database>,
{
    let column = |i| row.try_get_unchecked::<Option<String>, _>(i).expect("text").unwrap_or_default();
    (0..row.len()).map(column).collect::<Vec<_>>().join("|")
}

const TABLES: [&str; 3] = ["customers", "alerts", "other"];

fn sorted(table: &str) -> String {
    format!("SELECT * FROM {table} ORDER BY weir_offset")
}

/// By COPY, and by keys, of which some come several times.
#[test]
fn postgresql_gets_the_rows_that_sqlite_gets_and_a_second_run_adds_nothing() {
    for key in [None, Some("first_name"), Some("id")] {
        let pipeline = Pipeline::new(key);
        pipeline.input(2500, |n, fields| {
            if key == Some("first_name") {
                fields[1] = format!("name {}", n % 600);
            }
            if n == 77 {
                fields[2] = "Zoë \"\" 👩‍👩‍👧‍👦 \\N".to_owned();
            }
        });
        let said = pipeline.finish();
        assert_eq!((&said["records"], &said["conserved"]), (&2500.into(), &true.into()));
        for table in TABLES {
            let rows = pipeline.ask(&sorted(table));
            assert!(rows.len() >= 300, "{table} {}", rows.len());
            assert_eq!(rows, pipeline.ask_local(&sorted(table)), "{table}");
        }
        let all = || TABLES.map(|table| pipeline.ask(&sorted(table)));
        let first = all();
        assert_eq!(pipeline.finish()["records"], 0);
        assert_eq!(all(), first);
    }
}

#[test]
fn poison_among_5000_customers_is_refused_alone() {
    let pipeline = Pipeline::new(None);
    pipeline.ask(
        "CREATE TABLE customers (id text, first_name text, last_name text, age numeric(2,0), email text UNIQUE, country text,
         weir_topic text, weir_partition int, weir_offset bigint, weir_index int, weir_plan bigint)",
    );
    // All American: in text no NUL, in two digits no 110, of each e-mail one.
    pipeline.input(5000, |n, fields| {
        fields[5] = "Boston".to_owned();
        match n {
            1200 => fields[1] = "A\0a".to_owned(),
            2400 => fields[4] = "110".to_owned(),
            4800 => fields[3] = "7@example.com".to_owned(),
            _ => {}
        }
    });
    let said = pipeline.finish();
    assert_eq!(said["counters"]["refused"], 4, "three here, and SQLite the NUL: {said}");
    let rejects = pipeline.ask("SELECT weir_offset, reason, sqlstate FROM weir_reject ORDER BY weir_offset");
    let expected = [
        "1200|0x00 is not allowed in text: column `first_name`|",
        "2400|out of range for numeric(2,0): column `age`|",
        "4800|duplicate key value violates unique constraint \"customers_email_key\"|23505",
    ];
    assert_eq!(rejects, expected);
    assert_eq!(pipeline.ask("SELECT count(*), count(DISTINCT weir_offset) FROM customers"), ["4997|4997"]);
}

#[test]
fn a_table_that_does_not_fit_stops_the_program_before_a_record_flows() {
    let pipeline = Pipeline::new(None);
    pipeline.ask("CREATE TABLE customers (id text, age text)");
    pipeline.input(10, |_, _| {});
    let output = pipeline.run(None);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("E_SINK_SCHEMA: table `customers` has no column `first_name`"), "{told}");
    assert!(told.contains("ADD COLUMN \"first_name\" text"), "{told}");
}

/// Killed at each of its steps and started again, it comes to the rows of a run that nothing disturbed.
#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_failpoint_it_comes_to_the_rows_of_an_undisturbed_run() {
    use std::os::unix::process::ExitStatusExt;

    let new = || {
        let pipeline = Pipeline::new(Some("id"));
        pipeline.ask(
            "CREATE TABLE customers (id text PRIMARY KEY, first_name text, last_name text, age bigint CHECK (age <> 8),
             email text, country text, weir_topic text, weir_partition int, weir_offset bigint, weir_index int, weir_plan bigint)",
        );
        pipeline.input(3000, |n, fields| fields[0] = format!("c{}", n % 1000));
        pipeline
    };
    let all = |pipeline: &Pipeline| {
        let tables = TABLES.into_iter().chain(["weir_reject"]);
        tables.map(|table| pipeline.ask(&sorted(table))).collect::<Vec<_>>()
    };
    let undisturbed = new();
    undisturbed.finish();
    let expected = all(&undisturbed);
    assert!(expected.iter().all(|rows| rows.len() > 10));
    for point in weir::sink::postgres::FAILPOINTS {
        let mut deaths = 0;
        for n in 1..=2 {
            let pipeline = new();
            let died = pipeline.run(Some(&format!("{point}:{n}"))).status.signal() == Some(9);
            deaths += u32::from(died);
            pipeline.finish();
            assert_eq!(all(&pipeline), expected, "after a death at {point}:{n}");
        }
        assert!(deaths > 0, "nothing comes by {point}");
    }
}

/// What `weir doctor` finds that is not ok, by what it is about, with what is to be done.
fn ailments(pipeline: &Pipeline, url: &str) -> (Vec<String>, Value) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["doctor", "--json"]).arg(pipeline.path("pipeline.toml")).env(URL, url);
    let output =
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().expect("the program starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let bad =
        said["findings"].as_array().expect("a list").iter().filter(|finding| finding["grade"] == "fail");
    let bad = bad.map(|finding| format!("{} {} -> {}", finding["what"], finding["found"], finding["fix"]));
    (bad.collect(), said)
}

#[test]
fn a_doctor_tries_in_a_database_what_a_run_would_do_and_leaves_nothing() {
    let pipeline = Pipeline::new(Some("id"));
    pipeline.input(10, |_, _| {});
    let url = std::env::var(URL).expect("it was asked for above");
    let (bad, said) = ailments(&pipeline, &url);
    assert_eq!(bad, [""; 0], "{said}");
    let text = said.to_string();
    assert!(text.contains("PostgreSQL 1") && text.contains("it will be made"), "{text}");
    let tables = || pipeline.ask("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()");
    assert_eq!(tables(), ["0"]);
    pipeline.finish();
    let (bad, said) = ailments(&pipeline, &url);
    assert!(bad.is_empty() && !said.to_string().contains("it will be made"), "{said}");
    assert_eq!(pipeline.finish()["records"], 0);
}

/// It is found out by what it does, and not by its name.
#[test]
fn a_pooler_in_transaction_mode_is_told_at_the_start_of_a_run_and_by_a_doctor_and_changes_no_row() {
    const TOLD: &str = "sink base: a pooler in transaction mode is in between";
    let pipeline = Pipeline::new(Some("id"));
    pipeline.input(2500, |_, _| {});
    let pooler = crate::given("WEIR_TEST_POSTGRES_POOLER");
    let through = |url: &str| {
        let output = pipeline.program(None).env(URL, url).output().expect("the program starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        told.contains(TOLD)
    };
    assert!(through(&pooler));
    let all = || TABLES.map(|table| pipeline.ask(&sorted(table)));
    assert_eq!(all(), TABLES.map(|table| pipeline.ask_local(&sorted(table))));
    let (before, direct) = (all(), std::env::var(URL).expect("it was asked for above"));
    assert!(!through(&direct), "there is none in between");
    assert_eq!(all(), before);
    for (url, expected) in [(&pooler, true), (&direct, false)] {
        let (bad, said) = ailments(&pipeline, url);
        assert!(bad.is_empty(), "{said}");
        assert_eq!(said.to_string().contains("a pooler in transaction mode"), expected, "{said}");
    }
}

#[test]
fn a_doctor_names_the_right_that_is_missing_and_the_column_that_does_not_fit() {
    let pipeline = Pipeline::new(None);
    pipeline.input(10, |_, _| {});
    pipeline.finish();
    let (schema, user) = (&pipeline.schema, format!("reader_{}", pipeline.schema));
    pipeline.ask(&format!(
        "CREATE ROLE {user} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {user}; \
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {user}; \
         REVOKE INSERT ON other FROM {user}; ALTER TABLE alerts ALTER COLUMN weir_plan TYPE text"
    ));
    let url = std::env::var(URL).expect("it was asked for above");
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, host) = rest.rsplit_once('@').expect("a user");
    let (bad, said) = ailments(&pipeline, &format!("{scheme}://{user}@{host}"));
    pipeline.ask(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
    assert_eq!(bad.len(), 2, "{said}");
    assert!(bad[0].contains("column `weir_plan`") && bad[0].contains("it has to be bigint"), "{bad:?}");
    assert!(bad[1].contains("the user may not INSERT in") && bad[1].contains("GRANT INSERT ON"), "{bad:?}");
}

#[test]
fn a_doctor_tells_of_tables_that_fit_each_alone_and_not_together() {
    let pipeline = Pipeline::new(None);
    pipeline.input(10, |_, _| {});
    pipeline.finish();
    pipeline.ask(
        "TRUNCATE other; ALTER TABLE alerts ADD UNIQUE (weir_offset); \
         ALTER TABLE other ADD FOREIGN KEY (weir_offset) REFERENCES alerts (weir_offset)",
    );
    let url = std::env::var(URL).expect("it was asked for above");
    let (bad, said) = ailments(&pipeline, &url);
    let [told] = &bad[..] else { panic!("{said}") };
    assert!(
        told.contains("all tables together") && told.contains("table `other` refers to `alerts`"),
        "{told}"
    );
}
