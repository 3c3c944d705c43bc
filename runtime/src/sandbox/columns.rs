//! Columns that come out of a guest: checked, then adopted as Arrow arrays as they are (decimals are copied, their
//! alignment differs). Nothing of a guest can make an array that is not valid, or panic the host.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, Date32Type, Float64Type, Int32Type, Int64Type};
use serde::de::IgnoredAny;

use super::bindings::wit;
use super::bindings::wit::ColumnDataResult as Data;
use crate::batch::VarBytes;
use crate::description::{DataType, Field};

/// Adopts the column of `field`, which has `n` rows. The error names the row, if it is one.
pub(super) fn adopt(column: wit::ColumnResult, field: &Field, n: usize) -> Result<ArrayRef, String> {
    let nulls = nulls(column.validity, n)?;
    if !field.nullable
        && let Some(row) = first_null(nulls.as_ref())
    {
        return Err(format!("row {row} has no value, and the field is not nullable"));
    }
    match (field.data_type, column.data) {
        (DataType::Boolean, Data::Booleans(bits)) => {
            Ok(Arc::new(BooleanArray::new(bitmap(bits, n, "booleans")?, nulls)))
        }
        (DataType::Int32, Data::S32s(all)) => primitive::<Int32Type>(all, nulls, n),
        (DataType::Date, Data::S32s(all)) => primitive::<Date32Type>(all, nulls, n),
        (DataType::Int64, Data::S64s(all)) => primitive::<Int64Type>(all, nulls, n),
        (DataType::Timestamp, Data::S64s(all)) => {
            Ok(Arc::new(TimestampMicrosecondArray::new(values(all, n)?, nulls).with_timezone("UTC")))
        }
        (DataType::Double, Data::F64s(all)) => primitive::<Float64Type>(all, nulls, n),
        (DataType::Decimal { precision, scale }, Data::S128s(all)) => {
            decimals(&all, nulls, n, precision, scale)
        }
        (DataType::Utf8, Data::VarBytes(all)) => Ok(Arc::new(text(all, nulls, n)?)),
        (DataType::Json, Data::VarBytes(all)) => Ok(Arc::new(json(text(all, nulls, n)?)?)),
        (DataType::Binary, Data::VarBytes(all)) => {
            let (offsets, data) = entries(all, nulls.as_ref(), n)?;
            BinaryArray::try_new(offsets, data, nulls)
                .map(|a| Arc::new(a) as ArrayRef)
                .map_err(|e| e.to_string())
        }
        (wanted, data) => Err(format!("{} do not carry {wanted:?}", case(&data))),
    }
}

/// Checks byte strings that stay what they are: keys, header values. Bits of `validity` behind the last entry are
/// cleared.
pub(super) fn var_bytes(of: wit::VarBytesResult, n: usize) -> Result<VarBytes, String> {
    let mut of = of;
    positions(&of.offsets, of.data.len(), n, "entries")?;
    if !of.validity.is_empty() {
        let nulls = NullBuffer::new(bitmap(std::mem::take(&mut of.validity), n, "validity")?);
        no_bytes_where_absent(&of.offsets, &nulls)?;
        of.validity = nulls.validity().to_vec();
    }
    Ok(VarBytes { offsets: of.offsets, data: of.data, validity: of.validity })
}

/// `n` bits. Those behind the last are cleared, whatever the guest put there.
pub(super) fn bitmap(mut bits: Vec<u8>, n: usize, what: &str) -> Result<BooleanBuffer, String> {
    if bits.len() != n.div_ceil(8) {
        return Err(format!("{what}: {} bytes for {n} rows, not {}", bits.len(), n.div_ceil(8)));
    }
    if let (Some(last), 1..) = (bits.last_mut(), n % 8) {
        *last &= (1 << (n % 8)) - 1;
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bits), 0, n))
}

/// Checks that `positions` are `n + 1`, from 0 up to `end`, none smaller than the one before.
pub(super) fn positions(positions: &[u32], end: usize, n: usize, what: &str) -> Result<(), String> {
    if positions.len() != n + 1 {
        return Err(format!("{} offsets for {n} {what}, not {}", positions.len(), n + 1));
    }
    if positions[0] != 0 {
        return Err(format!("the first offset is {}, not 0", positions[0]));
    }
    if end > i32::MAX as usize || positions[n] as usize != end {
        return Err(format!("the last offset is {}, where there are {end}", positions[n]));
    }
    let falls = positions.windows(2).fold(false, |falls, pair| falls | (pair[0] > pair[1]));
    if falls {
        let row = positions.windows(2).position(|pair| pair[0] > pair[1]).unwrap_or_default();
        return Err(format!(
            "row {row}: its end, {}, lies before its start, {}",
            positions[row + 1],
            positions[row]
        ));
    }
    Ok(())
}

