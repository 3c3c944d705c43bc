//! A file on its way from the spool into HDFS. It is sent as often as it takes, for a bounded time, under a new name each
//! time; the bytes are in the spool until it is there. No writer is closed twice or used after an error.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdfs_native::{Client, HdfsError, WriteOptions};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::link::{Link, Pause, apart, no_answer};
use super::meaning;
use super::spool::SpoolFile;
use crate::sink::files::storage::{Closing, StagedFile};
use crate::sink::state::Nonce;

/// What is handed to the client at once.
const PIECE: usize = 1 << 20;

/// For one piece to be taken: longer than a long pause of a DataNode. The client would wait for a minute and then look for
/// another one, which is not always well; to send the file again is.
const TAKE: Duration = Duration::from_secs(40);

/// For a file to be closed: up to 13 MB are confirmed, and then the client asks the NameNode for 16 s whether all is there.
/// A second close would wait for that again, and fail.
const CLOSE: Duration = Duration::from_secs(45);

/// Before a file is sent again, at first and at most. A DataNode that is dead is offered until the NameNode knows, which
/// takes ten minutes by default: each attempt is another chance to be offered others.
const DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(3);

/// Who brings files into HDFS.
pub(super) struct Courier {
    pub(super) link: Link,
    pub(super) options: WriteOptions,
    /// For files that are sent at the same time.
    pub(super) room: Semaphore,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("link", &self.link).finish_non_exhaustive()
    }
}

/// A file in the spool that is not complete yet.
pub(super) struct SpooledFile {
    runtime: Arc<Runtime>,
    courier: Arc<Courier>,
    file: SpoolFile,
    path: String,
}

impl SpooledFile {
    pub(super) fn new(runtime: Arc<Runtime>, courier: Arc<Courier>, file: SpoolFile, path: String) -> Self {
        Self { runtime, courier, file, path }
    }
}

impl Write for SpooledFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StagedFile for SpooledFile {
    fn close(self: Box<Self>) -> io::Result<Box<dyn Closing>> {
        let Self { runtime, courier, file, path } = *self;
        let (file, handle) = (Arc::new(file), runtime.handle().clone());
        let upload = Upload { courier, file, path, tried: Vec::new(), handle };
        let mut task = JoinSet::new();
        task.spawn_on(upload.run(), runtime.handle());
        Ok(Box::new(Uploading { task, runtime }))
    }
}

/// A file that is being sent, for as long as somebody wants it.
struct Uploading {
    task: JoinSet<io::Result<()>>,
    runtime: Arc<Runtime>,
}

impl Closing for Uploading {
    fn wait(mut self: Box<Self>) -> io::Result<()> {
        let done = self.runtime.block_on(self.task.join_next()).expect("there is one task");
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

struct Upload {
    courier: Arc<Courier>,
    file: Arc<SpoolFile>,
    /// Where it is to be.
    path: String,
    /// Names under which it was sent, and may still be, or become `path` after all.
    tried: Vec<String>,
    handle: Handle,
}

/// Given up, it leaves nothing if that can be had at once. What stays is removed by a later claim.
impl Drop for Upload {
    fn drop(&mut self) {
        let (courier, tried) = (self.courier.clone(), std::mem::take(&mut self.tried));
        if !tried.is_empty() {
            self.handle.spawn(async move {
                for name in tried {
                    if let Err(error) = courier.link.delete(&name).await {
                        tracing::debug!(name, %error, "a file that was given up stays behind");
                    }
                }
            });
        }
    }
}

impl Upload {
    async fn run(mut self) -> io::Result<()> {
        let courier = self.courier.clone();
        let _room = courier.room.acquire().await.map_err(io::Error::other)?;
        let mut failed = None;
        let ended = timeout(courier.link.patience().upload, async {
            let mut pause = Pause::new(DELAY, DELAY_MAX);
            loop {
                match self.attempt().await {
                    Ok(()) => return Ok(()),
                    Err(error) if meaning::is_hopeless(&error) => return Err(error),
                    Err(error) => failed = Some(self.tell(failed.take(), error)),
                }
                pause.make().await;
            }
        });
        let ended = ended.await.unwrap_or_else(|_| Err(failed.unwrap_or_else(no_answer)));
        match ended {
            Err(_) if self.arrived().await.is_ok_and(|arrived| arrived) => Ok(()),
            ended => ended,
        }
    }

    /// Says why the file is sent again; the same reason once.
    fn tell(&self, before: Option<io::Error>, error: io::Error) -> io::Error {
        let path = &self.path;
        match before.is_some_and(|before| before.to_string() == error.to_string()) {
            true => tracing::debug!(path, %error, "the file is sent again"),
            false => tracing::warn!(path, %error, "the file is sent again"),
        }
        error
    }

    async fn attempt(&mut self) -> io::Result<()> {
        if self.arrived().await? {
            return Ok(());
        }
        let name = format!("{}.{}", self.path, Nonce::random().short());
        self.tried.push(name.clone());
        self.send(&name).await?;
        let found = self.courier.link.length(&name).await?;
        if found != Some(self.file.length()) {
            let (found, sent) = (found.unwrap_or_default(), self.file.length());
            return Err(io::Error::other(format!("{found} bytes are there after {sent} were sent")));
        }
        self.courier.link.rename(&name, &self.path).await?;
        self.tried.clear();
        Ok(())
    }

    /// Whether an attempt before did it after all. Once its name is gone, a rename that is only late finds nothing to
    /// rename; so this is asked after the names are gone, and stays true.
    async fn arrived(&mut self) -> io::Result<bool> {
        let link = &self.courier.link;
        if self.tried.is_empty() {
            return Ok(false);
        }
        while let Some(name) = self.tried.last() {
            link.delete(name).await?;
            self.tried.pop();
        }
        Ok(link.length(&self.path).await? == Some(self.file.length()))
    }

    /// Sends all bytes, once. A writer that is given up leaves connections behind, which end with their session.
    async fn send(&self, name: &str) -> io::Result<()> {
        let turn = self.courier.link.turn();
        let (client, options) = (turn.client(), self.courier.options.clone());
        let create = self.courier.link.patience().call;
        apart(write(client, create, options, name.to_owned(), self.file.clone())).await??;
        turn.settled();
        Ok(())
    }
}

async fn write(
    client: Client,
    create: Duration,
    options: WriteOptions,
    name: String,
    file: Arc<SpoolFile>,
) -> io::Result<()> {
    let mut writer = within(create, client.create(&name, options)).await?;
    let mut sent = 0;
    while sent < file.length() {
        let from = file.clone();
        let piece = spawn_blocking(move || from.piece(sent, PIECE)).await.map_err(io::Error::other)??;
        sent += piece.len() as u64;
        within(TAKE, Box::pin(writer.write_bytes(Bytes::from(piece)))).await?;
    }
    within(CLOSE, Box::pin(writer.close())).await
}

async fn within<T>(most: Duration, answer: impl Future<Output = Result<T, HdfsError>>) -> io::Result<T> {
    timeout(most, answer).await.map_err(|_| no_answer())?.map_err(meaning::of)
}
