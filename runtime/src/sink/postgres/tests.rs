//! The PostgreSQL sink on a real server: the laws of all sinks, lost answers, owners that stand still, and a server that
//! refuses for reasons that are no fault of the rows.
#![cfg(feature = "servers")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::database::Loss;
use super::*;
use crate::config;
use crate::offset::Offset;
use crate::sink::Part;
use crate::sink::conformance::{
    LAWS, Owner as Process, Seen, World, again, at, batch, check_laws, claim, commit, conflict, deleting,
    delivered, part, permanent,
};
use crate::sink::state::{Nonce, Refused};
use crate::sink::table::Mode;

/// Where the server is, as a URL.
const URL: &str = "WEIR_TEST_POSTGRES";

/// Where the sinks find it, if they are to go through a pooler: one that lends connections for a transaction at a time.
const POOLER: &str = "WEIR_TEST_POSTGRES_POOLER";

fn url() -> String {
    std::env::var(URL).unwrap_or_else(|_| {
        panic!(
            "{URL} does not say where a PostgreSQL server is: cargo run -p weir-services -- run postgres -- \
             cargo test -p weir --features servers --lib sink::postgres"
        )
    })
}

/// A schema that processes write to, and its readers.
struct Base {
    schema: String,
    targets: BTreeMap<Arc<str>, TableConfig>,
    /// Whether processes are made that the server soon ends when they stand still.
    hasty: AtomicBool,
}

impl Base {
    fn new() -> Self {
        let (schema, hasty) = (format!("weir it's {}", Nonce::random()), AtomicBool::new(false));
        let base = Self { schema, targets: BTreeMap::new(), hasty };
        base.ask(&format!("CREATE SCHEMA {}", quoted(&base.schema)));
        base
    }

    /// Rows of target `a` take the place of those with their key.
    fn upsert(key: &[&str]) -> Self {
        let mode = Mode::Upsert { key: key.iter().map(|name| (*name).to_owned()).collect() };
        let mut base = Self::new();
        base.targets.insert("a".into(), TableConfig { table: "a".to_owned(), mode });
        base
    }

    fn config(&self) -> PostgresConfig {
        let at = config::server_at(&std::env::var(POOLER).unwrap_or_else(|_| url()));
        let server = Server {
            host: at.host,
            port: at.port,
            database: at.database,
            user: at.user,
            password: at.password.map(|config::Secret(password)| Password(password)),
            tls: Tls::Disable,
            ca_file: None,
        };
        let idle = if self.hasty.load(Ordering::Relaxed) { 2 } else { 60 };
        let [idle, lock, statement] = [idle, 60, 120].map(Duration::from_secs);
        PostgresConfig {
            schema: self.schema.clone(),
            targets: self.targets.clone(),
            patience: Patience { idle, lock, statement },
            ..PostgresConfig::new(server, "p", "base")
        }
    }

    fn sink(&self) -> PostgresSink {
        PostgresSink::open(self.config()).unwrap()
    }

    fn claimed(&self, generation: u64) -> PostgresSink {
        let mut sink = self.sink();
        sink.claim(&claim(generation)).unwrap();
        sink
    }

    /// What the last of these statements answers: the columns of a row as text with a bar between.
    fn ask(&self, sql: &str) -> Vec<String> {
        let mut session = Session::new(self);
        session.ask(sql)
    }

    fn rejects(&self) -> Vec<String> {
        self.ask("SELECT weir_offset, reason FROM weir_reject ORDER BY weir_offset, weir_index")
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.ask(&format!("DROP SCHEMA {} CASCADE", quoted(&self.schema)));
    }
}

/// Somebody else on the same server.
struct Session {
    runtime: tokio::runtime::Runtime,
    connection: PgConnection,
}

