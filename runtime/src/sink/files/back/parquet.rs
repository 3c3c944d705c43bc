//! Rows out of a Parquet file of a file sink, some at a time. A file that is damaged is an error, whatever it does to the
//! reader of the format.

use std::io::{self, BufReader, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use serde_json::Value;

use super::stored::{Rest, Stored};
use super::{Broken, EachRow};
use crate::sink::files::encode::OFFSET;
use crate::sink::json::JsonRows;

/// Rows that are in memory at once.
const ROWS: usize = 64;

/// All rows, but for those of offsets that are not `wanted`, until `each` says `false`.
pub(super) fn rows(stored: Stored, wanted: &dyn Fn(i64) -> bool, each: EachRow<'_>) -> Result<bool, Broken> {
    let opened = sound(|| ParquetRecordBatchReaderBuilder::try_new(stored)?.with_batch_size(ROWS).build());
    let mut batches = opened?;
    while let Some(batch) = sound(|| batches.next().transpose().map_err(ParquetError::from))? {
        if !of_batch(&batch, wanted, each)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The reader panics at some files that are damaged.
fn sound<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Broken> {
    let damaged = || io::Error::new(ErrorKind::InvalidData, "it is damaged");
    let read = catch_unwind(AssertUnwindSafe(read)).map_err(|_| damaged())?;
    Ok(read.map_err(super::super::parquet::to_io)?)
}

fn of_batch(batch: &RecordBatch, wanted: &dyn Fn(i64) -> bool, each: EachRow<'_>) -> Result<bool, Broken> {
    let json = JsonRows::new(batch).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    let offsets = batch.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    for row in 0..batch.num_rows() {
        if offsets.is_some_and(|offsets| !wanted(offsets.value(row))) {
            continue;
        }
        if let Value::Object(row) = json.value(row)
            && !each(row).map_err(Broken::Row)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Length for Stored {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Stored {
    type T = BufReader<Rest>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.bytes(start, length).map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)))
    }
}
