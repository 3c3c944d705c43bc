//! The law of cutting a file into records: the same bytes give the same records at the same offsets, however they
//! arrive, how many are asked for at once, and wherever reading begins again.

use std::io::Cursor;

use super::*;
use crate::budget::Permit;
use crate::offset::TopicPartition;

/// Any bytes as an input file, behind four that say how it is read: its format and compression, the delimiter, the
/// longest record, and in which pieces it comes.
pub(crate) fn any_file(bytes: &[u8]) {
    let [kind, delimiter, max, piece, file @ ..] = bytes else { return };
    let format = match kind % 12 {
        9.. => Format::Envelopes,
        kind => [Format::Csv, Format::JsonLines, Format::Raw][usize::from(kind % 3)],
    };
    let path = ["in/file", "in/file.gz", "in/file.zst"][usize::from(kind / 3 % 3)];
    let delimiter = Some(*delimiter).filter(|d| !b"\0\"\r\n".contains(d));
    let options = Options { delimiter, max_record_bytes: usize::from(*max), ..Options::new(format) };
    let read = |chunk, piece, at, records| {
        let input = Pieces { bytes: Cursor::new(file.to_vec()), size: piece };
        let reader = RecordReader::open_in_chunks(Box::new(input), path, &options, chunk);
        reader.and_then(|reader| entries(reader, at, records)).map_err(|e| e.to_string())
    };
    let whole = read(1 << 20, usize::MAX, 0, usize::MAX);
    let piece = usize::from(*piece) + 1;
    assert_eq!(read(piece, piece / 3 + 1, 0, 1), whole, "in pieces of {piece} bytes");
    let Ok(whole) = whole else { return };
    let offsets = whole.iter().map(|entry| entry.offset);
    assert!(offsets.eq(0..whole.len() as i64), "{whole:?}");
    for at in [1, whole.len() / 2, whole.len()].into_iter().filter(|at| *at <= whole.len()) {
        let behind = read(piece, usize::MAX, at, 3);
        assert_eq!(behind.as_deref(), Ok(&whole[at..]), "from record {at} on");
    }
    let short = read(piece, piece, whole.len() + 1, 1).expect_err("there is no such record");
    assert!(short.starts_with("E_INPUT_CHANGED: "), "{short}");
    match (format, path) {
        (Format::JsonLines, "in/file") => check_lines(file, &options, &whole),
        (Format::Raw, _) => check_whole(file, &options, &whole),
        (Format::Csv, _) => check_rows(&whole),
        (Format::JsonLines | Format::Envelopes, _) => {}
    }
}

/// What stands at an offset.
#[derive(Clone, PartialEq, Debug)]
struct Entry {
    offset: i64,
    bytes: Vec<u8>,
    /// Of an unreadable one: code and message.
    unreadable: Option<(&'static str, String)>,
}

/// All from record `at` on, `records` at a time.
fn entries(mut reader: RecordReader, at: usize, records: usize) -> Result<Vec<Entry>, Error> {
    reader.skip_to(Offset::ZERO.plus(at))?;
    let mut all = Vec::new();
    loop {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), reader.next());
        let filled = reader.fill(&mut builder, records, usize::MAX)?;
        if let Some(batch) = builder.finish(reader.next(), Permit::free()) {
            let record = |(offset, value): (&i64, Option<&[u8]>)| Entry {
                offset: *offset,
                // Only an envelope may have none.
                bytes: value.unwrap_or_default().to_vec(),
                unreadable: None,
            };
            let start = all.len();
            all.extend(batch.offsets().iter().zip(batch.values().iter()).map(record));
            all.extend(batch.unreadable().iter().map(|found| Entry {
                offset: found.offset.get(),
                bytes: found.bytes.clone(),
                unreadable: Some((found.code, found.message.clone())),
            }));
            all[start..].sort_by_key(|entry| entry.offset);
        }
        if filled == Filled::End {
            return Ok(all);
        }
    }
}

/// Said in another way: every line that is not empty.
fn check_lines(file: &[u8], options: &Options, found: &[Entry]) {
    let file = file.strip_prefix(BOM).unwrap_or(file);
    let lines = file.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    assert_eq!(found.len(), lines.len(), "{found:?}");
    for (entry, line) in found.iter().zip(lines) {
        check_length(line, options, entry);
    }
}

fn check_whole(file: &[u8], options: &Options, found: &[Entry]) {
    assert_eq!(found.len(), 1);
    check_length(file, options, &found[0]);
}

/// A record of at most the longest length is there, a longer one is told.
fn check_length(record: &[u8], options: &Options, found: &Entry) {
    match &found.unreadable {
        None => assert!(found.bytes == record && record.len() <= options.max_record_bytes, "{found:?}"),
        Some((code, _)) => assert!(*code == "record-too-large" && record.len() > options.max_record_bytes),
    }
}

/// A row is an object whose values are texts, and every row has the same names.
fn check_rows(found: &[Entry]) {
    let mut names: Option<Vec<String>> = None;
    for entry in found.iter().filter(|entry| entry.unreadable.is_none()) {
        let row: std::collections::BTreeMap<String, String> =
            serde_json::from_slice(&entry.bytes).expect("a row is an object of texts");
        let row: Vec<String> = row.into_keys().collect();
        assert_eq!(names.get_or_insert_with(|| row.clone()), &row);
    }
}

/// Gives at most `size` bytes at once.
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    size: usize,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buf.len());
        self.bytes.read(&mut buf[..size])
    }
}
