//! The rows of a commit on their way into their tables, inside the transaction of their position. A row that the
//! database refuses for what is in it goes to `weir_reject`, alone; the rows around it are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::{Arguments, AssertSqlSafe};

use super::PostgresConfig;
use super::database::{Database, Failure, Refusal};
use super::encode::{self, Column};
use super::order::{Key, rounds, runs};
use super::parameters::{Array, bound, no_values};
use super::table::{Table, parameter, quoted};
use super::tables::Tables;
use super::values::Values;
use crate::sink::table::{Stored, row_as_json};
use crate::sink::{Error, Part, RoutedBatch};

/// What the table of rejects is made with: rows that the database refused, by the pipeline and sink that brought them.
pub(super) const REJECTS: &str = "pipeline text NOT NULL, sink text NOT NULL, weir_topic text NOT NULL, \
     weir_partition integer NOT NULL, weir_offset bigint NOT NULL, weir_index integer NOT NULL, \
     weir_plan bigint NOT NULL, target text NOT NULL, route text NOT NULL, reason text NOT NULL, \
     sqlstate text, \"row\" text";

/// A row whose JSON is longer than this is told about without it: PostgreSQL takes no value of 1 GiB.
const MAX_REJECT: usize = 500_000_000;

/// Rows per statement, and their bytes: more save little and cost memory.
const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 8 << 20;

/// Writes what was staged for a partition, in a transaction in which the tables were looked at.
pub(super) fn store(
    db: &mut Database,
    config: &PostgresConfig,
    tables: &mut Tables,
    batches: &[RoutedBatch],
) -> Result<Stored, Error> {
    let mut targets: BTreeMap<&Arc<str>, Vec<(&RoutedBatch, &Part)>> = BTreeMap::new();
    for batch in batches {
        for part in batch.parts.iter().filter(|part| part.rows.num_rows() > 0) {
            targets.entry(&part.target).or_default().push((batch, part));
        }
    }
    let mut stored = Stored::default();
    for (target, parts) in targets {
        let mut places = Vec::with_capacity(parts.len());
        for (_, part) in &parts {
            places.push(tables.find(db, config, target, part.rows.schema_ref(), &part.route)?);
        }
        let ready = parts.iter().zip(places).map(|((batch, part), place)| {
            let table = tables.get(target, place);
            Ready { batch, part, table, place, columns: columns(batch, part, table) }
        });
        let ready = ready.collect();
        let mut storing = Storing { db, config, ready, stored: Stored::default() };
        storing.target()?;
        stored.rejected += storing.stored.rejected;
        stored.superseded += storing.stored.superseded;
    }
    Ok(stored)
}

/// The rows of one target.
struct Storing<'a> {
    db: &'a mut Database,
    config: &'a PostgresConfig,
    ready: Vec<Ready<'a>>,
    stored: Stored,
}

/// A part with its place to go.
struct Ready<'a> {
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

impl<'a> Storing<'a> {
    /// The last row of a key is to be the one that stays, so rows go in by offset and index, over all parts.
    fn target(&mut self) -> Result<(), Error> {
        let mut items = Vec::new();
        for (part, ready) in self.ready.iter().enumerate() {
            items.extend((0..ready.part.rows.num_rows()).map(|row| Item { part, row }));
        }
        if self.ready.len() > 1 {
            items.sort_by_key(|item| self.at(*item));
        }
        let mut good = Vec::with_capacity(items.len());
        for item in items {
            match self.refusal(item) {
                Some(reason) => self.reject(item, &Refusal { reason, sqlstate: None })?,
                None => good.push(item),
            }
        }
        for group in self.groups(good) {
            let alike = |a: &Item, b: &Item| {
                self.of(*a).place == self.of(*b).place && self.deletes(*a) == self.deletes(*b)
            };
            let statements: Vec<&[Item]> =
                group.chunk_by(alike).flat_map(|rows| self.statements(rows)).collect();
            for rows in statements {
                self.apply(rows)?;
            }
        }
        Ok(())
    }

    /// Rows that may share a statement; what is in one group comes after all that is in the one before.
    fn groups(&mut self, items: Vec<Item>) -> Vec<Vec<Item>> {
        if self.ready.iter().any(|ready| ready.table.key.is_none()) {
            return vec![items];
        }
        let n = items.len();
        let keyed: Vec<(Key, Item)> = items.into_iter().map(|item| (self.key(item), item)).collect();
        let mut distinct: Vec<&Key> = keyed.iter().map(|(key, _)| key).collect();
        distinct.sort_unstable();
        distinct.dedup();
        self.stored.superseded += (n - distinct.len()) as u64;
        match self.ready.iter().any(|ready| ready.table.is_entangled()) {
            true => runs(keyed.into_iter()),
            false => rounds(keyed.into_iter()),
        }
    }

