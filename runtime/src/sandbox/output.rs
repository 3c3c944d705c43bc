//! What a guest returns for a batch, checked value by value: after this, nothing in an [`Output`] can surprise
//! anyone. Every record is accounted for once, or the whole output is refused.

use std::str;

use super::bindings::wit;
use super::columns::{adopt, bitmap, positions, var_bytes};
use crate::batch::{Batch, Headers};
use crate::description::{Description, Reason, RouteContent};
use crate::route::{Output, Reject, RouteRows, Why};

/// What a row or a reject takes on this side besides what the guest says of it: where it came from, as columns.
const ENTRY_BYTES: usize = 64;

/// Checks and adopts what came back for `batch`. `limit_bytes` is for what becomes of it on this side: a guest can say
/// in a few bytes what takes a great many.
///
/// # Errors
/// The text names the function, the route, the field and the row, and what is wrong there.
pub(super) fn check(
    said: wit::Output,
    description: &Description,
    batch: &Batch,
    limit_bytes: usize,
) -> Result<Output, String> {
    let within = |bytes: usize| match bytes > limit_bytes {
        true => Err(format!("process: {bytes} bytes of output, more than the {limit_bytes} allowed")),
        false => Ok(()),
    };
    let bytes = size(&said, &description.reasons);
    within(bytes)?;
    let mut fates = Fates { of: vec![Fate::None; batch.len()] };
    let checked = take(said, description, &mut fates).and_then(|output| fates.all_told().map(|()| output));
    let output = checked.map_err(|e| format!("process: {e}"))?;
    let bytes = bytes.saturating_add(copies(&output, description, batch));
    within(bytes)?;
    Ok(Output { bytes, ..output })
}

/// Bytes of the records that go on as they came, each but for its first time: that is no more than the batch.
fn copies(output: &Output, description: &Description, batch: &Batch) -> usize {
    let is_records =
        |route: &&RouteRows| matches!(description.routes[route.route].content, RouteContent::Records);
    let mut seen = vec![false; batch.len()];
    let mut bytes = 0_usize;
    for &row in output.routes.iter().filter(is_records).flat_map(|route| &route.rows) {
        let row = row as usize;
        if std::mem::replace(&mut seen[row], true) {
            bytes = bytes.saturating_add(batch.bytes(&(row..row + 1)));
        }
    }
    bytes
}

fn take(said: wit::Output, description: &Description, fates: &mut Fates) -> Result<Output, String> {
    let mut seen = vec![false; description.routes.len()];
    let mut routes = Vec::with_capacity(said.routes.len().min(seen.len()));
    for part in said.routes {
        let n_routes = seen.len();
        let first = seen.get_mut(part.route as usize).map(|seen| !std::mem::replace(seen, true));
        let first = first.ok_or_else(|| format!("route {}: there are {n_routes}", part.route))?;
        let name = &description.routes[part.route as usize].name;
        if !first {
            return Err(format!("route `{name}`: there are two entries for it"));
        }
        routes.push(route(part, description, fates).map_err(|e| format!("route `{name}`, {e}"))?);
    }
    let rejects =
        rejects(said.rejects, description.reasons.len(), fates).map_err(|e| format!("rejects: {e}"))?;
    dropped(&said.dropped, fates).map_err(|e| format!("dropped: {e}"))?;
    Ok(Output { routes, rejects, dropped: said.dropped, bytes: 0 })
}

/// What is known of a record so far.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Fate {
    None,
    Routed,
    Rejected,
    Dropped,
}

struct Fates {
    of: Vec<Fate>,
}

impl Fates {
    /// Notes `fate` for the records of `rows`, which never decrease.
    fn tell(&mut self, rows: &[u32], fate: Fate) -> Result<(), String> {
        let count = self.of.len();
        let mut before = 0;
        for (i, &row) in rows.iter().enumerate() {
            if row < before {
                return Err(format!("row {i}: record {row} comes after record {before}"));
            }
            let told = self.of.get_mut(row as usize);
            let told = told.ok_or_else(|| format!("row {i}: record {row} of a batch of {count}"))?;
            if *told != Fate::None && *told != fate {
                return Err(format!("row {i}: record {row} is also {}", told.name()));
            }
            *told = fate;
            before = row;
        }
        Ok(())
    }

    fn all_told(&self) -> Result<(), String> {
        let count = self.of.len();
        match self.of.iter().position(|&fate| fate == Fate::None) {
            Some(row) => Err(format!("record {row} of {count} is lost: not on a route, rejected or dropped")),
            None => Ok(()),
        }
    }
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::None => "nowhere",
            Self::Routed => "on a route",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
        }
    }
}

fn route(part: wit::RouteBatch, description: &Description, fates: &mut Fates) -> Result<RouteRows, String> {
    let n = part.rows.len();
    fates.tell(&part.rows, Fate::Routed)?;
    let route = part.route as usize;
    let columns = columns(part.columns, &description.routes[route].content, n)?;
    let keys = part.keys.map(|keys| var_bytes(keys, n)).transpose().map_err(|e| format!("keys: {e}"))?;
    let headers = part.headers.map(|h| headers(h, n)).transpose().map_err(|e| format!("headers: {e}"))?;
    let deletes = Some(part.deletes).filter(|bits| !bits.is_empty()).map(|bits| bitmap(bits, n, "deletes"));
    Ok(RouteRows { route, rows: part.rows, columns, keys, headers, deletes: deletes.transpose()? })
}

