//! The directory of the services, and what all services have in common. Nothing is started by opening it.

use std::env;
use std::fmt::Debug;
use std::fs::{self, File, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Doing;
use crate::ports::Ports;
use crate::server::{Place, Server, State, stop_all};
use crate::wait::Interrupt;
use crate::{Error, Hdfs, Kafka, PgBouncer, Postgres, Result, hdfs, kafka};

/// The variable that names the directory of the services.
pub const DIR: &str = "WEIR_SERVICES_DIR";

/// Of the services, in the order in which they are started.
pub const NAMES: [&str; 4] = ["postgres", "pgbouncer", "kafka", "hdfs"];

/// By this file a directory is known as one of services. It is locked while a server is started.
const MARK: &str = "weir-services.lock";

/// A directory of services.
#[derive(Debug)]
pub struct Services {
    dir: PathBuf,
    /// What they listen at.
    host: Ipv4Addr,
    interrupt: Interrupt,
    /// Dropped, everything in it is stopped and deleted.
    temporary: Option<TempDir>,
}

/// What the services have in common. Each method is for all servers of a service; single ones are in
/// [`Service::servers`], [`Kafka::broker`], [`Hdfs::namenode`] and [`Hdfs::datanode`].
pub trait Service: Debug {
    /// One of [`NAMES`].
    fn name(&self) -> &'static str;

    /// The variable by which programs under test are told the address.
    fn variable(&self) -> &'static str;

    /// As clients want it: a URL, or `host:port`.
    fn address(&self) -> String;

    /// In the order in which they are started.
    fn servers(&self) -> Vec<&Server>;

    /// Returns when clients are served, and fails with the end of a log after 90 s.
    fn wait_ready(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.wait_ready())
    }

    /// Starts those that are down, and does not wait.
    fn start(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.start().map(drop))
    }

    /// See [`Server::stop`].
    fn stop(&self) -> Result<()> {
        stop_all(&self.servers())
    }

    /// See [`Server::kill`].
    fn kill(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.kill())
    }

    /// See [`Server::pause`].
    fn pause(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.pause())
    }

    /// See [`Server::resume`].
    fn resume(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.resume())
    }
}

