//! The content of a compressed file, unpacked while it is read. What is broken is told from a medium that fails; what
//! was unpacked before is never taken back, and no more than a piece of it is held.
//!
//! Bytes are taken in and given out in pieces of one size. So the same file breaks off behind the same byte of its
//! content, however it is read and wherever reading begins again.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Members behind one another are one content.
    Gzip,
    /// So are frames.
    Zstd,
}

impl Compression {
    /// What a file's name tells, and the name without it.
    pub(super) fn of_path(path: &str) -> (Option<Self>, &str) {
        match path.rsplit_once('.') {
            Some((name, ending)) if ending.eq_ignore_ascii_case("gz") => (Some(Self::Gzip), name),
            Some((name, ending)) if ending.eq_ignore_ascii_case("zst") => (Some(Self::Zstd), name),
            _ => (None, path),
        }
    }

    /// The content of `input`.
    ///
    /// # Errors
    /// If there is no memory for the decoder.
    pub(super) fn unpack(self, input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let input = Pieces::new(input);
        let decoder = match self {
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(input)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(Box::new(Unpacked { decoder, piece: Vec::new(), given: 0, end: None }))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Compressed data that cannot be unpacked any further.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the {compression} data is broken: {cause}")]
pub(super) struct Broken {
    compression: Compression,
    cause: String,
}

impl Broken {
    /// Tells broken data from a medium that failed.
    pub(super) fn of(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }
}

/// 8 MiB to look back at, what the levels 1 to 19 of `zstd` stay within. It is memory outside of the budget, of each
/// file that is being read.
const WINDOW_LOG_MAX: u32 = 23;

const PIECE: usize = 64 << 10;

enum Decoder {
    Gzip(Box<MultiGzDecoder<Pieces>>),
    Zstd(ZstdDecoder<'static, Pieces>),
}

/// Content, a piece at a time.
struct Unpacked {
    decoder: Decoder,
    piece: Vec<u8>,
    /// Bytes of the piece that the reader has.
    given: usize,
    /// What comes behind the piece, told as often as it is asked for.
    end: Option<End>,
}

/// Why nothing more comes.
enum End {
    Whole,
    Broken(Broken),
    /// The medium failed. What is behind that is not known, and a decoder that missed a byte would invent it.
    Failed(Arc<io::Error>),
}

impl Unpacked {
    /// Takes in a piece, of which only what was unpacked is kept, however it ends.
    fn fill(&mut self) {
        self.given = 0;
        self.piece.resize(PIECE, 0);
        let mut n = 0;
        while n < PIECE && self.end.is_none() {
            match self.decoder.read(&mut self.piece[n..]) {
                Ok(0) => {
                    self.end = Some(self.decoder.check_empty().map_or_else(End::Broken, |()| End::Whole))
                }
                Ok(more) => n += more,
                Err(error) => {
                    let failed = |error| End::Failed(Arc::new(error));
                    self.end = Some(self.decoder.broken(error).map_or_else(failed, End::Broken));
                }
            }
        }
        self.piece.truncate(n);
    }
}

impl Read for Unpacked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() {
            match &self.end {
                None => self.fill(),
                Some(End::Whole) => return Ok(0),
                Some(End::Broken(broken)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, broken.clone()));
                }
                Some(End::Failed(error)) => return Err(io::Error::new(error.kind(), error.clone())),
            }
            if self.piece.is_empty() {
                return self.read(into);
            }
        }
        let n = (&self.piece[self.given..]).read(into)?;
        self.given += n;
        Ok(n)
    }
}

impl Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }

    fn parts(&self) -> (Compression, &Pieces) {
        match self {
            Self::Gzip(decoder) => (Compression::Gzip, decoder.get_ref()),
            Self::Zstd(decoder) => (Compression::Zstd, decoder.get_ref()),
        }
    }

    /// Whatever a decoder says of it: a file without a byte was cut off.
    fn check_empty(&self) -> Result<(), Broken> {
        let (compression, input) = self.parts();
        match input.any {
            true => Ok(()),
            false => Err(Broken { compression, cause: "the file is empty".to_owned() }),
        }
    }

    fn broken(&self, error: io::Error) -> io::Result<Broken> {
        let (compression, input) = self.parts();
        if input.failed {
            return Err(error);
        }
        // No damage: whoever packs the file again loses nothing of it.
        if error.to_string().contains("too much memory") {
            let most = (1 << WINDOW_LOG_MAX) >> 20;
            let text =
                format!("it looks back further than {most} MiB; compress it without --long or --ultra");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        self.check_empty().map_or_else(Ok, |()| Ok(Broken { compression, cause: cause(&error) }))
    }
}

fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "it ends in the middle; was the file copied in full?".to_owned();
    }
    text
}

/// The bytes of the file, in pieces that are full but for the last.
struct Pieces {
    input: Box<dyn Read + Send>,
    piece: Vec<u8>,
    taken: usize,
    /// There was a byte.
    any: bool,
    /// The medium failed.
    failed: bool,
}

impl Pieces {
    fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input, piece: Vec::with_capacity(PIECE), taken: 0, any: false, failed: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.piece.len() {
            self.piece.clear();
            self.taken = 0;
            let read = (&mut self.input).take(PIECE as u64).read_to_end(&mut self.piece);
            self.failed |= read.is_err();
            self.any |= read? > 0;
        }
        Ok(&self.piece[self.taken..])
    }

    fn consume(&mut self, n: usize) {
        self.taken += n;
    }
}
