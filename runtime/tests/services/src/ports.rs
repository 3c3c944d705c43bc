//! Ports that nobody else uses: chosen once, then kept in a file, so that a server comes back where it was.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::error::Doing;
use crate::{Error, Result};

/// Below it are ports that well-known programs use.
const LOWEST: u16 = 10_000;

/// Ports by what they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// As written down in `file`; `None` if there is none yet.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
        let parse = |line: &str| {
            let (name, port) = line.split_once(' ')?;
            Some((name.to_owned(), port.parse().ok()?))
        };
        let ports: Option<_> = text.lines().map(parse).collect();
        ports
            .map(|ports| Some(Self(ports)))
            .ok_or_else(|| Error::new(format!("{} is damaged", file.display())))
    }

    /// Chooses one for each of `names` and writes them to `file`, whole or not at all.
    pub(crate) fn choose(file: &Path, host: Ipv4Addr, names: &[String]) -> Result<Self> {
        let free = free(host, names.len())?;
        let ports = Self(names.iter().cloned().zip(free).collect());
        let text: String = ports.0.iter().map(|(name, port)| format!("{name} {port}\n")).collect();
        let temp = file.with_extension("new");
        fs::write(&temp, text)
            .and_then(|()| fs::rename(&temp, file))
            .doing(|| format!("write {}", file.display()))?;
        Ok(ports)
    }

    pub(crate) fn get(&self, name: &str) -> Result<u16> {
        self.0.get(name).copied().ok_or_else(|| Error::new(format!("no port was chosen for {name}")))
    }

    /// How many of the names begin so.
    pub(crate) fn count(&self, prefix: &str) -> u16 {
        u16::try_from(self.0.keys().filter(|name| name.starts_with(prefix)).count()).unwrap_or(u16::MAX)
    }
}

pub(crate) fn is_free(host: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

/// Not from the range that the system gives to clients: while a server is down, one of its own clients could get its port.
fn free(host: Ipv4Addr, count: usize) -> Result<Vec<u16>> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let clients_from = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let highest = if clients_from > LOWEST + 1_000 { clients_from } else { u16::MAX };
    let span = u64::from(highest - LOWEST);
    // Two programs that choose at the same time shall not look at the same ports.
    let begin = RandomState::new().hash_one(0) % span;
    let candidates =
        (0..span).map(|step| LOWEST + u16::try_from((begin + step) % span).expect("below the span"));
    let free: Vec<u16> = candidates.filter(|port| is_free(host, *port)).take(count).collect();
    if free.len() < count {
        return Err(Error::new(format!("fewer than {count} ports are free on {host}")));
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_once_chosen_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports");
        assert_eq!(Ports::read(&file).unwrap(), None);
        let names = ["a-1".to_owned(), "a-2".to_owned(), "b".to_owned()];
        let chosen = Ports::choose(&file, Ipv4Addr::LOCALHOST, &names).unwrap();
        assert_eq!(Ports::read(&file).unwrap().as_ref(), Some(&chosen));
        assert_eq!(chosen.count("a-"), 2);
        let mut distinct: Vec<u16> = chosen.0.into_values().collect();
        distinct.dedup();
        assert_eq!(distinct.len(), 3);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_chosen() {
        let first = free(Ipv4Addr::LOCALHOST, 1).unwrap()[0];
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(Ipv4Addr::LOCALHOST, first));
        drop(taken);
        assert!(is_free(Ipv4Addr::LOCALHOST, first));
    }

    #[test]
    fn damaged_ports_are_told_and_not_chosen_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports");
        fs::write(&file, "a-1 many\n").unwrap();
        assert!(Ports::read(&file).unwrap_err().to_string().ends_with("ports is damaged"));
    }
}
