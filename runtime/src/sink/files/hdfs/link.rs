//! The way to the cluster: requests, each within a time, through a client that is replaced when it may hang. A request that
//! has no answer may have happened; only what the NameNode certainly did not do is asked for again here.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use hdfs_native::{Client, ClientBuilder, HdfsError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::meaning;

/// As `rwxr-xr-x`.
const DIRECTORY: u32 = 0o755;

/// How long something is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A request to the NameNode, with all failovers and with safe mode. The client itself waits for ever.
    pub(super) call: Duration,
    /// A file, with all attempts to send it.
    pub(super) upload: Duration,
    /// How often a NameNode that refuses the connection, or is in standby, is tried again; up to 2 s apart.
    failovers: u32,
}

/// While it is opened: whoever waits at a terminal is told within seconds.
const OPENING: Patience =
    Patience { call: Duration::from_secs(12), upload: Duration::from_secs(30), failovers: 3 };

/// While records flow: longer than a failover, a restart of a DataNode, or a long pause of a NameNode takes. Whoever waits
/// longer is told, reads the input again, and may be stopped in between.
const RUNNING: Patience =
    Patience { call: Duration::from_secs(30), upload: Duration::from_secs(120), failovers: 12 };

/// What the client is told, if nobody says otherwise. By itself it waits for a NameNode for three minutes and for a
/// DataNode for one.
const SOCKET_TIMEOUT_MS: u32 = 30_000;
const FAILOVER_SLEEP_MS: u32 = 500;
const FAILOVER_SLEEP_MS_MAX: u32 = 2_000;

/// A cluster, and who is spoken to there.
#[derive(Debug)]
pub(super) struct Link {
    cluster: String,
    properties: BTreeMap<String, String>,
    patient: AtomicBool,
    session: Mutex<Arc<Session>>,
    #[cfg(all(test, feature = "servers"))]
    pub(super) lose: Mutex<Vec<Loss>>,
}

/// What goes wrong with the next rename, on purpose.
#[cfg(all(test, feature = "servers"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// It is done, and the answer is lost.
    Answer,
    /// It is not done, and nobody says so.
    Request,
}

/// A client with all that goes on behind its back. The client leaves some of that behind when it is given up in the
/// middle of a file, and would use a connection that hangs for a quarter of an hour; it all ends with the session.
#[derive(Debug)]
struct Session {
    client: Client,
    runtime: Option<Runtime>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The use of a session. Given up before it is [`Self::settled`], nobody begins anything with that session any more.
pub(super) struct Turn<'a> {
    link: &'a Link,
    session: Arc<Session>,
    settled: bool,
}

impl Turn<'_> {
    pub(super) fn client(&self) -> Client {
        self.session.client.clone()
    }

    pub(super) fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.link.replace(&self.session);
        }
    }
}

impl Link {
    /// Connects to nobody yet.
    pub(super) fn open(cluster: &str, properties: &BTreeMap<String, String>) -> io::Result<Self> {
        let session = Mutex::new(Arc::new(session(cluster, properties, OPENING)?));
        let (cluster, properties) = (cluster.to_owned(), properties.clone());
        Ok(Self {
            cluster,
            properties,
            patient: AtomicBool::new(false),
            session,
            #[cfg(all(test, feature = "servers"))]
            lose: Mutex::default(),
        })
    }

