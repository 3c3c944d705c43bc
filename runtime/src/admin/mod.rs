//! Lets people and programs look at a pipeline while it runs: over HTTP, at an address where everybody may look, and
//! at a socket for whoever runs it, who may give orders there. It reads what the pipeline shows of itself, and never makes
//! it wait.
//!
//! ```text
//!  deciding thread ──Status, now and then──▶ Handle ◀── pages ◀── guard ◀── 127.0.0.1:9640           who looks
//!                  ◀────────────orders───────────── ◀── orders ◀─ guard ◀── <state>/admin/PID.sock   whoever runs it
//! ```

pub mod ask;
mod guard;
pub mod metrics;
mod orders;
mod pages;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::pipeline::shadow::Report;
use crate::pipeline::status::Status;
use crate::pipeline::threads::Handle;
use guard::Guarded;
use orders::Peer;
use socket::Socket;

/// So many ports behind the one that is asked for are tried where that is taken.
const PORTS: u16 = 100;

/// Requests that are being answered when the pipeline ends have so long.
const GRACE: Duration = Duration::from_secs(1);

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everybody may look; nowhere if absent.
    pub listen: Option<SocketAddr>,
    /// The directory with a socket for each process; made if it is not there.
    pub sockets: PathBuf,
}

/// Which process answers, and what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number on its machine.
    pub pid: u32,
    /// The version of this program.
    pub version: String,
    /// When it began to run the pipeline, in milliseconds since 1970-01-01T00:00:00Z.
    pub started_ms: u64,
    /// Where everybody may look.
    pub listen: Option<SocketAddr>,
}

/// What `/status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who answers.
    pub process: Process,
    /// How its pipeline stands.
    pub status: Status,
}

/// What `/shadow` answers at the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Who answers.
    pub process: Process,
    /// What was found by the plan that is tried on live records, or was last; none was since the process began, if absent.
    pub report: Option<Report>,
}

/// What is answered to an order that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Whether anything is different now.
    pub changed: bool,
    /// Who answers.
    pub process: Process,
    /// How its pipeline stands.
    pub status: Status,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot listen at its address.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is no socket.
    #[error("cannot make the socket {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has no thread or no means to wait for connections.
    #[error("cannot start what answers requests: {0}")]
    Start(io::Error),
}

impl Error {
    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { .. } => Some("`listen` in [admin] is the address; \"none\" does without"),
            Self::Socket { .. } => {
                Some("`socket` in [admin] names another directory, such as /run/weir/NAME")
            }
            Self::Start(_) => None,
        }
    }
}

/// Answers until it is dropped. Then its socket is gone.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    asked: Option<SocketAddr>,
    socket: Socket,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the pages look at.
#[derive(Debug)]
struct Shown {
    handle: Handle,
    process: Process,
}

impl Server {
    /// Listens, and answers in a thread of its own from now on.
    ///
    /// # Errors
    /// If it cannot listen where it was told to. A port that is taken is none: the next free one is.
    pub fn start(settings: &Settings, handle: Handle, process: Process) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::Start)?;
        let _entered = runtime.enter();
        let tcp = settings.listen.map(listen).transpose()?;
        let (socket, unix) = Socket::make(&settings.sockets, process.pid)?;
        let address = tcp.as_ref().map(|(address, _)| *address);
        let shown = Arc::new(Shown { handle, process: Process { listen: address, ..process } });
        let (stop, stopped) = watch::channel(());
        let mut serving = JoinSet::new();
        if let Some((_, tcp)) = tcp {
            serving.spawn_on(
                serve(Guarded::new(tcp), pages::for_all(&shown), stopped.clone()),
                runtime.handle(),
            );
        }
        serving
            .spawn_on(serve(Guarded::new(unix), pages::for_owner(&shown), stopped.clone()), runtime.handle());
        let answer = move || runtime.block_on(until_stopped(serving, stopped));
        let thread =
            std::thread::Builder::new().name("admin".to_owned()).spawn(answer).map_err(Error::Start)?;
        Ok(Self { address, asked: settings.listen, socket, stop: Some(stop), thread: Some(thread) })
    }

    /// Where everybody may look.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether the port that was asked for was taken.
    pub fn moved(&self) -> bool {
        self.asked.is_some_and(|asked| asked.port() != 0 && Some(asked) != self.address)
    }

    /// The socket of this process.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("what answers requests had failed");
        }
    }
}

/// In milliseconds since 1970-01-01T00:00:00Z.
#[expect(clippy::disallowed_methods, reason = "told to people, and nothing is decided by it")]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The first free port from the one that is asked for on.
fn listen(asked: SocketAddr) -> Result<(SocketAddr, tokio::net::TcpListener), Error> {
    let mut address = asked;
    loop {
        match try_listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let next = address.port().checked_add(1).filter(|port| port - asked.port() <= PORTS);
                let Some(next) = next else { return Err(Error::Listen { address: asked, source: error }) };
                address.set_port(next);
            }
            other => return other.map_err(|source| Error::Listen { address, source }),
        }
    }
}

/// Whether a server could listen there: `false` if the port is taken, so that it would take the next.
///
/// # Errors
/// [`Error::Listen`].
pub fn is_free(address: SocketAddr) -> Result<bool, Error> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(source) => Err(Error::Listen { address, source }),
    }
}

fn try_listen(address: SocketAddr) -> io::Result<(SocketAddr, tokio::net::TcpListener)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((address, tokio::net::TcpListener::from_std(listener)?))
}

async fn serve<L>(listener: Guarded<L>, pages: Router, mut stopped: watch::Receiver<()>)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
    Peer: for<'a> Connected<IncomingStream<'a, Guarded<L>>>,
{
    // It changes when the sender is gone.
    let stop = async move { drop(stopped.changed().await) };
    let pages = pages.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, pages).with_graceful_shutdown(stop).await;
    served.unwrap_or_else(|error| tracing::error!(%error, "no more requests are answered"));
}

async fn until_stopped(mut serving: JoinSet<()>, mut stopped: watch::Receiver<()>) {
    drop(stopped.changed().await);
    let all = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::debug!("somebody still waits for an answer");
    }
}

#[cfg(test)]
mod tests;
