//! What a partition wrote since its last commit: open files in a staging directory. Nothing here is visible, and
//! nothing else refers to it before it is sealed and recorded.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};

use super::directories::{self, Sorted};
use super::encode::{Encoder, Origin, Sealed, with_provenance};
use super::names;
use super::record::StoredFile;
use super::storage::{Closing, Storage, failed};
use super::{FilesConfig, Format, REJECTS};
use crate::description::JSON_MARK;
use crate::offset::{OffsetRange, TopicPartition};
use crate::route::DEAD_LETTERS;
use crate::sink::json::JsonRows;
use crate::sink::state::{Commit, Nonce};
use crate::sink::{Error, Part, Problem, RoutedBatch, Staged};

/// Rows that become rejects in one step.
const REJECTS_AT_ONCE: usize = 1_000;

/// The files of one partition that wait for its next commit.
pub(super) struct Staging {
    storage: Arc<dyn Storage>,
    directory: String,
    range: Option<OffsetRange>,
    open: BTreeMap<Kind, OpenFile>,
    /// Files that were closed before the commit, since too many were open.
    closed: Vec<(Kind, ClosedFile)>,
    sealed: Option<(Nonce, Vec<StoredFile>)>,
    /// The path of every file that was begun, whatever became of it.
    created: Vec<String>,
    /// Completing the files failed: what is left is not all, and must not be committed.
    broken: bool,
    rows: u64,
}

/// What the rows of one file have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    target: Arc<str>,
    route: Arc<str>,
    /// Below the target's; may be empty.
    directory: String,
}

/// A file that gets no more rows; complete once it is waited for.
struct ClosedFile {
    staged: String,
    format: Format,
    sealed: Sealed,
    closing: Box<dyn Closing>,
    rows: u64,
}

struct OpenFile {
    path: String,
    format: Format,
    encoder: Encoder,
    rows: u64,
}

