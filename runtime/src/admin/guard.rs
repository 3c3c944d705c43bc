//! A limit on connections: neither many of them nor silent ones may use up the files that a process may have open,
//! which the sinks need. It looks at no byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// So many connections at once; who comes then waits.
const CONNECTIONS: usize = 32;

/// A connection on which nobody has asked anything for so long is closed: longer than a scraper pauses.
const SILENCE: Duration = Duration::from_secs(90);

/// A listener whose connections are few, and end when nothing comes.
pub(super) struct Guarded<L> {
    listener: L,
    free: Arc<Semaphore>,
}

/// One of its connections.
pub(super) struct Connection<T> {
    io: T,
    silent: Pin<Box<Sleep>>,
    _held: OwnedSemaphorePermit,
}

impl<L> Guarded<L> {
    pub(super) fn new(listener: L) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl<T> Connection<T> {
    /// What lies below.
    pub(super) fn io(&self) -> &T {
        &self.io
    }
}

impl<L: Listener> Listener for Guarded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let held = self.free.clone().acquire_owned().await.expect("nobody closes it");
        let (io, address) = self.listener.accept().await;
        let silent = Box::pin(sleep_until(Instant::now() + SILENCE));
        (Connection { io, silent, _held: held }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, to) {
            self.silent.as_mut().reset(Instant::now() + SILENCE);
            return Poll::Ready(read);
        }
        ready!(self.silent.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
