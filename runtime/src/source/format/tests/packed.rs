//! The laws of compressed files: their content as if it were not compressed, and no quiet end.

use std::io::Write as _;

use flate2::write::GzEncoder;

use super::*;

const GZIP: &str = "in/file.gz";
const ZSTD: &str = "in/file.zst";

/// `parts` behind one another, each compressed by itself.
fn pack(path: &str, parts: &[&[u8]]) -> Vec<u8> {
    let pack = |part: &&[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        zstd.include_checksum(true).unwrap();
        gzip.write_all(part).and_then(|()| zstd.write_all(part)).unwrap();
        if path == GZIP { gzip.finish().unwrap() } else { zstd.finish().unwrap() }
    };
    parts.iter().flat_map(pack).collect()
}

fn packed(path: &str, input: impl Read + Send + 'static, format: Format) -> RecordReader {
    RecordReader::open(Box::new(input), path, &options(format, 20)).expect("the header is good")
}

fn read(path: &str, bytes: &[u8], format: Format) -> Vec<(i64, String)> {
    entries(packed(path, Cursor::new(bytes.to_vec()), format), 3)
}

fn broken(bytes: &[u8], path: &str) -> (usize, String) {
    let all = batches(packed(path, Cursor::new(bytes.to_vec()), Format::JsonLines), 1000);
    let unreadable: Vec<_> = all.iter().flat_map(Batch::unreadable).collect();
    let [last] = unreadable[..] else { panic!("{unreadable:?}") };
    let records = all.iter().map(Batch::n_records).sum::<usize>();
    assert_eq!((last.code, last.offset.get()), ("broken-compression", records as i64 - 1));
    (records, last.message.clone())
}

#[test]
fn a_file_that_was_cut_off_gives_its_whole_records_and_one_dead_letter() {
    for path in [GZIP, ZSTD] {
        let whole = pack(path, &[b"1\n2\n", b"3\n4"]);
        let first = pack(path, &[b"1\n2\n"]).len();
        assert_eq!(read(path, &whole, Format::JsonLines).len(), 4, "{path}");
        for end in (0..whole.len()).filter(|end| *end != first) {
            let (records, message) = broken(&whole[..end], path);
            assert!((1..=4).contains(&records) && (end < first || records > 2), "{path} {end}: {records}");
            let cause = if end == 0 { "the file is empty" } else { "it ends in the middle" };
            assert!(message.contains(cause), "{path} {end}: {message}");
        }
    }
}

#[test]
fn what_stands_behind_the_last_block_is_told_and_not_passed_over() {
    for path in [GZIP, ZSTD] {
        let bytes = [pack(path, &[b"1\n2\n"]), b"some trailing garbage".to_vec()].concat();
        assert_eq!(broken(&bytes, path).0, 3, "{path}");
    }
}

#[test]
fn a_break_before_the_end_of_the_header_is_one_dead_letter() {
    let bytes = pack(GZIP, &[b"a,b\n1,2\n"]);
    let found = read(GZIP, &bytes[..12], Format::Csv);
    assert_eq!(found, [(0, "broken-compression: a".to_owned())]);
}

#[test]
fn a_window_that_would_take_too_much_memory_is_refused_by_name() {
    let frame = |log: u8| {
        let (magic, last_raw_block_of_2) = ([0x28, 0xb5, 0x2f, 0xfd], [0x11, 0, 0]);
        [&magic[..], &[0, (log - 10) << 3], &last_raw_block_of_2, b"1\n"].concat()
    };
    assert_eq!(read(ZSTD, &frame(23), Format::JsonLines), [(0, "1".to_owned())]);
    // No dead letter, which would be the end of the file: it can be packed again.
    let input = Box::new(Cursor::new(frame(24)));
    let error = RecordReader::open(input, ZSTD, &options(Format::JsonLines, 20)).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
    assert!(error.to_string().contains("looks back further than 8 MiB"), "{error}");
}

#[test]
fn a_small_file_with_a_huge_record_is_held_to_the_limit_of_a_record() {
    let zeros = vec![b'0'; 4 << 20];
    for path in [GZIP, ZSTD] {
        let bytes = pack(path, &[&zeros, b"\n1\n"]);
        assert!(bytes.len() < 64 << 10, "{}", bytes.len());
        let all = batches(packed(path, Cursor::new(bytes), Format::JsonLines), 10);
        let huge = &all[0].unreadable()[0];
        assert_eq!((huge.code, huge.bytes.len()), ("record-too-large", KEPT_BYTES));
        assert_eq!(all[0].values().get(0), Some(&b"1"[..]));
    }
}

/// A medium that fails where its bytes end.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the cable is out")),
            n => Ok(n),
        }
    }
}

