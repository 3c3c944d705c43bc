//! One connection to a server: statements one after the other, and transactions. The only place with anything
//! asynchronous in it, and the only one that knows how an error of PostgreSQL comes. It knows no partition, no table and
//! no row.
//!
//! It keeps to what also works through a pooler that lends a connection for a transaction at a time: there is no
//! statement outside of a transaction, none is kept prepared, and every setting is one of the transaction.

use std::time::Duration;

use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgRow, PgSeverity, PgSslMode,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr};
use tokio::runtime::{Builder, Runtime};

use super::meaning::{Meaning, meaning, surely_undone};
#[cfg(all(test, feature = "servers"))]
use super::parameters::no_values;
use super::{Patience, Server, Tls, socket};
use crate::sink::{Error, Problem};

/// A server answers a first word within this time, or is not there.
const CONNECT: Duration = Duration::from_secs(20);

/// A server that waits for the rest of a COPY is not idle: it misses whose network was cut by this, after 25 s.
const MISSED: &str = "SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; \
                      SET LOCAL tcp_keepalives_count = 3";

/// The first version that tells which columns it makes itself.
const OLDEST: u32 = 12;

/// What is sent at once: the driver keeps a copy of it.
const PIECE: usize = 256 << 10;

/// A database in the hands of one thread.
pub(super) struct Database {
    server: Server,
    patience: Patience,
    runtime: Runtime,
    /// `None` after an error that leaves it in doubt: the next transaction connects again.
    connection: Option<PgConnection>,
    /// Whether the last error was a collision with another transaction.
    collided: bool,
    #[cfg(all(test, feature = "servers"))]
    pub(super) lose: Option<Loss>,
    /// How many statements and scripts were sent.
    #[cfg(all(test, feature = "servers"))]
    pub(super) sent: usize,
}

/// How a transaction ended whose work was done.
pub(super) enum Ended<T> {
    /// It is durable.
    Committed(T),
    /// Nobody knows whether it happened. The text says why.
    Unknown(T, String),
}

/// Why a statement was not done.
pub(super) enum Failure {
    /// The database refuses a row for what is in it.
    Data(Refusal),
    /// Anything else.
    Sink(Error),
}

/// Why a row was refused.
pub(super) struct Refusal {
    /// The database's own words.
    pub(super) reason: String,
    /// Its code, if it was the database.
    pub(super) sqlstate: Option<String>,
}

/// The answer of a commit is lost on purpose.
#[cfg(all(test, feature = "servers"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// The server ends the session before it reads the word.
    Before,
    /// It was done.
    After,
}

