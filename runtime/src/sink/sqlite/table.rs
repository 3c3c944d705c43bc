//! The table of a target: made where there is none, compared where there is one, and the statements that change it.
//! Every name in a statement is quoted and every value is a parameter. It moves no rows itself.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::database::{Database, Failure, no_values};
use super::rows::bound;
use super::values::{Kind, kind};
use crate::sink::Error;
use crate::sink::table::{ATTEMPT, Mode, TableConfig, is_older, key_columns, wrong};

/// What SQLite allows at most in one statement.
const MAX_PARAMETERS: usize = 32_766;

/// Rows per statement: more save little and cost memory.
const MAX_ROWS: usize = 128;

/// What every row with provenance carries besides its own columns.
const PROVENANCE: [(&str, Kind); 5] = [
    ("weir_topic", Kind::Text),
    ("weir_partition", Kind::Integer),
    ("weir_offset", Kind::Integer),
    ("weir_index", Kind::Integer),
    ("weir_plan", Kind::Integer),
];

/// How rows of one schema are written to one table.
pub(super) struct Table {
    /// The declared columns; two schemas of a target have two of these.
    pub(super) schema: SchemaRef,
    /// Whether provenance is written too.
    pub(super) provenance: bool,
    /// Whether its rows are of records that come again.
    pub(super) again: bool,
    /// Whether it has a column for how often they did.
    pub(super) attempt: bool,
    /// In upsert mode the columns of the key, by their place in the schema.
    pub(super) key: Option<Vec<usize>>,
    name: String,
    columns: Vec<Column>,
    /// Names of the tables that its rows refer to by foreign keys.
    references: Vec<String>,
    inserts: HashMap<usize, Arc<str>>,
    deletes: HashMap<usize, Arc<str>>,
}

struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
}

impl Column {
    fn is_in(&self, found: &[Found]) -> bool {
        found.iter().any(|there| there.name.eq_ignore_ascii_case(&self.name))
    }
}

/// A column as the database has it.
struct Found {
    name: String,
    /// As declared, in capitals.
    declared: String,
    not_null: bool,
    has_default: bool,
    in_key: bool,
    generated: bool,
}

impl Table {
    /// How rows of `schema` go into the table of `config`; nothing is looked at yet.
    pub(super) fn new(config: &TableConfig, schema: &SchemaRef, provenance: bool) -> Result<Self, Error> {
        let mut columns = columns(schema, &config.table)?;
        if provenance {
            let ours = PROVENANCE.map(|(name, kind)| Column { name: name.to_owned(), kind, nullable: false });
            columns.extend(ours);
        }
        if columns.is_empty() {
            return Err(wrong(format!("table `{}` would have no column", config.table), None));
        }
        let key = match &config.mode {
            Mode::Append => None,
            Mode::Upsert { key } => Some(key_columns(schema, key, &config.table)?),
        };
        for place in key.iter().flatten() {
            columns[*place].nullable = false;
        }
        Ok(Self {
            schema: schema.clone(),
            provenance,
            again: false,
            attempt: provenance,
            key,
            name: config.table.clone(),
            columns,
            references: Vec::new(),
            inserts: HashMap::new(),
            deletes: HashMap::new(),
        })
    }

    /// Makes the table, or compares it with what its rows need; to be called in a transaction.
    pub(super) fn make_sure(&mut self, db: &mut Database) -> Result<(), Error> {
        const SQL: &str = "SELECT type, strict FROM pragma_table_list(?) WHERE schema = 'main'";
        let mut values = no_values();
        bound(values.add(self.name.clone()));
        let found = db.query(SQL, values)?;
        let Some(row) = found.first() else { return self.create(db) };
        let (what, strict) = (row.get::<String, _>(0), row.get::<bool, _>(1));
        if what != "table" {
            return Err(wrong(format!("`{}` is a {what} and no table", self.name), None));
        }
        let found = self.found(db)?;
        self.compare(&found, strict)?;
        let is_attempt = |found: &Found| found.name.eq_ignore_ascii_case(ATTEMPT);
        let takes = |found: &Found| !found.generated && takes(&found.declared, strict, Kind::Integer);
        self.attempt = self.provenance && found.iter().any(|found| is_attempt(found) && takes(found));
        self.references = self.find_references(db)?;
        self.try_out(db)
    }