impl Session {
    fn new(base: &Base) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(PgConnection::connect(&url())).unwrap();
        let mut session = Self { runtime, connection };
        session.ask(&format!("SET search_path TO {}; SET lock_timeout = '60s'", quoted(&base.schema)));
        session
    }

    fn try_ask(&mut self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let rows = self.runtime.block_on(self.connection.fetch_all(sql))?;
        let column = |row: &PgRow, i| {
            row.try_get_unchecked::<Option<String>, _>(i).unwrap().unwrap_or_else(|| "null".to_owned())
        };
        Ok(rows
            .iter()
            .map(|row| (0..row.len()).map(|i| column(row, i)).collect::<Vec<_>>().join("|"))
            .collect())
    }

    fn ask(&mut self, sql: &str) -> Vec<String> {
        self.try_ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a session waits for a lock that this one has. It may be one that a pooler has just made: a transaction sees
    /// in `pg_stat_activity` only those that were there when it looked first.
    fn until_somebody_waits(&mut self) {
        while self
            .ask("SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))")
            .is_empty()
        {
            thread::yield_now();
        }
    }
}

impl World for Base {
    fn process(&self) -> Box<dyn Sink> {
        Box::new(self.sink())
    }

    fn visible(&self) -> Vec<Seen> {
        let tables = format!(
            "SELECT tablename FROM pg_tables WHERE schemaname = '{}' AND tablename NOT LIKE 'weir%'",
            self.schema.replace('\'', "''")
        );
        let mut seen = Vec::new();
        for table in self.ask(&tables) {
            for row in self.ask(&format!("SELECT weir_offset, weir_index, text FROM {table}")) {
                let mut columns = row.split('|');
                let mut next = || columns.next().unwrap();
                let (offset, index) = (next().parse().unwrap(), next().parse().unwrap());
                seen.push((table.clone(), offset, index, next().to_owned()));
            }
        }
        seen.sort();
        seen
    }
}

/// Commits parts as offsets `0..n`.
fn deliver(sink: &mut PostgresSink, n: i64, parts: Vec<Part>) -> Result<Committed, Error> {
    sink.write(RoutedBatch { parts, ..batch(0, n) })?;
    sink.commit(&at(), &commit(0, n))
}

/// A part of target `a` with one row per value of its columns.
fn rows(columns: Vec<(&str, ArrayRef)>) -> Part {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    of(Schema::new(fields), columns.into_iter().map(|(_, array)| array).collect())
}

fn of(schema: Schema, columns: Vec<ArrayRef>) -> Part {
    let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let n = rows.num_rows();
    Part { rows, ..part("a", (0..n as i64).collect(), 0) }
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

fn numbers(numbers: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(numbers.to_vec()))
}

fn transient(error: Error) -> String {
    match error {
        Error::Transient(problem) => problem.to_string(),
        other => panic!("not transient: {other}"),
    }
}

/// What each table ends with, where somebody else makes it.
const OURS: &str =
    "weir_topic text, weir_partition int, weir_offset bigint, weir_index int, weir_plan bigint";

#[test]
fn tables_obey_every_law() {
    check_laws(Base::new);
}

/// But for the one that delivers the same keys by two partitions and wants to find both.
#[test]
fn tables_with_keys_obey_the_same_laws() {
    let laws = LAWS.iter().filter(|(law, _)| *law != "partitions do not disturb each other");
    assert_eq!(laws.clone().count(), LAWS.len() - 1);
    laws.for_each(|(_, check)| check(&Base::upsert(&["text"])));
}

#[test]
fn a_lost_answer_is_resolved_to_what_is_true_of_the_rows() {
    for (loss, expected) in [(Loss::After, Resolved::Committed), (Loss::Before, Resolved::NotCommitted)] {
        let base = Base::new();
        let mut sink = base.claimed(1);
        sink.write(batch(0, 3)).unwrap();
        sink.db.lose = Some(loss);
        let request = commit(0, 3);
        let Committed::Unknown(lost) = sink.commit(&at(), &request).unwrap() else { panic!("it was lost") };
        assert!(loss == Loss::After || lost.contains("terminating connection"), "{lost}");
        assert_eq!(sink.resolve(&at(), &request).unwrap(), expected);
        if expected == Resolved::NotCommitted {
            assert_eq!(base.visible(), []);
            assert_eq!(sink.commit(&at(), &request).unwrap(), Committed::Done);
        }
        assert_eq!(base.visible(), delivered(0, 3));
        sink.write(batch(3, 4)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(3, 4)).unwrap(), Committed::Done);
    }
}