fn columns(
    said: Vec<wit::ColumnResult>,
    content: &RouteContent,
    n: usize,
) -> Result<Vec<arrow::array::ArrayRef>, String> {
    let fields = match content {
        RouteContent::Rows(fields) => fields.as_slice(),
        RouteContent::Records => &[],
    };
    if said.len() != fields.len() {
        return Err(format!("{} columns for {} fields", said.len(), fields.len()));
    }
    let adopted = said.into_iter().zip(fields);
    adopted.map(|(c, field)| adopt(c, field, n).map_err(|e| format!("field `{}`: {e}", field.name))).collect()
}

fn headers(said: wit::HeadersResult, n: usize) -> Result<Headers, String> {
    let total = said.names.offsets.len().saturating_sub(1);
    positions(&said.starts, total, n, "rows")?;
    let names = var_bytes(said.names, total).map_err(|e| format!("names: {e}"))?;
    let values = var_bytes(said.values, total).map_err(|e| format!("values: {e}"))?;
    for (i, name) in names.iter().enumerate() {
        let name = name.ok_or_else(|| format!("header {i} has no name"))?;
        str::from_utf8(name).map_err(|e| format!("the name of header {i} is not UTF-8: {e}"))?;
    }
    Ok(Headers { starts: said.starts, names, values })
}

fn rejects(said: wit::Rejects, n_reasons: usize, fates: &mut Fates) -> Result<Vec<Reject>, String> {
    let n = said.rows.len();
    if said.reasons.len() != n {
        return Err(format!("{} reasons for {n} rows", said.reasons.len()));
    }
    fates.tell(&said.rows, Fate::Rejected)?;
    let mut details = details(said.details, n).map_err(|e| format!("details: {e}"))?;
    // The record for which each reason was given last.
    let mut given = vec![None; n_reasons];
    let mut all: Vec<Reject> = Vec::new();
    for (i, (row, reason)) in said.rows.into_iter().zip(said.reasons).enumerate() {
        let last = given.get_mut(reason as usize);
        let last = last.ok_or_else(|| format!("row {i}: reason {reason}, where there are {n_reasons}"))?;
        if last.replace(row) == Some(row) {
            return Err(format!("row {i}: record {row} has reason {reason} twice"));
        }
        let detail = details.get_mut(i).and_then(Option::take);
        let why = Why { reason: reason as usize, detail };
        match all.last_mut() {
            Some(reject) if reject.row == row => reject.reasons.push(why),
            _ => all.push(Reject { row, reasons: vec![why] }),
        }
    }
    Ok(all)
}

/// No offsets at all: there are no details.
fn details(said: wit::VarBytesResult, n: usize) -> Result<Vec<Option<String>>, String> {
    if said.offsets.is_empty() && said.data.is_empty() && said.validity.is_empty() {
        return Ok(Vec::new());
    }
    let checked = var_bytes(said, n)?;
    let text = |(row, entry): (usize, Option<&[u8]>)| match entry.map(str::from_utf8) {
        Some(Ok(text)) => Ok(Some(text.to_owned())),
        Some(Err(e)) => Err(format!("row {row} is not UTF-8: {e}")),
        None => Ok(None),
    };
    checked.iter().enumerate().map(text).collect()
}

fn dropped(rows: &[u32], fates: &mut Fates) -> Result<(), String> {
    if let Some(i) = rows.windows(2).position(|pair| pair[0] == pair[1]) {
        return Err(format!("row {}: record {} is there twice", i + 1, rows[i]));
    }
    fates.tell(rows, Fate::Dropped)
}

/// Bytes of all lists, and of what is made of each entry.
fn size(said: &wit::Output, reasons: &[Reason]) -> usize {
    let routes = said.routes.iter().map(route_size).fold(0, usize::saturating_add);
    let text = |reason: &u32| reasons.get(*reason as usize).map_or(0, |of| of.code.len() + of.message.len());
    let texts = said.rejects.reasons.iter().map(text).fold(0, usize::saturating_add);
    let rejects = (4 + ENTRY_BYTES) * said.rejects.rows.len() + 4 * said.rejects.reasons.len();
    let lists = rejects + var_size(&said.rejects.details) + 4 * said.dropped.len();
    routes.saturating_add(texts).saturating_add(lists)
}

fn route_size(part: &wit::RouteBatch) -> usize {
    let columns: usize = part.columns.iter().map(column_size).sum();
    let headers = part.headers.as_ref();
    let headers = headers.map_or(0, |h| 4 * h.starts.len() + var_size(&h.names) + var_size(&h.values));
    let rows = (4 + ENTRY_BYTES) * part.rows.len();
    rows + columns + part.keys.as_ref().map_or(0, var_size) + headers + part.deletes.len()
}

fn column_size(column: &wit::ColumnResult) -> usize {
    use wit::ColumnDataResult as Data;
    let data = match &column.data {
        Data::Booleans(bytes) | Data::S128s(bytes) => bytes.len(),
        Data::S32s(all) => 4 * all.len(),
        Data::S64s(all) => 8 * all.len(),
        Data::F64s(all) => 8 * all.len(),
        Data::VarBytes(all) => var_size(all),
    };
    data + column.validity.len()
}

fn var_size(of: &wit::VarBytesResult) -> usize {
    4 * of.offsets.len() + of.data.len() + of.validity.len()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
#[cfg(test)]
mod tests;