impl Database {
    /// Connects.
    pub(super) fn open(server: Server, patience: Patience) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| {
            Error::Transient(Problem::new("cannot make what waits for the database").source(e))
        })?;
        let mut database = Self {
            server,
            patience,
            runtime,
            connection: None,
            collided: false,
            #[cfg(all(test, feature = "servers"))]
            lose: None,
            #[cfg(all(test, feature = "servers"))]
            sent: 0,
        };
        database.connection = Some(database.connect()?);
        Ok(database)
    }

    /// For people: the database, without the password.
    pub(super) fn show(&self) -> String {
        self.server.to_string()
    }

    /// Whether the last transaction was undone because of another one: then the same may be tried again at once.
    pub(super) fn take_collided(&mut self) -> bool {
        std::mem::take(&mut self.collided)
    }

    /// Runs one statement of a transaction; answers how many rows it changed.
    pub(super) fn execute(&mut self, sql: impl SqlSafeStr, values: PgArguments) -> Result<u64, Failure> {
        let done = self.wait(async |connection| {
            sqlx::query_with(sql, values).persistent(false).execute(connection).await
        });
        done.map(|done| done.rows_affected()).map_err(|e| self.failure(&e))
    }

    /// Runs one statement that no data can make fail.
    pub(super) fn run(&mut self, sql: impl SqlSafeStr, values: PgArguments) -> Result<u64, Error> {
        self.execute(sql, values).map_err(|failure| self.unexpected(failure))
    }

    /// All rows of a query.
    pub(super) fn query(&mut self, sql: impl SqlSafeStr, values: PgArguments) -> Result<Vec<PgRow>, Error> {
        let rows = self.wait(async |connection| {
            sqlx::query_with(sql, values).persistent(false).fetch_all(connection).await
        });
        rows.map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })
    }

    /// All rows that statements without parameters answer. They are sent together, and answered once.
    pub(super) fn ask(&mut self, script: &str) -> Result<Vec<PgRow>, Error> {
        let script = sqlx::raw_sql(AssertSqlSafe(script.to_owned()));
        let rows = self.wait(async |connection| connection.fetch_all(script).await);
        rows.map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })
    }

    /// Adds rows by a `COPY ... FROM STDIN`; answers how many were.
    pub(super) fn copy(&mut self, sql: &str, rows: &[u8]) -> Result<u64, Failure> {
        let done = self.wait(async |connection| {
            let mut copy = connection.copy_in_raw(sql).await?;
            for piece in rows.chunks(PIECE) {
                copy.send(piece).await?;
            }
            copy.finish().await
        });
        done.map_err(|e| self.failure(&e))
    }

    /// Runs what changes rows so that it is done as a whole or not at all, and the transaction goes on either way.
    pub(super) fn change(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.script("SAVEPOINT weir_rows").map_err(Failure::Sink)?;
        let done = work(self);
        let end = match done {
            Ok(()) => "RELEASE weir_rows",
            Err(Failure::Data(_)) => "ROLLBACK TO weir_rows; RELEASE weir_rows",
            Err(Failure::Sink(_)) => return done,
        };
        self.script(end).map_err(Failure::Sink)?;
        done
    }

    fn unexpected(&self, failure: Failure) -> Error {
        match failure {
            Failure::Data(why) => {
                Error::Permanent(Problem::new(format!("`{}`: {}", self.show(), why.reason)))
            }
            Failure::Sink(error) => error,
        }
    }

    /// Does `work` in one transaction. An error of `work` undoes all of it.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<Ended<T>, Error> {
        self.begin()?;
        match work(self) {
            Ok(done) => Ok(match self.commit()? {
                None => Ended::Committed(done),
                Some(lost) => Ended::Unknown(done, lost),
            }),
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// The same, where it may simply be asked for again if the answer is lost.
    pub(super) fn repeatable<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.transaction(work)? {
            Ended::Committed(done) => Ok(done),
            Ended::Unknown(_, lost) => Err(Error::Transient(Problem::new(lost))),
        }
    }

    /// A connection that was lost since the last transaction is made again: nothing was asked of it yet.
    fn begin(&mut self) -> Result<(), Error> {
        self.collided = false;
        let Patience { idle, lock, statement } = self.patience;
        // A constraint that waits for the commit would refuse all of it, and nobody knew the row.
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET LOCAL statement_timeout = {}; SET CONSTRAINTS ALL IMMEDIATE; {MISSED}",
            idle.as_millis(),
            lock.as_millis(),
            statement.as_millis()
        );
        if self.connection.is_some() {
            let begun = self.script(&sql);
            if begun.is_ok() || self.connection.is_some() {
                return begun.inspect_err(|_| self.roll_back());
            }
        }
        self.connection = Some(self.connect()?);
        self.script(&sql).inspect_err(|_| self.roll_back())
    }

    /// Statements without parameters, sent together.
    fn script(&mut self, sql: &str) -> Result<(), Error> {
        self.try_script(sql).map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })
    }

    fn try_script(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.wait(async |connection| connection.execute(sql).await.map(drop))
    }

    /// What went wrong, if the answer is lost.
    fn commit(&mut self) -> Result<Option<String>, Error> {
        #[cfg(all(test, feature = "servers"))]
        let loss = self.lose.take();
        #[cfg(all(test, feature = "servers"))]
        if loss == Some(Loss::Before) {
            self.end_session();
        }
        // A COMMIT of a transaction that failed would undo it, and call that a success; the SELECT fails.
        let committed = self.try_script("SELECT; COMMIT");
        #[cfg(all(test, feature = "servers"))]
        if loss == Some(Loss::After) {
            self.connection = None;
            return Ok(Some("the answer was lost".to_owned()));
        }
        let Err(error) = committed else { return Ok(None) };
        let (code, fatal) = described(&error);
        let known = code.is_some_and(|code| surely_undone(&code, fatal));
        let failure = self.failure(&error);
        if !known {
            // Whatever became of it, nothing more may come of this session.
            self.connection = None;
            return Ok(Some(error.to_string()));
        }
        self.roll_back();
        Err(match failure {
            Failure::Data(why) => {
                let text = format!("E_SINK_SCHEMA: `{}` refuses the commit: {}", self.show(), why.reason);
                let hint =
                    "make what runs at the commit immediate: only then the row is known that breaks it";
                Error::Permanent(Problem::new(text).hint(hint))
            }
            Failure::Sink(error) => error,
        })
    }

    fn roll_back(&mut self) {
        // What cannot be rolled back ends with the connection.
        if self.connection.is_some() && self.try_script("ROLLBACK").is_err() {
            self.connection = None;
        }
    }

    /// Does one thing on the connection; never on another one than that on which the transaction began. Whoever waits
    /// longer than the server itself would, waits for nobody.
    fn wait<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        #[cfg(all(test, feature = "servers"))]
        {
            self.sent += 1;
        }
        let Some(connection) = &mut self.connection else {
            let lost = std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost");
            return Err(sqlx::Error::Io(lost));
        };
        let most = self.patience.statement + CONNECT;
        let done = self.runtime.block_on(async { tokio::time::timeout(most, work(connection)).await });
        done.unwrap_or_else(|_| Err(no_answer(most)))
    }

    fn connect(&mut self) -> Result<PgConnection, Error> {
        let options = options(&self.server);
        let connected =
            self.runtime.block_on(async { tokio::time::timeout(CONNECT, options.connect()).await });
        let connection = connected.unwrap_or_else(|_| Err(no_answer(CONNECT))).map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })?;
        new_enough(connection.server_version_num(), &self.server)?;
        socket::hurry(self.server.port);
        Ok(connection)
    }

    fn failure(&mut self, error: &sqlx::Error) -> Failure {
        let (code, fatal) = described(error);
        if code.is_none() || fatal {
            self.connection = None;
        }
        let (text, hint) = match pg(error) {
            Some(error) => (error.message().to_owned(), error.hint().map(str::to_owned)),
            None => (error.to_string(), None),
        };
        let problem = |what: &str, advice: Option<&str>| {
            let problem = Problem::new(format!("{what}`{}`: {text}", self.server));
            match hint.as_deref().or(advice) {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        };
        let Some(code) = code else {
            let of_tls = match error {
                sqlx::Error::Tls(_) => true,
                // A certificate that is not believed.
                sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
                _ => false,
            };
            let advice = "`tls` says how the server has to prove who it is, `ca_file` by whose certificate";
            let advice = of_tls.then_some(advice);
            return Failure::Sink(Error::Transient(problem("", advice)));
        };
        let meaning = meaning(&code);
        self.collided |= meaning == Meaning::Collision;
        match meaning {
            Meaning::Data => Failure::Data(Refusal { reason: text, sqlstate: Some(code) }),
            Meaning::Passing | Meaning::Collision => Failure::Sink(Error::Transient(problem("", None))),
            Meaning::Denied => {
                let advice = Some("give the user of the sink the right to do so, or the right password");
                Failure::Sink(Error::Transient(problem("E_SINK_DENIED: ", advice)))
            }
            Meaning::Schema => {
                // Of a table that is not there.
                let advice = (code == "42P01").then_some(
                    "restore it with the rows that it had: a new run makes one that is missing, without them",
                );
                Failure::Sink(Error::Permanent(problem("E_SINK_SCHEMA: ", advice)))
            }
        }
    }

    /// Ends the session from another one, as an operator would.
    #[cfg(all(test, feature = "servers"))]
    fn end_session(&mut self) {
        use sqlx::Row;
        let pid = self.query("SELECT pg_backend_pid()", no_values()).map(|rows| rows[0].get::<i32, _>(0));
        let pid = pid.expect("a session has a number");
        let mut other = Self::open(self.server.clone(), self.patience).expect("the server is there");
        let ended = other.repeatable(|other| {
            other.run(AssertSqlSafe(format!("SELECT pg_terminate_backend({pid}, 10000)")), no_values())
        });
        ended.expect("who tests may end sessions");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let closed = self
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(1), connection.close()).await });
            tracing::trace!(server = self.show(), ?closed, "the connection was closed");
        }
    }
}

