//! The rows of a commit on their way into their tables, inside the transaction of their positions; those of all its
//! partitions share statements. A row that the database refuses for what is in it goes to `weir_reject`, alone; the rows
//! around it are written, whichever partition they came from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sqlx::{Arguments, AssertSqlSafe};

use super::PostgresConfig;
use super::database::{Database, Failure, Refusal};
use super::encode::{self, Column};
use super::order::{Key, rounds, runs};
use super::parameters::{Array, bound, no_values};
use super::pieces::{Size, pieces};
use super::table::{Table, parameter, quoted};
use super::tables::Tables;
use super::values::Values;
use crate::sink::table::{ATTEMPT, Stored, row_as_json};
use crate::sink::{Error, Part, RoutedBatch};

/// What the table of rejects is made with: rows that the database refused, by the pipeline and sink that brought them.
pub(super) const REJECTS: &str = "pipeline text NOT NULL, sink text NOT NULL, weir_topic text NOT NULL, \
     weir_partition integer NOT NULL, weir_offset bigint NOT NULL, weir_index integer NOT NULL, \
     weir_plan bigint NOT NULL, target text NOT NULL, route text NOT NULL, reason text NOT NULL, \
     sqlstate text, \"row\" text, weir_attempt integer";

/// A row whose JSON is longer than this is told about without it: PostgreSQL takes no value of 1 GiB.
const MAX_REJECT: usize = 500_000_000;

/// Writes what was staged for some partitions, in a transaction in which the tables were looked at. Tells what became of the
/// rows of each.
pub(super) fn store(
    db: &mut Database,
    config: &PostgresConfig,
    tables: &mut Tables,
    partitions: &[&[RoutedBatch]],
) -> Result<Vec<Stored>, Error> {
    let mut targets: BTreeMap<&Arc<str>, Vec<(usize, &RoutedBatch, &Part)>> = BTreeMap::new();
    for (partition, batches) in partitions.iter().enumerate() {
        for batch in *batches {
            for part in batch.parts.iter().filter(|part| part.rows.num_rows() > 0) {
                targets.entry(&part.target).or_default().push((partition, batch, part));
            }
        }
    }
    let parts: Vec<_> = targets.into_values().flatten().collect();
    let mut places = Vec::with_capacity(parts.len());
    for (.., part) in &parts {
        let (schema, again) = (part.rows.schema_ref(), part.origins.is_some());
        places.push(tables.find(db, config, &part.target, schema, &part.route, again)?);
    }
    let ready = parts.into_iter().zip(places).map(|((partition, batch, part), place)| {
        let table = tables.get(&part.target, place);
        Ready { partition, batch, part, table, place, columns: columns(batch, part, table) }
    });
    let rows = Rows { parts: ready.collect() };
    let stored = vec![Stored::default(); partitions.len()];
    let mut storing = Storing { db, config, rows, stored };
    storing.all()?;
    Ok(storing.stored)
}

struct Storing<'a> {
    db: &'a mut Database,
    config: &'a PostgresConfig,
    rows: Rows<'a>,
    /// Of each partition.
    stored: Vec<Stored>,
}

/// The rows of a commit: parts of one target after those of another.
struct Rows<'a> {
    parts: Vec<Ready<'a>>,
}

/// A part with its place to go.
struct Ready<'a> {
    /// Which of those that are committed.
    partition: usize,
    batch: &'a RoutedBatch,
    part: &'a Part,
    table: &'a Table,
    /// See [`Tables::find`].
    place: usize,
    columns: Vec<Column<'a>>,
}

/// A row of a part.
#[derive(Clone, Copy)]
struct Item {
    part: usize,
    row: usize,
}

