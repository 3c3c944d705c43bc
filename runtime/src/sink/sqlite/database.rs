//! One connection to a database file: statements one after the other, and transactions that hold the write lock from
//! their beginning. The only place with anything asynchronous in it, and the only one that knows what an error of
//! SQLite means. It knows no partition, no table and no row.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqlSafeStr};
use tokio::runtime::{Builder, Runtime};

use crate::sink::{Error, Problem};

/// How often another process is let pass that changes the journal mode of a new file at the same moment.
const OPEN_ATTEMPTS: usize = 4;

/// Prepared statements that are kept: a target has some twenty.
const STATEMENTS: usize = 1000;

/// A database file in the hands of one thread.
pub(super) struct Database {
    path: PathBuf,
    busy_timeout: Duration,
    /// Whether nothing may be written, the mode of the journal included.
    reads_only: bool,
    runtime: Runtime,
    /// `None` after an error that leaves it in doubt: it is opened again when it is needed.
    connection: Option<SqliteConnection>,
    #[cfg(test)]
    pub(super) lose: Option<Loss>,
}

/// How a transaction ended whose work was done.
pub(super) enum Ended<T> {
    /// It is durable.
    Committed(T),
    /// The commit failed, and nobody knows whether before or after it counted. The text says how.
    Unknown(T, String),
}

/// Why a statement was not done.
pub(super) enum Failure {
    /// The database refuses a row for what is in it. The transaction goes on without that statement.
    Data(String),
    /// Anything else.
    Sink(Error),
}

/// The answer of a commit is lost on purpose.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// Nothing was done.
    Before,
    /// It was done.
    After,
}

