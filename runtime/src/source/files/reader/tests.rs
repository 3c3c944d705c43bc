//! The laws of files as a source, over real files in a directory.

use std::fs;

use crossbeam_channel::{Sender, bounded};
use tempfile::TempDir;

use super::super::{Found, Inputs, Known, reconcile, replays};
use super::*;

/// A directory, a source of the files that were in it at first, and a way to make it find more.
struct Setup {
    root: TempDir,
    inputs: Inputs,
    source: FileSource,
    found: Sender<Vec<FileEntry>>,
    known: Vec<FileEntry>,
}

impl Setup {
    fn new(format: Format, names: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(root.path(), Some(format));
        let known = add(&root, &inputs, &[], names);
        let (found, new) = bounded(1);
        let discover: Discover = Box::new(move || Ok(new.try_iter().flatten().collect()));
        let source = FileSource::new(
            settings(),
            roots(&inputs),
            Budget::new(1 << 20),
            known.clone(),
            BTreeSet::new(),
            discover,
        );
        Self { root, inputs, source, found, known }
    }

    /// Lets the source find `names` at its next look.
    fn find(&mut self, names: &[&str]) {
        let new = add(&self.root, &self.inputs, &self.known, names);
        self.known.extend(new.clone());
        self.found.send(new).unwrap();
        self.source.next_scan = None;
        self.source.look_for_new();
    }

    fn read(&mut self, from: i64) {
        self.source.read(RunId(1), &at(), Offset::new(from), None);
    }

    fn event(&mut self) -> Option<SourceEvent> {
        match self.source.poll() {
            Poll::Event(event) => Some(event),
            Poll::Idle | Poll::Again | Poll::Closed => None,
        }
    }

    fn assigned(&mut self) {
        let event = self.event();
        assert!(matches!(event, Some(SourceEvent::Assigned(_))), "{event:?}");
    }