impl Storing<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let mut groups = Vec::new();
        for parts in self.rows.targets() {
            groups.extend(self.target(parts)?);
        }
        let rows = &self.rows;
        let alike = |a: &Item, b: &Item| {
            rows.of(*a).place == rows.of(*b).place && rows.deletes(*a) == rows.deletes(*b)
        };
        let alike = groups.iter().flat_map(|group| group.chunk_by(alike));
        let statements: Vec<_> = alike.flat_map(|items| pieces(items, |item| rows.size(*item))).collect();
        // Small ones share a savepoint: rarely is any refused.
        for (together, _) in pieces(&statements, |(_, size)| *size) {
            let together: Vec<&[Item]> = together.iter().map(|(items, _)| *items).collect();
            self.apply(&together)?;
        }
        Ok(())
    }

    /// The rows of a target that may share a statement; what is in one group comes after all that is in the one before.
    /// The last row of a key is to be the one that stays, so rows go in by offset and index, over all parts of a partition.
    fn target(&mut self, parts: Range<usize>) -> Result<Vec<Vec<Item>>, Error> {
        let several = parts.len() > 1;
        let mut items = Vec::new();
        for part in parts {
            items.extend((0..self.rows.parts[part].part.rows.num_rows()).map(|row| Item { part, row }));
        }
        if several {
            items.sort_by_key(|item| self.rows.at(*item));
        }
        let mut good = Vec::with_capacity(items.len());
        for item in items {
            match self.rows.refusal(item) {
                Some(reason) => self.reject(item, &Refusal { reason, sqlstate: None })?,
                None => good.push(item),
            }
        }
        Ok(self.groups(good))
    }

    fn groups(&mut self, items: Vec<Item>) -> Vec<Vec<Item>> {
        let Some(table) = items.first().map(|item| self.rows.of(*item).table) else { return Vec::new() };
        if table.key.is_none() {
            return vec![items];
        }
        let keyed: Vec<(Key, Item)> = items.into_iter().map(|item| (self.rows.key(item), item)).collect();
        let mut distinct: Vec<(usize, &Key)> =
            keyed.iter().map(|(key, item)| (self.rows.of(*item).partition, key)).collect();
        distinct.iter().for_each(|(partition, _)| self.stored[*partition].superseded += 1);
        distinct.sort_unstable();
        distinct.dedup();
        distinct.iter().for_each(|(partition, _)| self.stored[*partition].superseded -= 1);
        match table.is_entangled() {
            true => runs(keyed.into_iter()),
            false => rounds(keyed.into_iter()),
        }
    }

    /// Writes or removes rows, a statement after the other; where the database refuses any, in halves, until the guilty rows
    /// are alone.
    fn apply(&mut self, statements: &[&[Item]]) -> Result<(), Error> {
        let rows = &self.rows;
        let mut left_alone = Vec::new();
        let changed = self.db.change(|db| {
            statements.iter().try_for_each(|items| {
                fail::fail_point!("postgres.mid_rows");
                left_alone.push((rows.of(items[0]).partition, rows.change(db, items)?));
                Ok(())
            })
        });
        let refusal = match changed {
            Ok(()) => {
                // Those of a statement come from partitions of the replay input, whichever: only their sum is told.
                left_alone.into_iter().for_each(|(partition, n)| self.stored[partition].superseded += n);
                return Ok(());
            }
            Err(Failure::Sink(error)) => return Err(error),
            Err(Failure::Data(refusal)) => refusal,
        };
        match statements {
            [[item]] => self.reject(*item, &refusal),
            [items] => {
                let (front, back) = items.split_at(items.len() / 2);
                self.apply(&[front])?;
                self.apply(&[back])
            }
            _ => {
                let (front, back) = statements.split_at(statements.len() / 2);
                self.apply(front)?;
                self.apply(back)
            }
        }
    }

    fn reject(&mut self, item: Item, refusal: &Refusal) -> Result<(), Error> {
        let Ready { partition, batch, part, .. } = self.rows.of(item);
        let attempt = match part.attempt(item.row) {
            0 => None,
            attempt => says_attempt(self.db, self.config)?.then_some(attempt),
        };
        let (column, value) =
            if attempt.is_some() { (format!(", {ATTEMPT}"), ", $13") } else { (String::new(), "") };
        let sql = format!(
            "INSERT INTO {}.weir_reject (pipeline, sink, weir_topic, weir_partition, weir_offset, weir_index, \
             weir_plan, target, route, reason, sqlstate, \"row\"{column}) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12{value})",
            quoted(&self.config.schema)
        );
        let mut values = no_values();
        bound(values.add(self.config.pipeline.clone()));
        bound(values.add(self.config.sink.clone()));
        let (at, offset) = part.coordinates(&batch.at, item.row);
        bound(values.add(at.topic.clone()));
        bound(values.add(at.partition));
        bound(values.add(offset));
        bound(values.add(part.index[item.row]));
        bound(values.add(batch.plan.plan as i64));
        bound(values.add(part.target.clone()));
        bound(values.add(part.route.clone()));
        bound(values.add(refusal.reason.replace('\0', "\u{fffd}")));
        bound(values.add(refusal.sqlstate.clone()));
        bound(values.add(row_as_json(part, item.row, MAX_REJECT)?));
        if let Some(attempt) = attempt {
            bound(values.add(i32::from(attempt)));
        }
        self.db.run(AssertSqlSafe(sql), values)?;
        self.stored[*partition].rejected += 1;
        fail::fail_point!("postgres.after_reject");
        Ok(())
    }
}

/// Whether the table of rejects has a column for attempts: it may have been made without. Few rows are refused that come again,
/// so it is asked for each.
pub(super) fn says_attempt(db: &mut Database, config: &PostgresConfig) -> Result<bool, Error> {
    const SQL: &str = "SELECT 1 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                       JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $1 AND c.relname = 'weir_reject' AND a.attname = $2 AND NOT a.attisdropped";
    let mut values = no_values();
    bound(values.add(config.schema.clone()));
    bound(values.add(ATTEMPT));
    Ok(!db.query(SQL, values)?.is_empty())
}