    pub(super) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.replace(&session);
    }

    pub(super) fn patience(&self) -> Patience {
        if self.patient.load(Ordering::Relaxed) { RUNNING } else { OPENING }
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Turn { link: self, session, settled: false }
    }

    /// Puts another session in the place of `old`, unless somebody did.
    fn replace(&self, old: &Arc<Session>) {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&held, old) {
            return;
        }
        match session(&self.cluster, &self.properties, self.patience()) {
            Ok(session) => *held = Arc::new(session),
            Err(error) => tracing::warn!(%error, "the connection to HDFS is not made anew"),
        }
    }

    /// Asks until there is an answer, and not for ever. `ask` may be called several times.
    async fn call<T: Send + 'static, A>(&self, ask: impl Fn(Client) -> A) -> io::Result<T>
    where
        A: Future<Output = Result<T, HdfsError>> + Send + 'static,
    {
        let mut refused = None;
        let answered = timeout(self.patience().call, async {
            let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(2));
            loop {
                match self.ask(&ask).await {
                    Err(error) if meaning::is_passing(&error) => refused = Some(error),
                    answer => return answer,
                }
                pause.make().await;
            }
        });
        answered.await.unwrap_or_else(|_| Err(refused.unwrap_or_else(no_answer)))
    }

    async fn ask<T: Send + 'static, A>(&self, ask: impl Fn(Client) -> A) -> io::Result<T>
    where
        A: Future<Output = Result<T, HdfsError>> + Send + 'static,
    {
        let turn = self.turn();
        let answer = apart(ask(turn.client())).await?;
        turn.settled();
        answer.map_err(meaning::of)
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        #[cfg(all(test, feature = "servers"))]
        let lost = self.lose.lock().expect("nobody panics with it in hand").pop();
        #[cfg(all(test, feature = "servers"))]
        if lost == Some(Loss::Request) {
            return Err(no_answer());
        }
        let renamed = self.call(|client| {
            let (from, to) = (from.to_owned(), to.to_owned());
            async move { client.rename(&from, &to, false).await }
        });
        let renamed = renamed.await;
        #[cfg(all(test, feature = "servers"))]
        if lost == Some(Loss::Answer) {
            return Err(no_answer());
        }
        renamed
    }

    pub(super) async fn make_directories(&self, path: &str) -> io::Result<()> {
        self.call(|client| {
            let path = path.to_owned();
            async move { client.mkdirs(&path, DIRECTORY, true).await }
        })
        .await
    }

    pub(super) async fn length(&self, path: &str) -> io::Result<Option<u64>> {
        let status = self.call(|client| {
            let path = path.to_owned();
            async move { client.get_file_info(&path).await }
        });
        Ok(none_if_missing(status.await)?.map(|status| status.length as u64))
    }

    /// Removes a file or an empty directory. After `Ok` it is not there, and was not renamed by who asked before.
    pub(super) async fn delete(&self, path: &str) -> io::Result<()> {
        let deleted = self.call(|client| {
            let path = path.to_owned();
            async move { client.delete(&path, false).await }
        });
        deleted.await.map(drop)
    }

    pub(super) async fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let listed = self.call(|client| {
            let directory = directory.to_owned();
            async move { client.list_status(&directory, false).await }
        });
        let found = none_if_missing(listed.await)?.unwrap_or_default();
        let name = |path: String| path.rsplit('/').next().map(str::to_owned).unwrap_or(path);
        Ok(found.into_iter().map(|status| name(status.path)).collect())
    }

    pub(super) async fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let read = self.call(|client| {
            let path = path.to_owned();
            async move {
                let mut file = client.read(&path).await?;
                file.read_bytes(file.file_length()).await
            }
        });
        read.await.map(Vec::from)
    }

    pub(super) async fn read_range(&self, path: &str, start: u64, most: usize) -> io::Result<Vec<u8>> {
        let read = self.call(|client| {
            let path = path.to_owned();
            async move {
                let file = client.read(&path).await?;
                let start = file.file_length().min(usize::try_from(start).unwrap_or(usize::MAX));
                file.read_range(start, most.min(file.file_length() - start)).await
            }
        });
        read.await.map(Vec::from)
    }
}

fn none_if_missing<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Runs what the client does in a task of its own, which ends with the one that waits for it: should the client panic,
/// that is an error.
pub(super) async fn apart<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    let done = task.join_next().await.expect("there is one task");
    done.map_err(|error| io::Error::other(format!("the client of HDFS gave up: {error}")))
}

/// What lies between attempts.
pub(super) struct Pause {
    delays: ExponentialBackoff,
}

impl Pause {
    /// Twice as long each time, from `first` up to `most`, and as long again by chance.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        let delays = ExponentialBuilder::new().with_min_delay(first).with_max_delay(most);
        Self { delays: delays.with_jitter().without_max_times().build() }
    }

    pub(super) async fn make(&mut self) {
        sleep(self.delays.next().expect("their number has no limit")).await;
    }
}

pub(super) fn no_answer() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer")
}

fn session(cluster: &str, properties: &BTreeMap<String, String>, patience: Patience) -> io::Result<Session> {
    let runtime =
        Builder::new_multi_thread().worker_threads(1).thread_name("hdfs-io").enable_all().build()?;
    let builder = ClientBuilder::new().with_url(cluster).with_io_runtime(runtime.handle().clone());
    let client = builder.with_config(settings(cluster, properties, patience)).build().map_err(meaning::of)?;
    Ok(Session { client, runtime: Some(runtime) })
}

/// What counts before the files of Hadoop's configuration.
fn settings(
    cluster: &str,
    properties: &BTreeMap<String, String>,
    patience: Patience,
) -> BTreeMap<String, String> {
    let host = cluster.strip_prefix("hdfs://").unwrap_or(cluster);
    // A service has two NameNodes, or more; the client counts the attempts over all of them.
    let failovers = if host.contains(':') { patience.failovers } else { 2 * patience.failovers };
    let text = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
    let mut settings = BTreeMap::from([
        text("dfs.client.socket-timeout", &SOCKET_TIMEOUT_MS),
        text("dfs.client.failover.max.attempts", &failovers),
        text("dfs.client.failover.sleep.base.millis", &FAILOVER_SLEEP_MS),
        text("dfs.client.failover.sleep.max.millis", &FAILOVER_SLEEP_MS_MAX),
        // Whoever comes back after a NameNode that hangs shall not always begin with that one.
        text(&format!("dfs.client.failover.random.order.{host}"), &true),
    ]);
    settings.extend(properties.clone());
    // An observer may not know yet what was written a moment ago, and nobody is to believe it.
    let provider = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider";
    settings.extend([text(&format!("dfs.client.failover.proxy.provider.{host}"), &provider)]);
    settings
}
