//! Reads the fate of each record out of an output, for native tests of transforms. Never used in a component.

use crate::batch::{Batch, VarBytesRef};
use crate::column::{Column, ColumnData, VarBytes, is_present};
use crate::description::{Description, RouteContent};
use crate::output::{Output, RouteOutput};
use crate::transform::{Instance, Transform};

/// What became of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    Routed(Vec<Routed>),
    /// Codes, and what was found.
    Rejected(Vec<(String, Option<String>)>),
    Dropped,
}

/// One row of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    pub route: String,
    /// Names and values of the fields; none on a route of records.
    pub fields: Vec<(String, Scalar)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// Times 10^scale.
    Decimal(i128),
    Text(String),
    Binary(Vec<u8>),
}

/// Runs the values (`None` is a tombstone) as one batch, and tells the fate of each.
///
/// # Errors
/// Those of [`Instance::process`], and which record is not accounted for exactly once.
pub fn fates<'v, T: Transform>(
    instance: &Instance<T>,
    values: impl IntoIterator<Item = Option<&'v [u8]>>,
) -> Result<Vec<Fate>, String> {
    let values = VarBytes::from_iter(values);
    let batch = Batch::of_values("test", &values);
    fates_of(instance.description(), &instance.process(&batch)?, batch.count)
}

/// The fates of a batch of `count` records.
///
/// # Errors
/// Which record is not accounted for exactly once.
pub fn fates_of(described: &Description, output: &Output, count: u32) -> Result<Vec<Fate>, String> {
    (0..count).map(|record| fate(described, output, record)).collect()
}

fn fate(described: &Description, output: &Output, record: u32) -> Result<Fate, String> {
    let routed: Vec<_> = output.routes.iter().flat_map(|route| rows_of(described, route, record)).collect();
    let rejected = rejects_of(described, output, record);
    let dropped = output.dropped.iter().filter(|dropped| **dropped == record).count();
    match (routed.is_empty(), rejected.is_empty(), dropped) {
        (false, true, 0) => Ok(Fate::Routed(routed)),
        (true, false, 0) => Ok(Fate::Rejected(rejected)),
        (true, true, 1) => Ok(Fate::Dropped),
        _ => Err(format!("record {record} is not accounted for exactly once")),
    }
}

fn rows_of(described: &Description, output: &RouteOutput, record: u32) -> Vec<Routed> {
    let route = &described.routes[output.route as usize];
    let rows = output.rows.iter().enumerate().filter(|(_, row)| **row == record);
    rows.map(|(row, _)| {
        let fields = match &route.content {
            RouteContent::Rows(fields) => fields.as_slice(),
            RouteContent::Records => &[],
        };
        let cells = output.columns.iter().map(|column| scalar(column, row));
        let fields = fields.iter().map(|field| field.name.clone()).zip(cells).collect();
        Routed { route: route.name.clone(), fields }
    })
    .collect()
}

fn rejects_of(described: &Description, output: &Output, record: u32) -> Vec<(String, Option<String>)> {
    let rejects = &output.rejects;
    let entries =
        rejects.rows.iter().zip(&rejects.reasons).enumerate().filter(|(_, (row, _))| **row == record);
    entries
        .map(|(entry, (_, reason))| {
            let details = VarBytesRef::from(&rejects.details);
            let detail = (!details.offsets.is_empty()).then(|| details.get(entry)).flatten();
            let code = described.reasons[*reason as usize].code.clone();
            (code, detail.map(|detail| String::from_utf8_lossy(detail).into_owned()))
        })
        .collect()
}

fn scalar(column: &Column, row: usize) -> Scalar {
    if !is_present(&column.validity, row) {
        return Scalar::Null;
    }
    match &column.data {
        ColumnData::Booleans(bits) => Scalar::Boolean(bits[row / 8] >> (row % 8) & 1 == 1),
        ColumnData::S32s(values) => Scalar::Integer(values[row].into()),
        ColumnData::S64s(values) => Scalar::Integer(values[row]),
        ColumnData::F64s(values) => Scalar::Double(values[row]),
        ColumnData::S128s(bytes) => Scalar::Decimal(i128::from_le_bytes(bytes.as_chunks().0[row])),
        ColumnData::VarBytes(entries) => {
            let bytes = VarBytesRef::from(entries).get(row).unwrap_or_default();
            std::str::from_utf8(bytes)
                .map_or(Scalar::Binary(bytes.to_vec()), |text| Scalar::Text(text.to_owned()))
        }
    }
}
