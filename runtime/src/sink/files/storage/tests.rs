//! Storages that fail on purpose.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::sink::files::LocalStorage;
use crate::sink::files::tests::ground::{On, laws};

/// What goes wrong with the next publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// It happens, the answer is lost.
    Answer,
    /// It does not happen, and the answer is lost.
    Request,
    /// It happens only when [`Faulty::arrive`] says so; until then one request gets no answer.
    Late,
    /// It does not happen, and the storage does not answer for `n` more requests of any kind.
    Outage(u32),
    /// The next one that is a snapshot does not happen, and the answer is lost.
    Snapshot,
}

/// A storage whose publishing of records can be made to fail, once.
#[derive(Debug)]
pub(crate) struct Faulty {
    disk: std::sync::Arc<dyn Storage>,
    next: std::sync::Mutex<Option<Loss>>,
    silent: AtomicU32,
    late: std::sync::Mutex<Option<(String, String)>>,
}

impl Faulty {
    pub(crate) fn new(disk: std::sync::Arc<dyn Storage>) -> Self {
        Self {
            disk,
            next: std::sync::Mutex::default(),
            silent: AtomicU32::new(0),
            late: std::sync::Mutex::default(),
        }
    }

    /// The next publish goes wrong.
    pub(crate) fn lose(&self, loss: Loss) {
        *self.next.lock().unwrap() = Some(loss);
    }

    /// The late publish arrives.
    pub(crate) fn arrive(&self) -> io::Result<()> {
        let (from, to) = self.late.lock().unwrap().take().expect("one is late");
        self.disk.publish(&from, &to)
    }