impl Database {
    /// Opens the file, or makes it and the directories above it. Another process that holds the write lock is waited
    /// for as long as `busy_timeout`, here and in every transaction.
    pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        Self::connected_to(path, busy_timeout, false)
    }

    /// Opens a file that is there, over a connection that cannot write.
    pub(super) fn to_read(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        Self::connected_to(path, busy_timeout, true)
    }

    fn connected_to(path: &Path, busy_timeout: Duration, reads_only: bool) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().build().map_err(|e| {
            Error::Transient(Problem::new("cannot make what waits for the database").source(e))
        })?;
        // Absolute, since SQLite takes a name that begins with `file:` for a URL.
        let path = std::path::absolute(path)
            .map_err(|e| Error::Permanent(Problem::new("cannot place the database").source(e)))?;
        let mut database = Self {
            path,
            busy_timeout,
            reads_only,
            runtime,
            connection: None,
            #[cfg(test)]
            lose: None,
        };
        database.connected()?;
        Ok(database)
    }

    /// For people: the file.
    pub(super) fn show(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs one statement; answers how many rows it changed.
    pub(super) fn execute(&mut self, sql: impl SqlSafeStr, values: SqliteArguments) -> Result<u64, Failure> {
        self.connected().map_err(Failure::Sink)?;
        self.done(sql, values).map_err(|e| self.failure(&e))
    }

    fn done(&mut self, sql: impl SqlSafeStr, values: SqliteArguments) -> Result<u64, sqlx::Error> {
        let connection = self.connection.as_mut().expect("it was connected");
        let done = self.runtime.block_on(sqlx::query_with(sql, values).execute(connection))?;
        Ok(done.rows_affected())
    }

    /// Runs one statement that changes rows, in a transaction; `changes` is how many, where that is known. It was
    /// tried out on the same schema: what SQLite cannot calculate now is the fault of a row. All of it
    /// is done, or the answer is an error and none of it is: SQLite itself keeps a part where a trigger says
    /// `RAISE(FAIL)`, and leaves rows out without a word where it says `RAISE(IGNORE)`.
    pub(super) fn change(
        &mut self,
        sql: impl SqlSafeStr,
        values: SqliteArguments,
        changes: Option<u64>,
    ) -> Result<u64, Failure> {
        self.run("SAVEPOINT weir_rows", no_values()).map_err(Failure::Sink)?;
        let changed = match self.done(sql, values) {
            Ok(changed) if changes.is_none_or(|changes| changes == changed) => Ok(changed),
            Ok(_) => Err("a trigger ignores the row".to_owned()),
            Err(error) if code(&error).is_some_and(|code| code & 0xff == ERROR) => Err(message(&error)),
            Err(error) => match self.failure(&error) {
                Failure::Data(reason) => Err(reason),
                failure => return Err(failure),
            },
        };
        if changed.is_err() {
            self.still_in_transaction().map_err(Failure::Sink)?;
            self.run("ROLLBACK TO weir_rows", no_values()).map_err(Failure::Sink)?;
        }
        self.run("RELEASE weir_rows", no_values()).map_err(Failure::Sink)?;
        changed.map_err(Failure::Data)
    }

    /// Runs one statement that no data can make fail.
    pub(super) fn run(&mut self, sql: impl SqlSafeStr, values: SqliteArguments) -> Result<u64, Error> {
        self.execute(sql, values).map_err(|failure| self.unexpected(failure))
    }

    /// All rows of a query.
    pub(super) fn query(
        &mut self,
        sql: impl SqlSafeStr,
        values: SqliteArguments,
    ) -> Result<Vec<SqliteRow>, Error> {
        self.connected()?;
        let connection = self.connection.as_mut().expect("just connected");
        let rows = self.runtime.block_on(sqlx::query_with(sql, values).fetch_all(connection));
        rows.map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })
    }

    fn unexpected(&self, failure: Failure) -> Error {
        match failure {
            Failure::Data(why) => Error::Permanent(Problem::new(format!("`{}`: {why}", self.show()))),
            Failure::Sink(error) => error,
        }
    }

    /// Does `work` in one transaction. Nobody else writes to the file in the meantime, so what `work` reads stays
    /// true until it is over. An error of `work` undoes all of it.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<Ended<T>, Error> {
        self.run("BEGIN IMMEDIATE", no_values())?;
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

    /// What went wrong, if the answer is lost: a disk that fails while the journal is synced has it, or has it not.
    fn commit(&mut self) -> Result<Option<String>, Error> {
        #[cfg(test)]
        if let Some(loss) = self.lose.take() {
            if loss == Loss::After {
                self.run("COMMIT", no_values())?;
            }
            self.disconnect();
            return Ok(Some("the answer was lost".to_owned()));
        }
        match self.execute("COMMIT", no_values()) {
            Ok(_) => Ok(None),
            // Nothing is durable: the transaction is still open.
            Err(Failure::Data(why)) => {
                self.roll_back();
                let text = format!("E_SINK_SCHEMA: `{}` refuses the commit: {why}", self.show());
                let hint = "make deferred constraints immediate: only then the row is known that breaks them";
                Err(Error::Permanent(Problem::new(text).hint(hint)))
            }
            Err(Failure::Sink(error)) => {
                self.disconnect();
                Ok(Some(error.to_string()))
            }
        }
    }

    fn roll_back(&mut self) {
        // What cannot be rolled back ends with the connection.
        if self.run("ROLLBACK", no_values()).is_err() {
            self.disconnect();
        }
    }

    /// Fails if something in the database, such as a trigger, ended the transaction behind our back: what followed
    /// would be durable by itself, without the position.
    fn still_in_transaction(&mut self) -> Result<(), Error> {
        match self.execute("BEGIN", no_values()) {
            Err(_) => Ok(()),
            Ok(_) => {
                let text = format!("E_SINK_SCHEMA: something in `{}` rolls back transactions", self.show());
                let hint = "a trigger may refuse a row with RAISE(ABORT, ...), not with RAISE(ROLLBACK, ...)";
                Err(Error::Permanent(Problem::new(text).hint(hint)))
            }
        }
    }

    fn connected(&mut self) -> Result<(), Error> {
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        Ok(())
    }

    /// Lets go of the file; what is not committed is undone.
    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = self.runtime.block_on(connection.close())
        {
            tracing::debug!(path = self.show(), %error, "the database was not closed in order");
        }
    }

    fn connect(&self) -> Result<SqliteConnection, Error> {
        if let Some(directory) = self.path.parent().filter(|_| !self.reads_only) {
            fs::create_dir_all(directory).map_err(|e| {
                Error::Transient(Problem::new(format!("cannot make `{}`", directory.display())).source(e))
            })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(!self.reads_only)
            .read_only(self.reads_only)
            .busy_timeout(self.busy_timeout)
            .synchronous(SqliteSynchronous::Full)
            // Off by SQLite's default.
            .foreign_keys(true)
            // Where a plain sync stops at the disk's own cache.
            .pragma("fullfsync", "ON")
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        let opened = self.runtime.block_on(async {
            let mut connection = options.connect().await?;
            let mode = match self.reads_only {
                true => "wal".to_owned(),
                false => write_ahead(&mut connection).await?,
            };
            Ok((connection, mode))
        });
        let (connection, mode) = opened.map_err(|e| {
            let failure = self.failure(&e);
            self.unexpected(failure)
        })?;
        if mode != "wal" {
            let text = format!("`{}` has journal mode `{mode}` and cannot have `wal`", self.show());
            let hint = "put the database on a local disk";
            return Err(Error::Permanent(Problem::new(text).hint(hint)));
        }
        Ok(connection)
    }

    fn failure(&self, error: &sqlx::Error) -> Failure {
        let message = message(error);
        let problem = |what: &str| Problem::new(format!("{what}`{}`: {message}", self.show()));
        match code(error).map_or(Meaning::Passing, meaning) {
            Meaning::Data => Failure::Data(message),
            Meaning::Passing => Failure::Sink(Error::Transient(problem(""))),
            Meaning::Denied => {
                let hint = "give the user that runs the pipeline the right to write there";
                Failure::Sink(Error::Transient(problem("E_SINK_DENIED: ").hint(hint)))
            }
            Meaning::Damaged => {
                let hint = "restore the file from a backup, with what stands beside it";
                Failure::Sink(Error::Permanent(problem("E_LOG_CORRUPT: ").hint(hint)))
            }
            Meaning::Schema => Failure::Sink(Error::Permanent(problem("E_SINK_SCHEMA: "))),
        }
    }
}