    /// The statements that add the columns which the table lacks, where rows that are there can do without them; none if it is
    /// not there.
    pub(super) fn lacking(&self, db: &mut Database) -> Result<Vec<String>, Error> {
        let found = self.found(db)?;
        let attempt = Column { name: ATTEMPT.to_owned(), kind: Kind::Integer, nullable: true };
        let attempt = self.provenance.then_some(attempt);
        let lacking =
            self.columns.iter().chain(&attempt).filter(|column| column.nullable && !column.is_in(&found));
        Ok(match found.is_empty() {
            true => Vec::new(),
            false => lacking.map(|column| add_column(&self.name, column)).collect(),
        })
    }

    /// Compares a table that is there with what its rows need once it has the columns of [`Self::lacking`]; to be called in a
    /// transaction.
    pub(super) fn fits_with_them(mut self, db: &mut Database) -> Result<(), Error> {
        let found = self.found(db)?;
        if found.is_empty() {
            return Ok(());
        }
        self.columns.retain(|column| !column.nullable || column.is_in(&found));
        // It says by their places which of all columns they are.
        self.key = None;
        self.make_sure(db)
    }

    /// Refuses two tables of one sink of which one refers to the other, or one that refers to itself: whether a row
    /// were there before the one that refers to it would depend on where commits begin and end.
    pub(super) fn check_reference(&self, to: &Self) -> Result<(), Error> {
        if !self.references.iter().any(|name| name.eq_ignore_ascii_case(&to.name)) {
            return Ok(());
        }
        let text =
            format!("table `{}` refers to `{}`, which this sink writes to as well", self.name, to.name);
        let hint = "leave out the foreign key: rows may be committed before those that they refer to";
        Err(wrong(text, Some(hint.to_owned())))
    }

    fn find_references(&self, db: &mut Database) -> Result<Vec<String>, Error> {
        const SQL: &str = r#"SELECT "table" FROM pragma_foreign_key_list(?)"#;
        let mut values = no_values();
        bound(values.add(self.name.clone()));
        Ok(db.query(SQL, values)?.iter().map(|row| row.get(0)).collect())
    }

    fn create(&self, db: &mut Database) -> Result<(), Error> {
        db.run(AssertSqlSafe(self.statement()), no_values()).map(drop)
    }

    /// The statement that makes it.
    pub(super) fn statement(&self) -> String {
        let column = |column: &Column| {
            let not_null = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{not_null}", quoted(&column.name), column.kind)
        };
        let mut parts: Vec<_> = self.columns.iter().map(column).collect();
        parts.extend(self.attempt.then(|| format!("{} {}", quoted(ATTEMPT), Kind::Integer)));
        parts.extend(self.key.as_ref().map(|key| format!("PRIMARY KEY ({})", self.names(key))));
        format!("CREATE TABLE {} ({}) STRICT", quoted(&self.name), parts.join(", "))
    }

    fn found(&self, db: &mut Database) -> Result<Vec<Found>, Error> {
        const SQL: &str = r#"SELECT name, upper(type), "notnull", dflt_value IS NOT NULL, pk > 0, hidden > 0 FROM pragma_table_xinfo(?)"#;
        let mut values = no_values();
        bound(values.add(self.name.clone()));
        let rows = db.query(SQL, values)?;
        let found = |row: &sqlx::sqlite::SqliteRow| Found {
            name: row.get(0),
            declared: row.get(1),
            not_null: row.get(2),
            has_default: row.get(3),
            in_key: row.get(4),
            generated: row.get(5),
        };
        Ok(rows.iter().map(found).collect())
    }

