//! A disk in memory that several processes share, one request at a time. The seed says whose turn it is, who is paused
//! or dies, which answer is lost and which request arrives late. What readers and successors stand on is compared with
//! [`Truth`] at every request.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::truth::Truth;
use crate::seeds::Random;
use crate::sink::files::storage::{Closing, StagedFile, Storage};

/// How many processes there are at once.
pub(super) const PROCESSES: usize = 3;

/// What a process that died unwinds with.
pub(super) struct Dead;

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Mutex<Shared>,
    turns: [Condvar; PROCESSES],
}

/// All that a seed leads to.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) random: Random,
    pub(super) truth: Truth,
    /// The highest generation given to a process.
    pub(super) generation: u64,
    files: Files,
    /// Publishes on their way.
    late: Vec<(String, String)>,
    turn: usize,
    left: [bool; PROCESSES],
    paused: [u32; PROCESSES],
    /// Nothing goes wrong any more.
    calm: bool,
    pub(super) violation: Option<String>,
}

/// Files by path, with the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Files {
    made: u64,
    files: BTreeMap<String, (u64, Arc<[u8]>)>,
}

impl Files {
    pub(super) fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|(_, bytes)| &**bytes)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    fn add(&mut self, path: &str, bytes: Arc<[u8]>) -> io::Result<()> {
        if self.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.made += 1;
        self.files.insert(path.to_owned(), (self.made, bytes));
        Ok(())
    }

    /// In the order in which they were made: names are random, and the seed decides everything.
    fn list(&self, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        let below = self.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let mut names: BTreeMap<&str, u64> = BTreeMap::new();
        for (path, (made, _)) in below {
            let name = path[prefix.len()..].split('/').next().expect("a path has a first part");
            names.entry(name).and_modify(|first| *first = (*first).min(*made)).or_insert(*made);
        }
        let mut names: Vec<_> = names.into_iter().map(|(name, made)| (made, name.to_owned())).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }
}

/// How a request ends that does not end well.
enum Loss {
    Answer,
    Request,
    Late,
}

impl Disk {
    pub(super) fn new(random: Random) -> Self {
        let shared = Shared {
            random,
            truth: Truth::default(),
            generation: 0,
            files: Files::default(),
            late: Vec::new(),
            turn: 0,
            left: [false; PROCESSES],
            paused: [0; PROCESSES],
            calm: false,
            violation: None,
        };
        Self { shared: Mutex::new(shared), turns: Default::default() }
    }

    /// From now on every request is answered at once, whoever makes it. What was late arrives or is lost.
    pub(super) fn calm_down(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.lock();
        while !shared.late.is_empty() {
            shared.arrive();
        }
        shared.calm = true;
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, shared: &mut Shared) {
        shared.choose();
        match shared.violation {
            Some(_) => self.turns.iter().for_each(Condvar::notify_one),
            None => self.turns[shared.turn].notify_one(),
        }
    }
}

impl Shared {
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Most often the same process goes on.
    fn choose(&mut self) {
        self.paused.iter_mut().for_each(|steps| *steps = steps.saturating_sub(1));
        if self.random.chance(2) {
            self.paused[self.turn] = 20 + self.random.below(150) as u32;
        }
        if self.is_ready(self.turn) && self.random.chance(70) {
            return;
        }
        let there = |shared: &Self, i: &usize| !shared.left[*i];
        let mut next: Vec<_> = (0..PROCESSES).filter(|i| self.is_ready(*i)).collect();
        if next.is_empty() {
            next = (0..PROCESSES).filter(|i| there(self, i)).collect();
        }
        if !next.is_empty() {
            self.turn = next[self.random.below(next.len())];
        }
    }

    fn is_ready(&self, i: usize) -> bool {
        !self.left[i] && self.paused[i] == 0
    }

    fn arrive(&mut self) {
        let (from, to) = self.late.remove(self.random.below(self.late.len()));
        // Nobody waits for this answer.
        drop(self.publish(&from, &to));
    }

    fn publish(&mut self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.files.files.get(from).ok_or(io::ErrorKind::NotFound)?.1.clone();
        self.files.add(to, bytes.clone())?;
        if !self.random.chance(10) {
            self.files.files.remove(from);
        }
        let held = self.truth.published(to, &bytes, &self.files);
        self.hold(held);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if self.files.files.contains_key(to) {
            let missing = !self.files.files.contains_key(from);
            return Err(if missing { io::ErrorKind::NotFound } else { io::ErrorKind::AlreadyExists }.into());
        }
        let (_, bytes) = self.files.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let held = self.truth.renamed(to, &bytes);
        self.files.add(to, bytes)?;
        self.hold(held);
        Ok(())
    }

    fn delete(&mut self, path: &str) {
        if self.files.files.remove(path).is_some() {
            let held = self.truth.deleted(path, &self.files);
            self.hold(held);
        }
    }

