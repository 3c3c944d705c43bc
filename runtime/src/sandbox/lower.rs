//! What goes into a guest: batches as they are, tables in the order in which they were asked for. Nothing is
//! copied on this side, but where records are that come again.

use std::borrow::Cow;

use super::bindings::wit;
use crate::batch::{Batch, Headers, VarBytes};
use crate::description::{DataType, Description, Field, Needs, TableNeed};
use crate::tables::{Table, TableColumn, TableValues};

/// Where the records of a batch are, as the transform is told: those that come again, where they came first.
pub(super) struct Places<'a> {
    partitions: Vec<i32>,
    offsets: Cow<'a, [i64]>,
}

impl<'a> Places<'a> {
    /// As far as the transform wants them.
    pub(super) fn of(batch: &'a Batch, needs: Needs) -> Self {
        let partitions = match batch.origins() {
            _ if !needs.partitions => Vec::new(),
            None => vec![batch.at().partition; batch.len()],
            Some(origins) => origins.iter().map(|origin| origin.at.partition).collect(),
        };
        let offsets = match batch.origins() {
            None => batch.offsets().into(),
            Some(origins) => origins.iter().map(|origin| origin.offset.get()).collect(),
        };
        Self { partitions, offsets }
    }
}

/// The parts of `batch` that the transform wants.
pub(super) fn batch<'a>(batch: &'a Batch, needs: Needs, places: &'a Places<'_>) -> wit::Batch<'a> {
    wit::Batch {
        topic: batch.topic(),
        count: batch.len() as u32,
        values: var_bytes(batch.values()),
        keys: needs.keys.then(|| var_bytes(batch.keys())),
        headers: needs.headers.then(|| headers(batch.headers())),
        timestamps: needs.timestamps.then(|| batch.timestamps()),
        partitions: needs.partitions.then_some(&places.partitions),
        offsets: needs.offsets.then_some(&places.offsets),
    }
}

fn var_bytes(of: &VarBytes) -> wit::VarBytesParam<'_> {
    wit::VarBytesParam { offsets: &of.offsets, data: &of.data, validity: &of.validity }
}

fn headers(of: &Headers) -> wit::HeadersParam<'_> {
    wit::HeadersParam { starts: &of.starts, names: var_bytes(&of.names), values: var_bytes(&of.values) }
}

/// A table with the columns that were asked for, in that order.
pub(super) struct Wanted<'a> {
    name: &'a str,
    rows: u32,
    columns: Vec<wit::NamedColumn<'a>>,
}

impl<'a> Wanted<'a> {
    pub(super) fn as_param(&'a self) -> wit::Table<'a> {
        wit::Table { name: self.name, rows: self.rows, columns: &self.columns }
    }
}

/// Picks the tables that `description` wants. The error names what is missing or does not fit.
pub(super) fn tables<'a, T: AsRef<Table>>(
    given: &'a [T],
    description: &Description,
) -> Result<Vec<Wanted<'a>>, String> {
    let mut all = Vec::new();
    for need in &description.tables {
        match given.iter().map(AsRef::as_ref).find(|table| table.name == need.name) {
            Some(table) => all.push(pick(table, need).map_err(|e| format!("table `{}`: {e}", need.name))?),
            None if need.required => return Err(format!("table `{}` is required, and not given", need.name)),
            None => {}
        }
    }
    Ok(all)
}

fn pick<'a>(table: &'a Table, need: &TableNeed) -> Result<Wanted<'a>, String> {
    let columns = need.columns.iter().map(|field| {
        let found = table.columns.iter().find(|column| column.name == field.name);
        found
            .ok_or_else(|| format!("it has no column `{}`", field.name))
            .and_then(|c| column(c, field, table.rows))
    });
    Ok(Wanted { name: &table.name, rows: table.rows, columns: columns.collect::<Result<_, _>>()? })
}

fn column<'a>(from: &'a TableColumn, field: &Field, rows: u32) -> Result<wit::NamedColumn<'a>, String> {
    let at = |what: &str| format!("column `{}`: {what}", field.name);
    let data = data(&from.values, field.data_type).ok_or_else(|| at("its type is not the one asked for"))?;
    let full =
        (0..rows as usize).all(|i| from.validity.is_empty() || from.validity[i / 8] >> (i % 8) & 1 == 1);
    if !field.nullable && !full {
        return Err(at("it has rows without a value"));
    }
    Ok(wit::NamedColumn { name: &from.name, column: wit::ColumnParam { data, validity: &from.validity } })
}

fn data(values: &TableValues, wanted: DataType) -> Option<wit::ColumnDataParam<'_>> {
    use DataType as T;
    use wit::ColumnDataParam as Data;
    Some(match (values, wanted) {
        (TableValues::Booleans(bits), T::Boolean) => Data::Booleans(bits),
        (TableValues::Int32s(all), T::Int32 | T::Date) => Data::S32s(all),
        (TableValues::Int64s(all), T::Int64 | T::Timestamp) => Data::S64s(all),
        (TableValues::Doubles(all), T::Double) => Data::F64s(all),
        (TableValues::Decimals(all), T::Decimal { .. }) => Data::S128s(all),
        (TableValues::VarBytes(all), T::Utf8 | T::Binary | T::Json) => Data::VarBytes(var_bytes(all)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, RecordRef};
    use crate::budget::Permit;
    use crate::offset::{Offset, TopicPartition};
    use crate::origin::ENVELOPE;

    fn told(again: bool) -> (String, Vec<i32>, Vec<i64>) {
        let mut builder = BatchBuilder::new(TopicPartition::new("weir.p.replay", 0), Offset::new(7));
        if again {
            builder.open_envelopes();
        }
        for (n, text) in [(7, "a/3/50/1"), (9, "a/1/60/2")] {
            let headers = [(ENVELOPE, Some(text.as_bytes()))];
            builder.push(Offset::new(n), RecordRef { headers: &headers, ..Default::default() });
        }
        let all = builder.finish(Offset::new(10), Permit::free()).expect("not empty");
        let needs = Needs { partitions: true, offsets: true, ..Needs::default() };
        let places = Places::of(&all, needs);
        let input = batch(&all, needs, &places);
        let (partitions, offsets) = (input.partitions.unwrap(), input.offsets.unwrap());
        (input.topic.to_owned(), partitions.to_vec(), offsets.to_vec())
    }

    #[test]
    fn a_transform_is_told_where_a_record_came_first() {
        assert_eq!(told(true), ("a".to_owned(), vec![3, 1], vec![50, 60]));
        assert_eq!(told(false), ("weir.p.replay".to_owned(), vec![0, 0], vec![7, 9]));
    }
}
