//! Reading back what a file sink has: its log says where it stands, and the names of visible files which offsets they may
//! hold. Nothing is made, locked or removed. A file that goes away while it is read was taken away, and is passed over.

mod parquet;
mod stored;

use std::io::{self, BufRead, ErrorKind};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::encode::OFFSET;
use super::hdfs::Hdfs;
use super::local::LocalStorage;
use super::log::Log;
use super::names::{self, Places, Visible};
use super::storage::{Storage, failed};
use super::{FilesConfig, Format, REJECTS, Root};
use crate::offset::TopicPartition;
use crate::origin::replay_topic;
use crate::route::DEAD_LETTERS;
use crate::sink::Error;
use crate::sink::back::{
    Asked, Coordinates, Each, Found, Reader, Sought, Stood, WITHOUT_PROVENANCE, dead_letter, refused_row,
};
use crate::sink::state::SinkState;
use stored::Stored;

/// Directories below one another at most: a target's are few.
const DEEP: usize = 16;

/// Reads back what a file sink has.
#[derive(Debug)]
pub struct FilesReader {
    storage: Arc<dyn Storage>,
    pipeline: Arc<str>,
    sink: Arc<str>,
}

/// A row in the one JSON form.
type Row = Map<String, Value>;

/// Called with each row; says whether it wants more.
type EachRow<'a> = &'a mut dyn FnMut(Row) -> Result<bool, Error>;

impl FilesReader {
    /// A reader of the sink so configured.
    ///
    /// # Errors
    /// [`Error::Transient`] where its root cannot be reached.
    pub fn open(config: &FilesConfig) -> Result<Self, Error> {
        let storage: Arc<dyn Storage> = match &config.root {
            Root::Disk(root) => Arc::new(LocalStorage::to_read(root)),
            Root::Hdfs(hdfs) => Arc::new(Hdfs::to_read(hdfs)?),
        };
        Ok(Self { storage, pipeline: config.pipeline.clone(), sink: config.sink.clone() })
    }