impl Services {
    /// Opens a directory of services. It is made if it is not there; one that holds anything else is refused.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = std::path::absolute(dir.as_ref()).doing(|| format!("find {}", dir.as_ref().display()))?;
        check_path(&dir)?;
        if !dir.exists() {
            fs::create_dir_all(&dir).doing(|| format!("make {}", dir.display()))?;
            // Whatever the umask: the user of PostgreSQL has to pass.
            fs::set_permissions(&dir, Permissions::from_mode(0o755))
                .doing(|| format!("open up {}", dir.display()))?;
        }
        let metadata = fs::metadata(&dir).doing(|| format!("look at {}", dir.display()))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::new(format!(
                "{} belongs to another user: choose another directory",
                dir.display()
            )));
        }
        let mark = dir.join(MARK);
        if !mark.exists() {
            let mut entries = fs::read_dir(&dir).doing(|| format!("read {}", dir.display()))?;
            if entries.next().is_some() {
                return Err(Error::new(format!(
                    "{} is neither empty nor a directory of services: choose another one",
                    dir.display()
                )));
            }
            fs::write(&mark, "").doing(|| format!("write {}", mark.display()))?;
        }
        Ok(Self { dir, host: Ipv4Addr::LOCALHOST, interrupt: Interrupt::default(), temporary: None })
    }

    /// Those that a test was given: what the variable [`DIR`] names.
    pub fn given() -> Result<Self> {
        let dir = env::var_os(DIR).ok_or_else(|| {
            Error::new(format!(
                "{DIR} is not set: run this with `cargo run -p weir-services -- run {} -- COMMAND`",
                NAMES.join(" ")
            ))
        })?;
        Self::open(dir)
    }

    /// In a new directory. When this is dropped, its servers are stopped and the directory is deleted.
    pub fn temporary() -> Result<Self> {
        let temp = tempfile::Builder::new()
            .prefix("weir-services-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir();
        let temp = temp.doing(|| "make a temporary directory".to_owned())?;
        let mut services = Self::open(temp.path())?;
        services.temporary = Some(temp);
        Ok(services)
    }

    /// The same, at another address than 127.0.0.1: one of a network that a test made, since they ask nobody for a password.
    pub fn temporary_at(host: Ipv4Addr) -> Result<Self> {
        let mut services = Self::temporary()?;
        services.host = host;
        Ok(services)
    }

    /// The directory that is used where none is named: the same one each time for each user.
    pub fn default_dir() -> PathBuf {
        let own = || env::temp_dir().join(format!("weir-services-{}", rustix::process::geteuid().as_raw()));
        env::var_os(DIR).map_or_else(own, PathBuf::from)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Ends all waiting for these services, but not for one to stop.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::in_services(self)
    }

    /// A pooler for [`Services::postgres`], which has to be started as well.
    pub fn pgbouncer(&self) -> Result<PgBouncer> {
        PgBouncer::in_services(self)
    }

    /// Those brokers that there are, or one.
    pub fn kafka(&self) -> Result<Kafka> {
        Kafka::in_services(self, None)
    }

    /// With 1 to 3 brokers, each a controller as well. How many cannot be changed later.
    pub fn kafka_of(&self, brokers: u16) -> Result<Kafka> {
        Kafka::in_services(self, Some(brokers))
    }

    /// Those DataNodes that there are, or one.
    pub fn hdfs(&self) -> Result<Hdfs> {
        Hdfs::in_services(self, None)
    }

    /// With 1 to 3 DataNodes. How many cannot be changed later.
    pub fn hdfs_of(&self, datanodes: u16) -> Result<Hdfs> {
        Hdfs::in_services(self, Some(datanodes))
    }

    /// The services that were made here, running or not.
    pub fn made(&self) -> Result<Vec<Box<dyn Service>>> {
        let made = NAMES.into_iter().filter(|name| self.ports_file(name).exists());
        made.map(|name| self.by_name(name)).collect()
    }

    /// One of [`NAMES`].
    pub fn by_name(&self, name: &str) -> Result<Box<dyn Service>> {
        Ok(match name {
            "postgres" => Box::new(self.postgres()?),
            "pgbouncer" => Box::new(self.pgbouncer()?),
            "kafka" => Box::new(self.kafka()?),
            "hdfs" => Box::new(self.hdfs()?),
            _ => {
                return Err(Error::new(format!(
                    "there is no service {name}: there are {}",
                    NAMES.join(", ")
                )));
            }
        })
    }

    /// Deletes the data, the logs and the ports of a service that is down.
    pub fn wipe(&self, service: &dyn Service) -> Result<()> {
        for server in service.servers() {
            if server.state()? != State::Down {
                return Err(Error::new(format!("{} is still running: nothing was deleted", server.name())));
            }
        }
        let dir = self.dir.join(service.name());
        fs::remove_dir_all(&dir).doing(|| format!("delete {}", dir.display()))
    }

    /// Deletes the directory, if there is nothing left in it that anybody could miss.
    pub fn remove(self) -> Result<()> {
        if self.temporary.is_none() && self.made()?.is_empty() {
            fs::remove_file(self.lock()).doing(|| format!("delete {}", self.lock().display()))?;
            // What else is in it is not ours.
            drop(fs::remove_dir(&self.dir));
        }
        Ok(())
    }

    /// What is in the directory is no longer deleted when this is dropped; nor is anything stopped.
    pub fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _kept = temporary.keep();
        }
    }

    /// The ports of a service, chosen for `names` if it has none yet.
    pub(crate) fn ports(&self, service: &str, names: impl FnOnce() -> Vec<String>) -> Result<Ports> {
        let file = self.ports_file(service);
        let _lock = lock(&self.lock())?;
        if let Some(ports) = Ports::read(&file)? {
            return Ok(ports);
        }
        let dir = self.dir.join(service);
        fs::create_dir_all(&dir).doing(|| format!("make {}", dir.display()))?;
        Ports::choose(&file, self.host, &names())
    }

    /// A server in the directory `dir` below that of its service.
    pub(crate) fn place(&self, service: &str, dir: &str) -> Place {
        Place { dir: self.dir.join(service).join(dir), host: self.host, interrupt: self.interrupt.clone() }
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(MARK)
    }

    fn ports_file(&self, service: &str) -> PathBuf {
        self.dir.join(service).join("ports")
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if self.temporary.is_some()
            && let Ok(made) = self.made()
        {
            // What does not stop keeps running: there is nobody left to tell.
            let _all = made.iter().map(|service| service.stop()).collect::<Vec<_>>();
        }
    }
}

