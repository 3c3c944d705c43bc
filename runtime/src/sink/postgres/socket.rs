//! Sends what is written to a server at once, and finds out when nobody is there any more. The driver leaves both out,
//! and a COPY then waits 40 ms for nothing. It knows connections only by the address at their other end.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::sockopt;

/// Where a process sees what it has open.
const OPEN: &str = "/dev/fd";

/// A connection on which nothing comes back for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Does so for every connection of this process to a server at port `port`: the driver does not tell which one is its
/// own. Where that is not possible the connections stay as they are.
pub(super) fn hurry(port: u16) {
    if let Err(error) = try_hurry(port) {
        tracing::debug!(%error, "connections to the database stay as they are");
    }
}

fn try_hurry(port: u16) -> io::Result<()> {
    for entry in fs::read_dir(OPEN)? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Err(error) = set(fd, port) {
            tracing::trace!(fd, %error, "is no connection any more");
        }
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the driver lends its socket to nobody; it is only asked and set, by its number"
)]
fn set(fd: i32, port: u16) -> io::Result<()> {
    // SAFETY: the number was open a moment ago. Another thread may have closed it since, or opened something else
    // under it; then the calls below fail, or set on another connection to the same port what is right for that too.
    // Nothing is read, written or closed.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let Some(peer) = rustix::net::getpeername(fd)? else { return Ok(()) };
    let Ok(peer) = SocketAddr::try_from(peer) else { return Ok(()) };
    if peer.port() != port {
        return Ok(());
    }
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(fd, SILENCE)?;
        sockopt::set_tcp_user_timeout(fd, SILENCE.as_millis() as u32)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_to_the_port_is_sent_at_once_and_another_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let apart = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        hurry(listener.local_addr().unwrap().port());
        assert!(connected.nodelay().unwrap() && !apart.nodelay().unwrap());
    }
}
