//! The customers rule without a sandbox: the same crate, compiled with the host. Its columns become the same Arrow
//! arrays, without the checks, for they do not come from a stranger. Never more than that rule needs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use customers::Customers;
use weir::batch::Batch;
use weir::route::{Output, Reject, RouteRows, Why};
use weir::rule::{CallError, Rule};
use weir::tables::{Table, TableValues};
use weir_sdk::batch::VarBytesRef;
use weir_sdk::column::{Column, ColumnData, VarBytes};
use weir_sdk::output::{Rejects, RouteOutput};
use weir_sdk::{Instance, TableData};

/// See the module.
pub(crate) struct Native(Instance<Customers>);

impl Native {
    /// The rule with its defaults and these tables.
    pub(crate) fn new(tables: &[Arc<Table>]) -> Self {
        let tables = tables.iter().map(|table| table_data(table)).collect();
        Self(Instance::init(Vec::new(), tables).expect("the rule starts with its table"))
    }
}

impl Rule for Native {
    fn process(&mut self, batch: &Batch) -> Result<Output, CallError> {
        let values = batch.values();
        let values = VarBytesRef { offsets: &values.offsets, data: &values.data, validity: &values.validity };
        let input = weir_sdk::Batch {
            topic: &batch.at().topic,
            count: batch.len() as u32,
            values,
            keys: None,
            headers: None,
            timestamps: None,
            partitions: None,
            offsets: None,
        };
        let output =
            self.0.process(&input).map_err(|text| CallError::Returned { text, log: String::new() })?;
        Ok(adopt(output))
    }
}

fn adopt(output: weir_sdk::Output) -> Output {
    let routes = output.routes.into_iter().map(rows).collect();
    Output { routes, rejects: rejects(&output.rejects), dropped: output.dropped, bytes: 0 }
}

fn rows(route: RouteOutput) -> RouteRows {
    let n = route.rows.len();
    let columns = route.columns.into_iter().map(|column| array(column, n)).collect();
    RouteRows {
        route: route.route as usize,
        rows: route.rows,
        columns,
        keys: None,
        headers: None,
        deletes: None,
    }
}

fn array(column: Column, rows: usize) -> ArrayRef {
    let present = Some(column.validity).filter(|bits| !bits.is_empty());
    let nulls = present.map(|bits| NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows)));
    match column.data {
        ColumnData::S64s(values) => Arc::new(Int64Array::new(ScalarBuffer::from(values), nulls)),
        ColumnData::VarBytes(entries) => Arc::new(text(entries, nulls)),
        _ => unreachable!("the rule's fields are texts and whole numbers"),
    }
}

#[expect(
    unsafe_code,
    reason = "the same trust that native code has in itself: checks are the sandbox's cost"
)]
fn text(entries: VarBytes, nulls: Option<NullBuffer>) -> StringArray {
    let offsets = ScalarBuffer::<i32>::from(Buffer::from_vec(entries.offsets));
    let data = Buffer::from_vec(entries.data);
    // SAFETY: the column was filled from texts, one behind the other, which together are far below 2 GiB.
    unsafe { StringArray::new_unchecked(OffsetBuffer::new_unchecked(offsets), data, nulls) }
}

fn rejects(all: &Rejects) -> Vec<Reject> {
    let details = VarBytesRef::from(&all.details);
    let mut rejects: Vec<Reject> = Vec::new();
    for (i, (row, reason)) in all.rows.iter().zip(&all.reasons).enumerate() {
        let detail = if details.offsets.is_empty() { None } else { details.get(i) };
        let detail = detail.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let why = Why { reason: *reason as usize, detail };
        match rejects.last_mut() {
            Some(reject) if reject.row == *row => reject.reasons.push(why),
            _ => rejects.push(Reject { row: *row, reasons: vec![why] }),
        }
    }
    rejects
}

fn table_data(table: &Table) -> TableData {
    let columns = table.columns.iter().map(|column| {
        let TableValues::VarBytes(entries) = &column.values else {
            unreachable!("the rule's table is of texts")
        };
        let entries =
            VarBytes { offsets: entries.offsets.clone(), data: entries.data.clone(), validity: Vec::new() };
        let column_data = Column { data: ColumnData::VarBytes(entries), validity: column.validity.clone() };
        (column.name.clone(), column_data)
    });
    TableData { name: table.name.clone(), rows: table.rows, columns: columns.collect() }
}