    fn key(&self, item: Item) -> Key {
        let ready = self.of(item);
        let mut key = Key::new();
        for place in ready.table.key.iter().flatten() {
            ready.columns[*place].write(item.row, &mut key);
        }
        key
    }

    /// Cuts rows where a statement would be too large.
    fn statements<'i>(&self, items: &'i [Item]) -> Vec<&'i [Item]> {
        let mut statements = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (n, item) in items.iter().enumerate() {
            let row: usize = self.of(*item).columns.iter().map(|column| column.values.size(item.row)).sum();
            if n - start == MAX_ROWS || n > start && bytes + row > MAX_BYTES {
                statements.push(&items[start..n]);
                (start, bytes) = (n, 0);
            }
            bytes += row;
        }
        statements.extend((start < items.len()).then(|| &items[start..]));
        statements
    }

    /// Writes or removes rows in one statement; where the database refuses it, in halves, until the guilty rows are
    /// alone.
    fn apply(&mut self, items: &[Item]) -> Result<(), Error> {
        fail::fail_point!("postgres.mid_rows");
        match self.change(items) {
            Ok(()) => Ok(()),
            Err(Failure::Sink(error)) => Err(error),
            Err(Failure::Data(refusal)) if items.len() == 1 => self.reject(items[0], &refusal),
            Err(Failure::Data(_)) => {
                let (front, back) = items.split_at(items.len() / 2);
                self.apply(front)?;
                self.apply(back)
            }
        }
    }

    fn change(&mut self, items: &[Item]) -> Result<(), Failure> {
        let (deletes, rows) = (self.deletes(items[0]), items.len());
        let table = self.of(items[0]).table;
        let Some(key) = &table.key else {
            let each = items.iter().map(|item| (&*self.of(*item).columns, item.row));
            let bytes = encode::copy(each);
            return self.db.change(Some(rows as u64), |db| db.copy(&table.copy(), &bytes));
        };
        let all: Vec<usize>;
        let (sql, changes, places) = match deletes {
            // A key that is not there is no mistake.
            true => (table.delete(key, parameter), None, key),
            false => {
                all = (0..self.of(items[0]).columns.len()).collect();
                (table.upsert(key, parameter), table.changes(key, rows), &all)
            }
        };
        let mut values = no_values();
        for place in places {
            let of = table.to(*place);
            let each = items.iter().map(|item| (&self.of(*item).columns[*place], item.row));
            bound(values.add(Array { of, bytes: encode::array(of, each) }));
        }
        self.db.change(changes, |db| db.execute(AssertSqlSafe(sql), values))
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

    fn reject(&mut self, item: Item, refusal: &Refusal) -> Result<(), Error> {
        let Ready { batch, part, .. } = &self.ready[item.part];
        let sql = format!(
            "INSERT INTO {}.weir_reject (pipeline, sink, weir_topic, weir_partition, weir_offset, weir_index, \
             weir_plan, target, route, reason, sqlstate, \"row\") \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            quoted(&self.config.schema)
        );
        let mut values = no_values();
        bound(values.add(self.config.pipeline.clone()));
        bound(values.add(self.config.sink.clone()));
        bound(values.add(batch.at.topic.clone()));
        bound(values.add(batch.at.partition));
        bound(values.add(part.offsets[item.row]));
        bound(values.add(part.index[item.row]));
        bound(values.add(batch.plan.plan as i64));
        bound(values.add(part.target.clone()));
        bound(values.add(part.route.clone()));
        bound(values.add(refusal.reason.replace('\0', "\u{fffd}")));
        bound(values.add(refusal.sqlstate.clone()));
        bound(values.add(row_as_json(part, item.row, MAX_REJECT)?));
        self.db.run(AssertSqlSafe(sql), values)?;
        self.stored.rejected += 1;
        fail::fail_point!("postgres.after_reject");
        Ok(())
    }

    fn of(&self, item: Item) -> &Ready<'a> {
        &self.ready[item.part]
    }

    fn deletes(&self, item: Item) -> bool {
        self.of(item).part.deletes.as_ref().is_some_and(|deletes| deletes.value(item.row))
    }

    fn at(&self, item: Item) -> (i64, i32) {
        let part = self.of(item).part;
        (part.offsets[item.row], part.index[item.row])
    }
}

fn columns<'a>(batch: &'a RoutedBatch, part: &'a Part, table: &Table) -> Vec<Column<'a>> {
    let mut values: Vec<_> = part.rows.columns().iter().map(|array| Values::new(array.as_ref())).collect();
    if table.provenance {
        values.extend([
            Values::SameText(&batch.at.topic),
            Values::Same(batch.at.partition.into()),
            Values::Offsets(&part.offsets),
            Values::Indexes(&part.index),
            Values::Same(batch.plan.plan as i64),
        ]);
    }
    values.into_iter().enumerate().map(|(place, values)| Column { values, to: table.to(place) }).collect()
}
