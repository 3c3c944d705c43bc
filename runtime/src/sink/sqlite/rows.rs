//! The rows of a commit on their way into their tables, inside the transaction of their position. A row that the
//! database refuses for what is in it goes to `weir_reject`, alone; the rows around it are written.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use sqlx::error::BoxDynError;
use sqlx::{Arguments, AssertSqlSafe};

use super::SqliteConfig;
use super::database::{Database, Failure, no_values};
use super::table::Table;
use super::tables::Tables;
use super::values::Values;
use crate::sink::json::JsonRows;
use crate::sink::table::{Owner, Stored, row_as_json};
use crate::sink::{Error, Part, Problem, RoutedBatch};

/// Rows that the database refused, by the pipeline and sink that brought them.
const REJECTS: &str = r#"
CREATE TABLE IF NOT EXISTS weir_reject (
    pipeline TEXT NOT NULL,
    sink TEXT NOT NULL,
    weir_topic TEXT NOT NULL,
    weir_partition INTEGER NOT NULL,
    weir_offset INTEGER NOT NULL,
    weir_index INTEGER NOT NULL,
    weir_plan INTEGER NOT NULL,
    target TEXT NOT NULL,
    route TEXT NOT NULL,
    reason TEXT NOT NULL,
    "row" TEXT,
    weir_attempt INTEGER
) STRICT"#;

/// A row whose JSON is longer than this is told about without it: SQLite takes no value of 1 GB.
const MAX_REJECT: usize = 500_000_000;

/// Makes the table of rejects if it is not there.
pub(super) fn create(db: &mut Database) -> Result<(), Error> {
    db.run(REJECTS, no_values()).map(drop)
}

/// Whether the table of rejects has a column for attempts: it may have been made without. Few rows are refused that come again,
/// so it is asked for each.
pub(super) fn says_attempt(db: &mut Database) -> Result<bool, Error> {
    const SQL: &str = "SELECT 1 FROM pragma_table_info('weir_reject') WHERE name = 'weir_attempt'";
    Ok(!db.query(SQL, no_values())?.is_empty())
}

/// Adding a value to a statement cannot fail: all there are have a form in SQLite.
pub(super) fn bound(added: Result<(), BoxDynError>) {
    added.expect("numbers, texts and bytes can be bound");
}

/// Writes what was staged, in the order of the offsets.
pub(super) fn store(
    db: &mut Database,
    config: &SqliteConfig,
    owner: &Owner,
    tables: &mut Tables,
    batches: &[RoutedBatch],
) -> Result<Stored, Error> {
    tables.look(db)?;
    let mut storing = Storing { db, config, owner, tables, keys: BTreeMap::new(), stored: Stored::default() };
    batches.iter().try_for_each(|batch| storing.batch(batch))?;
    Ok(storing.stored)
}

struct Storing<'a> {
    db: &'a mut Database,
    config: &'a SqliteConfig,
    owner: &'a Owner,
    tables: &'a mut Tables,
    /// By target in upsert mode: the keys that came by.
    keys: BTreeMap<Arc<str>, HashSet<Vec<u8>>>,
    stored: Stored,
}

/// A part with its place to go.
struct Ready<'a> {
    part: &'a Part,
    /// See [`Tables::find`].
    table: usize,
    values: Vec<Values<'a>>,
}

/// A row of a part.
#[derive(Clone, Copy)]
struct Item {
    part: usize,
    row: usize,
}

