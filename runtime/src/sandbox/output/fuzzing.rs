//! The law of what a guest returns: no lie panics, and of what is taken every value is good and every record has one
//! fate.

use arbitrary::{Result as Drawn, Unstructured};
use arrow::array::{Array as _, RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;

use std::sync::Arc;

use super::*;
use crate::batch::{BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::description::{DataType, Field, Needs, Reason, Route};
use crate::offset::{Offset, TopicPartition};
use crate::route::{Bindings, Pieces, route as route_all};
use crate::sink::state::PlanRef;
use wit::ColumnDataResult as Data;

/// A transform with a route of every type, a route of records and two reasons.
pub(super) fn description() -> Description {
    let field = |name: &str, data_type, nullable| Field {
        name: name.into(),
        data_type,
        nullable,
        doc: String::new(),
    };
    let fields = vec![
        field("name", DataType::Utf8, false),
        field("age", DataType::Int64, true),
        field("ok", DataType::Boolean, true),
        field("sum", DataType::Decimal { precision: 3, scale: 1 }, true),
        field("more", DataType::Json, true),
        field("day", DataType::Date, true),
        field("at", DataType::Timestamp, true),
        field("share", DataType::Double, true),
        field("n", DataType::Int32, true),
        field("bytes", DataType::Binary, true),
    ];
    let route = |name: &str, content| Route { name: name.into(), content, doc: String::new() };
    let reason = |code: &str| Reason { code: code.into(), field: None, message: String::new() };
    Description {
        name: "t".into(),
        version: "1".into(),
        doc: String::new(),
        needs: Needs::default(),
        settings: vec![],
        tables: vec![],
        routes: vec![route("usa", RouteContent::Rows(fields)), route("raw", RouteContent::Records)],
        reasons: vec![reason("bad"), reason("worse")],
    }
}

/// An output drawn from `bytes`: an honest one, and lies about it.
pub(crate) fn any_output(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok((count, mut said)) = honest(&mut u) else { return };
    while !u.is_empty() && lie(&mut u, &mut said).is_ok() {}
    holds(said, count);
}

/// What is taken of `said` for a batch of `count` records is true.
pub(super) fn holds(said: wit::Output, count: usize) {
    let description = description();
    let batch = batch(count);
    let Ok(output) = check(said, &description, &batch, 4 << 20) else { return };
    let mut fates = vec![0; count];
    for part in &output.routes {
        let schema = match &description.routes[part.route].content {
            RouteContent::Rows(_) => description.routes[part.route].schema(),
            RouteContent::Records => Schema::empty().into(),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(part.rows.len()));
        let rows = RecordBatch::try_new_with_options(schema, part.columns.clone(), &options)
            .expect("the columns fit their schema");
        rows.columns().iter().for_each(|c| c.to_data().validate_full().expect("each value is valid"));
        part.rows.iter().for_each(|&row| fates[row as usize] |= 1);
        part.keys.iter().for_each(|keys| assert_eq!(keys.iter().count(), part.rows.len()));
        part.headers.iter().for_each(|h| (0..part.rows.len()).for_each(|i| _ = h.get(i).count()));
        part.deletes.iter().for_each(|deletes| assert_eq!(deletes.len(), part.rows.len()));
    }
    output.rejects.iter().for_each(|reject| fates[reject.row as usize] |= 2);
    output.dropped.iter().for_each(|&row| fates[row as usize] |= 4);
    assert!(fates.iter().all(|fate| [1, 2, 4].contains(fate)), "{fates:?}");
    if count > 0 {
        becomes_rows(&batch, output, &description);
    }
}

/// What was taken becomes rows, no larger than what may be said of a batch and the batch itself.
fn becomes_rows(batch: &Batch, output: Output, description: &Description) {
    let plan = PlanRef { plan: 1, digest: "sha256:ab".into() };
    let routes = description.routes.iter().map(|route| route.name.clone());
    let sinks = vec![routes.map(|route| (route.clone(), route)).collect()];
    let bindings = Bindings { names: vec!["s".into()], sinks };
    let pieces = Pieces { outputs: vec![(0, output)], failed: vec![] };
    let routed =
        route_all(batch, plan, description, Arc::new(bindings), pieces).expect("each record has one fate");
    let bytes: usize = routed.parts.iter().map(|part| part.rows.get_array_memory_size()).sum();
    assert!(bytes < 16 << 20, "{bytes} bytes of rows");
}

/// Records of some size: what goes on as it came must not be more than the limit allows either.
pub(super) fn batch(count: usize) -> Batch {
    let at = TopicPartition::new("t", 0);
    let mut builder = BatchBuilder::new(at, Offset::ZERO);
    let value = vec![b'v'; 100_000];
    for i in 0..count {
        builder.push(
            builder.next(),
            RecordRef { value: Some(&value[..i * 7_000 % value.len()]), ..RecordRef::default() },
        );
    }
    let end = builder.next().plus(1);
    builder.finish(end, Permit::free()).expect("it covers an offset")
}

/// How many records there are, and an output in which each has one fate.
fn honest(u: &mut Unstructured<'_>) -> Drawn<(usize, wit::Output)> {
    let count = u.int_in_range(0..=20)?;
    let (mut usa, mut raw) = (Vec::new(), Vec::new());
    let mut rejects = wit::Rejects { rows: vec![], reasons: vec![], details: no_bytes() };
    let mut dropped = Vec::new();
    for row in 0..count as u32 {
        match u.int_in_range(0..=6)? {
            0 | 1 => usa.push(row),
            2 => usa.extend([row; 2]),
            3 => [&mut usa, &mut raw].into_iter().for_each(|rows| rows.push(row)),
            4 => raw.push(row),
            5 => {
                rejects.rows.push(row);
                rejects.reasons.push(u.int_in_range(0..=1)?);
            }
            _ => dropped.push(row),
        }
    }
    if u.arbitrary()? {
        rejects.details = var_bytes(u, rejects.rows.len(), |u| Ok(u.choose(&["", "why", "é"])?.as_bytes()))?;
    }
    let content = description().routes.into_iter().map(|route| route.content);
    let parts = content.zip([usa, raw]).enumerate();
    let routes =
        parts.map(|(i, (content, rows))| route(u, i as u32, &content, rows)).collect::<Drawn<_>>()?;
    Ok((count, wit::Output { routes, rejects, dropped }))
}

fn route(
    u: &mut Unstructured<'_>,
    route: u32,
    content: &RouteContent,
    rows: Vec<u32>,
) -> Drawn<wit::RouteBatch> {
    let n = rows.len();
    let fields = match content {
        RouteContent::Rows(fields) => fields.as_slice(),
        RouteContent::Records => &[],
    };
    let columns = fields.iter().map(|field| column(u, field, n)).collect::<Drawn<_>>()?;
    let any = |u: &mut Unstructured<'_>| u.choose(&[&b""[..], b"k", b"\xff\0"]).copied();
    let keys = if u.arbitrary()? { Some(var_bytes(u, n, any)?) } else { None };
    let headers = if u.arbitrary()? {
        let names = var_bytes(u, n, |u| Ok(u.choose(&["", "h", "ü"])?.as_bytes()))?;
        Some(wit::HeadersResult { starts: (0..=n as u32).collect(), names, values: var_bytes(u, n, any)? })
    } else {
        None
    };
    let deletes = if u.arbitrary()? { bits(u, n)? } else { vec![] };
    Ok(wit::RouteBatch { route, rows, columns, keys, headers, deletes })
}

fn column(u: &mut Unstructured<'_>, field: &Field, n: usize) -> Drawn<wit::ColumnResult> {
    let validity = if field.nullable && u.arbitrary()? { bits(u, n)? } else { vec![] };
    let data = match field.data_type {
        DataType::Boolean => Data::Booleans(bits(u, n)?),
        DataType::Int32 | DataType::Date => Data::S32s(all(n, || u.arbitrary())?),
        DataType::Int64 | DataType::Timestamp => Data::S64s(all(n, || u.arbitrary())?),
        DataType::Double => Data::F64s(all(n, || u.arbitrary())?),
        DataType::Decimal { .. } => {
            let values: Vec<i128> = all(n, || u.int_in_range(-999..=999))?;
            Data::S128s(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DataType::Utf8 => Data::VarBytes(var_bytes(u, n, |u| Ok(u.choose(&["", "a", "ü"])?.as_bytes()))?),
        DataType::Json => {
            Data::VarBytes(var_bytes(u, n, |u| Ok(u.choose(&["1", "{\"a\":[]}", "\"\""])?.as_bytes()))?)
        }
        DataType::Binary => Data::VarBytes(var_bytes(u, n, |u| u.choose(&[&b""[..], b"\xff"]).copied())?),
    };
    Ok(wit::ColumnResult { data, validity })
}

fn all<T>(n: usize, one: impl FnMut() -> Drawn<T>) -> Drawn<Vec<T>> {
    std::iter::repeat_with(one).take(n).collect()
}

fn bits(u: &mut Unstructured<'_>, n: usize) -> Drawn<Vec<u8>> {
    all(n.div_ceil(8), || u.arbitrary())
}

fn no_bytes() -> wit::VarBytesResult {
    wit::VarBytesResult { offsets: vec![], data: vec![], validity: vec![] }
}

fn var_bytes(
    u: &mut Unstructured<'_>,
    n: usize,
    one: impl Fn(&mut Unstructured<'_>) -> Drawn<&'static [u8]>,
) -> Drawn<wit::VarBytesResult> {
    let mut of = wit::VarBytesResult { offsets: vec![0], ..no_bytes() };
    for _ in 0..n {
        of.data.extend_from_slice(one(u)?);
        of.offsets.push(of.data.len() as u32);
    }
    Ok(of)
}

/// Changes one thing.
fn lie(u: &mut Unstructured<'_>, said: &mut wit::Output) -> Drawn<()> {
    match u.int_in_range(0..=9)? {
        0..=3 => {
            let mut lists = Vec::new();
            numbers(said, &mut lists);
            let i = u.choose_index(lists.len())?;
            let number = if u.ratio(3, 4)? { u.int_in_range(0..=24)? } else { u.arbitrary()? };
            change(u, lists.swap_remove(i), number)
        }
        4..=6 => {
            let mut lists = Vec::new();
            bytes(said, &mut lists);
            let i = u.choose_index(lists.len())?;
            let byte = u.arbitrary()?;
            change(u, lists.swap_remove(i), byte)
        }
        _ if said.routes.is_empty() => Ok(()),
        7 => {
            let i = u.choose_index(said.routes.len())?;
            said.routes[i].route = u.int_in_range(0..=2)?;
            Ok(())
        }
        8 => {
            let i = u.choose_index(said.routes.len())?;
            drop(said.routes.remove(i));
            Ok(())
        }
        _ => {
            let i = u.choose_index(said.routes.len())?;
            let columns = &mut said.routes[i].columns;
            let fields = match &description().routes[0].content {
                RouteContent::Rows(fields) => fields.clone(),
                RouteContent::Records => vec![],
            };
            let n = u.int_in_range(0..=20)?;
            let field = u.choose(&fields)?;
            let other = column(u, field, n)?;
            match columns.len() {
                0 => columns.push(other),
                n => columns[u.int_in_range(0..=n - 1)?] = other,
            }
            Ok(())
        }
    }
}

/// All lists of numbers, whatever they are for.
fn numbers<'a>(said: &'a mut wit::Output, into: &mut Vec<&'a mut Vec<u32>>) {
    for part in &mut said.routes {
        into.push(&mut part.rows);
        into.extend(part.columns.iter_mut().filter_map(entries).map(|of| &mut of.offsets));
        into.extend(part.keys.as_mut().map(|of| &mut of.offsets));
        if let Some(headers) = &mut part.headers {
            into.extend([&mut headers.starts, &mut headers.names.offsets, &mut headers.values.offsets]);
        }
    }
    into.extend([&mut said.rejects.rows, &mut said.rejects.reasons, &mut said.rejects.details.offsets]);
    into.push(&mut said.dropped);
}

/// All lists of bytes and bits.
fn bytes<'a>(said: &'a mut wit::Output, into: &mut Vec<&'a mut Vec<u8>>) {
    for part in &mut said.routes {
        into.push(&mut part.deletes);
        for column in &mut part.columns {
            into.push(&mut column.validity);
            match &mut column.data {
                Data::Booleans(all) | Data::S128s(all) => into.push(all),
                Data::VarBytes(of) => into.extend([&mut of.data, &mut of.validity]),
                Data::S32s(_) | Data::S64s(_) | Data::F64s(_) => {}
            }
        }
        into.extend(part.keys.iter_mut().flat_map(|of| [&mut of.data, &mut of.validity]));
        let headers = part.headers.iter_mut().flat_map(|headers| [&mut headers.names, &mut headers.values]);
        into.extend(headers.flat_map(|of| [&mut of.data, &mut of.validity]));
    }
    into.extend([&mut said.rejects.details.data, &mut said.rejects.details.validity]);
}

fn entries(column: &mut wit::ColumnResult) -> Option<&mut wit::VarBytesResult> {
    match &mut column.data {
        Data::VarBytes(of) => Some(of),
        _ => None,
    }
}

fn change<T>(u: &mut Unstructured<'_>, list: &mut Vec<T>, to: T) -> Drawn<()> {
    let at = u.int_in_range(0..=list.len())?;
    match u.int_in_range(0..=3)? {
        0 => list.insert(at, to),
        1 if at < list.len() => drop(list.remove(at)),
        2 => list.truncate(at),
        _ => {
            if let Some(old) = list.get_mut(at) {
                *old = to;
            }
        }
    }
    Ok(())
}
