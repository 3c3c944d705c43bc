//! What a partition wrote since its last commit: open files in a staging directory. Nothing here is visible, and
//! nothing else refers to it before it is sealed and recorded.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};

use super::encode::{Encoder, Origin, with_provenance};
use super::names;
use super::record::StoredFile;
use super::storage::{Storage, failed};
use super::{FilesConfig, Format, REJECTS};
use crate::description::JSON_MARK;
use crate::offset::{OffsetRange, TopicPartition};
use crate::route::DEAD_LETTERS;
use crate::sink::json::JsonRows;
use crate::sink::state::{Commit, Nonce};
use crate::sink::{Error, Part, Problem, RoutedBatch, Staged};

/// The files of one partition that wait for its next commit.
pub(super) struct Staging {
    storage: Arc<dyn Storage>,
    directory: String,
    range: Option<OffsetRange>,
    /// By target and route: one file has one kind of row.
    open: BTreeMap<(Arc<str>, Arc<str>), OpenFile>,
    sealed: Option<(Nonce, Vec<StoredFile>)>,
    /// The path of every file that was begun, whatever became of it.
    created: Vec<String>,
    /// Completing the files failed: what is left is not all, and must not be committed.
    broken: bool,
    rows: u64,
}

struct OpenFile {
    path: String,
    format: Format,
    encoder: Encoder,
    rows: u64,
}

/// Rows of a part that are written alike.
struct Rows<'a> {
    target: &'a Arc<str>,
    route: &'a Arc<str>,
    format: Format,
    rows: RecordBatch,
}

impl Staging {
    pub(super) fn new(storage: Arc<dyn Storage>, directory: String) -> Self {
        Self {
            storage,
            directory,
            range: None,
            open: BTreeMap::new(),
            sealed: None,
            created: Vec::new(),
            broken: false,
            rows: 0,
        }
    }

    /// The offsets written so far, if any.
    pub(super) fn range(&self) -> Option<OffsetRange> {
        self.range
    }

    pub(super) fn write(&mut self, config: &FilesConfig, batch: &RoutedBatch) -> Result<Staged, Error> {
        let origin = Origin { at: &batch.at, plan: &batch.plan };
        for part in batch.parts.iter().filter(|part| part.rows.num_rows() > 0) {
            let (kept, refused) = split_deletes(part)?;
            if kept.rows.num_rows() > 0 {
                let rows = declared(config, &kept, origin);
                self.add(
                    config,
                    origin,
                    Rows {
                        target: &part.target,
                        route: &part.route,
                        format: config.format_of(&part.target),
                        rows,
                    },
                )?;
            }
            if refused.rows.num_rows() > 0 {
                let (rows, name) = (rejects(&refused, origin)?, Arc::from(REJECTS));
                self.add(
                    config,
                    origin,
                    Rows { target: &name, route: &name, format: Format::JsonLines, rows },
                )?;
            }
        }
        let start = self.range.map_or(batch.range.start, |range| range.start);
        self.range = Some(OffsetRange::new(start, batch.range.end));
        Ok(self.staged())
    }

    fn add(&mut self, config: &FilesConfig, origin: Origin<'_>, rows: Rows<'_>) -> Result<(), Error> {
        let key = (rows.target.clone(), rows.route.clone());
        if !self.open.contains_key(&key) {
            let file = self.create(config, origin, &rows)?;
            self.open.insert(key.clone(), file);
        }
        let file = self.open.get_mut(&key).expect("it was just made");
        file.encoder.write(&rows.rows).map_err(|e| failed(&*self.storage, "write", &file.path, e))?;
        fail::fail_point!("file.mid_write");
        file.rows += rows.rows.num_rows() as u64;
        self.rows += rows.rows.num_rows() as u64;
        Ok(())
    }

    fn create(
        &mut self,
        config: &FilesConfig,
        origin: Origin<'_>,
        rows: &Rows<'_>,
    ) -> Result<OpenFile, Error> {
        let path = format!("{}/{}", self.directory, Nonce::random());
        self.created.push(path.clone());
        let open = || -> io::Result<Encoder> {
            let file = self.storage.create(&path)?;
            fail::fail_point!("file.after_open");
            Encoder::new(config, rows.format, &rows.rows, origin, file)
        };
        let encoder = open().map_err(|e| failed(&*self.storage, "create", &path, e))?;
        Ok(OpenFile { path, format: rows.format, encoder, rows: 0 })
    }

    fn staged(&self) -> Staged {
        Staged { rows: self.rows, bytes: self.open.values().map(|file| file.encoder.bytes()).sum() }
    }

