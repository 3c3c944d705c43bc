//! The Java side: fetches Kafka and HDFS with Maven, once, into a cache outside of the clone, and makes the commands that
//! run them. Where Maven fetches from is for its own settings to say.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::Doing;
use crate::server::{Place, end_of, run};
use crate::services::{check_path, lock};
use crate::wait::Interrupt;
use crate::{Error, Result, machine};

/// For all jars of a set, over a slow line.
const FETCH: Duration = Duration::from_secs(1_800);

/// A registry that is asked for much at once answers with an error now and then.
const TRIES: u32 = 3;

/// What copies the jars named by a pom.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// The jars of one service.
#[derive(Debug)]
pub(crate) struct Jars {
    pub(crate) name: &'static str,
    pub(crate) pom: &'static str,
}

impl Jars {
    /// The directory that holds them, if they were fetched.
    pub(crate) fn cached(&self) -> Result<Option<PathBuf>> {
        let dir = self.dir()?;
        Ok(dir.is_dir().then_some(dir))
    }

    /// The directory that holds them. They are fetched if they are not there; killed meanwhile, nothing of them is there.
    pub(crate) fn fetch(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        if let Some(dir) = self.cached()? {
            return Ok(dir);
        }
        let cache = cache()?;
        let maven = machine::maven()?;
        machine::java()?;
        fs::create_dir_all(&cache).doing(|| format!("make {}", cache.display()))?;
        let _lock = lock(&cache.join("lock"))?;
        if let Some(dir) = self.cached()? {
            return Ok(dir);
        }
        let temp = tempfile::Builder::new().prefix("fetching-").tempdir_in(&cache);
        let temp = temp.doing(|| format!("make a directory in {}", cache.display()))?;
        let pom = temp.path().join("pom.xml");
        fs::write(&pom, self.pom).doing(|| format!("write {}", pom.display()))?;
        let jars = temp.path().join("jars");
        self.copy(&maven, &pom, &jars, interrupt)?;
        let dir = self.dir()?;
        fs::rename(&jars, &dir).doing(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    fn copy(&self, maven: &Path, pom: &Path, jars: &Path, interrupt: &Interrupt) -> Result<()> {
        let output = pom.with_file_name("output");
        for _ in 0..TRIES {
            let out = File::create(&output).and_then(|file| Ok((file.try_clone()?, file)));
            let (out, err) = out.doing(|| format!("write {}", output.display()))?;
            let mut command = Command::new(maven);
            // -U: what could not be fetched a moment ago is asked for again.
            command.args(["-q", "-B", "-ntp", "-U", "-f"]).arg(pom).args([COPY, "-DincludeScope=runtime"]);
            command.arg(format!("-DoutputDirectory={}", jars.display()));
            command.stdin(Stdio::null()).stdout(out).stderr(err);
            if run(&mut command, FETCH, interrupt)? {
                return Ok(());
            }
        }
        let mut said = String::new();
        File::open(&output)
            .and_then(|mut file| file.read_to_string(&mut said))
            .doing(|| "read".to_owned())?;
        Err(Error::new(format!("Maven cannot fetch the jars of {}; it said:\n{}", self.name, end_of(&said))))
    }

    /// Named by the digest of the pom: another version is another directory.
    fn dir(&self) -> Result<PathBuf> {
        let digest = Sha256::digest(self.pom);
        let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(cache()?.join(format!("{}-{digits}", self.name)))
    }
}

/// `$WEIR_SERVICES_CACHE`, or `weir-services` where this user keeps caches.
fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let cache = set("WEIR_SERVICES_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("weir-services")))
        .or_else(|| Some(set("HOME")?.join(".cache/weir-services")));
    let cache = cache.ok_or_else(|| Error::new("there is no home directory: set WEIR_SERVICES_CACHE"))?;
    let cache = std::path::absolute(&cache).doing(|| format!("find {}", cache.display()))?;
    check_path(&cache)?;
    Ok(cache)
}

/// A JVM of this heap (`256m`) in the place of a server, with `first` before the jars on its class path.
pub(crate) fn java(place: &Place, heap: &str, first: &Path, jars: &Path) -> Result<Command> {
    let mut command = jvm(heap)?;
    command.arg(format!("-Djava.io.tmpdir={}", place.temp().display()));
    command.arg("-cp").arg(format!("{}:{}/*", first.display(), jars.display()));
    Ok(command)
}

/// A JVM of this heap.
pub(crate) fn jvm(heap: &str) -> Result<Command> {
    // To ask which version it is takes a JVM of its own.
    static JAVA: OnceLock<Result<PathBuf>> = OnceLock::new();
    let program = JAVA.get_or_init(machine::java).as_ref().map_err(Clone::clone)?;
    let mut command = Command::new(program);
    command.args(["-Xms32m", "-Xss512k", "-XX:+UseSerialGC", "-XX:-UsePerfData"]).arg(format!("-Xmx{heap}"));
    Ok(command)
}