fn nulls(validity: Vec<u8>, n: usize) -> Result<Option<NullBuffer>, String> {
    if validity.is_empty() {
        return Ok(None);
    }
    let nulls = NullBuffer::new(bitmap(validity, n, "validity")?);
    Ok((nulls.null_count() > 0).then_some(nulls))
}

fn first_null(nulls: Option<&NullBuffer>) -> Option<usize> {
    nulls.and_then(|nulls| nulls.iter().position(|present| !present))
}

fn values<T: ArrowNativeType>(all: Vec<T>, n: usize) -> Result<ScalarBuffer<T>, String> {
    if all.len() != n {
        return Err(format!("{} values for {n} rows", all.len()));
    }
    Ok(ScalarBuffer::from(all))
}

fn primitive<T: ArrowPrimitiveType>(
    all: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    n: usize,
) -> Result<ArrayRef, String> {
    Ok(Arc::new(PrimitiveArray::<T>::new(values(all, n)?, nulls)))
}

fn decimals(
    all: &[u8],
    nulls: Option<NullBuffer>,
    n: usize,
    precision: u8,
    scale: u8,
) -> Result<ArrayRef, String> {
    let (entries, rest) = all.as_chunks::<16>();
    if entries.len() != n || !rest.is_empty() {
        return Err(format!("{} bytes for {n} rows, not 16 each", all.len()));
    }
    let bound = 10_u128.pow(precision.into());
    let values: Vec<i128> = entries.iter().map(|bytes| i128::from_le_bytes(*bytes)).collect();
    let present = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    if let Some(row) =
        values.iter().enumerate().position(|(row, v)| v.unsigned_abs() >= bound && present(row))
    {
        return Err(format!("row {row}: {} has more than {precision} digits", values[row]));
    }
    let array = Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale as i8);
    array.map(|a| Arc::new(a) as ArrayRef).map_err(|e| e.to_string())
}

fn entries(
    of: wit::VarBytesResult,
    nulls: Option<&NullBuffer>,
    n: usize,
) -> Result<(OffsetBuffer<i32>, Buffer), String> {
    if !of.validity.is_empty() {
        return Err("the validity inside `var-bytes` is not empty; that of the column counts".to_owned());
    }
    positions(&of.offsets, of.data.len(), n, "rows")?;
    nulls.map_or(Ok(()), |nulls| no_bytes_where_absent(&of.offsets, nulls))?;
    // Each offset is at most the last one, which fits an i32.
    let offsets = ScalarBuffer::<i32>::new(Buffer::from_vec(of.offsets), 0, n + 1);
    Ok((OffsetBuffer::new(offsets), Buffer::from_vec(of.data)))
}

fn no_bytes_where_absent(offsets: &[u32], nulls: &NullBuffer) -> Result<(), String> {
    let has_bytes = |&row: &usize| nulls.is_null(row) && offsets[row] != offsets[row + 1];
    match (0..nulls.len()).find(has_bytes) {
        Some(row) => Err(format!("row {row} is absent and has bytes all the same")),
        None => Ok(()),
    }
}

fn text(of: wit::VarBytesResult, nulls: Option<NullBuffer>, n: usize) -> Result<StringArray, String> {
    let (offsets, data) = entries(of, nulls.as_ref(), n)?;
    let again = (offsets.clone(), data.clone());
    StringArray::try_new(offsets, data, nulls)
        .map_err(|e| not_utf8(&again.0, &again.1).unwrap_or_else(|| e.to_string()))
}

fn not_utf8(offsets: &OffsetBuffer<i32>, data: &Buffer) -> Option<String> {
    offsets.windows(2).enumerate().find_map(|(row, ends)| {
        let error = std::str::from_utf8(&data[ends[0] as usize..ends[1] as usize]).err()?;
        Some(format!("row {row} is not UTF-8 from its byte {} on", error.valid_up_to()))
    })
}

fn json(cells: StringArray) -> Result<StringArray, String> {
    for (row, cell) in cells.iter().enumerate() {
        if let Some(cell) = cell {
            let parsed = serde_json::from_str::<IgnoredAny>(cell);
            parsed.map_err(|e| format!("row {row} is not JSON: {e}"))?;
        }
    }
    Ok(cells)
}

fn case(data: &Data) -> &'static str {
    match data {
        Data::Booleans(_) => "`booleans`",
        Data::S32s(_) => "`s32s`",
        Data::S64s(_) => "`s64s`",
        Data::F64s(_) => "`f64s`",
        Data::S128s(_) => "`s128s`",
        Data::VarBytes(_) => "`var-bytes`",
    }
}