    /// Completes all files for `commit`; for the same commit again, answers the same.
    pub(super) fn seal(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Vec<StoredFile>, Error> {
        if let Some((id, files)) = &self.sealed {
            return match *id == commit.id {
                true => Ok(files.clone()),
                false => Err(Error::Permanent(Problem::new(format!(
                    "{at} waits for commit {id}, not {}",
                    commit.id
                )))),
            };
        }
        if self.broken {
            let text = format!("files of {at} could not be completed; they have to be written again");
            return Err(Error::Transient(Problem::new(text)));
        }
        self.broken = true;
        let files = self.close_all(at, commit)?;
        self.broken = false;
        self.sealed = Some((commit.id, files.clone()));
        Ok(files)
    }

    fn close_all(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Vec<StoredFile>, Error> {
        let mut files = Vec::with_capacity(self.open.len());
        for ((target, route), file) in std::mem::take(&mut self.open) {
            let name = names::visible(at, commit.range, commit.id, &route, files.len());
            let path = format!("{}/{name}.{}", names::target(&target), file.format.ending());
            files.push(self.close(file, (&target, &route), path)?);
        }
        if !files.is_empty() {
            self.storage
                .sync(&self.directory)
                .map_err(|e| failed(&*self.storage, "sync", &self.directory, e))?;
        }
        Ok(files)
    }

    fn close(&self, file: OpenFile, names: (&str, &str), path: String) -> Result<StoredFile, Error> {
        let staged = file.path;
        let io = |what: &'static str, e| failed(&*self.storage, what, &staged, e);
        let sealed = file.encoder.seal().map_err(|e| io("complete", e))?;
        let found = self.storage.length(&staged).map_err(|e| io("look at", e))?;
        if found != Some(sealed.length) {
            let (shown, found) = (self.storage.show(&staged), found.unwrap_or_default());
            let text = format!("`{shown}` has {found} bytes after {} were written", sealed.length);
            return Err(Error::Transient(Problem::new(text)));
        }
        let (target, route) = (names.0.to_owned(), names.1.to_owned());
        Ok(StoredFile {
            target,
            route,
            staged,
            path,
            length: sealed.length,
            crc32: sealed.crc32,
            rows: file.rows,
        })
    }

    /// Removes all files, which nothing may refer to. What cannot be removed is left to a later claim.
    pub(super) fn discard(self) {
        for path in &self.created {
            if let Err(error) = self.storage.delete(path) {
                tracing::debug!(path, %error, "a staged file stays behind");
            }
        }
    }
}

/// The rows as they are stored.
fn declared(config: &FilesConfig, part: &Part, origin: Origin<'_>) -> RecordBatch {
    if config.provenance || *part.route == *DEAD_LETTERS {
        return with_provenance(&part.rows, &part.offsets, &part.index, origin);
    }
    part.rows.clone()
}

/// The rows to store, and those that delete, which files cannot.
fn split_deletes(part: &Part) -> Result<(Part, Part), Error> {
    match &part.deletes {
        Some(deletes) if deletes.count_set_bits() > 0 => Ok((only(part, &!deletes)?, only(part, deletes)?)),
        _ => Ok((part.clone(), only(part, &arrow::buffer::BooleanBuffer::new_unset(part.rows.num_rows()))?)),
    }
}

fn only(part: &Part, wanted: &arrow::buffer::BooleanBuffer) -> Result<Part, Error> {
    let rows = filter_record_batch(&part.rows, &BooleanArray::new(wanted.clone(), None));
    let rows = rows.map_err(|e| Error::Permanent(Problem::new(format!("cannot pick rows: {e}"))))?;
    let pick = |i: usize| wanted.value(i);
    let offsets: ScalarBuffer<i64> =
        (0..part.offsets.len()).filter(|&i| pick(i)).map(|i| part.offsets[i]).collect();
    let index: ScalarBuffer<i32> =
        (0..part.index.len()).filter(|&i| pick(i)).map(|i| part.index[i]).collect();
    Ok(Part { rows, offsets, index, keys: None, headers: None, deletes: None, ..part.clone() })
}

/// Rows that this sink refuses, each as one JSON text with where it came from and why.
fn rejects(part: &Part, origin: Origin<'_>) -> Result<RecordBatch, Error> {
    let json = JsonRows::new(&part.rows).map_err(|e| Error::Permanent(Problem::new(e.to_string())))?;
    let n = part.rows.num_rows();
    let texts = (0..n).map(|row| {
        let mut text = Vec::new();
        json.write(row, &mut text);
        String::from_utf8(text).expect("JSON is UTF-8")
    });
    let same = |text: &str| Arc::new(StringArray::from(vec![text; n]));
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let row =
        text("row").with_metadata(std::collections::HashMap::from([(JSON_MARK.to_owned(), "1".to_owned())]));
    let schema = Schema::new(vec![text("target"), text("route"), text("error"), row]);
    let columns = vec![
        same(&part.target) as _,
        same(&part.route) as _,
        same("a file cannot delete a row") as _,
        Arc::new(StringArray::from_iter_values(texts)) as _,
    ];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("all columns have a value per row");
    Ok(with_provenance(&rows, &part.offsets, &part.index, origin))
}