    /// Keeps the first thing that must not be.
    pub(super) fn hold(&mut self, held: Result<(), String>) {
        if let Err(violation) = held {
            self.violation.get_or_insert(violation);
        }
    }
}

/// The disk as one process sees it.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) disk: Arc<Disk>,
    pub(super) me: usize,
    /// Whether this process overlooks every snapshot right after it has put a record, which it must not.
    pub(super) blind: bool,
    /// How many listings of a log are left of that look: as many as agree with one another.
    looks: Arc<AtomicU32>,
}

impl Seat {
    pub(super) fn new(disk: &Arc<Disk>, me: usize, blind: bool) -> Self {
        Self { disk: disk.clone(), me, blind, looks: Arc::default() }
    }

    /// Does one thing when it is this process's turn.
    pub(super) fn step<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        let mut shared = self.my_turn();
        if shared.calm {
            return act(&mut shared);
        }
        if shared.violation.is_some() {
            drop(shared);
            resume_unwind(Box::new(Dead));
        }
        if !shared.late.is_empty() && shared.random.chance(5) {
            shared.arrive();
        }
        let dies = shared.random.next().is_multiple_of(300);
        let done = act(&mut shared);
        self.disk.pass_on(&mut shared);
        drop(shared);
        match dies {
            true => resume_unwind(Box::new(Dead)),
            false => done,
        }
    }

    fn my_turn(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.disk.lock();
        while !shared.calm && shared.violation.is_none() && shared.turn != self.me {
            shared = self.disk.turns[self.me].wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared
    }

    /// One request, which may be lost, or its answer.
    fn request<T>(&self, act: impl FnOnce(&mut Shared) -> io::Result<T>) -> io::Result<T> {
        self.step(|shared| match shared.loss() {
            None => act(shared),
            Some(Loss::Answer) => act(shared).and(Err(no_answer())),
            Some(Loss::Request | Loss::Late) => Err(no_answer()),
        })
    }

    /// This process is through.
    pub(super) fn leave(&self) {
        let mut shared = self.my_turn();
        shared.left[self.me] = true;
        self.disk.pass_on(&mut shared);
    }
}

impl Shared {
    fn loss(&mut self) -> Option<Loss> {
        if self.calm {
            return None;
        }
        match self.random.below(100) {
            0 => Some(Loss::Answer),
            1 => Some(Loss::Request),
            2 => Some(Loss::Late),
            _ => None,
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

impl Storage for Seat {
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>> {
        let (seat, path) = (self.clone(), path.to_owned());
        self.request(|shared| shared.files.add(&path, Arc::default()))?;
        Ok(Box::new(Open { seat, path, bytes: Vec::new() }))
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.looks.store(if to.contains("/log/") { 2 } else { 0 }, Ordering::Relaxed);
        self.step(|shared| match shared.loss() {
            None => shared.publish(from, to),
            Some(Loss::Answer) => shared.publish(from, to).and(Err(no_answer())),
            Some(Loss::Request) => Err(no_answer()),
            Some(Loss::Late) => {
                shared.late.push((from.to_owned(), to.to_owned()));
                Err(no_answer())
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.request(|shared| shared.rename(from, to))
    }

    fn sync(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = self.request(|shared| Ok(shared.files.list(directory)))?;
        // It takes its time: what comes meanwhile is missed, and what goes may be gone.
        let later = self.request(|shared| Ok(shared.files.list(directory)))?;
        names.retain(|name| later.contains(name));
        if directory.ends_with("/log") && self.blind {
            let look = self.looks.load(Ordering::Relaxed);
            self.looks.store(look.saturating_sub(1), Ordering::Relaxed);
            names.retain(|name| look == 0 || !name.ends_with(".snap.json"));
        }
        Ok(names)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.request(|shared| Ok(shared.files.get(path).ok_or(io::ErrorKind::NotFound)?.to_vec()))
    }

    fn length(&self, path: &str) -> io::Result<Option<u64>> {
        self.request(|shared| Ok(shared.files.get(path).map(|bytes| bytes.len() as u64)))
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        self.request(|shared| {
            shared.delete(path);
            Ok(())
        })
    }

    fn show(&self, path: &str) -> String {
        path.to_owned()
    }
}

/// Bytes that arrive all at once when the file is closed.
struct Open {
    seat: Seat,
    path: String,
    bytes: Vec<u8>,
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedFile for Open {
    fn close(self: Box<Self>) -> io::Result<Box<dyn Closing>> {
        let Self { seat, path, bytes } = *self;
        seat.request(|shared| {
            // An open file that was removed can be written to the end, in vain.
            if let Some(file) = shared.files.files.get_mut(&path) {
                file.1 = bytes.into();
            }
            Ok(Box::new(()) as _)
        })
    }
}
