//! PostgreSQL: the server of the system's package, with a cluster of its own. The one that a package may have started is
//! never touched.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::Doing;
use crate::server::{Kind, Place};
use crate::{Error, Result, Server, Service, Services, machine};

const NAME: &str = "postgres";

/// It refuses to run as root: then it runs as this user, which the package makes.
const USER: &str = "postgres";

/// For a running server to answer at all.
const ANSWER: Duration = Duration::from_secs(2);

/// A PostgreSQL server. Everybody who reaches it may connect as its superuser `postgres`, without a password.
#[derive(Debug)]
pub struct Postgres {
    host: Ipv4Addr,
    port: u16,
    server: Server,
}

impl Postgres {
    pub(crate) fn in_services(services: &Services) -> Result<Self> {
        let port = services.ports(NAME, || vec!["server".to_owned()])?.get("server")?;
        let place = services.place(NAME, "server");
        Ok(Self {
            host: services.host(),
            port,
            server: Server::new("PostgreSQL".to_owned(), place, services.lock(), Cluster { port }),
        })
    }

    /// `postgres://user@host:port/database`, the same as the address.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}:{}/postgres", self.host, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The one server.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl Service for Postgres {
    fn name(&self) -> &'static str {
        NAME
    }

    fn variable(&self) -> &'static str {
        "WEIR_TEST_POSTGRES"
    }

    fn address(&self) -> String {
        self.url()
    }

    fn servers(&self) -> Vec<&Server> {
        vec![&self.server]
    }
}

#[derive(Debug)]
struct Cluster {
    port: u16,
}

impl Kind for Cluster {
    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        let data = data(place);
        place.make_once(&data, || {
            if is_root() {
                hand_over(place)?;
            }
            let mut initdb = as_user(&machine::postgres()?.join("initdb"))?;
            initdb.arg("-D").arg(&data);
            initdb.args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-instructions",
            ]);
            place.run(initdb)?;
            let hba = data.join("pg_hba.conf");
            fs::write(&hba, "host all all samenet trust\n").doing(|| format!("write {}", hba.display()))
        })
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = as_user(&machine::postgres()?.join("postgres"))?;
        command.arg("-D").arg(data(place)).args(["-p", &self.port.to_string()]);
        command.args(["-c", &format!("listen_addresses={}", place.host)]);
        for setting in [
            "unix_socket_directories=",
            "max_connections=50",
            "shared_buffers=64MB",
            // Not in /dev/shm, where a server that was killed would leave it.
            "dynamic_shared_memory_type=mmap",
            "logging_collector=off",
            "log_min_messages=warning",
        ] {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    fn is_ready(&self, place: &Place) -> bool {
        greet(place.host, self.port).is_some_and(|answer| answer == b'R')
    }

    /// Ends sessions that are open; on SIGTERM it would wait for them.
    fn stop_signal(&self) -> Signal {
        Signal::INT
    }
}

fn data(place: &Place) -> PathBuf {
    place.dir.join("data")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that refuses to run as root, as a user as whom it runs.
pub(crate) fn as_user(program: &Path) -> Result<Command> {
    if !is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", id("-u")?)).arg(format!("--regid={}", id("-g")?)).arg("--init-groups");
    command.arg(program);
    Ok(command)
}

/// Gives the directory of the data to the user that the server runs as.
fn hand_over(place: &Place) -> Result<()> {
    let data = data(place);
    chown(&data, Some(id("-u")?), Some(id("-g")?)).doing(|| format!("give {} to {USER}", data.display()))?;
    fs::set_permissions(&place.dir, Permissions::from_mode(0o755))
        .doing(|| format!("open {}", place.dir.display()))?;
    let mut look = Command::new("setpriv");
    look.arg(format!("--reuid={}", id("-u")?)).args(["--clear-groups", "test", "-w"]).arg(&data);
    match look.status().doing(|| "run setpriv".to_owned())?.success() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "the user {USER}, as whom PostgreSQL runs, cannot reach {}: choose a directory below one that everybody may \
             enter, such as /var/tmp",
            data.display()
        ))),
    }
}

/// `-u` of the user, `-g` of its group.
fn id(which: &str) -> Result<u32> {
    let output = Command::new("id").args([which, USER]).output().doing(|| "run id".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        Error::new(format!(
            "PostgreSQL does not run as root, and there is no user {USER}: useradd --system {USER}"
        ))
    })
}

/// The first byte of what the server says to somebody who wants to connect: `R` if it lets them in.
pub(crate) fn greet(host: Ipv4Addr, port: u16) -> Option<u8> {
    let mut stream = TcpStream::connect_timeout(&(host, port).into(), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let mut hello = vec![0, 0, 0, 0, 0, 3, 0, 0];
    hello.extend(b"user\0postgres\0database\0postgres\0\0");
    hello[3] = u8::try_from(hello.len()).expect("a short greeting");
    stream.write_all(&hello).ok()?;
    let mut answer = [0];
    stream.read_exact(&mut answer).ok()?;
    // Terminate. It has said what we wanted to know, so it may well be gone.
    drop(stream.write_all(&[b'X', 0, 0, 0, 4]));
    Some(answer[0])
}
