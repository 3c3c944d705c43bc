//! A reference table from a Parquet file: its values as they are where the declared type holds them exactly, and all
//! or nothing. It never opens a file, and never reads a text as a number.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, RecordBatch, new_empty_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampNanosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use super::columns::{push_bit, wanted};
use super::header::find_columns;
use super::problem::Problem;
use super::thrift;
use super::{Table, TableColumn, TableOptions, TableValues};
use crate::batch::VarBytes;
use crate::description::{DataType, Field, TableNeed};
use crate::digest;

/// What the columns that are wanted may take in memory, all together: as much as a file may have. A file can say more
/// than memory holds in a few bytes.
const MOST: u64 = i32::MAX as u64;

/// Makes the table that `need` describes from the bytes of a file of at most 2 GiB, in as many once unpacked. Some damaged files panic in the
/// reader; that is no reason to take the process down.
pub(super) fn read(need: &TableNeed, bytes: &[u8], options: &TableOptions) -> Result<Table, Problem> {
    let read = catch_unwind(AssertUnwindSafe(|| read_sound(need, bytes, options, MOST)));
    read.unwrap_or_else(|_| Err(Problem::Parquet("it is damaged".to_owned())))
}

fn read_sound(need: &TableNeed, bytes: &[u8], options: &TableOptions, most: u64) -> Result<Table, Problem> {
    if options.delimiter.is_some() {
        return Err(Problem::Delimiter);
    }
    check_footer(bytes)?;
    // Without what writers add for Arrow: a categorical column would come as a dictionary, whose size tells nothing of
    // that of its values.
    let reading = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::copy_from_slice(bytes), reading);
    let builder = builder.map_err(unreadable)?;
    let n_rows = builder.metadata().file_metadata().num_rows();
    let rows = u32::try_from(n_rows).ok().filter(|n| i32::try_from(*n).is_ok());
    let rows = rows.ok_or(Problem::TooMany(n_rows))?;
    let schema = builder.schema().clone();
    let header: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let places = find_columns(need, &header, &options.columns)?;
    for (field, &place) in need.columns.iter().zip(&places) {
        check_type(field, schema.field(place).data_type())?;
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), places.iter().copied());
    check_codec(builder.metadata(), &mask)?;
    check_pages(builder.metadata(), &mask, bytes)?;
    let reader = builder.with_projection(mask).build().map_err(unreadable)?;
    let batches = unpack(reader, most)?;
    let mut read: Vec<usize> = places.clone();
    read.sort_unstable();
    read.dedup();
    let columns = need.columns.iter().zip(&places).map(|(field, place)| {
        let i = read.binary_search(place).expect("it is one of those that were read");
        column(field, &whole(&batches, i, schema.field(*place).data_type())?, rows)
    });
    let columns = columns.collect::<Result<_, _>>()?;
    Ok(Table { name: need.name.clone(), rows, columns, digest: digest::of(bytes).into() })
}

/// The struct in front of the last eight bytes, which hold its length.
fn check_footer(bytes: &[u8]) -> Result<(), Problem> {
    let Some((rest, [a, b, c, d, ..])) = bytes.split_last_chunk::<8>() else { return Ok(()) };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    let footer = rest.len().checked_sub(length).map(|start| &rest[start..]);
    footer.map_or(Ok(()), |footer| check_struct(footer).map(drop))
}

/// The structs in front of the pages that will be read.
fn check_pages(file: &ParquetMetaData, wanted: &ProjectionMask, bytes: &[u8]) -> Result<(), Problem> {
    let columns = file.row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
    for (_, column) in columns.filter(|(leaf, _)| wanted.leaf_included(*leaf)) {
        let (start, length) = column.byte_range();
        let end = start.saturating_add(length).min(bytes.len() as u64) as usize;
        let mut rest = bytes.get(start as usize..end).unwrap_or_default();
        while let Some(header) = check_struct(rest)? {
            let page = header.third.and_then(|n| usize::try_from(n).ok());
            let next = page.and_then(|page| header.len.checked_add(page));
            let Some(behind) = next.and_then(|next| rest.get(next..)) else { break };
            rest = behind;
        }
    }
    Ok(())
}

/// What is there, if it can be told.
fn check_struct(bytes: &[u8]) -> Result<Option<thrift::Struct>, Problem> {
    match thrift::walk(bytes) {
        Ok(found) => Ok(Some(found)),
        Err(thrift::Stop::Damaged) => Ok(None),
        Err(thrift::Stop::TruthValues) => {
            Err(Problem::Parquet("its metadata has a list of truth values, which none has".to_owned()))
        }
    }
}

/// The reader names the feature of its own that would be needed.
fn check_codec(file: &ParquetMetaData, wanted: &ProjectionMask) -> Result<(), Problem> {
    let columns = file.row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
    for (_, column) in columns.filter(|(leaf, _)| wanted.leaf_included(*leaf)) {
        if !matches!(column.compression(), Compression::UNCOMPRESSED | Compression::ZSTD(_)) {
            return Err(Problem::Codec(column.compression_codec().to_string()));
        }
    }
    Ok(())
}

