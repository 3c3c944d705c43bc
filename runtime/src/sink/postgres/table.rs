//! The table of a target: what it would be made with, whether the one that is there fits, and the statements that change
//! it. Every name in a statement is quoted and every value is a parameter. It asks the database nothing itself.

use arrow::datatypes::{Schema, SchemaRef};

use super::values::{Kind, Type};
use crate::sink::Error;
use crate::sink::table::{ATTEMPT, Mode, TableConfig, is_older, key_columns, wrong};

/// What every row with provenance carries besides its own columns.
const PROVENANCE: [(&str, Kind); 5] = [
    ("weir_topic", Kind::Text),
    ("weir_partition", Kind::Int32),
    ("weir_offset", Kind::Int64),
    ("weir_index", Kind::Int32),
    ("weir_plan", Kind::Int64),
];

/// PostgreSQL cuts a longer name off, without a word.
const MAX_NAME: usize = 63;

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
    pub(super) name: String,
    /// The name with its schema, ready for a statement.
    pub(super) quoted: String,
    /// The table in the database, once it was looked at.
    pub(super) found: Found,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
    /// What the database has for it.
    to: Type,
}

impl Column {
    fn is_in(&self, found: &Found) -> bool {
        found.columns.iter().any(|there| there.name == self.name)
    }
}

/// What the database says of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// Its number, which no other table ever has.
    pub(super) oid: i64,
    /// `r` an ordinary one, `p` one with partitions, and other letters for what is no table.
    pub(super) kind: String,
    /// `p` where a crash leaves its rows alone.
    pub(super) persistence: String,
    pub(super) columns: Vec<FoundColumn>,
    /// The tables that its rows refer to by foreign keys.
    pub(super) references: Vec<i64>,
    /// How many indexes besides that of the key, triggers and the like may refuse one row because of another.
    pub(super) entangled: i64,
}

/// A column as the database has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FoundColumn {
    pub(super) name: String,
    /// Its type, by number and by name.
    pub(super) oid: i64,
    pub(super) modifier: i32,
    pub(super) declared: String,
    pub(super) not_null: bool,
    pub(super) has_default: bool,
    /// Of those that always are.
    pub(super) generated: bool,
}

