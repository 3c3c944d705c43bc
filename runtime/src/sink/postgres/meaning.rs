//! What an error of PostgreSQL says about what to do next, by its SQLSTATE. Pure; it knows no connection and no row.

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// The row is at fault.
    Data,
    /// Two transactions were in each other's way, and this one was undone: the same once more.
    Collision,
    /// It may be better later: locked, full, shutting down, not reachable.
    Passing,
    /// It may be better once somebody changed the rights.
    Denied,
    /// The database is not made for what was asked.
    Schema,
}

/// By the appendix "PostgreSQL Error Codes": the first two characters are the class, the rest is the detail.
pub(super) fn meaning(sqlstate: &str) -> Meaning {
    match sqlstate {
        // The answer of a row-level security policy, and of rights on tables alike.
        "42501" => Meaning::Denied,
        // A trigger that raises an exception, finds no row or too many, or asserts.
        "P0001" | "P0002" | "P0003" | "P0004" => Meaning::Data,
        // A value too large for an index, a document too deep for the server's stack.
        "54000" | "54001" => Meaning::Data,
        // A key that cannot be an arbiter because it is deferrable.
        "55000" => Meaning::Schema,
        // What the program would have to write otherwise, and never the row.
        "22P03" | "22P04" => Meaning::Schema,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            // A key twice in one statement, a value that is none, a constraint.
            "21" | "22" | "23" => Meaning::Data,
            "40" => Meaning::Collision,
            "28" => Meaning::Denied,
            "0A" | "3D" | "3F" | "42" | "44" => Meaning::Schema,
            // 08 connection, 25 read-only or timed out, 53 resources, 55 locks, 57 shut down or cancelled, 58 system,
            // XX internal, and what is new.
            _ => Meaning::Passing,
        },
    }
}

/// Whether a COMMIT that ends with this error certainly did not happen. `fatal`: the session ended with it.
pub(super) fn surely_undone(sqlstate: &str, fatal: bool) -> bool {
    // A pooler says 08 of a connection that it lost with the answer.
    !fatal && !sqlstate.starts_with("08")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_row_is_the_fault_of_the_row() {
        // Too long, out of range, text that is none, not a number, zero byte; not null, foreign key, unique, check,
        // exclusion; a trigger; too big for an index.
        for code in [
            "22001", "22003", "22P02", "22P05", "22021", "22008", "23502", "23503", "23505", "23514",
            "23P01", "P0001", "54000", "21000",
        ] {
            assert_eq!(meaning(code), Meaning::Data, "{code}");
        }
        // Connection, disk full, out of memory, too many connections, lock timeout, cancelled, shutdown, crash, not
        // ready yet, read-only, timed out in a transaction, I/O, corrupt, none at all.
        for code in [
            "08006", "08P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03",
            "25006", "25P03", "58030", "XX001", "", "45000",
        ] {
            assert_eq!(meaning(code), Meaning::Passing, "{code}");
        }
        assert_eq!(
            ["40001", "40P01", "28P01", "42501"].map(meaning),
            [Meaning::Collision, Meaning::Collision, Meaning::Denied, Meaning::Denied]
        );
        // No table, no column, no unique key, another type, no schema, no database, our own form of COPY.
        for code in ["42P01", "42703", "42P10", "42804", "3F000", "3D000", "0A000", "22P03", "22P04"] {
            assert_eq!(meaning(code), Meaning::Schema, "{code}");
        }
    }

    #[test]
    fn a_commit_whose_session_ended_is_not_known_to_be_undone() {
        assert!(surely_undone("40001", false) && surely_undone("23505", false));
        assert!(!surely_undone("57P01", true) && !surely_undone("08P01", false));
    }
}