impl Staging {
    pub(super) fn new(storage: Arc<dyn Storage>, directory: String) -> Self {
        Self {
            storage,
            directory,
            range: None,
            open: BTreeMap::new(),
            closed: Vec::new(),
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
                self.add_part(config, origin, &kept)?;
            }
            if refused.rows.num_rows() > 0 {
                self.reject(config, origin, &refused, "a file cannot delete a row")?;
            }
        }
        let start = self.range.map_or(batch.range.start, |range| range.start);
        self.range = Some(OffsetRange::new(start, batch.range.end));
        Ok(self.staged())
    }

    /// Writes the rows to the directories they belong in.
    fn add_part(&mut self, config: &FilesConfig, origin: Origin<'_>, part: &Part) -> Result<(), Error> {
        let rows = declared(config, part, origin);
        let format = config.format_of(&part.target);
        let kind = |directory| Kind { target: part.target.clone(), route: part.route.clone(), directory };
        let directories = config.directories_of(&part.target);
        if directories.is_empty() {
            return self.add(config, origin, kind(String::new()), format, &rows);
        }
        let Sorted { places, refused } = directories::sort(directories, part).map_err(Error::Permanent)?;
        for (place, numbers) in places {
            let rows = take_record_batch(&rows, &UInt32Array::from(numbers)).map_err(cannot_pick)?;
            self.add(config, origin, kind(place), format, &rows)?;
        }
        for (reason, numbers) in refused {
            let mut wanted = BooleanBufferBuilder::new(part.rows.num_rows());
            wanted.append_n(part.rows.num_rows(), false);
            numbers.iter().for_each(|row| wanted.set_bit(*row as usize, true));
            self.reject(config, origin, &only(part, &wanted.finish())?, &reason)?;
        }
        Ok(())
    }

    fn reject(
        &mut self,
        config: &FilesConfig,
        origin: Origin<'_>,
        part: &Part,
        reason: &str,
    ) -> Result<(), Error> {
        let kind = Kind { target: REJECTS.into(), route: REJECTS.into(), directory: String::new() };
        // Rows have far more bytes as text than in columns, all of them perhaps more than a column of texts holds.
        for start in (0..part.rows.num_rows()).step_by(REJECTS_AT_ONCE) {
            let rows = rejects(&slice(part, start, REJECTS_AT_ONCE), origin, reason)?;
            self.add(config, origin, kind.clone(), Format::JsonLines, &rows)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        config: &FilesConfig,
        origin: Origin<'_>,
        kind: Kind,
        format: Format,
        rows: &RecordBatch,
    ) -> Result<(), Error> {
        if !self.open.contains_key(&kind) {
            self.make_room(config.open_files)?;
            let file = self.create(config, origin, format, rows)?;
            self.open.insert(kind.clone(), file);
        }
        let file = self.open.get_mut(&kind).expect("it was just made");
        file.encoder.write(rows).map_err(|e| failed(&*self.storage, "write", &file.path, e))?;
        fail::fail_point!("file.mid_write");
        file.rows += rows.num_rows() as u64;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Closes the longest file while there are `limit`.
    fn make_room(&mut self, limit: usize) -> Result<(), Error> {
        while self.open.len() >= limit.max(1) {
            let longest = self.open.iter().max_by_key(|(_, file)| file.encoder.bytes());
            let kind = longest.map(|(kind, _)| kind.clone()).expect("there is at least one");
            let file = self.open.remove(&kind).expect("it was just found");
            let file = self.close(file)?;
            self.closed.push((kind, file));
        }
        Ok(())
    }

    /// Bytes of memory that its files hold, all and the one that holds most.
    pub(super) fn held(&self) -> (usize, usize) {
        let held = self.open.values().map(|file| file.encoder.held());
        held.fold((0, 0), |(all, most), held| (all + held, most.max(held)))
    }

    /// Writes what the file holds that holds most. If that fails, so will the commit.
    pub(super) fn let_go(&mut self) {
        let Some(file) = self.open.values_mut().max_by_key(|file| file.encoder.held()) else { return };
        if let Err(error) = file.encoder.let_go() {
            tracing::warn!(path = file.path, %error, "a row group was not written");
            self.broken = true;
        }
    }

    fn create(
        &mut self,
        config: &FilesConfig,
        origin: Origin<'_>,
        format: Format,
        rows: &RecordBatch,
    ) -> Result<OpenFile, Error> {
        let path = format!("{}/{}", self.directory, Nonce::random());
        self.created.push(path.clone());
        let open = || -> io::Result<Encoder> {
            let file = self.storage.create(&path)?;
            fail::fail_point!("file.after_open");
            Encoder::new(config, format, rows, origin, file)
        };
        let encoder = open().map_err(|e| failed(&*self.storage, "create", &path, e))?;
        Ok(OpenFile { path, format, encoder, rows: 0 })
    }

    fn staged(&self) -> Staged {
        let open = self.open.values().map(|file| file.encoder.bytes());
        let closed = self.closed.iter().map(|(_, file)| file.sealed.length);
        Staged { rows: self.rows, bytes: open.chain(closed).sum(), full: !self.closed.is_empty() }
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

    /// Closes all files before it waits for the first: where bytes take their time, they take it together.
    fn close_all(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Vec<StoredFile>, Error> {
        let mut closed = std::mem::take(&mut self.closed);
        for (kind, file) in std::mem::take(&mut self.open) {
            closed.push((kind, self.close(file)?));
        }
        let empty = closed.is_empty();
        let mut stored = Vec::new();
        for (n, (kind, file)) in closed.into_iter().enumerate() {
            let name = names::visible(at, commit.range, commit.id, &kind.route, n);
            stored.push(self.complete(&kind, file, &name)?);
        }
        if !empty {
            self.storage
                .sync(&self.directory)
                .map_err(|e| failed(&*self.storage, "sync", &self.directory, e))?;
        }
        Ok(stored)
    }

    fn close(&self, file: OpenFile) -> Result<ClosedFile, Error> {
        let OpenFile { path: staged, format, encoder, rows } = file;
        let sealed = encoder.seal().map_err(|e| failed(&*self.storage, "complete", &staged, e));
        let (sealed, closing) = sealed?;
        Ok(ClosedFile { staged, format, sealed, closing, rows })
    }

    /// Waits until the file is complete, and makes sure of it. It then only lacks its visible name, with `name` and the
    /// format's ending in the directory of its kind, which the commit gives it.
    fn complete(&self, kind: &Kind, file: ClosedFile, name: &str) -> Result<StoredFile, Error> {
        let ClosedFile { staged, format, sealed, closing, rows } = file;
        let io = |what: &'static str, e| failed(&*self.storage, what, &staged, e);
        closing.wait().map_err(|e| io("complete", e))?;
        fail::fail_point!("file.after_close");
        let found = self.storage.length(&staged).map_err(|e| io("look at", e))?;
        if found != Some(sealed.length) {
            let (shown, found) = (self.storage.show(&staged), found.unwrap_or_default());
            let text = format!("`{shown}` has {found} bytes after {} were written", sealed.length);
            return Err(Error::Transient(Problem::new(text)));
        }
        let Kind { target, route, directory } = kind;
        let directory = match &**directory {
            "" => names::target(target),
            below => format!("{}/{below}", names::target(target)),
        };
        let path = format!("{directory}/{name}.{}", format.ending());
        let (target, route) = (target.to_string(), route.to_string());
        let Sealed { length, crc32 } = sealed;
        Ok(StoredFile { target, route, staged, path, length, crc32, rows })
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

fn cannot_pick(error: arrow::error::ArrowError) -> Error {
    Error::Permanent(Problem::new(format!("cannot pick rows: {error}")))
}

/// The rows as they are stored.
fn declared(config: &FilesConfig, part: &Part, origin: Origin<'_>) -> RecordBatch {
    if config.provenance || *part.route == *DEAD_LETTERS {
        return with_provenance(&part.rows, part, origin);
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
    let rows = rows.map_err(cannot_pick)?;
    let pick = |i: usize| wanted.value(i);
    let offsets: ScalarBuffer<i64> =
        (0..part.offsets.len()).filter(|&i| pick(i)).map(|i| part.offsets[i]).collect();
    let index: ScalarBuffer<i32> =
        (0..part.index.len()).filter(|&i| pick(i)).map(|i| part.index[i]).collect();
    let timestamps: ScalarBuffer<i64> =
        (0..part.timestamps.len()).filter(|&i| pick(i)).map(|i| part.timestamps[i]).collect();
    let origins = part.origins.as_ref().map(|all| {
        let kept = all.iter().enumerate().filter(|(i, _)| pick(*i));
        kept.map(|(_, origin)| origin.clone()).collect()
    });
    let (keys, headers, deletes) = (None, None, None);
    Ok(Part { rows, offsets, origins, index, timestamps, keys, headers, deletes, ..part.clone() })
}

fn slice(part: &Part, start: usize, most: usize) -> Part {
    let n = most.min(part.rows.num_rows() - start);
    Part {
        rows: part.rows.slice(start, n),
        offsets: part.offsets.slice(start, n),
        origins: part.origins.as_ref().map(|all| all[start..start + n].to_vec()),
        index: part.index.slice(start, n),
        timestamps: part.timestamps.slice(start, n),
        keys: None,
        headers: None,
        deletes: None,
        ..part.clone()
    }
}

/// Rows that this sink refuses, each as one JSON text with where it came from and why.
fn rejects(part: &Part, origin: Origin<'_>, reason: &str) -> Result<RecordBatch, Error> {
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
        same(reason) as _,
        Arc::new(StringArray::from_iter_values(texts)) as _,
    ];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("all columns have a value per row");
    Ok(with_provenance(&rows, part, origin))
}
