//! A file under way: rows go in, bytes come out in the staging directory. It is complete once it is sealed, and
//! nothing refers to it before.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};

use super::json::JsonLines;
use super::parquet::ParquetFile;
use super::storage::{Closing, StagedFile};
use super::{FilesConfig, Format};
use crate::offset::TopicPartition;
use crate::sink::Part;
use crate::sink::state::PlanRef;

/// The column with the offset of a row's record.
pub(super) const OFFSET: &str = "weir_offset";

/// A file that takes rows.
pub(super) enum Encoder {
    Parquet(Box<ParquetFile>),
    JsonLines(JsonLines),
}

/// What a complete file holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) length: u64,
    pub(super) crc32: u32,
}

/// What a batch's rows have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) at: &'a TopicPartition,
    pub(super) plan: &'a PlanRef,
}

impl Encoder {
    /// A file for rows like `rows`.
    pub(super) fn new(
        config: &FilesConfig,
        format: Format,
        rows: &RecordBatch,
        origin: Origin<'_>,
        file: Box<dyn StagedFile>,
    ) -> io::Result<Self> {
        let file = Counted::new(file);
        Ok(match format {
            Format::Parquet => Self::Parquet(Box::new(ParquetFile::new(config, rows, origin, file)?)),
            Format::JsonLines => Self::JsonLines(JsonLines::new(file)),
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> io::Result<()> {
        match self {
            Self::Parquet(file) => file.write(rows),
            Self::JsonLines(file) => file.write(rows),
        }
    }

    /// How long the file would be if it ended here, or nearly so.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Parquet(file) => file.bytes(),
            Self::JsonLines(file) => file.bytes(),
        }
    }

    /// Bytes of memory that wait for more rows.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Parquet(file) => file.held(),
            Self::JsonLines(_) => 0,
        }
    }

    /// Writes what waits for more rows.
    pub(super) fn let_go(&mut self) -> io::Result<()> {
        match self {
            Self::Parquet(file) => file.end_row_group(),
            Self::JsonLines(_) => Ok(()),
        }
    }

    /// Writes what is missing and closes the file.
    pub(super) fn seal(self) -> io::Result<(Sealed, Box<dyn Closing>)> {
        let file = match self {
            Self::Parquet(file) => file.finish()?,
            Self::JsonLines(file) => file.finish(),
        };
        fail::fail_point!("file.before_close");
        file.close()
    }
}

/// Counts and sums up what is written.
pub(super) struct Counted {
    file: BufWriter<Box<dyn StagedFile>>,
    length: u64,
    crc: crc32fast::Hasher,
}

impl Counted {
    fn new(file: Box<dyn StagedFile>) -> Self {
        Self { file: BufWriter::with_capacity(64 << 10, file), length: 0, crc: crc32fast::Hasher::new() }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn close(self) -> io::Result<(Sealed, Box<dyn Closing>)> {
        let sealed = Sealed { length: self.length, crc32: self.crc.finalize() };
        let closing = self.file.into_inner().map_err(io::IntoInnerError::into_error)?.close()?;
        Ok((sealed, closing))
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.crc.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Adds to `rows`, made from those of `part`, where each came from. Only rows of records that come again have a column for
/// the attempt: files of a partition have them all, or none of them has.
pub(super) fn with_provenance(rows: &RecordBatch, part: &Part, origin: Origin<'_>) -> RecordBatch {
    let n = rows.num_rows();
    let [topic, partition, offset] = coordinates(part, origin.at);
    let mut columns = vec![
        ("weir_topic", topic),
        ("weir_partition", partition),
        (OFFSET, offset),
        ("weir_index", Arc::new(Int32Array::from(part.index.to_vec())) as ArrayRef),
        ("weir_plan", Arc::new(Int64Array::from_value(origin.plan.plan as i64, n))),
    ];
    if let Some(origins) = &part.origins {
        let attempts: Int32Array = origins.iter().map(|origin| Some(i32::from(origin.attempt))).collect();
        columns.push(("weir_attempt", Arc::new(attempts)));
    }
    let fields = columns.iter().map(|(name, array)| field(name, array.data_type()));
    let schema = rows.schema_ref().fields().iter().cloned().chain(fields).collect::<Vec<_>>();
    let arrays = rows.columns().iter().cloned().chain(columns.iter().map(|(_, array)| array.clone()));
    RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays.collect())
        .expect("a part has an offset and an index for every row")
}

/// Topic, partition and offset of each row's record.
fn coordinates(part: &Part, at: &TopicPartition) -> [ArrayRef; 3] {
    let Some(origins) = &part.origins else {
        let n = part.offsets.len();
        let topic = Arc::new(StringArray::from(vec![&*at.topic]));
        return [
            Arc::new(DictionaryArray::<Int32Type>::new(vec![0; n].into(), topic)),
            Arc::new(Int32Array::from_value(at.partition, n)),
            Arc::new(Int64Array::from(part.offsets.to_vec())),
        ];
    };
    let topics: DictionaryArray<Int32Type> = origins.iter().map(|origin| &*origin.at.topic).collect();
    let partitions: Int32Array = origins.iter().map(|origin| Some(origin.at.partition)).collect();
    let offsets: Int64Array = origins.iter().map(|origin| Some(origin.offset.get())).collect();
    [Arc::new(topics), Arc::new(partitions), Arc::new(offsets)]
}

fn field(name: &str, data_type: &DataType) -> Arc<Field> {
    Arc::new(Field::new(name, data_type.clone(), false))
}
