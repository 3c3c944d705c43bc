//! Rows as Parquet, in row groups small enough that many open files fit into memory. It never holds more of a file
//! than one row group.

use std::io;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::FilesConfig;
use super::encode::{Counted, Origin};

/// A Parquet file under way.
///
/// JSON columns are plain text in it, as every reader of Parquet knows it; which ones are JSON is told by the
/// Arrow schema in the file.
pub(super) struct ParquetFile {
    writer: ArrowWriter<Counted>,
}

impl ParquetFile {
    pub(super) fn new(
        config: &FilesConfig,
        schema: SchemaRef,
        origin: Origin<'_>,
        file: Counted,
    ) -> io::Result<Self> {
        let writer = ArrowWriter::try_new(file, schema, Some(properties(config, origin))).map_err(to_io)?;
        Ok(Self { writer })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> io::Result<()> {
        self.writer.write(rows).map_err(to_io)
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    pub(super) fn finish(self) -> io::Result<Counted> {
        self.writer.into_inner().map_err(to_io)
    }
}

fn properties(config: &FilesConfig, origin: Origin<'_>) -> WriterProperties {
    let note = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    let notes = vec![
        note("weir.pipeline", &config.pipeline),
        note("weir.plan", &origin.plan.plan.to_string()),
        note("weir.digest", &origin.plan.digest),
    ];
    WriterProperties::builder()
        // The oldest: read by everything that reads Parquet.
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a level of zstd")))
        .set_max_row_group_row_count(Some(config.row_group_rows))
        .set_max_row_group_bytes(Some(config.row_group_bytes))
        .set_key_value_metadata(Some(notes))
        .build()
}

/// Keeps the cause that lies below, so that a full disk is told from rows that cannot be encoded.
fn to_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