#[test]
fn a_medium_that_fails_is_no_broken_file() {
    for path in [GZIP, ZSTD] {
        let bytes = pack(path, &[b"1\n2\n"]);
        let input = Failing(Cursor::new(bytes[..bytes.len() - 5].to_vec()));
        let opened = RecordReader::open(Box::new(input), path, &options(Format::JsonLines, 20));
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::ZERO);
        let error = opened.and_then(|mut reader| reader.fill(&mut builder, 10, usize::MAX)).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}

/// Whatever was unpacked before the failure, and no byte that the file does not have, however often it is asked.
#[test]
fn what_comes_before_a_medium_fails_is_read_and_nothing_is_made_up_behind_it() {
    // Numbers that do not compress to nothing: several pieces, packed and unpacked.
    let record = |n: u64| n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string();
    let lines: String = (0..40_000).map(|n| record(n) + "\n").collect();
    for path in [GZIP, ZSTD] {
        let bytes = pack(path, &[lines.as_bytes()]);
        assert!(bytes.len() > 256 << 10, "{path}: {}", bytes.len());
        for end in [bytes.len() / 2, 2 * (64 << 10), bytes.len() - 1] {
            let compression = Compression::of_path(path).0.unwrap();
            let mut input =
                compression.unpack(Box::new(Failing(Cursor::new(bytes[..end].to_vec())))).unwrap();
            let mut content = Vec::new();
            for _ in 0..3 {
                let error = input.read_to_end(&mut content).unwrap_err();
                assert_eq!(error.to_string(), "the cable is out", "{path} {end}");
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            }
            assert!(content.len() > 64 << 10 && lines.as_bytes().starts_with(&content), "{path} {end}");

            let input = Failing(Cursor::new(bytes[..end].to_vec()));
            let mut reader = packed(path, input, Format::JsonLines);
            let mut read = 0;
            let error = loop {
                let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), reader.next());
                let filled = reader.fill(&mut builder, 1000, usize::MAX);
                for value in builder
                    .finish(reader.next(), Permit::free())
                    .iter()
                    .flat_map(|batch| batch.values().iter())
                {
                    assert_eq!(value, Some(record(read).as_bytes()), "{path} {end}");
                    read += 1;
                }
                if let Err(error) = filled {
                    break error;
                }
            };
            let whole = content.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(matches!(error, Error::Read { .. }) && read == whole, "{path} {end}: {read} of {whole}");
        }
    }
}

#[test]
fn files_that_are_a_record_each_are_handed_on_as_they_are() {
    let bytes = pack(GZIP, &[b"1\n"]);
    let input = Box::new(Cursor::new(bytes.clone()));
    let all = batches(RecordReader::open(input, GZIP, &Options::new(Format::Raw)).unwrap(), 10);
    assert_eq!(all[0].values().get(0), Some(&bytes[..]));
}

proptest! {
    #[test]
    fn the_content_is_read_as_if_it_were_not_compressed(bytes in hostile(), cut in 0_usize..120, from in 0_usize..9, csv: bool, gzip: bool) {
        let (format, path) = (if csv { Format::Csv } else { Format::JsonLines }, if gzip { GZIP } else { ZSTD });
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let packed_bytes = pack(path, &[head, b"", tail]);
        let all = entries(reader(&bytes, &options(format, 20)), 1000);
        prop_assert_eq!(&read(path, &packed_bytes, format), &all);
        let from = from.min(all.len());
        let mut rest = packed(path, Cursor::new(packed_bytes), format);
        rest.skip_to(Offset::new(from as i64)).expect("there are as many");
        prop_assert_eq!(entries(rest, 2), &all[from..]);
    }

    #[test]
    fn a_changed_byte_is_told_or_changes_nothing_and_how_the_bytes_arrive_makes_no_difference(
        lines in prop::collection::vec("[a-c]{1,9}", 1..40), at in any::<prop::sample::Index>(), bit in 0_u32..8,
        sizes in prop::collection::vec(1_usize..9, 1..4), max in 1_usize..5, gzip: bool,
    ) {
        let path = if gzip { GZIP } else { ZSTD };
        let text = lines.join("\n");
        let mut bytes = pack(path, &[text.as_bytes()]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let pieces = Pieces { bytes: Cursor::new(bytes.clone()), sizes, turn: 0 };
        let opened = RecordReader::open(Box::new(Cursor::new(bytes.clone())), path, &options(Format::JsonLines, 20));
        if let Err(error) = opened {
            let again = RecordReader::open(Box::new(pieces), path, &options(Format::JsonLines, 20));
            prop_assert_eq!(again.unwrap_err().to_string(), error.to_string());
            prop_assert!(error.to_string().contains("looks back further than 8 MiB"), "{}", error);
            return Ok(());
        }
        let found = read(path, &bytes, Format::JsonLines);
        let told = found.last().is_some_and(|(_, text)| text.starts_with("broken-compression: "));
        let sound = read("in/file", text.as_bytes(), Format::JsonLines);
        prop_assert!(told || found == sound, "byte {} of {}: {:?}", at, bytes.len(), found);
        prop_assert_eq!(entries(packed(path, pieces, Format::JsonLines), max), found);
    }
}