impl Table {
    /// How rows of `schema` go into the table of `config` in the schema `within`.
    pub(super) fn new(
        config: &TableConfig,
        within: &str,
        schema: &SchemaRef,
        provenance: bool,
    ) -> Result<Self, Error> {
        let mut columns = columns(schema, &config.table)?;
        if provenance {
            columns.extend(PROVENANCE.map(|(name, kind)| Column::new(name, kind, false)));
        }
        if columns.is_empty() {
            return Err(wrong(format!("table `{}` would have no column", config.table), None));
        }
        for name in columns.iter().map(|column| &column.name).chain([&config.table]) {
            if name.len() > MAX_NAME || name.contains('\0') {
                let text = format!("`{name}` is no name in PostgreSQL: it has more than {MAX_NAME} bytes");
                return Err(wrong(text, None));
            }
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
            quoted: format!("{}.{}", quoted(within), quoted(&config.table)),
            found: Found::default(),
            columns,
        })
    }

    /// Refuses two tables of one sink of which one refers to the other, or one that refers to itself: whether a row
    /// were there before the one that refers to it would depend on where commits begin and end.
    pub(super) fn check_reference(&self, to: &Self) -> Result<(), Error> {
        if !self.found.references.contains(&to.found.oid) {
            return Ok(());
        }
        let text =
            format!("table `{}` refers to `{}`, which this sink writes to as well", self.name, to.name);
        let hint = "leave out the foreign key: rows may be committed before those that they refer to";
        Err(wrong(text, Some(hint.to_owned())))
    }

    /// The statement that makes it.
    pub(super) fn create(&self) -> String {
        let column = |column: &Column| {
            let not_null = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{not_null}", quoted(&column.name), column.kind.own())
        };
        let mut parts: Vec<_> = self.columns.iter().map(column).collect();
        parts.extend(self.attempt.then(|| format!("{} {}", quoted(ATTEMPT), Kind::Int32.own())));
        parts.extend(self.key.as_ref().map(|key| format!("PRIMARY KEY ({})", self.names(key))));
        format!("CREATE TABLE {} ({})", self.quoted, parts.join(", "))
    }

    /// The statements that add the columns which the table lacks as it was found, where rows that are there can do without
    /// them.
    pub(super) fn lacking(&self, found: &Found) -> Vec<String> {
        let attempt = self.provenance.then(|| Column::new(ATTEMPT, Kind::Int32, true));
        let lacking =
            self.columns.iter().chain(&attempt).filter(|column| column.nullable && !column.is_in(found));
        lacking.map(|column| add_column(&self.quoted, column)).collect()
    }

    /// Takes it as [`Self::fit`] does once it has the columns of [`Self::lacking`].
    pub(super) fn fits_with_them(mut self, found: Found) -> Result<(), Error> {
        self.columns.retain(|column| !column.nullable || column.is_in(&found));
        self.fit(found)
    }

    /// Takes the table as it was found, if every column has a place there and nothing else has to be filled.
    pub(super) fn fit(&mut self, found: Found) -> Result<(), Error> {
        let table = &self.name;
        match (&*found.kind, &*found.persistence) {
            ("r" | "p", "p") => {}
            ("r" | "p", _) => {
                let text = format!("table `{table}` is UNLOGGED: a crash of the server would empty it");
                let hint = format!("ALTER TABLE {} SET LOGGED", self.quoted);
                return Err(wrong(text, Some(hint)));
            }
            _ => return Err(wrong(format!("`{table}` is no table that rows can be added to"), None)),
        }
        for column in &mut self.columns {
            let name = &column.name;
            let Some(there) = found.columns.iter().find(|there| there.name == *name) else {
                let add = add_column(&self.quoted, column);
                return Err(wrong(format!("table `{table}` has no column `{name}`"), Some(add)));
            };
            if there.generated {
                return Err(wrong(format!("column `{name}` of table `{table}` is generated"), None));
            }
            match Type::found(there.oid, there.modifier).filter(|to| column.kind.fits(*to)) {
                Some(to) => column.to = to,
                None => {
                    let (declared, own) = (&there.declared, column.kind.own());
                    let text =
                        format!("column `{name}` of table `{table}` is {declared}, it has to be {own}");
                    return Err(wrong(text, None));
                }
            }
        }
        let ours = |there: &FoundColumn| self.columns.iter().any(|column| column.name == there.name);
        let filled = |there: &FoundColumn| there.has_default || there.generated;
        match found.columns.iter().find(|there| there.not_null && !ours(there) && !filled(there)) {
            Some(FoundColumn { name, .. }) => {
                let text = format!("column `{name}` of table `{table}` may not be null, and no row has it");
                Err(wrong(text, Some("give it a default, or let it be null".to_owned())))
            }
            None => {
                let takes = |there: &FoundColumn| {
                    let to = Type::found(there.oid, there.modifier);
                    there.name == ATTEMPT && !there.generated && to == Some(Type::Int4)
                };
                self.attempt = self.provenance && found.columns.iter().any(takes);
                self.found = found;
                Ok(())
            }
        }
    }

    /// Whether a row may be refused because of one with another key.
    pub(super) fn is_entangled(&self) -> bool {
        self.found.entangled > 0
    }

    /// The statement that adds rows which come as a binary COPY.
    pub(super) fn copy(&self) -> String {
        format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.quoted, self.names_of_rows())
    }

    /// The statement that writes rows which come as one array per column, the first of them `first`.
    pub(super) fn upsert(&self, key: &[usize], array: impl Fn(usize, &str) -> String) -> String {
        let all = self.all();
        let set = |place: &usize| {
            let name = quoted(&self.columns[*place].name);
            format!("{name} = excluded.{name}")
        };
        let mut sets: Vec<_> = all.iter().filter(|place| !key.contains(place)).map(set).collect();
        // Null again where one takes its place that came only once.
        sets.extend(self.attempt.then(|| format!("{0} = excluded.{0}", quoted(ATTEMPT))));
        let change = match &sets[..] {
            [] => "NOTHING".to_owned(),
            sets => format!("UPDATE SET {}", sets.join(", ")),
        };
        let (alias, guard) = match self.is_guarded() {
            true => {
                let guard = is_older(|name| format!("excluded.{}", quoted(name)), of_row);
                (" AS weir_row", format!(" WHERE {guard}"))
            }
            false => ("", String::new()),
        };
        format!(
            "INSERT INTO {}{alias} ({}) SELECT * FROM unnest({}) ON CONFLICT ({}) DO {change}{guard}",
            self.quoted,
            self.names_of_rows(),
            self.arrays_of_rows(array),
            self.names(key)
        )
    }

    /// How many rows [`Self::upsert`] changes, if that is known: where there is nothing but the key, one that is there
    /// already is not changed; nor is one that comes from a record behind.
    pub(super) fn changes(&self, key: &[usize], rows: usize) -> Option<u64> {
        (key.len() < self.columns.len() && !self.is_guarded()).then_some(rows as u64)
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
    pub(super) fn deleted_by(&self, key: &[usize]) -> Vec<usize> {
        let first = self.schema.fields().len();
        let coordinates = if self.is_guarded() { first..first + 3 } else { first..first };
        key.iter().copied().chain(coordinates).collect()
    }

    /// The statement that removes what has one of the keys, which come as one array per column, with those of
    /// [`Self::deleted_by`].
    pub(super) fn delete(&self, key: &[usize], array: impl Fn(usize, &str) -> String) -> String {
        let same = |(n, place): (usize, &usize)| {
            format!("weir_row.{} = weir_key.k{n}", quoted(&self.columns[*place].name))
        };
        let mut same: Vec<_> = key.iter().enumerate().map(same).collect();
        if self.is_guarded() {
            let of_key = |name: &str| {
                let place = PROVENANCE.iter().position(|(known, _)| *known == name);
                format!("weir_key.k{}", key.len() + place.expect("it is one of ours"))
            };
            same.push(is_older(of_key, of_row));
        }
        let places = self.deleted_by(key);
        let names: Vec<_> = (0..places.len()).map(|n| format!("k{n}")).collect();
        format!(
            "DELETE FROM {} AS weir_row USING unnest({}) AS weir_key ({}) WHERE {}",
            self.quoted,
            self.arrays(&places, array),
            names.join(", "),
            same.join(" AND ")
        )
    }

    fn arrays(&self, places: &[usize], array: impl Fn(usize, &str) -> String) -> String {
        let arrays = places.iter().enumerate().map(|(n, place)| array(n + 1, self.columns[*place].to.name()));
        arrays.collect::<Vec<_>>().join(", ")
    }

    /// The columns for which a row has values.
    fn names_of_rows(&self) -> String {
        let attempt = self.says_attempt().then(|| quoted(ATTEMPT));
        [self.names(&self.all())].into_iter().chain(attempt).collect::<Vec<_>>().join(", ")
    }

    fn arrays_of_rows(&self, array: impl Fn(usize, &str) -> String) -> String {
        let attempt = self.says_attempt().then(|| array(self.columns.len() + 1, Type::Int4.name()));
        let arrays = self.arrays(&self.all(), array);
        [arrays].into_iter().chain(attempt).collect::<Vec<_>>().join(", ")
    }

    fn all(&self) -> Vec<usize> {
        (0..self.columns.len()).collect()
    }

    /// For people: a column of a row.
    pub(super) fn column(&self, place: usize) -> &str {
        &self.columns[place].name
    }

    /// What the values of a column become; behind the last one is the attempt.
    pub(super) fn to(&self, place: usize) -> Type {
        self.columns.get(place).map_or(Type::Int4, |column| column.to)
    }

    /// Names of columns, ready for a statement.
    pub(super) fn names(&self, places: &[usize]) -> String {
        places.iter().map(|place| quoted(&self.columns[*place].name)).collect::<Vec<_>>().join(", ")
    }
}

