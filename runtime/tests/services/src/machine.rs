//! What the machine has of what the servers need: Java, Maven, PostgreSQL and PgBouncer. Nothing is installed here; what is missing is
//! told, with the command that gets it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, Result};

const OLDEST_JAVA: u32 = 17;
const OLDEST_POSTGRES: u32 = 15;

const INSTALL: &str = "apt-get install -y --no-install-recommends";

/// One line for each thing that is missing, which ends in the command that installs it on Debian 12.
pub fn missing() -> Vec<String> {
    [java(), maven(), postgres(), pgbouncer()]
        .into_iter()
        .filter_map(|found| found.err().map(|error| error.to_string()))
        .collect()
}

/// The program `java`.
pub(crate) fn java() -> Result<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let candidates = home.into_iter().chain(on_path("java"));
    found(candidates, "-version", OLDEST_JAVA).ok_or_else(|| {
        Error::new(format!(
            "Java {OLDEST_JAVA} or newer, for Kafka and HDFS: {INSTALL} openjdk-17-jre-headless"
        ))
    })
}

/// The program `mvn`.
pub(crate) fn maven() -> Result<PathBuf> {
    let missing = || Error::new(format!("Maven, which fetches Kafka and HDFS: {INSTALL} maven"));
    on_path("mvn").next().ok_or_else(missing)
}

/// The directory with `postgres` and `initdb`: the newest of Debian's, or else what is on the path.
pub(crate) fn postgres() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin/postgres")))
        })
        .collect();
    debian.sort();
    let candidates = debian.into_iter().rev().map(|(_, program)| program).chain(on_path("postgres"));
    let whole = candidates.filter(|program| program.with_file_name("initdb").is_file());
    let program = found(whole, "--version", OLDEST_POSTGRES);
    let dir = program.and_then(|program| program.parent().map(Path::to_owned));
    dir.ok_or_else(|| {
        Error::new(format!("the server of PostgreSQL {OLDEST_POSTGRES} or newer: {INSTALL} postgresql"))
    })
}

/// The program `pgbouncer`. Debian has it where only root looks.
pub(crate) fn pgbouncer() -> Result<PathBuf> {
    let mut candidates = on_path("pgbouncer").chain([PathBuf::from("/usr/sbin/pgbouncer")]);
    let program = candidates.find(|program| program.is_file());
    program.ok_or_else(|| Error::new(format!("PgBouncer, a pooler for PostgreSQL: {INSTALL} pgbouncer")))
}

/// The first that is not older than this.
fn found(candidates: impl Iterator<Item = PathBuf>, ask: &str, oldest: u32) -> Option<PathBuf> {
    let mut candidates = candidates.filter(|program| program.is_file());
    candidates.find(|program| {
        let Ok(answer) = Command::new(program).arg(ask).output() else { return false };
        // Java says it on the error output.
        let text = [answer.stdout, answer.stderr].concat();
        version(&String::from_utf8_lossy(&text)).is_some_and(|version| version >= oldest)
    })
}

/// The first number in what a program says of its version.
fn version(text: &str) -> Option<u32> {
    let digits = &text[text.find(|c: char| c.is_ascii_digit())?..];
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

fn on_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = env::split_paths(&path).map(|dir| dir.join(program)).collect();
    candidates.into_iter().filter(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number_that_is_told() {
        for (text, expected) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment", Some(17)),
            ("openjdk version \"1.8.0_402\"", Some(1)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("no such thing", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
