//! A stretch of a byte stream in memory, moved forward by whoever reads it. It never looks at the bytes.

use std::fmt;
use std::io::{self, Read};

/// The bytes between what was consumed and what was read.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    position: u64,
    ended: bool,
    chunk: usize,
}

impl Window {
    /// Of `input`, of which at least `chunk` bytes are read at once.
    pub(super) fn new(input: Box<dyn Read + Send>, chunk: usize) -> Self {
        Self { input, buffer: Vec::new(), start: 0, position: 0, ended: false, chunk }
    }

    /// All that was read and not yet consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Whether nothing comes behind [`Self::bytes`].
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Where in the stream the window begins, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Moves the window's front.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        self.position += n as u64;
    }

    /// Makes the window at least twice as long, or finds the end. Doubling keeps it linear to look at a record
    /// again from its beginning whenever it turns out to be longer than the window. What came before an error is good;
    /// the error is then for the next call to find, in an input that tells it again or goes on behind it.
    pub(super) fn extend(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = self.chunk.max(self.buffer.len());
        self.buffer.reserve(wanted);
        let before = self.buffer.len();
        match (&mut self.input).take(wanted as u64).read_to_end(&mut self.buffer) {
            Ok(n) => self.ended = n < wanted,
            Err(error) if self.buffer.len() == before => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window at {} of {} bytes", self.position, self.bytes().len())
    }
}