impl Column {
    fn new(name: &str, kind: Kind, nullable: bool) -> Self {
        Self { name: name.to_owned(), kind, nullable, to: kind.own() }
    }
}

fn of_row(name: &str) -> String {
    format!("weir_row.{}", quoted(name))
}

/// A parameter that is an array.
pub(super) fn parameter(n: usize, of: &str) -> String {
    format!("${n}::{of}[]")
}

/// No array, where a statement is only tried.
pub(super) fn nothing(_: usize, of: &str) -> String {
    format!("NULL::{of}[]")
}

/// A name as SQL has it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn columns(schema: &Schema, table: &str) -> Result<Vec<Column>, Error> {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| match Kind::of(field) {
        Some(kind) => Ok(Column::new(field.name(), kind, field.is_nullable())),
        None => {
            let (name, data_type) = (field.name(), field.data_type());
            Err(wrong(format!("column `{name}` of table `{table}` cannot be of type {data_type}"), None))
        }
    };
    schema.fields().iter().map(column).collect()
}

fn add_column(table: &str, column: &Column) -> String {
    let (name, own) = (quoted(&column.name), column.kind.own());
    match column.nullable {
        true => format!("ALTER TABLE {table} ADD COLUMN {name} {own}"),
        // What rows that are there get is for a person to say.
        false => format!(
            "ALTER TABLE {table} ADD COLUMN {name} {own} NOT NULL DEFAULT (what rows that are there get)"
        ),
    }
}

#[cfg(test)]
mod tests;
