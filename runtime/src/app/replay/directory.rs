//! The replay input of a pipeline that reads files: a directory in its state directory, which gets a file for each selection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Input, Known, Letter};
use crate::app::inputs::Replays;
use crate::batch::{Batch, BatchBuilder};
use crate::budget::Permit;
use crate::config::PipelineConfig;
use crate::offset::{Offset, TopicPartition};
use crate::origin::Envelope;
use crate::plan::files::sync_dir;
use crate::sink::state::Nonce;
use crate::source::files::replays;
use crate::source::format::{Filled, Format, Options, RecordReader, envelope};

/// Records of a file that are in memory at once, and their bytes.
const AT_ONCE: (usize, usize) = (1_000, 4 << 20);

/// The file that letters are copied to, under a name of its own until it is whole.
pub(super) struct Directory {
    dir: PathBuf,
    number: i32,
    file: Option<Temporary>,
}

/// A file that is removed unless it was put in its place, or the process dies.
struct Temporary {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // One that stays behind is hidden and harmless.
        drop(fs::remove_file(&self.path));
    }
}

impl Directory {
    /// Makes the directory if it is not there. The number of the file is chosen before it is looked at what is there: so whoever
    /// else copies meanwhile takes that number, and this one copies nothing.
    pub(super) fn open(config: &PipelineConfig) -> Result<(Self, Known)> {
        let history = crate::app::history(config)?.unwrap_or_default();
        let replays = Replays::new(config);
        let dir = replays.dir().to_owned();
        let made = fs::create_dir_all(&dir).and_then(|()| dir.parent().map_or(Ok(()), sync_dir));
        made.with_context(|| format!("making {}", dir.display()))?;
        let number = replays.next(&history)?;
        Ok((Self { dir, number, file: None }, look(&replays)?))
    }

    fn write(&mut self, letters: &[Letter]) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Temporary::new(&self.dir)?),
        };
        for letter in letters {
            let written = file.file.write_all(&letter.enveloped(envelope));
            written.with_context(|| format!("writing {}", file.path.display()))?;
            fail::fail_point!("replay.mid_letters");
        }
        Ok(())
    }
}

impl Temporary {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join(format!(".{}.tmp", Nonce::random()));
        let file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

impl Input for Directory {
    /// They are copied with all others of the selection.
    fn copy(&mut self, letters: &[Letter]) -> Result<()> {
        self.write(letters)
    }

    /// A link fails where a name exists, so the first to copy wins, and nobody ever sees a part of a file.
    fn finish(self) -> Result<()> {
        let Some(mut file) = self.file else { return Ok(()) };
        file.sync().with_context(|| format!("writing {}", file.path.display()))?;
        fail::fail_point!("replay.before_commit");
        let path = self.dir.join(replays::name(self.number));
        match fs::hard_link(&file.path, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "somebody else sent dead letters of this pipeline through it at the same moment, and none of these was copied: \
                 ask again"
            ),
            linked => linked.with_context(|| format!("linking {}", path.display()))?,
        }
        fail::fail_point!("replay.after_commit");
        sync_dir(&self.dir).with_context(|| format!("syncing {}", self.dir.display()))
    }
}

/// What is there.
pub(super) fn look(replays: &Replays) -> Result<Known> {
    let mut there = BTreeSet::new();
    for (_, found) in replays::list(replays.inputs())?.ours {
        let file = replays.inputs().open(&found.path)?;
        read(file, &found.path, &mut there)
            .with_context(|| format!("reading {}", replays.dir().display()))?;
    }
    Ok(Known { there, most_bytes: None })
}

/// Which letters are in a file. What is no envelope becomes a dead letter itself, and is no copy of any.
fn read(file: File, path: &str, there: &mut BTreeSet<Envelope>) -> Result<()> {
    let mut reader = RecordReader::open(Box::new(file), path, &Options::new(Format::Envelopes))?;
    loop {
        let mut builder = BatchBuilder::new(TopicPartition::new(path, 0), reader.next());
        builder.open_envelopes();
        let filled = reader.fill(&mut builder, AT_ONCE.0, AT_ONCE.1)?;
        let batch = builder.finish(reader.next(), Permit::free());
        there.extend(batch.iter().flat_map(envelopes));
        if filled == Filled::End {
            return Ok(());
        }
    }
}

fn envelopes(batch: &Batch) -> Vec<Envelope> {
    let meant: BTreeMap<_, _> = batch.meant().iter().cloned().collect();
    let records = batch.offsets().iter().zip(batch.origins().unwrap_or_default());
    let envelope = |(offset, origin): (&i64, &crate::origin::Origin)| Envelope {
        origin: origin.clone(),
        meant: meant.get(&Offset::new(*offset)).cloned(),
    };
    records.map(envelope).collect()
}

#[cfg(test)]
mod tests;