#[test]
fn who_lost_the_answer_and_then_the_partition_is_told_so() {
    let base = Base::new();
    let mut sink = base.claimed(1);
    sink.write(batch(0, 3)).unwrap();
    sink.db.lose = Some(Loss::Before);
    let request = commit(0, 3);
    sink.commit(&at(), &request).unwrap();
    Process::claimed(&base, 2).deliver(0, 2);
    let refused = conflict(sink.resolve(&at(), &request).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!(base.visible(), delivered(0, 2));
}

/// The old session may still be at its COMMIT, which may take long to arrive.
#[test]
fn who_asks_for_a_lost_answer_waits_until_the_server_is_through() {
    let base = Base::new();
    let mut sink = base.claimed(1);
    sink.write(batch(0, 3)).unwrap();
    let request = commit(0, 3);
    let mut late = Session::new(&base);
    late.ask(&format!(
        "BEGIN; UPDATE weir_position SET state = state || '{{\"next\":3,\"last_commit\":\"{}\"}}'",
        request.id
    ));
    let resolved = thread::scope(|scope| {
        let asks = scope.spawn(|| sink.resolve(&at(), &request));
        late.until_somebody_waits();
        late.ask("COMMIT");
        asks.join().unwrap()
    });
    assert_eq!(resolved.unwrap(), Resolved::Committed);
}

/// It was told how long the server waits for it; the claim waits longer.
#[test]
fn an_owner_that_stands_still_in_its_commit_is_ended_by_the_server() {
    let base = Base::new();
    base.hasty.store(true, Ordering::Relaxed);
    let mut zombie = base.claimed(1);
    base.hasty.store(false, Ordering::Relaxed);
    zombie.write(batch(0, 5)).unwrap();
    let positions = zombie.positions.clone();
    let ended = zombie.db.transaction(|db| {
        positions.read(db, &[&at()])?;
        Process::claimed(&base, 2).deliver(0, 3);
        Ok(())
    });
    let lost = match ended {
        Ok(Ended::Unknown((), lost)) => lost,
        Ok(Ended::Committed(())) => panic!("it was ended"),
        Err(error) => transient(error),
    };
    assert!(lost.contains("idle-in-transaction"), "{lost}");
    assert!(matches!(conflict(zombie.commit(&at(), &commit(0, 5)).unwrap_err()), Refused::Fenced { .. }));
    assert_eq!(base.visible(), delivered(0, 3));
}

/// A session that was ended while nothing was under way has nothing to be asked for.
#[test]
fn a_connection_that_was_lost_between_two_commits_is_made_again() {
    let base = Base::new();
    let mut sink = base.claimed(1);
    for (start, end) in [(0, 2), (2, 4)] {
        let mine = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'weir' AND pid = ";
        let pid = sink.db.repeatable(|db| db.query("SELECT pg_backend_pid()", parameters::no_values()));
        base.ask(&format!("{mine}{}", pid.unwrap()[0].get::<i32, _>(0)));
        sink.write(batch(start, end)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(start, end)).unwrap(), Committed::Done);
    }
    let mut all = delivered(0, 4);
    all.sort();
    assert_eq!(base.visible(), all);
}