/// All rows, or how far it went until they were too large.
fn unpack(
    reader: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    most: u64,
) -> Result<Vec<RecordBatch>, Problem> {
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for batch in reader {
        let batch = batch.map_err(unreadable)?;
        rows += batch.num_rows();
        bytes += batch.columns().iter().map(size).sum::<u64>();
        if bytes > most {
            return Err(Problem::Unpacked { rows, most });
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// In bytes, where no value shares its own with another.
fn size(column: &ArrayRef) -> u64 {
    let views = match column.data_type() {
        ArrowType::Utf8View => column.as_string_view().views(),
        ArrowType::BinaryView => column.as_binary_view().views(),
        _ => return column.to_data().get_slice_memory_size().unwrap_or(usize::MAX) as u64,
    };
    // The lowest 32 bits of a view are the length.
    views.iter().map(|view| u64::from(*view as u32) + 16).sum()
}

fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::Parquet(error.to_string())
}

/// Column `i` of all batches.
fn whole(batches: &[RecordBatch], i: usize, data_type: &ArrowType) -> Result<ArrayRef, Problem> {
    let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(i).as_ref()).collect();
    match parts.is_empty() {
        true => Ok(new_empty_array(data_type)),
        false => concat(&parts).map_err(unreadable),
    }
}

/// Whether there can be a value of `found` that `field` holds.
fn check_type(field: &Field, found: &ArrowType) -> Result<(), Problem> {
    let fits = match field.data_type {
        DataType::Boolean => matches!(found, ArrowType::Boolean),
        DataType::Int32 | DataType::Int64 => found.is_integer(),
        DataType::Double => found.is_floating(),
        DataType::Decimal { .. } => found.is_integer() || matches!(found, ArrowType::Decimal128(_, 0..)),
        DataType::Utf8 | DataType::Json => is_text(found),
        DataType::Binary => is_binary(found),
        DataType::Date => matches!(found, ArrowType::Date32),
        // A time without a zone could be any of some forty moments.
        DataType::Timestamp => matches!(found, ArrowType::Timestamp(_, Some(_))),
    };
    if fits {
        return Ok(());
    }
    let wanted = match field.data_type {
        DataType::Timestamp => "moments (a timestamp adjusted to UTC)".to_owned(),
        other => wanted(other),
    };
    Err(Problem::Type { column: field.name.clone(), found: found.to_string(), wanted })
}

fn is_text(found: &ArrowType) -> bool {
    matches!(found, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View)
}

fn is_binary(found: &ArrowType) -> bool {
    use ArrowType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(found, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

fn column(field: &Field, found: &ArrayRef, rows: u32) -> Result<TableColumn, Problem> {
    if found.len() != rows as usize {
        return Err(Problem::Parquet(format!("it has {} rows and says {rows}", found.len())));
    }
    if let Some(row) = (0..found.len()).find(|&row| !field.nullable && found.is_null(row)) {
        return Err(refused(field, found, row));
    }
    let mut validity = Vec::new();
    if found.null_count() > 0 {
        (0..found.len()).for_each(|row| push_bit(&mut validity, row, found.is_valid(row)));
    }
    Ok(TableColumn { name: field.name.clone(), values: values(field, found)?, validity })
}

fn values(field: &Field, found: &ArrayRef) -> Result<TableValues, Problem> {
    Ok(match field.data_type {
        DataType::Boolean => {
            let (mut bits, all) = (Vec::new(), found.as_boolean());
            (0..all.len()).for_each(|row| push_bit(&mut bits, row, all.is_valid(row) && all.value(row)));
            TableValues::Booleans(bits)
        }
        DataType::Int32 => TableValues::Int32s(numbers::<Int32Type>(field, found, ArrowType::Int32)?),
        DataType::Date => TableValues::Int32s(plain(found.as_primitive::<Date32Type>())),
        DataType::Int64 => TableValues::Int64s(numbers::<Int64Type>(field, found, ArrowType::Int64)?),
        DataType::Timestamp => TableValues::Int64s(moments(field, found)?),
        DataType::Double => {
            let all = numbers::<Float64Type>(field, found, ArrowType::Float64)?;
            match all.iter().position(|n| !n.is_finite()) {
                Some(row) => return Err(refused(field, found, row)),
                None => TableValues::Doubles(all),
            }
        }
        DataType::Decimal { precision, scale } => decimals(field, found, precision, scale)?,
        DataType::Utf8 | DataType::Json => text(field, found)?,
        DataType::Binary => binary(field, found)?,
    })
}

/// The values, with a zero for an absent one.
fn plain<T: ArrowPrimitiveType>(all: &PrimitiveArray<T>) -> Vec<T::Native> {
    all.iter().map(Option::unwrap_or_default).collect()
}

/// The values as `T`; the first that is none is refused.
fn numbers<T: ArrowPrimitiveType>(
    field: &Field,
    found: &ArrayRef,
    to: ArrowType,
) -> Result<Vec<T::Native>, Problem> {
    let all = converted(field, found, &to)?;
    Ok(plain(all.as_primitive::<T>()))
}

/// As Arrow casts it, where nothing is rounded by that; a value that does not fit is refused.
fn converted(field: &Field, found: &ArrayRef, to: &ArrowType) -> Result<ArrayRef, Problem> {
    let all = cast(found, to).map_err(unreadable)?;
    match (0..found.len()).find(|&row| all.is_null(row) && found.is_valid(row)) {
        Some(row) => Err(refused(field, found, row)),
        None => Ok(all),
    }
}

/// Microseconds; a finer time is refused, not rounded.
fn moments(field: &Field, found: &ArrayRef) -> Result<Vec<i64>, Problem> {
    if let ArrowType::Timestamp(TimeUnit::Nanosecond, _) = found.data_type() {
        let all = found.as_primitive::<TimestampNanosecondType>();
        let fine = |row: &usize| all.is_valid(*row) && all.value(*row) % 1_000 != 0;
        if let Some(row) = (0..all.len()).find(fine) {
            return Err(refused(field, found, row));
        }
        return Ok(all.iter().map(|n| n.unwrap_or_default() / 1_000).collect());
    }
    let per_unit = match found.data_type() {
        ArrowType::Timestamp(TimeUnit::Second, _) => 1_000_000,
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        _ => 1,
    };
    let counts = cast(found, &ArrowType::Int64).map_err(unreadable)?;
    let counts: &Int64Array = counts.as_primitive();
    let scaled = counts.iter().map(|n| n.unwrap_or_default().checked_mul(per_unit)).enumerate();
    scaled.map(|(row, n)| n.ok_or_else(|| refused(field, found, row))).collect()
}

/// Of the declared scale; digits behind it must be zeros.
fn decimals(field: &Field, found: &ArrayRef, precision: u8, scale: u8) -> Result<TableValues, Problem> {
    let (counts, has) = match found.data_type() {
        ArrowType::Decimal128(_, has) => (found.clone(), has.unsigned_abs()),
        _ => (converted(field, found, &ArrowType::Decimal128(38, 0))?, 0),
    };
    let limit = 10_i128.pow(precision.into());
    let mut all = Vec::with_capacity(found.len() * 16);
    for (row, n) in counts.as_primitive::<Decimal128Type>().iter().enumerate() {
        let n = rescaled(n.unwrap_or_default(), has, scale).filter(|n| -limit < *n && *n < limit);
        all.extend(n.ok_or_else(|| refused(field, found, row))?.to_le_bytes());
    }
    Ok(TableValues::Decimals(all))
}

fn rescaled(n: i128, has: u8, wanted: u8) -> Option<i128> {
    match wanted.checked_sub(has) {
        Some(more) => n.checked_mul(10_i128.checked_pow(more.into())?),
        None => {
            let by = 10_i128.checked_pow((has - wanted).into())?;
            (n % by == 0).then_some(n / by)
        }
    }
}

fn text(field: &Field, found: &ArrayRef) -> Result<TableValues, Problem> {
    let all = converted(field, found, &ArrowType::LargeUtf8)?;
    let all = all.as_string::<i64>();
    let is_json = |text: &str| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    let broken = |row: &usize| all.is_valid(*row) && !is_json(all.value(*row));
    if let Some(row) = (0..all.len()).filter(|_| field.data_type == DataType::Json).find(broken) {
        return Err(refused(field, found, row));
    }
    var_bytes(all.iter().map(|text| text.map(str::as_bytes)))
}

fn binary(field: &Field, found: &ArrayRef) -> Result<TableValues, Problem> {
    let all = converted(field, found, &ArrowType::LargeBinary)?;
    var_bytes(all.as_binary::<i64>().iter())
}

fn var_bytes<'a>(all: impl Iterator<Item = Option<&'a [u8]>>) -> Result<TableValues, Problem> {
    let (mut values, mut total) = (VarBytes::default(), 0_i64);
    for value in all {
        let value = value.unwrap_or_default();
        total += value.len() as i64;
        if i32::try_from(total).is_err() {
            return Err(Problem::TooMany(total));
        }
        values.push(Some(value));
    }
    Ok(TableValues::VarBytes(values))
}

fn refused(field: &Field, found: &ArrayRef, row: usize) -> Problem {
    let value = match found.is_null(row) {
        true => "absent".to_owned(),
        false => {
            array_value_to_string(found, row).map_or_else(|e| e.to_string(), |text| format!("\"{text}\""))
        }
    };
    let value = value.chars().take(42).collect();
    Problem::RowValue { row: row + 1, column: field.name.clone(), value, wanted: wanted(field.data_type) }
}

#[cfg(test)]
mod tests;
