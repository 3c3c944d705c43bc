//! What stands between us and the server, as far as it can be seen. It is told to people, and nothing is decided by it.

use sqlx::Row;

use super::PostgresConfig;
use super::database::Database;
use super::parameters::no_values;
use crate::sink::Error;
use crate::sink::table::wrong;

/// What is in between, if anything. Whoever has a session of his own has it to himself: so where another connection has the
/// same one while both are open, it is lent to them in turn.
///
/// # Errors
/// If the server does not answer on the connection that there is.
pub(super) fn between(db: &mut Database, config: &PostgresConfig) -> Result<Option<String>, Error> {
    let (session, port) = session(db)?;
    // A server that has no room for one more is not in doubt by that.
    let other = Database::open(config.server.clone(), config.patience)
        .and_then(|mut other| self::session(&mut other));
    if other.is_ok_and(|(other, _)| other == session) {
        let how = "it lends a session of the server for one transaction at a time";
        return Ok(Some(format!("a pooler in transaction mode is in between: {how}")));
    }
    let ours = i32::from(config.server.port);
    // It has none where we came over a socket of the machine.
    Ok(port.filter(|port| *port != ours).map(|port| {
        let what = "a pooler, or a port that is mapped";
        format!("the server's own port is {port}, not {ours}: {what}, is in between")
    }))
}

/// The number of the session that answers, and the port at which the server listens.
fn session(db: &mut Database) -> Result<(i32, Option<i32>), Error> {
    let rows = db.repeatable(|db| db.query("SELECT pg_backend_pid(), inet_server_port()", no_values()))?;
    let row = rows.first().ok_or_else(|| wrong("the server does not say what it is", None))?;
    Ok((row.get(0), row.get(1)))
}