#[test]
fn a_server_that_is_read_only_locked_or_slow_is_no_fault_of_the_rows() {
    let base = Base::new();
    let mut sink = base.claimed(1);
    sink.prepare(&"a".into(), "to-a", batch(0, 1).parts[0].rows.schema_ref()).unwrap();
    let check = |sink: &mut PostgresSink, expected: &str| {
        sink.write(batch(0, 5)).unwrap();
        let text = transient(sink.commit(&at(), &commit(0, 5)).unwrap_err());
        assert!(text.contains(expected), "{text}");
    };
    let read_only = "SET default_transaction_read_only = on";
    sink.db.repeatable(|db| db.run(read_only, parameters::no_values())).unwrap();
    check(&mut sink, "read-only");

    let mut other = Session::new(&base);
    other.ask("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE");
    let mut config = base.config();
    config.patience.lock = Duration::from_millis(300);
    let mut waiting = PostgresSink::open(config).unwrap();
    waiting.claim(&claim(2)).unwrap();
    check(&mut waiting, "lock timeout");
    other.ask("ROLLBACK");

    base.ask("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION slow()");
    let mut config = base.config();
    config.patience.statement = Duration::from_millis(300);
    let mut hurried = PostgresSink::open(config).unwrap();
    hurried.claim(&claim(3)).unwrap();
    check(&mut hurried, "statement timeout");
    assert_eq!((base.visible(), base.rejects().len()), (Vec::new(), 0));
    base.ask("DROP TRIGGER t ON a");
    assert_eq!(hurried.commit(&at(), &commit(0, 5)).unwrap(), Committed::Done);
    assert_eq!((base.visible(), base.rejects().len()), (delivered(0, 5), 0));
}