/// Makes the journal a write-ahead log, which readers do not wait for. The mode stays with the file; to change it
/// nobody else may use the file, and SQLite does not wait for that.
async fn write_ahead(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match sqlx::query("PRAGMA journal_mode = wal").fetch_one(&mut *connection).await {
            Err(e) if code(&e).is_some_and(|code| code & 0xff == BUSY) && attempts < OPEN_ATTEMPTS => {
                // This waits until the others are through.
                sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
                sqlx::query("ROLLBACK").execute(&mut *connection).await?;
            }
            mode => return mode?.try_get(0),
        }
    }
}

/// SQLITE_BUSY.
const BUSY: i32 = 5;

/// SQLITE_ERROR: a statement that makes no sense, or a value of which an expression makes none, such as a text in an
/// index on what is in its JSON.
const ERROR: i32 = 1;

fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned())
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// What an error says about what to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    /// The row is at fault.
    Data,
    /// It may be better later: locked, full, failing.
    Passing,
    /// It may be better once somebody changed the rights.
    Denied,
    /// The file is no sound database.
    Damaged,
    /// The database is not made for what was asked.
    Schema,
}

/// By SQLite's result codes: the lower byte is the kind, what is above it the detail.
fn meaning(code: i32) -> Meaning {
    match code & 0xff {
        // TOOBIG, CONSTRAINT, MISMATCH
        18..=20 => Meaning::Data,
        // PERM, READONLY, AUTH
        3 | 8 | 23 => Meaning::Denied,
        // CORRUPT, NOTADB
        11 | 26 => Meaning::Damaged,
        // ERROR, INTERNAL, SCHEMA, MISUSE, NOLFS, FORMAT, RANGE
        1 | 2 | 17 | 21 | 22 | 24 | 25 => Meaning::Schema,
        // BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL and what is new
        _ => Meaning::Passing,
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// For statements without parameters.
pub(super) fn no_values() -> SqliteArguments {
    SqliteArguments::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_row_is_the_fault_of_the_row() {
        // CHECK, NOT NULL, UNIQUE, foreign key, datatype of a strict table, trigger; too big; no integer as a key.
        for code in [275, 1299, 2067, 1555, 787, 3091, 1811, 18, 20] {
            assert_eq!(meaning(code), Meaning::Data, "{code}");
        }
        // busy, busy snapshot, locked, out of memory, I/O while syncing, full, cannot open.
        for code in [5, 517, 6, 7, 1034, 13, 14] {
            assert_eq!(meaning(code), Meaning::Passing, "{code}");
        }
        assert_eq!(
            [8, 11, 26, 1].map(meaning),
            [Meaning::Denied, Meaning::Damaged, Meaning::Damaged, Meaning::Schema]
        );
    }
}