impl<'a> Rows<'a> {
    /// Which parts are those of one target.
    fn targets(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let of_target = self.parts.chunk_by(|a, b| a.part.target == b.part.target);
        let range = |parts: &[Ready]| {
            let start = end;
            end += parts.len();
            start..end
        };
        of_target.map(range).collect()
    }

    /// Writes or removes rows in one statement. Returns how many were left as they are, since what would take their place
    /// comes again from a record in front of theirs.
    fn change(&self, db: &mut Database, items: &[Item]) -> Result<u64, Failure> {
        let (deletes, n) = (self.deletes(items[0]), items.len());
        let table = self.of(items[0]).table;
        let Some(key) = &table.key else {
            let each = items.iter().map(|item| (&*self.of(*item).columns, item.row));
            let bytes = encode::copy(each);
            return all_changed(Some(n as u64), db.copy(&table.copy(), &bytes)?).map(|()| 0);
        };
        let (sql, changes, places) = match deletes {
            // A key that is not there is no mistake.
            true => (table.delete(key, parameter), None, table.deleted_by(key)),
            false => {
                let all = (0..self.of(items[0]).columns.len()).collect();
                (table.upsert(key, parameter), table.changes(key, n), all)
            }
        };
        let mut values = no_values();
        for place in places {
            let of = table.to(place);
            let each = items.iter().map(|item| (&self.of(*item).columns[place], item.row));
            bound(values.add(Array { of, bytes: encode::array(of, each) }));
        }
        let changed = db.execute(AssertSqlSafe(sql), values)?;
        all_changed(changes, changed)?;
        let may_be_older = table.is_guarded() && !deletes;
        Ok(if may_be_older { n as u64 - changed } else { 0 })
    }

    /// What PostgreSQL would refuse, or not store as it is, as far as it can be told without it.
    fn refusal(&self, item: Item) -> Option<String> {
        let Ready { table, columns, .. } = self.of(item);
        let null = table.key.iter().flatten().find(|place| columns[**place].values.is_null(item.row));
        if let Some(place) = null {
            return Some(format!("key column `{}` is null", table.column(*place)));
        }
        if self.deletes(item) && table.key.is_none() {
            return Some("a table in append mode cannot delete a row".to_owned());
        }
        let judged =
            |place: &usize| !self.deletes(item) || table.key.iter().flatten().any(|key| key == place);
        let mut refused = (0..columns.len()).filter(judged);
        refused.find_map(|place| {
            let why = columns[place].refusal(item.row)?;
            Some(format!("{why}: column `{}`", table.column(place)))
        })
    }

    fn key(&self, item: Item) -> Key {
        let ready = self.of(item);
        let mut key = Key::new();
        for place in ready.table.key.iter().flatten() {
            ready.columns[*place].write(item.row, &mut key);
        }
        key
    }

    fn size(&self, item: Item) -> Size {
        let bytes = self.of(item).columns.iter().map(|column| column.values.size(item.row)).sum();
        Size { rows: 1, bytes }
    }

    fn of(&self, item: Item) -> &Ready<'a> {
        &self.parts[item.part]
    }

    fn deletes(&self, item: Item) -> bool {
        self.of(item).part.deletes.as_ref().is_some_and(|deletes| deletes.value(item.row))
    }

    fn at(&self, item: Item) -> (usize, i64, i32) {
        let Ready { partition, part, .. } = self.of(item);
        (*partition, part.offsets[item.row], part.index[item.row])
    }
}

/// A trigger may leave rows out without a word. `changes` is how many rows a statement changes, where that is known.
fn all_changed(changes: Option<u64>, changed: u64) -> Result<(), Failure> {
    match changes.is_none_or(|changes| changes == changed) {
        true => Ok(()),
        false => {
            Err(Failure::Data(Refusal { reason: "a trigger ignores the row".to_owned(), sqlstate: None }))
        }
    }
}

fn columns<'a>(batch: &'a RoutedBatch, part: &'a Part, table: &Table) -> Vec<Column<'a>> {
    let mut values: Vec<_> = part.rows.columns().iter().map(|array| Values::new(array.as_ref())).collect();
    if table.provenance {
        values.extend(match &part.origins {
            None => [
                Values::SameText(&batch.at.topic),
                Values::Same(batch.at.partition.into()),
                Values::Offsets(&part.offsets),
            ],
            Some(origins) => [
                Values::Topics(origins),
                Values::Origins(origins, |origin| origin.at.partition.into()),
                Values::Origins(origins, |origin| origin.offset.get()),
            ],
        });
        values.extend([Values::Indexes(&part.index), Values::Same(batch.plan.plan as i64)]);
        let origins = part.origins.iter().filter(|_| table.says_attempt());
        values.extend(origins.map(|origins| Values::Origins(origins, |origin| origin.attempt.into())));
    }
    values.into_iter().enumerate().map(|(place, values)| Column { values, to: table.to(place) }).collect()
}