#[test]
fn a_user_without_the_right_is_told_so_and_no_row_is_rejected() {
    let base = Base::new();
    let name = quoted(&format!("weir {}", Nonce::random()));
    let schema = quoted(&base.schema);
    base.sink();
    base.ask(&format!("CREATE ROLE {name}; GRANT USAGE ON SCHEMA {schema} TO {name}; GRANT ALL ON weir_position, weir_reject TO {name}; CREATE TABLE a (text text, number bigint, {OURS})"));
    let mut sink = base.claimed(1);
    let limit = format!("SET SESSION AUTHORIZATION {name}");
    sink.db.repeatable(|db| db.run(AssertSqlSafe(limit), parameters::no_values())).unwrap();
    sink.write(batch(0, 1)).unwrap();
    let text = transient(sink.commit(&at(), &commit(0, 1)).unwrap_err());
    assert!(text.starts_with("E_SINK_DENIED"), "{text}");
    assert_eq!(base.rejects(), [""; 0]);
    base.ask(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
}

/// Both were to wait for each other; the server ends one, which begins again by itself.
#[test]
fn a_deadlock_is_tried_again_at_once() {
    let base = Base::upsert(&["k"]);
    let mut sink = base.claimed(1);
    deliver(&mut sink, 1, vec![rows(vec![("k", numbers(&[1])), ("n", numbers(&[0]))])]).unwrap();
    base.ask(
        "INSERT INTO a SELECT 2, n, weir_topic, weir_partition, weir_offset, weir_index, weir_plan FROM a",
    );
    let part = rows(vec![("k", numbers(&[2, 1])), ("n", numbers(&[5, 5]))]);
    let part = Part { offsets: vec![1, 2].into(), ..part };
    sink.write(RoutedBatch { parts: vec![part], ..batch(1, 3) }).unwrap();
    // Long enough that the sink is the one who looks for a deadlock, and is undone.
    let mut other = Session::new(&base);
    other.ask("SET deadlock_timeout = '60s'; BEGIN; UPDATE a SET n = 9 WHERE k = 2");
    let committed = thread::scope(|scope| {
        let commits = scope.spawn(|| sink.commit(&at(), &commit(1, 3)));
        other.until_somebody_waits();
        other.ask("UPDATE a SET n = 9 WHERE k = 1");
        other.ask("COMMIT");
        commits.join().unwrap()
    });
    assert_eq!(committed.unwrap(), Committed::Done);
    assert_eq!(base.ask("SELECT k, n FROM a ORDER BY k"), ["1|5", "2|5"]);
}

#[test]
fn two_processes_write_to_one_database_at_once() {
    let base = Base::new();
    thread::scope(|scope| {
        for partition in 0..3 {
            let base = &base;
            scope.spawn(move || {
                let mut sink = base.sink();
                let at = TopicPartition::new("customers", partition);
                sink.claim(&Claim { at: at.clone(), ..claim(1) }).unwrap();
                for n in 0..20 {
                    sink.write(RoutedBatch { at: at.clone(), ..batch(n, n + 1) }).unwrap();
                    assert_eq!(sink.commit(&at, &commit(n, n + 1)).unwrap(), Committed::Done);
                }
            });
        }
    });
    let all = "SELECT count(*), count(DISTINCT weir_partition * 100 + weir_offset) FROM a";
    assert_eq!(base.ask(all), ["60|60"]);
}

#[test]
fn a_state_of_a_newer_version_or_one_that_cannot_be_read_is_refused() {
    for (damage, expected) in [("version = 3", "E_LOG_NEWER"), ("state = '{}'", "E_LOG_CORRUPT")] {
        let base = Base::new();
        Process::claimed(&base, 1).deliver(0, 2);
        base.ask(&format!("UPDATE weir_position SET {damage}"));
        let text = permanent(Process::new(&base, 2).claim().unwrap_err());
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn pipelines_and_sinks_in_one_schema_have_positions_of_their_own() {
    let base = Base::new();
    Process::claimed(&base, 1).deliver(0, 2);
    for other in [
        PostgresConfig { sink: "other".into(), ..base.config() },
        PostgresConfig { pipeline: "q".into(), ..base.config() },
    ] {
        assert_eq!(PostgresSink::open(other).unwrap().claim(&claim(1)).unwrap().next, Offset::ZERO);
    }
    let text =
        "SELECT pipeline, sink, topic, partition, version, state ->> 'next' FROM weir_position ORDER BY 1, 2";
    let expected = ["p|base|customers|0|1|2", "p|other|customers|0|1|0", "q|base|customers|0|1|0"];
    assert_eq!(base.ask(text), expected);
}

/// Any partition of the same name tells that the topic is another one.
#[test]
fn a_topic_that_was_replaced_is_seen_by_a_partition_that_was_never_here() {
    let base = Base::new();
    Process::claimed(&base, 1);
    let mut other = claim(2);
    other.topic_id = "id-2".into();
    other.at = TopicPartition::new("customers", 5);
    let text = permanent(base.sink().claim(&other).unwrap_err());
    assert!(text.starts_with("E_TOPIC_REPLACED"), "{text}");
}

/// The loser of the race to make the row waits for the winner, and is fenced by it.
#[test]
fn two_first_claims_at_once_are_one_after_the_other() {
    let base = Base::new();
    base.sink();
    let claimed: Vec<_> = thread::scope(|scope| {
        let claims: Vec<_> = (1..=6)
            .map(|n| {
                scope.spawn({
                    let base = &base;
                    move || base.sink().claim(&claim(n))
                })
            })
            .collect();
        claims.into_iter().map(|claim| claim.join().unwrap()).collect()
    });
    assert!(claimed[5].is_ok());
    for refused in claimed.into_iter().filter_map(Result::err) {
        assert!(matches!(conflict(refused), Refused::Fenced { .. }));
    }
    assert_eq!(base.ask("SELECT state -> 'epoch' ->> 'generation' FROM weir_position"), ["6"]);
}

/// Neither the server's name nor a password stands in what people see of the sink.
#[test]
fn whoever_cannot_be_reached_or_does_not_let_us_in_is_named_without_the_password() {
    let base = Base::new();
    let with = |change: &dyn Fn(&mut Server)| {
        let mut config = base.config();
        config.server.password = Some(Password("geheim".to_owned()));
        change(&mut config.server);
        let shown = format!("{config:?}");
        assert!(!shown.contains("geheim"), "{shown}");
        PostgresSink::open(config).map(drop).unwrap_err()
    };
    let nobody = transient(with(&|server| server.port = 1));
    assert!(nobody.contains("refused") && !nobody.contains("geheim"), "{nobody}");
    let no_database = permanent(with(&|server| server.database = "no such database".to_owned()));
    assert!(
        no_database.starts_with("E_SINK_SCHEMA") && no_database.contains("does not exist"),
        "{no_database}"
    );
    let no_role = transient(with(&|server| server.user = "no such role".to_owned()));
    assert!(no_role.starts_with("E_SINK_DENIED"), "{no_role}");
}

mod again;
mod bad_rows;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fit;
mod together;