    /// The offsets of the next batch.
    fn offsets(&mut self) -> Vec<i64> {
        match self.event() {
            Some(SourceEvent::Batch { batch, .. }) => batch.offsets().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn fails_with(&mut self, expected: &str) {
        match self.event() {
            Some(SourceEvent::Failed { error: Error::Input { text, .. }, .. }) => {
                assert!(text.starts_with(expected), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// Envelopes are below the inputs, where these do not look.
fn roots(inputs: &Inputs) -> Roots {
    Roots { inputs: inputs.clone(), replays: replays::inputs(inputs.path.join(".replay")) }
}

fn settings() -> FileSettings {
    FileSettings {
        topic: "t".into(),
        replay: "weir.p.replay".into(),
        topic_id: "id".into(),
        replay_id: "id-replay".into(),
        group: "p".into(),
        epoch: Epoch::new(1),
        batch_records: 2,
        batch_bytes: 1 << 20,
        once: false,
    }
}

/// Writes files and gives them their numbers behind those of `known`.
fn add(root: &TempDir, inputs: &Inputs, known: &[FileEntry], names: &[&str]) -> Vec<FileEntry> {
    names.iter().for_each(|name| fs::write(root.path().join(name), "id\n1\n2\n").unwrap());
    let known: Vec<_> = known.iter().map(|entry| Known { entry: entry.clone(), done: false }).collect();
    let found: Vec<Found> = inputs.list().unwrap().found;
    let new = reconcile(&known, &found).unwrap().new;
    new.into_iter().map(|file| file.entry(String::new())).collect()
}

/// What is open has buffers, and perhaps a decoder.
#[test]
fn a_file_is_not_opened_before_its_turn() {
    let mut setup = Setup::new(Format::Csv, &["a", "b"]);
    setup.assigned();
    setup.assigned();
    setup.read(0);
    setup.source.read(RunId(1), &TopicPartition::new("t", 1), Offset::ZERO, None);
    assert_eq!(setup.offsets(), [0, 1]);
    assert!(matches!(setup.event(), Some(SourceEvent::End { .. })));
    fs::remove_file(setup.root.path().join("b")).unwrap();
    let event = setup.event();
    assert!(matches!(&event, Some(SourceEvent::Failed { at, .. }) if at.partition == 1), "{event:?}");
}

#[test]
fn a_new_file_joins_its_directory_before_that_is_assigned() {
    let mut setup = Setup::new(Format::Raw, &["a"]);
    setup.find(&["b"]);
    setup.assigned();
    setup.read(0);
    assert_eq!(setup.offsets(), [0, 1]);
    assert!(setup.event().is_none());
}

#[test]
fn a_new_file_joins_its_directory_while_that_is_read() {
    let mut setup = Setup::new(Format::Raw, &["a"]);
    setup.assigned();
    setup.find(&["b"]);
    setup.read(0);
    assert_eq!(setup.offsets(), [0, 1]);
    setup.find(&["c"]);
    assert_eq!(setup.offsets(), [2]);
}

#[test]
fn a_new_file_joins_its_directory_while_that_is_given_up_and_does_not_take_it_up_again() {
    let mut setup = Setup::new(Format::Raw, &["a", "b"]);
    setup.assigned();
    setup.read(0);
    assert_eq!(setup.offsets(), [0, 1]);
    setup.source.forget(&at(), false);
    setup.find(&["c"]);
    assert!(setup.event().is_none());
    setup.read(1);
    assert_eq!(setup.offsets(), [1, 2]);
}

#[test]
fn a_file_that_is_missing_among_the_known_ones_is_not_passed_over() {
    let mut setup = Setup::new(Format::Raw, &["a", "b", "c"]);
    for (missing, from) in [(0, 0), (1, 1), (2, 2)] {
        let mut entries = setup.known.clone();
        entries.remove(missing);
        setup.source = FileSource::new(
            settings(),
            roots(&setup.inputs),
            Budget::new(1 << 20),
            entries,
            BTreeSet::new(),
            Box::new(|| Ok(Vec::new())),
        );
        setup.assigned();
        // The sinks have all that was known once.
        setup.read(if missing == 2 { 3 } else { from });
        setup.fails_with("E_INPUT_GAP: file number");
    }
}

#[test]
fn a_file_that_changed_since_it_was_seen_is_not_read() {
    let mut setup = Setup::new(Format::Csv, &["a.csv"]);
    setup.assigned();
    fs::write(setup.root.path().join("a.csv"), "id\n1\n").unwrap();
    setup.read(0);
    setup.fails_with("E_INPUT_CHANGED: a.csv had 7 bytes when it was first seen and has 5 bytes now");
}

#[test]
fn a_file_that_changes_while_it_is_read_has_no_end() {
    let mut setup = Setup::new(Format::Csv, &["a.csv"]);
    setup.assigned();
    setup.read(0);
    assert_eq!(setup.offsets(), [0, 1]);
    fs::write(setup.root.path().join("a.csv"), "id\n1\n2\n3\n").unwrap();
    setup.fails_with("E_INPUT_CHANGED: a.csv had 7 bytes when it was first seen and has 9 bytes now");
}

#[test]
fn a_file_of_envelopes_is_a_partition_of_another_topic_and_its_records_say_where_they_came_first() {
    let mut setup = Setup::new(Format::Csv, &["a"]);
    let dir = setup.root.path().join(".replay");
    fs::create_dir(&dir).unwrap();
    let headers = [(crate::origin::ENVELOPE, Some(&b"t/0/7/1"[..])), ("own", None)];
    let record = crate::batch::RecordRef { value: Some(b"v"), headers: &headers, ..Default::default() };
    fs::write(dir.join(replays::name(0)), crate::source::format::envelope(record)).unwrap();
    let ours = replays::list(&setup.source.roots.replays).unwrap().ours;
    let file = super::super::NewFile { partition: 0, found: ours[0].1.clone() };
    setup.found.send(vec![file.entry(String::new())]).unwrap();
    setup.source.look_for_new();
    setup.assigned();
    let Some(SourceEvent::Assigned(assigned)) = setup.event() else { panic!("a partition") };
    let at = assigned[0].at.clone();
    assert_eq!((&at, &*assigned[0].topic_id), (&TopicPartition::new("weir.p.replay", 0), "id-replay"));
    setup.source.read(RunId(2), &at, Offset::ZERO, None);
    let Some(SourceEvent::Batch { batch, .. }) = setup.event() else { panic!("a batch") };
    assert_eq!(batch.origins().unwrap()[0].to_string(), "t/0/7/1");
    assert_eq!(batch.headers().get(0).collect::<Vec<_>>(), [("own", None)]);
    assert!(matches!(setup.event(), Some(SourceEvent::End { for_good: true, .. })));
}