/// Waits until nobody else holds the lock. It is let go with the file.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let lock = File::create(path).and_then(|file| file.lock().map(|()| file));
    lock.doing(|| format!("lock {}", path.display()))
}

/// Gets what a service needs that comes from a registry, if it is not there: minutes, the first time.
pub fn fetch(name: &str, interrupt: &Interrupt) -> Result<()> {
    match name {
        "kafka" => kafka::JARS.fetch(interrupt).map(drop),
        "hdfs" => hdfs::JARS.fetch(interrupt).map(drop),
        _ => Ok(()),
    }
}

/// Whether `fetch` has nothing to do.
pub fn is_fetched(name: &str) -> Result<bool> {
    Ok(match name {
        "kafka" => kafka::JARS.cached()?.is_some(),
        "hdfs" => hdfs::JARS.cached()?.is_some(),
        _ => true,
    })
}

/// How many servers there shall be: as many as were asked for, unless there are others already.
pub(crate) fn number(asked: Option<u16>, there: u16, what: &str, service: &str) -> Result<u16> {
    match (asked, there) {
        (Some(asked), _) if !(1..=3).contains(&asked) => {
            Err(Error::new(format!("{what} are 1 to 3, not {asked}")))
        }
        (Some(asked), there) if there != 0 && asked != there => Err(Error::new(format!(
            "the number of {what} is {there} and stays so; `weir-services down {service} --wipe` deletes them with their \
             data"
        ))),
        (asked, 0) => Ok(asked.unwrap_or(1)),
        (_, there) => Ok(there),
    }
}

/// Paths go into class paths, URLs and files of properties, each with other rules for what is special.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte);
    match path.to_str().is_some_and(|text| text.bytes().all(|byte| plain(&byte))) {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} has characters that Java's options cannot take: use a path of letters, digits and ./_-+@",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_else_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kafka"), "mine").unwrap();
        let error = Services::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is neither empty nor a directory of services"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn opening_a_directory_again_gives_the_same_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = || {
            let services = Services::open(dir.path().join("new")).unwrap();
            NAMES.map(|name| services.by_name(name).unwrap().address())
        };
        assert_eq!(addresses(), addresses());
    }

    #[test]
    fn the_number_of_servers_is_kept_until_it_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let services = Services::open(dir.path()).unwrap();
        assert_eq!(services.kafka_of(3).unwrap().servers().len(), 3);
        assert_eq!(services.kafka().unwrap().servers().len(), 3);
        let error = services.kafka_of(1).unwrap_err().to_string();
        assert!(error.starts_with("the number of brokers is 3 and stays so"), "{error}");
        services.wipe(&services.kafka().unwrap()).unwrap();
        assert_eq!(services.kafka().unwrap().servers().len(), 1);
        assert!(services.hdfs_of(4).is_err());
    }

    #[test]
    fn a_path_that_java_would_take_apart_is_refused() {
        for path in ["/tmp/a b", "/tmp/a:b", "/tmp/a*", "/tmp/é"] {
            assert!(check_path(Path::new(path)).is_err(), "{path}");
        }
        check_path(Path::new("/var/tmp/weir-services_0.1")).unwrap();
    }

    #[test]
    fn a_temporary_directory_is_gone_when_it_is_dropped_and_not_when_it_is_kept() {
        let services = Services::temporary().unwrap();
        let dir = services.dir().to_owned();
        drop(services);
        assert!(!dir.exists());
        let mut services = Services::temporary().unwrap();
        let dir = services.dir().to_owned();
        services.keep();
        drop(services);
        assert!(dir.exists());
        Services::open(&dir).unwrap().remove().unwrap();
        assert!(!dir.exists());
    }
}