    /// Whether every column has a place, and nothing else has to be filled.
    fn compare(&self, found: &[Found], strict: bool) -> Result<(), Error> {
        for column in &self.columns {
            let (table, name) = (&self.name, &column.name);
            let Some(found) = found.iter().find(|found| found.name.eq_ignore_ascii_case(name)) else {
                let add = add_column(table, column);
                return Err(wrong(format!("table `{table}` has no column `{name}`"), Some(add)));
            };
            if found.generated {
                return Err(wrong(format!("column `{name}` of table `{table}` is generated"), None));
            }
            if !takes(&found.declared, strict, column.kind) {
                let declared = &found.declared;
                let text =
                    format!("column `{name}` of table `{table}` is {declared}, it has to be {}", column.kind);
                return Err(wrong(text, None));
            }
        }
        let ours =
            |found: &Found| self.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&found.name));
        // A lone INTEGER key is the number of the row, which SQLite gives itself.
        let filled = |found: &Found| {
            found.has_default || found.generated || found.in_key && found.declared == "INTEGER"
        };
        match found.iter().find(|found| found.not_null && !ours(found) && !filled(found)) {
            Some(Found { name, .. }) => {
                let text =
                    format!("column `{name}` of table `{}` may not be null, and no row has it", self.name);
                Err(wrong(text, Some("give it a default, or let it be null".to_owned())))
            }
            None => Ok(()),
        }
    }

    /// Lets SQLite judge the statements before rows depend on them: only it knows which keys are unique, and what
    /// triggers and indexes call.
    fn try_out(&mut self, db: &mut Database) -> Result<(), Error> {
        if self.key.is_some() {
            db.run(AssertSqlSafe(format!("EXPLAIN {}", self.delete(1))), no_values())?;
        }
        let sql = format!("EXPLAIN {}", self.insert(1));
        match db.execute(AssertSqlSafe(sql), no_values()) {
            Ok(_) => Ok(()),
            Err(Failure::Sink(Error::Permanent(problem))) if problem.text.contains("ON CONFLICT") => {
                let key = self.key.as_ref().map(|key| self.names(key)).unwrap_or_default();
                let hint = format!("table `{}` needs a PRIMARY KEY or UNIQUE ({key})", self.name);
                Err(Error::Permanent(problem.hint(hint)))
            }
            Err(Failure::Sink(error)) => Err(error),
            Err(Failure::Data(why)) => Err(wrong(why, None)),
        }
    }

    /// The most rows of one statement; a power of two, as all numbers of rows are, so that few statements are
    /// prepared.
    pub(super) fn max_rows(&self, deletes: bool) -> usize {
        if deletes && self.is_guarded() {
            return 1;
        }
        let fit = (MAX_PARAMETERS / (self.columns.len() + 1)).clamp(1, MAX_ROWS);
        1 << fit.ilog2()
    }

    /// The statement that writes `rows` rows. What the table says about conflicts itself does not count: a row is
    /// either written or refused.
    pub(super) fn insert(&mut self, rows: usize) -> Arc<str> {
        if let Some(sql) = self.inserts.get(&rows) {
            return sql.clone();
        }
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let says = self.says_attempt();
        let row = parameters(self.columns.len() + usize::from(says));
        let values = vec![row; rows].join(", ");
        let attempt = says.then(|| quoted(ATTEMPT));
        let names = [self.names(&all)].into_iter().chain(attempt).collect::<Vec<_>>().join(", ");
        let mut sql = format!("INSERT OR ABORT INTO {} ({names}) VALUES {values}", quoted(&self.name));
        if let Some(key) = &self.key {
            let set = |place: &usize| {
                let name = quoted(&self.columns[*place].name);
                format!("{name} = excluded.{name}")
            };
            let mut sets: Vec<_> = all.iter().filter(|place| !key.contains(place)).map(set).collect();
            // Null again where one takes its place that came only once.
            sets.extend(self.attempt.then(|| format!("{0} = excluded.{0}", quoted(ATTEMPT))));
            let names = self.names(key);
            sql += &match &sets[..] {
                [] => format!(" ON CONFLICT ({names}) DO NOTHING"),
                sets => format!(" ON CONFLICT ({names}) DO UPDATE SET {}", sets.join(", ")),
            };
            if self.is_guarded() {
                let old = |column: &str| format!("{}.{}", quoted(&self.name), quoted(column));
                sql += &format!(" WHERE {}", is_older(|column| format!("excluded.{}", quoted(column)), old));
            }
        }
        self.inserts.entry(rows).or_insert_with(|| sql.into()).clone()
    }

    /// How many rows the statement that writes `rows` rows changes: all, or it is not known, since one whose key is
    /// there already has nothing else to change, or comes from a record that is behind.
    pub(super) fn changes(&self, rows: usize) -> Option<u64> {
        let only_key = |key: &Vec<usize>| (0..self.columns.len()).all(|place| key.contains(&place));
        (!self.key.as_ref().is_some_and(only_key) && !self.is_guarded()).then_some(rows as u64)
    }

    /// Whether rows have a value for the attempt.
    pub(super) fn says_attempt(&self) -> bool {
        self.again && self.attempt
    }

    /// Whether a row is left alone that comes from a record behind the one that comes again.
    pub(super) fn is_guarded(&self) -> bool {
        self.again && self.provenance && self.key.is_some()
    }

    /// The columns, by their places, by which [`Self::delete`] knows a row: those of the key, and where that is looked at,
    /// which record the word to delete it comes from.
    pub(super) fn deleted_by(&self) -> Vec<usize> {
        let first = self.schema.fields().len();
        let coordinates = if self.is_guarded() { first..first + 3 } else { first..first };
        self.key.iter().flatten().copied().chain(coordinates).collect()
    }

    /// The statement that removes what has one of `rows` keys; one key, where it is looked at which record a row comes from.
    pub(super) fn delete(&mut self, rows: usize) -> Arc<str> {
        let key = self.key.as_deref().unwrap_or_default();
        let sql = || {
            let values = vec![parameters(key.len()); rows].join(", ");
            let guard = match self.is_guarded() {
                true => format!(" AND {}", is_older(|_| "?".to_owned(), quoted)),
                false => String::new(),
            };
            format!(
                "DELETE FROM {} WHERE ({}) IN (VALUES {values}){guard}",
                quoted(&self.name),
                self.names(key)
            )
        };
        if let Some(sql) = self.deletes.get(&rows) {
            return sql.clone();
        }
        let sql: Arc<str> = sql().into();
        self.deletes.insert(rows, sql.clone());
        sql
    }

    /// For people: a column of a row.
    pub(super) fn column(&self, place: usize) -> &str {
        &self.columns[place].name
    }

    fn names(&self, places: &[usize]) -> String {
        places.iter().map(|place| quoted(&self.columns[*place].name)).collect::<Vec<_>>().join(", ")
    }
}

