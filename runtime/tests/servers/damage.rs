//! A broker whose disk has changed what was written: what comes before it arrives, and nothing is passed over.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use weir_services::{Service, Services};

use crate::given;
use crate::group::{Pipeline, errors};

/// In the header of a batch of records: its checksum, behind which all is covered by it, and how it is packed.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
/// By how much its last offset is more than its first.
const LAST: usize = 23;
/// Behind the header are the records.
const RECORDS: usize = 61;

/// The file of a partition's records, with what it had at first.
struct Segment {
    path: PathBuf,
    written: Vec<u8>,
}

impl Segment {
    fn of(services: &Services, topic: &str, partition: u32) -> Self {
        let partition = format!("kafka/1/data/{topic}-{partition}");
        let path = services.dir().join(partition).join("00000000000000000000.log");
        let written = fs::read(&path).expect("a broker that is down has left it");
        Self { path, written }
    }

    /// The first offset of each batch, and where it is in the file.
    fn batches(&self) -> Vec<(u64, Range<usize>)> {
        let mut batches = Vec::new();
        let mut at = 0;
        // A file may be longer than what is written in it.
        while let Some(header) = self.written.get(at..at + RECORDS)
            && header[CRC..ATTRIBUTES] != [0; 4]
        {
            let offset = u64::from_be_bytes(header[..8].try_into().expect("8 bytes"));
            let length = u32::from_be_bytes(header[8..12].try_into().expect("4 bytes"));
            let end = at + 12 + length as usize;
            batches.push((offset, at..end));
            at = end;
        }
        batches
    }

    /// Behind the last record.
    fn end(&self) -> u64 {
        let (offset, place) = self.batches().pop().expect("there are some");
        let last = &self.written[place][LAST..LAST + 4];
        offset + u64::from(u32::from_be_bytes(last.try_into().expect("4 bytes"))) + 1
    }

    /// Takes a batch out that is neither the first nor the last, as compaction does with records of which there are newer ones.
    /// Returns how many records it had.
    fn compact(&self) -> u64 {
        let batches = self.batches();
        let middle = batches.len() / 2;
        assert!(middle > 0 && middle + 1 < batches.len(), "{batches:?}");
        let mut bytes = self.written.clone();
        bytes.drain(batches[middle].1.clone());
        self.rewrite(&bytes);
        batches[middle + 1].0 - batches[middle].0
    }

    /// Has the second half of the records stand further behind.
    fn jump(&self, by: u64) {
        let batches = self.batches();
        let mut bytes = self.written.clone();
        for (offset, place) in &batches[batches.len() / 2..] {
            bytes[place.start..place.start + 8].copy_from_slice(&(offset + by).to_be_bytes());
        }
        self.rewrite(&bytes);
    }

    /// What a broker derives from the file it makes anew.
    fn rewrite(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).expect("writable");
        for index in ["index", "timeindex"] {
            fs::remove_file(self.path.with_extension(index)).expect("it is there");
        }
    }

    /// Changes a batch that is neither the first nor the last; returns its first offset.
    fn damage(&self, how: impl Fn(&mut [u8])) -> u64 {
        let batches = self.batches();
        assert!(batches.len() > 2, "{batches:?}");
        let (offset, place) = batches[batches.len() / 2].clone();
        let mut bytes = self.written.clone();
        how(&mut bytes[place]);
        fs::write(&self.path, bytes).expect("writable");
        offset
    }

    fn mend(&self) {
        fs::write(&self.path, &self.written).expect("writable");
    }
}

/// More than fits into anything that counts offsets one by one.
const FAR: u64 = 1_000_000_000;

/// A bit of a record is another one.
fn flip(batch: &mut [u8]) {
    batch[RECORDS + 20] ^= 4;
}

/// Packed in a way that nobody knows, under a checksum that is right.
fn pack_strangely(batch: &mut [u8]) {
    batch[ATTRIBUTES + 1] |= 7;
    let crc = crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// How many rows the tables have of a partition, how many records those are of, and the last of them.
fn arrived(pipeline: &Pipeline, partition: usize) -> [i64; 3] {
    let all = ["usa", "alerts", "other", "dead_letters"]
        .map(|table| format!("SELECT weir_offset FROM {table} WHERE weir_partition = {partition}"))
        .join(" UNION ALL ");
    let counted = "count(*)::text, count(DISTINCT weir_offset)::text, max(weir_offset)::text";
    let rows = pipeline.ask(&format!("SELECT {counted} FROM ({all}) AS rows"));
    rows[0].as_slice().try_into().expect("three numbers")
}

fn start(kafka: &impl Service) {
    kafka.start().and_then(|()| kafka.wait_ready()).expect("it starts");
}

/// A pipeline none of whose records was read yet, and the files of two of its three partitions. The broker is down.
fn written(services: &Services, kafka: &impl Service) -> (Pipeline, [Segment; 2]) {
    start(kafka);
    let mut pipeline = Pipeline::on(kafka.address(), given("WEIR_TEST_POSTGRES"), 3);
    // Each time at least a batch for each partition.
    (0..4).for_each(|_| pipeline.send(3_000, &[]));
    // One that is killed looks through its files when it comes back, and cuts them off where they are damaged.
    kafka.stop().expect("it stops");
    let segments = [0, 1].map(|partition| Segment::of(services, &pipeline.topic, partition));
    (pipeline, segments)
}

#[test]
fn a_damaged_log_segment_stops_its_partition_and_skips_nothing() {
    let services = Services::temporary().expect("a directory");
    let kafka = services.kafka().expect("Kafka");
    let (mut pipeline, segments) = written(&services, &kafka);
    let ends = [segments[0].damage(flip), segments[1].damage(pack_strangely)];
    start(&kafka);
    let mut process = pipeline.start();
    for (partition, end) in ends.into_iter().enumerate() {
        let at = format!("{}/{partition}", pipeline.topic);
        process.wait_for_word(&format!("E_INPUT_CORRUPT: {at} cannot be read from {end} on"));
        // It is told once all that comes before is there.
        let end = i64::try_from(end).expect("small");
        assert_eq!(arrived(&pipeline, partition), [end, end, end - 1], "{partition}");
    }
    let behind: u64 = segments.iter().zip(ends).map(|(segment, end)| segment.end() - end).sum();
    pipeline.wait_for(pipeline.sent - behind as usize);
    let (status, log) = process.stop();
    assert!(!status.success(), "{log}");
    assert_eq!(errors(&log, "E_INPUT_CORRUPT"), 2, "once for each, and nothing is tried again: {log}");
    kafka.stop().expect("it stops");
    segments.iter().for_each(Segment::mend);
    start(&kafka);
    let process = pipeline.start();
    pipeline.wait_for(pipeline.sent);
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

#[test]
fn holes_and_a_jump_of_offsets_are_passed_and_every_record_that_is_there_arrives_once() {
    let services = Services::temporary().expect("a directory");
    let kafka = services.kafka().expect("Kafka");
    let (mut pipeline, segments) = written(&services, &kafka);
    let gone = segments[0].compact();
    segments[1].jump(FAR);
    pipeline.sent -= usize::try_from(gone).expect("few");
    start(&kafka);
    let process = pipeline.start();
    pipeline.wait_for(pipeline.sent);
    let last = i64::try_from(segments[1].end() - 1 + FAR).expect("a billion");
    assert_eq!(arrived(&pipeline, 1)[2], last, "{}", pipeline.logs());
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    // What comes behind the jump touches what came before it, also for a process that begins there.
    pipeline.send(3_000, &[]);
    let process = pipeline.start();
    pipeline.wait_for(pipeline.sent);
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}
