//! Files in HDFS. Every request has an end: what is not answered in time may have happened, and whoever asked looks.
//! It appends to nothing, syncs nothing half written, and holds no lease that anything depends on.
//!
//! A file is written into a spool on the local disk and sent when it is closed: a DataNode that dies costs another
//! sending, not the rows. Each time it is sent under a new name, and gets its own by a rename that never overwrites.

mod link;
mod meaning;
mod spool;
mod upload;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hdfs_native::WriteOptions;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::storage::{StagedFile, Storage};
use crate::sink::{Error, Problem};
use link::Link;
use spool::Spool;
use upload::{Courier, SpooledFile};

/// Enough to wait for answers and to sum up what is sent; the sink's own thread only waits.
const WORKERS: usize = 2;

/// Files that are sent at the same time. Closing one takes half a second where it has one replica, since the client
/// sleeps that long, so they are many; each keeps up to 13 MB of packets that no DataNode has confirmed.
const UPLOADS: usize = 8;

/// Where in HDFS, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HdfsConfig {
    /// `hdfs://host:port`, or `hdfs://service` for what `hdfs-site.xml` knows by that name.
    pub cluster: String,
    /// Everything is below this directory: an absolute path.
    pub directory: String,
    /// Settings of Hadoop's clients, which count before those in `core-site.xml` and `hdfs-site.xml`. Of a file,
    /// `dfs.replication` and `dfs.blocksize` count only from here.
    pub properties: BTreeMap<String, String>,
    /// The local directory for what is not sent yet.
    pub spool: PathBuf,
}

/// The files below one directory of HDFS.
#[derive(Debug)]
pub(super) struct Hdfs {
    runtime: Arc<Runtime>,
    courier: Arc<Courier>,
    /// Absent where it was opened to read.
    spool: Option<Spool>,
    cluster: String,
    root: String,
}

impl Hdfs {
    /// Reaches the cluster and makes the directory. It has little patience until [`Storage::trust`].
    ///
    /// # Errors
    /// [`Error::Transient`] where the cluster cannot be reached within seconds, or refuses.
    pub(super) fn open(config: &HdfsConfig) -> Result<Self, Error> {
        let spool = Spool::open(&config.spool).map_err(|error| cannot_open(config, error))?;
        let opened = Self { spool: Some(spool), ..Self::to_read(config)? };
        let made = opened.ask(async |link| link.make_directories(&config.directory).await);
        made.map_err(|error| cannot_open(config, error))?;
        Ok(opened)
    }

    /// The same for whoever only reads: it makes no directory, here or there, and takes no file.
    ///
    /// # Errors
    /// [`Error::Transient`] where the client cannot be set up. Nobody is asked yet.
    pub(super) fn to_read(config: &HdfsConfig) -> Result<Self, Error> {
        let HdfsConfig { cluster, directory, properties, .. } = config;
        let failed = |error| cannot_open(config, error);
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).thread_name("hdfs").enable_all().build();
        let runtime = Arc::new(runtime.map_err(failed)?);
        let link = Link::open(cluster, properties).map_err(failed)?;
        let courier = Courier { link, options: write_options(properties), room: Semaphore::new(UPLOADS) };
        let (cluster, root) = (cluster.clone(), directory.trim_end_matches('/').to_owned());
        Ok(Self { runtime, courier: Arc::new(courier), spool: None, cluster, root })
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    fn ask<T>(&self, ask: impl AsyncFnOnce(&Link) -> io::Result<T>) -> io::Result<T> {
        self.runtime.block_on(ask(&self.courier.link))
    }
}

fn cannot_open(config: &HdfsConfig, error: io::Error) -> Error {
    let problem = Problem::new(format!("cannot open `{}{}`", config.cluster, config.directory));
    Error::Transient(match meaning::hint(&error) {
        Some(hint) => problem.hint(hint).source(error),
        None => problem.source(error),
    })
}

/// What the client itself takes from nobody but its caller.
fn write_options(properties: &BTreeMap<String, String>) -> WriteOptions {
    let number = |name| properties.get(name).and_then(|text| text.parse::<u64>().ok());
    WriteOptions {
        replication: number("dfs.replication").and_then(|n| n.try_into().ok()),
        block_size: number("dfs.blocksize"),
        ..WriteOptions::default()
    }
}

impl Storage for Hdfs {
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>> {
        let (runtime, courier) = (self.runtime.clone(), self.courier.clone());
        let spool = self.spool.as_ref().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        Ok(Box::new(SpooledFile::new(runtime, courier, spool.file()?, self.path(path))))
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.ask(async |link| match link.rename(&from, &to).await {
            // One of them is missing: the file, or the directory that it is to go to.
            Err(error) if error.kind() == io::ErrorKind::NotFound && link.length(&from).await?.is_some() => {
                link.make_directories(parent(&to)).await?;
                link.rename(&from, &to).await
            }
            done => done,
        })
    }

    /// What the NameNode has answered, it has written down.
    fn sync(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.ask(async |link| link.list(&self.path(directory)).await)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.ask(async |link| link.read(&self.path(path)).await)
    }

    fn read_range(&self, path: &str, start: u64, most: usize) -> io::Result<Vec<u8>> {
        self.ask(async |link| link.read_range(&self.path(path), start, most).await)
    }

    fn length(&self, path: &str) -> io::Result<Option<u64>> {
        self.ask(async |link| link.length(&self.path(path)).await)
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        self.ask(async |link| link.delete(&self.path(path)).await)
    }

    fn show(&self, path: &str) -> String {
        format!("{}{}", self.cluster, self.path(path)).trim_end_matches('/').to_owned()
    }

    fn trust(&self) {
        self.courier.link.be_patient();
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| parent)
}

#[cfg(all(test, feature = "servers"))]
mod tests;