fn parameters(columns: usize) -> String {
    format!("({})", vec!["?"; columns].join(", "))
}

/// A name as SQL has it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn columns(schema: &Schema, table: &str) -> Result<Vec<Column>, Error> {
    let column = |field: &Arc<arrow::datatypes::Field>| match kind(field) {
        Some(kind) => Ok(Column { name: field.name().clone(), kind, nullable: field.is_nullable() }),
        None => {
            let (name, data_type) = (field.name(), field.data_type());
            Err(wrong(format!("column `{name}` of table `{table}` cannot be of type {data_type}"), None))
        }
    };
    schema.fields().iter().map(column).collect()
}

/// Whether a column so declared stores values of `kind` as they are.
fn takes(declared: &str, strict: bool, kind: Kind) -> bool {
    let says = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
    let stores = match (strict, declared) {
        (true, "ANY") => return true,
        (true, "INT" | "INTEGER") => Some(Kind::Integer),
        (true, "REAL") => Some(Kind::Real),
        (true, "TEXT") => Some(Kind::Text),
        (true, _) => Some(Kind::Blob),
        // The rules by which SQLite reads a declared type, in their order.
        (false, _) if says(&["INT"]) => Some(Kind::Integer),
        (false, _) if says(&["CHAR", "CLOB", "TEXT"]) => Some(Kind::Text),
        (false, _) if declared.is_empty() || says(&["BLOB"]) => return true,
        (false, _) if says(&["REAL", "FLOA", "DOUB"]) => Some(Kind::Real),
        // Whole numbers as they are; a double without a fraction becomes one, and text that looks like a number.
        (false, _) => None,
    };
    match stores {
        Some(stores) => stores == kind,
        None => kind == Kind::Integer,
    }
}

fn add_column(table: &str, column: &Column) -> String {
    let (table, name, kind) = (quoted(table), quoted(&column.name), &column.kind);
    match column.nullable {
        true => format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"),
        // What rows that are there get is for a person to say.
        false => format!(
            "ALTER TABLE {table} ADD COLUMN {name} {kind} NOT NULL DEFAULT (what rows that are there get)"
        ),
    }
}