/// Nothing of it comes from the environment that is said here. No statement is kept, and the server is told of no
/// setting that a pooler would not know.
fn options(server: &Server) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&server.host)
        .port(server.port)
        .database(&server.database)
        .username(&server.user)
        .password(server.password.as_ref().map_or("", |password| password.0.as_str()))
        .ssl_mode(match server.tls {
            Tls::Disable => PgSslMode::Disable,
            Tls::Require => PgSslMode::Require,
            Tls::VerifyCa => PgSslMode::VerifyCa,
            Tls::VerifyFull => PgSslMode::VerifyFull,
        })
        .application_name("weir")
        .extra_float_digits(None)
        .statement_cache_capacity(0)
        .disable_statement_logging();
    if let Some(file) = &server.ca_file {
        options = options.ssl_root_cert(file);
    }
    options
}

/// Whether a server is new enough; one that says nothing of itself is believed to be. `number` is 170_002 for 17.2, and was
/// 90_624 for 9.6.24.
fn new_enough(number: Option<u32>, server: &Server) -> Result<(), Error> {
    let Some(number) = number.filter(|number| number / 10_000 < OLDEST) else { return Ok(()) };
    let version = match number / 10_000 {
        major @ 10.. => format!("{major}.{}", number % 10_000),
        major => format!("{major}.{}.{}", number / 100 % 100, number % 100),
    };
    let text = format!("E_TOO_OLD: `{server}` runs PostgreSQL {version}");
    Err(Error::Permanent(Problem::new(text).hint(format!("it takes PostgreSQL {OLDEST} or newer"))))
}

fn pg(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// The error's code, if the database gave one, and whether it ended the session with it.
fn described(error: &sqlx::Error) -> (Option<String>, bool) {
    let Some(error) = pg(error) else { return (None, true) };
    (Some(error.code().to_owned()), matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

fn no_answer(after: Duration) -> sqlx::Error {
    let text = format!("no answer within {} s", after.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_with_its_version() {
        let server = Server {
            host: "db".to_owned(),
            port: 5432,
            database: "lake".to_owned(),
            user: "ada".to_owned(),
            password: None,
            tls: Tls::Disable,
            ca_file: None,
        };
        for (number, version) in [(110_022, "11.22"), (100_001, "10.1"), (90_624, "9.6.24")] {
            let Err(Error::Permanent(refused)) = new_enough(Some(number), &server) else {
                panic!("{version}")
            };
            let text = format!("E_TOO_OLD: `postgres://ada@db:5432/lake` runs PostgreSQL {version}");
            assert_eq!(
                (refused.text, refused.hint.unwrap()),
                (text, "it takes PostgreSQL 12 or newer".to_owned())
            );
        }
        for number in [Some(120_000), Some(170_002), None] {
            new_enough(number, &server).unwrap();
        }
    }
}