    fn answer(&self) -> io::Result<()> {
        let lost = self.silent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if lost.is_ok() { Err(timed_out()) } else { Ok(()) }
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

impl Storage for Faulty {
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>> {
        self.disk.create(path)
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.answer()?;
        let mut next = self.next.lock().unwrap();
        let loss = next.take_if(|loss| *loss != Loss::Snapshot || to.ends_with(".snap.json"));
        drop(next);
        match loss {
            None => self.disk.publish(from, to),
            Some(Loss::Answer) => self.disk.publish(from, to).and(Err(timed_out())),
            Some(Loss::Request | Loss::Snapshot) => Err(timed_out()),
            Some(Loss::Late) => {
                *self.late.lock().unwrap() = Some((from.to_owned(), to.to_owned()));
                self.silent.store(1, Ordering::Relaxed);
                Err(timed_out())
            }
            Some(Loss::Outage(n)) => {
                self.silent.store(n, Ordering::Relaxed);
                Err(timed_out())
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync(&self, directory: &str) -> io::Result<()> {
        self.disk.sync(directory)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn length(&self, path: &str) -> io::Result<Option<u64>> {
        self.answer()?;
        self.disk.length(path)
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        self.disk.delete(path)
    }

    fn show(&self, path: &str) -> String {
        self.disk.show(path)
    }
}

/// A disk that lacks what the sink stands on.
#[derive(Debug)]
struct Unfit {
    disk: LocalStorage,
    lacks: Lack,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Lack {
    Links,
    ExclusiveRename,
    Nothing,
}

impl Storage for Unfit {
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>> {
        self.disk.create(path)
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        match self.lacks {
            Lack::Links => Err(rustix::io::Errno::PERM.into()),
            _ => self.disk.publish(from, to),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self.lacks {
            Lack::ExclusiveRename => std::fs::rename(self.show(from), self.show(to)),
            _ => self.disk.rename(from, to),
        }
    }

    fn sync(&self, directory: &str) -> io::Result<()> {
        self.disk.sync(directory)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn length(&self, path: &str) -> io::Result<Option<u64>> {
        self.disk.length(path)
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        self.disk.delete(path)
    }

    fn show(&self, path: &str) -> String {
        self.disk.show(path)
    }
}

#[test]
fn a_file_system_without_links_or_exclusive_renames_is_refused_and_left_clean() {
    for (lacks, expected) in [
        (Lack::Links, Some("it cannot publish a file under a second name")),
        (Lack::ExclusiveRename, Some("it renames over a file that is there")),
        (Lack::Nothing, None),
    ] {
        let root = tempfile::tempdir().unwrap();
        let storage = Unfit { disk: LocalStorage::open(root.path()).unwrap(), lacks };
        let answer = self_test(&storage);
        match (&answer, expected) {
            (Ok(()), None) => {}
            (Err(Error::Permanent(problem)), Some(text)) => {
                assert!(problem.text.ends_with(text) && problem.hint.is_some(), "{problem}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(storage.list("_weir").unwrap(), Vec::<String>::new());
    }
}

fn put(storage: &dyn Storage, path: &str, bytes: &[u8]) {
    let mut file = storage.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.close().unwrap().wait().unwrap();
}

fn kind<T: fmt::Debug>(answer: io::Result<T>) -> io::ErrorKind {
    answer.unwrap_err().kind()
}

laws![
    a_file_that_was_closed_is_there_as_it_was_written,
    a_name_that_is_taken_stays_what_it_was,
    who_moves_nothing_is_told_so_wherever_it_was_to_go,
    what_is_not_there_is_no_error_but_to_read,
    a_file_system_that_is_fit_is_found_so_and_left_clean,
];

fn a_file_that_was_closed_is_there_as_it_was_written(on: On) {
    let ground = on.ground();
    let storage = ground.storage();
    // Several pieces, with a rest; and nothing at all.
    let bytes: Vec<u8> = (0..3_500_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    put(&*storage, "a/b/large", &bytes);
    put(&*storage, "a/b/empty", b"");
    assert_eq!(storage.length("a/b/large").unwrap(), Some(bytes.len() as u64));
    assert!(storage.read("a/b/large").unwrap() == bytes && ground.read("a/b/large") == bytes);
    assert_eq!((storage.length("a/b/empty").unwrap(), storage.read("a/b/empty").unwrap()), (Some(0), vec![]));
    let mut names = storage.list("a/b").unwrap();
    names.sort();
    assert_eq!(names, ["empty", "large"]);
}

fn a_name_that_is_taken_stays_what_it_was(on: On) {
    let ground = on.ground();
    let storage = ground.storage();
    for move_it in [Storage::rename, Storage::publish] {
        put(&*storage, "old", b"old");
        put(&*storage, "new", b"new");
        assert_eq!(kind(move_it(&*storage, "new", "old")), io::ErrorKind::AlreadyExists);
        assert_eq!((ground.read("old"), ground.read("new")), (b"old".to_vec(), b"new".to_vec()));
        move_it(&*storage, "new", "not/there/yet").unwrap();
        assert_eq!(ground.read("not/there/yet"), b"new");
        ground.files().iter().for_each(|path| storage.delete(path).unwrap());
    }
}

fn who_moves_nothing_is_told_so_wherever_it_was_to_go(on: On) {
    let ground = on.ground();
    let storage = ground.storage();
    put(&*storage, "there", b"there");
    for to in ["free", "there", "no/directory/yet"] {
        assert_eq!(kind(storage.rename("nothing", to)), io::ErrorKind::NotFound, "{to}");
    }
    assert_eq!(ground.files(), ["there"]);
}

fn what_is_not_there_is_no_error_but_to_read(on: On) {
    let ground = on.ground();
    let storage = ground.storage();
    assert_eq!(storage.list("nothing/here").unwrap(), [""; 0]);
    assert_eq!(storage.length("nothing").unwrap(), None);
    storage.delete("nothing").unwrap();
    assert_eq!(kind(storage.read("nothing")), io::ErrorKind::NotFound);
}

fn a_file_system_that_is_fit_is_found_so_and_left_clean(on: On) {
    let ground = on.ground();
    self_test(&*ground.storage()).unwrap();
    assert_eq!(ground.files(), [""; 0]);
    assert_eq!(ground.storage().list("_weir").unwrap(), [""; 0]);
}