impl Storing<'_> {
    fn batch(&mut self, batch: &RoutedBatch) -> Result<(), Error> {
        let mut targets: BTreeMap<&Arc<str>, Vec<&Part>> = BTreeMap::new();
        for part in batch.parts.iter().filter(|part| part.rows.num_rows() > 0) {
            targets.entry(&part.target).or_default().push(part);
        }
        targets.into_iter().try_for_each(|(target, parts)| self.target(batch, target, &parts))
    }

    /// The last row of a key is to be the one that stays, so rows go in by offset and index, over all parts.
    fn target(&mut self, batch: &RoutedBatch, target: &Arc<str>, parts: &[&Part]) -> Result<(), Error> {
        let mut ready = Vec::with_capacity(parts.len());
        for part in parts {
            let (schema, again) = (part.rows.schema_ref(), part.origins.is_some());
            let table = self.tables.find(self.db, self.config, target, schema, &part.route, again)?;
            let values = values(part, batch, self.table(target, table));
            ready.push(Ready { part, table, values });
        }
        let rows = |(part, ready): (usize, &Ready<'_>)| {
            (0..ready.part.rows.num_rows()).map(move |row| Item { part, row })
        };
        let mut items: Vec<Item> = ready.iter().enumerate().flat_map(rows).collect();
        if parts.len() > 1 {
            items.sort_by_key(|item| at(&ready, *item));
        }
        let mut good = Vec::with_capacity(items.len());
        for item in items {
            match self.refusal(target, &ready[item.part], item.row) {
                Some(reason) => self.reject(batch, &ready[item.part], item.row, &reason)?,
                None => good.push(item),
            }
        }
        self.count_superseded(target, &ready, &good)?;
        let alike = |a: &Item, b: &Item| {
            let (left, right) = (&ready[a.part], &ready[b.part]);
            left.table == right.table && left.deletes(a.row) == right.deletes(b.row)
        };
        for run in good.chunk_by(alike) {
            let mut rest = run;
            while !rest.is_empty() {
                let (table, deletes) = (ready[rest[0].part].table, ready[rest[0].part].deletes(rest[0].row));
                let most = self.table(target, table).max_rows(deletes);
                let (now, later) = rest.split_at((1 << rest.len().ilog2()).min(most));
                self.apply(batch, target, &ready, now)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Writes or removes rows in one statement; where the database refuses it, in halves, until the guilty rows are
    /// alone.
    fn apply(
        &mut self,
        batch: &RoutedBatch,
        target: &Arc<str>,
        ready: &[Ready<'_>],
        items: &[Item],
    ) -> Result<(), Error> {
        let first = &ready[items[0].part];
        let deletes = first.deletes(items[0].row);
        let table = self.table(target, first.table);
        let (sql, changes) = match deletes {
            // A key that is not there is no mistake.
            true => (table.delete(items.len()), None),
            false => (table.insert(items.len()), table.changes(items.len())),
        };
        let key = deletes.then(|| table.deleted_by());
        let may_be_older = table.is_guarded() && !deletes;
        let mut values = no_values();
        for item in items {
            let columns = &ready[item.part].values;
            match &key {
                Some(key) => key.iter().for_each(|place| columns[*place].bind(item.row, &mut values)),
                None => columns.iter().for_each(|column| column.bind(item.row, &mut values)),
            }
        }
        fail::fail_point!("sqlite.mid_rows");
        match self.db.change(AssertSqlSafe(sql), values, changes) {
            Ok(changed) => {
                let left_alone = if may_be_older { items.len() as u64 - changed } else { 0 };
                self.stored.superseded += left_alone;
                Ok(())
            }
            Err(Failure::Sink(error)) => Err(error),
            Err(Failure::Data(reason)) => {
                if items.len() == 1 {
                    return self.reject(batch, first, items[0].row, &reason);
                }
                let (front, back) = items.split_at(items.len() / 2);
                self.apply(batch, target, ready, front)?;
                self.apply(batch, target, ready, back)
            }
        }
    }

    /// What SQLite would not refuse, but not store as it is either.
    fn refusal(&mut self, target: &Arc<str>, ready: &Ready<'_>, row: usize) -> Option<String> {
        let table = self.table(target, ready.table);
        let null = table.key.iter().flatten().find(|place| ready.values[**place].is_null(row));
        if let Some(place) = null {
            return Some(format!("key column `{}` is null", table.column(*place)));
        }
        if ready.deletes(row) {
            let why = "a table in append mode cannot delete a row";
            return table.key.is_none().then(|| why.to_owned());
        }
        let refused = ready.values.iter().enumerate();
        let mut refused = refused.filter_map(|(place, values)| Some((place, values.refusal(row)?)));
        refused.next().map(|(place, why)| format!("{why}: column `{}`", table.column(place)))
    }

    fn reject(
        &mut self,
        batch: &RoutedBatch,
        ready: &Ready<'_>,
        row: usize,
        reason: &str,
    ) -> Result<(), Error> {
        let part = ready.part;
        let attempt = match part.attempt(row) {
            0 => None,
            attempt => says_attempt(self.db)?.then_some(attempt),
        };
        let (column, value) = if attempt.is_some() { (", weir_attempt", ", ?") } else { ("", "") };
        let sql = format!(
            "INSERT INTO weir_reject (pipeline, sink, weir_topic, weir_partition, weir_offset, weir_index, weir_plan, \
             target, route, reason, \"row\"{column}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?{value})"
        );
        let mut values = no_values();
        bound(values.add(self.owner.pipeline.clone()));
        bound(values.add(self.owner.sink.clone()));
        let (at, offset) = part.coordinates(&batch.at, row);
        bound(values.add(at.topic.clone()));
        bound(values.add(at.partition));
        bound(values.add(offset));
        bound(values.add(part.index[row]));
        bound(values.add(batch.plan.plan as i64));
        bound(values.add(part.target.clone()));
        bound(values.add(part.route.clone()));
        bound(values.add(reason));
        bound(values.add(row_as_json(part, row, MAX_REJECT)?));
        if let Some(attempt) = attempt {
            bound(values.add(attempt));
        }
        self.db.run(AssertSqlSafe(sql), values)?;
        self.stored.rejected += 1;
        fail::fail_point!("sqlite.after_reject");
        Ok(())
    }

    fn count_superseded(
        &mut self,
        target: &Arc<str>,
        ready: &[Ready<'_>],
        items: &[Item],
    ) -> Result<(), Error> {
        let mut keys = Vec::with_capacity(ready.len());
        for ready in ready {
            let Some(key) = &self.table(target, ready.table).key else { return Ok(()) };
            let columns = ready.part.rows.project(key).expect("the key is among the columns");
            keys.push(columns);
        }
        let keys = keys.iter().map(JsonRows::new).collect::<Result<Vec<_>, _>>().map_err(unsupported)?;
        let seen = self.keys.entry(target.clone()).or_default();
        for item in items {
            let mut key = Vec::new();
            keys[item.part].write(item.row, &mut key);
            self.stored.superseded += u64::from(!seen.insert(key));
        }
        Ok(())
    }

    fn table(&mut self, target: &Arc<str>, place: usize) -> &mut Table {
        self.tables.get(target, place)
    }
}

impl Ready<'_> {
    fn deletes(&self, row: usize) -> bool {
        self.part.deletes.as_ref().is_some_and(|deletes| deletes.value(row))
    }
}

fn at(ready: &[Ready<'_>], item: Item) -> (i64, i32) {
    let part = ready[item.part].part;
    (part.offsets[item.row], part.index[item.row])
}

fn values<'a>(part: &'a Part, batch: &'a RoutedBatch, table: &Table) -> Vec<Values<'a>> {
    let mut values: Vec<_> = part.rows.columns().iter().map(|array| Values::new(array.as_ref())).collect();
    if !table.provenance {
        return values;
    }
    match &part.origins {
        None => values.extend([
            Values::SameText(batch.at.topic.clone()),
            Values::Same(batch.at.partition.into()),
            Values::Offsets(slice(&part.offsets)),
        ]),
        Some(origins) => values.extend([
            Values::Topics(origins),
            Values::Origins(origins, |origin| origin.at.partition.into()),
            Values::Origins(origins, |origin| origin.offset.get()),
        ]),
    }
    values.extend([Values::Indexes(slice(&part.index)), Values::Same(batch.plan.plan as i64)]);
    let origins = part.origins.iter().filter(|_| table.says_attempt());
    values.extend(origins.map(|origins| Values::Origins(origins, |origin| origin.attempt.into())));
    values
}

fn slice<T: arrow::datatypes::ArrowNativeType>(numbers: &ScalarBuffer<T>) -> &[T] {
    numbers
}

fn unsupported(error: crate::sink::json::Unsupported) -> Error {
    Error::Permanent(Problem::new(error.to_string()))
}
