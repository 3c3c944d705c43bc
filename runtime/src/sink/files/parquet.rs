//! Rows as Parquet, in row groups small enough that many open files fit into memory. It never holds more of a file
//! than one row group.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::FilesConfig;
use super::encode::{Counted, OFFSET, Origin};

/// How many values of a column say how it is written.
const LOOKED_AT: usize = 4_096;

/// So many different values tell nothing yet.
const FEW: usize = 64;

/// A Parquet file under way.
///
/// JSON columns are plain text in it, as every reader of Parquet knows it; which ones are JSON is told by the
/// Arrow schema in the file.
pub(super) struct ParquetFile {
    writer: ArrowWriter<Counted>,
}

impl ParquetFile {
    /// A file for rows like `rows`, which are not written yet.
    pub(super) fn new(
        config: &FilesConfig,
        rows: &RecordBatch,
        origin: Origin<'_>,
        file: Counted,
    ) -> io::Result<Self> {
        let properties = properties(config, rows, origin);
        let writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).map_err(to_io)?;
        Ok(Self { writer })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> io::Result<()> {
        self.writer.write(rows).map_err(to_io)
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Bytes of memory that the row group under way takes.
    pub(super) fn held(&self) -> usize {
        self.writer.memory_size()
    }

    pub(super) fn end_row_group(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(to_io)
    }

    pub(super) fn finish(self) -> io::Result<Counted> {
        self.writer.into_inner().map_err(to_io)
    }
}

fn properties(config: &FilesConfig, rows: &RecordBatch, origin: Origin<'_>) -> WriterProperties {
    let note = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    let notes = vec![
        note("weir.pipeline", &config.pipeline),
        note("weir.plan", &origin.plan.plan.to_string()),
        note("weir.digest", &origin.plan.digest),
    ];
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let plain = columns.filter(|(field, column)| is_counted(field.name()) || !repeats(column));
    let plain = plain.map(|(field, _)| ColumnPath::from(vec![field.name().clone()]));
    let builder = plain.fold(WriterProperties::builder(), |builder, column| {
        builder.set_column_dictionary_enabled(column, false)
    });
    builder
        // The oldest: read by everything that reads Parquet.
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a level of zstd")))
        .set_max_row_group_row_count(Some(config.row_group_rows))
        .set_max_row_group_bytes(Some(config.row_group_bytes))
        .set_key_value_metadata(Some(notes))
        .build()
}

/// Whether no two rows of a file have the same value by what the column is.
fn is_counted(column: &str) -> bool {
    column == OFFSET
}

/// Whether a dictionary of the column's values is likely to be worth it, by the first rows of a file: where most are
/// different, it costs the search for each of them, and then holds all of them beside what refers to them.
fn repeats(column: &ArrayRef) -> bool {
    if let Some(texts) = column.as_string_opt::<i32>() {
        return mostly_known(texts.iter().flatten());
    }
    column.as_binary_opt::<i32>().is_none_or(|all| mostly_known(all.iter().flatten()))
}

fn mostly_known<T: Hash + Eq>(values: impl Iterator<Item = T>) -> bool {
    let (mut known, mut n) = (HashSet::new(), 0);
    values.take(LOOKED_AT).for_each(|value| {
        known.insert(value);
        n += 1;
    });
    known.len() <= FEW.max(n / 2)
}

/// Keeps the cause that lies below, so that a full disk is told from rows that cannot be encoded.
pub(super) fn to_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Int64Array, StringArray};

    use super::*;

    fn texts(n: usize, different: usize) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..n).map(|i| (i % different).to_string())))
    }

    #[test]
    fn only_columns_in_which_values_repeat_have_a_dictionary() {
        assert!(repeats(&texts(1_000, 500)));
        assert!(!repeats(&texts(1_000, 501)));
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..1_000_u32).map(u32::to_le_bytes)));
        assert!(!repeats(&bytes));
        assert!(
            repeats(&(Arc::new(Int64Array::from_iter_values(0..1_000)) as ArrayRef)),
            "numbers are small"
        );
    }

    #[test]
    fn few_values_and_absent_ones_tell_nothing() {
        assert!(repeats(&texts(FEW, FEW)));
        assert!(repeats(&(Arc::new(StringArray::new_null(1_000)) as ArrayRef)));
    }
}
