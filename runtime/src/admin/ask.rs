//! Asks a process that runs a pipeline, through its socket or at its address. It speaks just as much HTTP as its
//! own server needs, and waits for nobody for long.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Answer, Followed, Tried, socket};
use crate::offset::TopicPartition;
use crate::pipeline::What;

/// Who does not answer within this is taken for one that will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A longer answer is none of ours.
const LONGEST: u64 = 64 << 20;

/// Where a process is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its socket.
    Socket(PathBuf),
    /// At the address where everybody may look.
    Address(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Address(address) => write!(f, "http://{address}"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("nobody answers at {place}")]
    Nobody {
        /// Where.
        place: Place,
    },
    /// Somebody is there and did not answer.
    #[error("no answer from {place}: {source}")]
    Silent {
        /// Where.
        place: Place,
        /// What happened instead.
        source: io::Error,
    },
    /// It says no.
    #[error("{place} says: {text}")]
    Refused {
        /// Where.
        place: Place,
        /// Why.
        text: String,
        /// What a person can do.
        hint: Option<String>,
    },
    /// What was answered is not what this program would.
    #[error("the answer from {place} is not one of this program's: {why}")]
    Strange {
        /// Where.
        place: Place,
        /// What is wrong with it.
        why: String,
    },
    /// The directory of the sockets cannot be looked at.
    #[error("cannot list {}: {source}", path.display())]
    List {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What a person can do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Silent { .. } => {
                Some("it may be stopped or stuck: look at its log, or end it and start it again")
            }
            Self::Strange { .. } => Some("does it run another version of weir?"),
            Self::Nobody { .. } | Self::List { .. } => None,
        }
    }

    /// Whether somebody answered, and said no.
    pub fn is_no(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Every process of a pipeline whose sockets are in `directory`, and where it is asked. Those that are gone are left out.
///
/// # Errors
/// If somebody is there and does not answer, or not as expected.
pub fn processes(directory: &Path, pipeline: &str) -> Result<Vec<(Place, Answer)>, Error> {
    let list = |source| Error::List { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for path in socket::list(directory).map_err(list)? {
        let place = Place::Socket(path);
        match status(&place) {
            Ok(answer) if *answer.status.pipeline == *pipeline => found.push((place, answer)),
            Ok(_) | Err(Error::Nobody { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// How a process and its pipeline stand.
///
/// # Errors
/// See [`Error`].
pub fn status(place: &Place) -> Result<Answer, Error> {
    ask(place, "GET", "/status", "")
}

/// What a process found by the plan that is tried on live records. It tells that at its socket alone.
///
/// # Errors
/// See [`Error`].
pub fn shadow(place: &Place) -> Result<Tried, Error> {
    ask(place, "GET", "/shadow", "")
}

/// Gives an order for all partitions of a process, or for one.
///
/// # Errors
/// See [`Error`]; [`Error::Refused`] where it is not followed.
pub fn order(place: &Place, what: What, of: Option<&TopicPartition>) -> Result<Followed, Error> {
    let path = match what {
        What::Pause => "/pause",
        What::Resume => "/resume",
    };
    let body = of.map_or_else(String::new, |at| {
        serde_json::json!({ "topic": at.topic, "partition": at.partition }).to_string()
    });
    ask(place, "POST", path, &body)
}

/// Asks anything that is answered in JSON.
fn ask<T: DeserializeOwned>(place: &Place, method: &str, path: &str, body: &str) -> Result<T, Error> {
    let answer = exchange(place, method, path, body).map_err(|source| match source.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Error::Nobody { place: place.clone() },
        _ => Error::Silent { place: place.clone(), source },
    })?;
    let strange = |why: String| Error::Strange { place: place.clone(), why };
    let (code, body) = parse(&answer).ok_or_else(|| strange("it is no HTTP".to_owned()))?;
    match code {
        200 => serde_json::from_slice(body).map_err(|error| strange(error.to_string())),
        _ => Err(refusal(place, code, body)),
    }
}

fn refusal(place: &Place, code: u16, body: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct No {
        error: String,
        hint: Option<String>,
    }
    match serde_json::from_slice(body) {
        Ok(No { error, hint }) => Error::Refused { place: place.clone(), text: error, hint },
        Err(_) => Error::Strange { place: place.clone(), why: format!("it has code {code}") },
    }
}

fn exchange(place: &Place, method: &str, path: &str, body: &str) -> io::Result<Vec<u8>> {
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: weir\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match place {
        Place::Socket(path) => {
            let stream: UnixStream = socket::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            send_and_read(stream, &request)
        }
        Place::Address(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            send_and_read(stream, &request)
        }
    }
}

/// In version 1.0 the end of the answer is the end of the connection.
fn send_and_read(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The code and the body.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_what_is_none_is_refused() {
        let answer = b"HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nbody\r\n\r\n";
        assert_eq!(parse(answer), Some((503, &b"body\r\n\r\n"[..])));
        for none in ["", "HTTP/1.0 200 OK", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert_eq!(parse(none.as_bytes()), None, "{none}");
        }
    }
}
