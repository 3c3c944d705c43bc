//! PgBouncer, a pooler in front of PostgreSQL: it lends its clients a session of the server for one transaction at a time.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use crate::error::Doing;
use crate::postgres::{as_user, greet};
use crate::server::{Kind, Place};
use crate::{Result, Server, Service, Services, machine};

const NAME: &str = "pgbouncer";

/// A pooler for the server of [`Services::postgres`]. Whoever connects to it is the superuser `postgres` there.
#[derive(Debug)]
pub struct PgBouncer {
    host: Ipv4Addr,
    port: u16,
    server: Server,
}

impl PgBouncer {
    pub(crate) fn in_services(services: &Services) -> Result<Self> {
        let port = services.ports(NAME, || vec!["pooler".to_owned()])?.get("pooler")?;
        let kind = Pooler { port, postgres: services.postgres()?.port() };
        let server =
            Server::new("PgBouncer".to_owned(), services.place(NAME, "pooler"), services.lock(), kind);
        Ok(Self { host: services.host(), port, server })
    }
}

impl Service for PgBouncer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn variable(&self) -> &'static str {
        "WEIR_TEST_POSTGRES_POOLER"
    }

    /// `postgres://user@host:port/database`
    fn address(&self) -> String {
        format!("postgres://postgres@{}:{}/postgres", self.host, self.port)
    }

    fn servers(&self) -> Vec<&Server> {
        vec![&self.server]
    }
}

#[derive(Debug)]
struct Pooler {
    port: u16,
    /// Of the server behind it.
    postgres: u16,
}

impl Kind for Pooler {
    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        let (host, port, postgres) = (place.host, self.port, self.postgres);
        let settings = format!(
            "\
[databases]
* = host={host} port={postgres} user=postgres
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 200
; More than there are tests at once: one that waits for a lock shall not keep another from letting go of it.
default_pool_size = 60
; It is started together with the server, which may not be there yet; the default is 15 s.
server_login_retry = 1
"
        );
        place.write(SETTINGS, &settings)?;
        // Root made them, whatever the umask, and another user reads them.
        for (path, mode) in [(place.dir.clone(), 0o755), (place.dir.join(SETTINGS), 0o644)] {
            fs::set_permissions(&path, Permissions::from_mode(mode))
                .doing(|| format!("open up {}", path.display()))?;
        }
        Ok(())
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = as_user(&machine::pgbouncer()?)?;
        command.arg(place.dir.join(SETTINGS));
        Ok(command)
    }

    /// It lets nobody in before the server does.
    fn is_ready(&self, place: &Place) -> bool {
        greet(place.host, self.port).is_some_and(|answer| answer == b'R')
    }

    /// Waits for transactions, and not for clients to leave.
    fn stop_signal(&self) -> Signal {
        Signal::INT
    }
}

const SETTINGS: &str = "pgbouncer.ini";