    /// Visible files of a target by their paths, in the order of their names, until `each` says `false`.
    fn files(
        &self,
        directory: &str,
        deep: usize,
        each: &mut dyn FnMut(&str, &Visible) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let mut listed =
            self.storage.list(directory).map_err(|e| failed(&*self.storage, "list", directory, e))?;
        listed.sort_unstable();
        for name in listed.iter().filter(|name| !name.starts_with(['_', '.'])) {
            let path = format!("{directory}/{name}");
            let goes_on = match names::visible_of(name) {
                Some(visible) => each(&path, &visible)?,
                None if deep < DEEP && name.contains('=') => self.files(&path, deep + 1, each)?,
                None => true,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rows of a file, those of offsets that are not `wanted` perhaps left out, until `each` says `false`.
    fn read(&self, path: &str, wanted: &dyn Fn(i64) -> bool, each: EachRow<'_>) -> Result<bool, Error> {
        let length = match self.storage.length(path) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(true),
            Err(error) => return Err(failed(&*self.storage, "look at", path, error)),
        };
        let stored = Stored { storage: self.storage.clone(), path: path.into(), length };
        let read = match path.rsplit('.').next() {
            Some(ending) if ending == Format::Parquet.ending() => parquet::rows(stored, wanted, each),
            _ => lines(stored, each),
        };
        match read {
            Ok(goes_on) => Ok(goes_on),
            Err(Broken::Row(error)) => Err(error),
            Err(Broken::File(error)) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(Broken::File(error)) => Err(failed(&*self.storage, "read", path, error)),
        }
    }
}

/// Why not all rows of a file were read.
enum Broken {
    /// The file, or the way to it.
    File(io::Error),
    /// What was made of a row.
    Row(Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

fn lines(stored: Stored, each: EachRow<'_>) -> Result<bool, Broken> {
    let mut lines = stored.from(0);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        let row = serde_json::from_slice(&line).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        if !each(row).map_err(Broken::Row)? {
            return Ok(false);
        }
    }
}

impl FilesReader {
    /// Whether records of that topic, as the name of a file has it, come again: what the file covers is not where they came
    /// first.
    fn is_of_replays(&self, topic: &str) -> bool {
        *topic == names::topic(&replay_topic(&self.pipeline))
    }
}

/// Whether the record of a row came first in this partition.
fn is_of(row: &Map<String, Value>, at: &TopicPartition) -> bool {
    row.get("weir_topic").and_then(Value::as_str) == Some(&at.topic)
        && row.get("weir_partition").and_then(Value::as_i64) == Some(at.partition.into())
}

impl Reader for FilesReader {
    fn state(&mut self, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let places = Places::new(&self.pipeline, &self.sink, "", at.partition);
        let topics = self.storage.list(&places.topics);
        let topics = topics.map_err(|e| failed(&*self.storage, "list", &places.topics, e))?;
        for id in topics {
            // Only an owner stages anything.
            let log = Log::new(self.storage.clone(), places.of(&id, at.partition), String::new());
            let state = log.read()?.map(|history| history.state);
            if let Some(state) = state.filter(|state| state.topic == at.topic) {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    fn letters(&mut self, sought: &Sought, each: Each<'_>) -> Result<(), Error> {
        let mut targets: Vec<(&str, &str)> = sought.dead.iter().map(|dead| (&**dead, DEAD_LETTERS)).collect();
        targets.extend(sought.refused.then_some((REJECTS, REJECTS)));
        for (target, route) in targets {
            let of_route = names::route(route);
            let goes_on = self.files(&names::target(target), 0, &mut |path, visible| {
                let (start, end) = (visible.start, visible.end);
                let topic = sought.topic.as_ref().is_none_or(|topic| names::topic(topic) == visible.topic);
                let may_be_there = topic && sought.may_take(visible.partition, start, end);
                if visible.route != of_route || !(may_be_there || self.is_of_replays(&visible.topic)) {
                    return Ok(true);
                }
                let place = self.storage.show(path);
                let offsets = |offset| sought.offsets.is_none_or(|(from, to)| (from..to).contains(&offset));
                self.read(path, &offsets, &mut |row| {
                    let letter = match route {
                        DEAD_LETTERS => dead_letter(&row, &self.sink, &place)?,
                        _ => {
                            let reason = row.get("error").and_then(Value::as_str).unwrap_or_default();
                            Some(refused_row(&row, None, reason, &self.sink, &place)?)
                        }
                    };
                    Ok(letter.is_none_or(|letter| !sought.takes(&letter.origin, letter.plan) || each(letter)))
                })
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn rows(&mut self, asked: &Asked<'_>) -> Result<Found, Error> {
        let Coordinates { at, offset } = asked.origin;
        let (topic, route, offset) = (names::topic(&at.topic), names::route(asked.route), offset.get());
        let (mut found, mut unsaid) = (Found::default(), false);
        self.files(&names::target(asked.target), 0, &mut |path, visible| {
            let covers = visible.partition == at.partition
                && (visible.start..visible.end).contains(&offset)
                && visible.topic == topic;
            let again = self.is_of_replays(&visible.topic);
            if !(covers || again) || visible.route != route {
                return Ok(true);
            }
            let place = self.storage.show(path);
            self.read(path, &|other| other == offset, &mut |row| {
                match row.get(OFFSET).and_then(Value::as_i64) {
                    None => unsaid = true,
                    Some(_) if again && !is_of(&row, at) => {}
                    Some(of) if of == offset => found.rows.extend(Stood::of(row, asked.schema, &place)),
                    Some(_) => {}
                }
                Ok(!unsaid)
            })
        })?;
        found.unknown = unsaid.then(|| WITHOUT_PROVENANCE.to_owned());
        Ok(found)
    }
}
