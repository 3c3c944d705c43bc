//! From what a file says of the directory of a file sink to what it means. It looks at no disk and at no cluster. A URL may
//! hold the value of a variable, so no complaint shows more of it than its scheme.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::diagnostic::Diagnostic;
use super::file::{FileSink, Property};
use super::resolve::Resolver;
use super::{Complaint, nearest};

/// What all files of a sink are below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A directory on the local disk.
    Disk(PathBuf),
    /// A directory in HDFS.
    Hdfs(HdfsRoot),
}

/// A directory in HDFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HdfsRoot {
    /// `hdfs://host:port` or `hdfs://service`.
    pub cluster: String,
    /// An absolute path, not of the root.
    pub directory: String,
    /// Settings of Hadoop's clients, each of which means something.
    pub properties: BTreeMap<String, String>,
}

impl Root {
    /// Whether files of both lie side by side.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Disk(one), Self::Disk(other)) => one == other,
            (Self::Hdfs(one), Self::Hdfs(other)) => {
                (&one.cluster, &one.directory) == (&other.cluster, &other.directory)
            }
            _ => false,
        }
    }
}

/// The URLs there are.
const EXAMPLE: &str = "such as \"hdfs://namenode:8020/lake\" or \"file:///data/lake\"; a directory relative to this file is a `path`";

/// Settings of Hadoop's clients that mean something here. One that ends with a point goes on with the name of a service.
const PROPERTIES: [&str; 17] = [
    "dfs.replication",
    "dfs.blocksize",
    "dfs.client.socket-timeout",
    "dfs.client.use.datanode.hostname",
    "dfs.client.block.write.replace-datanode-on-failure.enable",
    "dfs.client.block.write.replace-datanode-on-failure.policy",
    "dfs.client.block.write.replace-datanode-on-failure.best-effort",
    "dfs.client.failover.max.attempts",
    "dfs.client.failover.sleep.base.millis",
    "dfs.client.failover.sleep.max.millis",
    "dfs.client.failover.random.order.",
    "dfs.client.failover.resolve-needed.",
    "dfs.client.failover.resolver.useFQDN.",
    "dfs.data.transfer.protection",
    "dfs.ha.namenodes.",
    "dfs.namenode.rpc-address.",
    "hadoop.security.authentication",
];

/// Those that are numbers, and the least and most of each.
const NUMBERS: [(&str, u64, u64); 6] = [
    ("dfs.replication", 1, 512),
    ("dfs.blocksize", 1024, 1 << 40),
    ("dfs.client.socket-timeout", 1, 3_600_000),
    ("dfs.client.failover.max.attempts", 0, 1_000),
    ("dfs.client.failover.sleep.base.millis", 0, 3_600_000),
    ("dfs.client.failover.sleep.max.millis", 0, 3_600_000),
];

impl Resolver<'_> {
    /// The directory of sink `name`.
    pub(super) fn root(&mut self, name: &str, sink: &mut FileSink) -> Option<Root> {
        let table = ["sinks", name, "files"];
        let properties = std::mem::take(&mut sink.properties);
        let root = match (&sink.path, &sink.url) {
            (Some(path), None) => {
                Some(Root::Disk(self.base.join(self.expand(&["sinks", name, "files", "path"], path))))
            }
            (None, Some(url)) => {
                let place = ["sinks", name, "files", "url"];
                let so_far = self.found.len();
                let url = self.expand(&place, url);
                if self.found.len() > so_far {
                    return None;
                }
                parse(&url).map_err(|complaint| self.complain(&place, complaint)).ok()
            }
            (both, _) => {
                let has = if both.is_some() { "both `path` and `url`" } else { "neither `path` nor `url`" };
                let help = "`path` is a directory relative to this file, `url` is hdfs://namenode:8020/directory or file:///absolute/path";
                self.report(&table, format!("[sinks.{name}.files] has {has}"), Some(help.to_owned()));
                None
            }
        };
        match root {
            Some(Root::Hdfs(root)) => {
                let properties = self.properties(name, properties);
                Some(Root::Hdfs(HdfsRoot { properties, ..root }))
            }
            Some(Root::Disk(_)) if !properties.is_empty() => {
                let message = format!("[sinks.{name}.files] has `properties`, which are for HDFS alone");
                self.report(&["sinks", name, "files", "properties"], message, None);
                root
            }
            root => root,
        }
    }

    fn properties(&mut self, name: &str, written: BTreeMap<String, Property>) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (key, value) in written {
            let value = match value {
                Property::Text(text) => text,
                Property::Integer(integer) => integer.to_string(),
                Property::Boolean(boolean) => boolean.to_string(),
            };
            let place = ["sinks", name, "files", "properties", &key];
            if let Some(Complaint { message, help }) = unknown(&key) {
                let place = self.document.key(&place);
                self.found.push(Diagnostic::error(place, message).maybe_help(help));
            } else if let Some(complaint) = no_number(&key, &value) {
                self.complain(&place, complaint);
            }
            properties.insert(key, value);
        }
        properties
    }
}

/// What is wrong with the name of a setting of Hadoop's clients, if anything is.
fn unknown(key: &str) -> Option<Complaint> {
    if key.starts_with("dfs.client.failover.proxy.provider.") {
        let message = format!("`{key}` is not for this file to say");
        return Some(Complaint::new(message, "reads go to the active NameNode: an observer may lag behind"));
    }
    let is = |name: &str| key.strip_prefix(name).is_some_and(|rest| name.ends_with('.') != rest.is_empty());
    let message = format!("`{key}` is no setting of Hadoop's clients that means something here");
    let known = PROPERTIES.iter().any(|name| is(name));
    (!known).then(|| Complaint { message, help: nearest::hint(key, PROPERTIES) })
}

/// What is wrong with the value of one that is a number, if anything is.
fn no_number(key: &str, value: &str) -> Option<Complaint> {
    let (_, least, most) = NUMBERS.iter().find(|(name, ..)| *name == key)?;
    let number = value.parse::<u64>().ok().filter(|n| (least..=most).contains(&n));
    let message = format!("`{key}` must be a whole number from {least} to {most}");
    number.is_none().then_some(Complaint { message, help: None })
}

fn parse(url: &str) -> Result<Root, Complaint> {
    match url.split_once("://") {
        Some(("file" | "hdfs", path)) if path.contains(['%', '?', '#']) => {
            Err(Complaint::new("the URL has characters with a second meaning (%, ?, #)", EXAMPLE))
        }
        Some(("file", path)) if path.starts_with('/') => Ok(Root::Disk(PathBuf::from(path))),
        Some(("file", _)) => Err(Complaint::new("the file URL is not absolute", EXAMPLE)),
        Some(("hdfs", rest)) => hdfs(rest).map(Root::Hdfs),
        _ => Err(Complaint::new("not a URL that a file sink knows", EXAMPLE)),
    }
}

fn hdfs(rest: &str) -> Result<HdfsRoot, Complaint> {
    let wrong = |what: &str| Err(Complaint::new(what, EXAMPLE));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        let help = "the user is $HADOOP_USER_NAME, or who has the Kerberos ticket";
        return Err(Complaint::new("the HDFS URL names a user", help));
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return wrong("the HDFS URL does not say which NameNode or service");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong("the port in the HDFS URL is not a number up to 65535");
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return wrong("the HDFS URL names no directory below the root");
    }
    if path.split('/').any(|part| ["", ".", ".."].contains(&part) || part.contains([':', '\\'])) {
        return wrong(
            "the HDFS URL has a part that HDFS does not take (empty, `.`, `..`, or with `:` or `\\`)",
        );
    }
    let (cluster, directory) = (format!("hdfs://{authority}"), format!("/{path}"));
    Ok(HdfsRoot { cluster, directory, properties: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_which_cluster_and_which_directory() {
        for (url, cluster, directory) in [
            ("hdfs://namenode:8020/lake", "hdfs://namenode:8020", "/lake"),
            ("hdfs://prod-ha/data/lake/", "hdfs://prod-ha", "/data/lake"),
        ] {
            let root = HdfsRoot {
                cluster: cluster.into(),
                directory: directory.into(),
                properties: BTreeMap::new(),
            };
            assert_eq!(parse(url), Ok(Root::Hdfs(root)));
        }
        assert_eq!(parse("file:///a/b"), Ok(Root::Disk("/a/b".into())));
    }

    #[test]
    fn a_url_that_says_too_little_or_too_much_is_refused() {
        for (url, what) in [
            ("s3://bucket/a", "not a URL that a file sink knows"),
            ("lake", "not a URL that a file sink knows"),
            ("file://lake", "the file URL is not absolute"),
            ("hdfs://nn:8020/a%20b", "the URL has characters with a second meaning (%, ?, #)"),
            ("hdfs:///lake", "the HDFS URL does not say which NameNode or service"),
            ("hdfs://[::1]:8020/lake", "the HDFS URL does not say which NameNode or service"),
            ("hdfs://nn:port/lake", "the port in the HDFS URL is not a number up to 65535"),
            ("hdfs://ann@nn:8020/lake", "the HDFS URL names a user"),
            ("hdfs://nn:8020", "the HDFS URL names no directory below the root"),
            ("hdfs://nn:8020//", "the HDFS URL names no directory below the root"),
            (
                "hdfs://nn:8020/a//b",
                "the HDFS URL has a part that HDFS does not take (empty, `.`, `..`, or with `:` or `\\`)",
            ),
            (
                "hdfs://nn:8020/a/../b",
                "the HDFS URL has a part that HDFS does not take (empty, `.`, `..`, or with `:` or `\\`)",
            ),
        ] {
            assert_eq!(parse(url).unwrap_err().message, what, "{url}");
        }
    }

    #[test]
    fn a_property_is_known_and_has_a_value_that_it_can_have() {
        for key in ["dfs.replication", "dfs.ha.namenodes.prod", "hadoop.security.authentication"] {
            assert_eq!(unknown(key), None);
        }
        assert_eq!(unknown("dfs.replicaton").unwrap().help.unwrap(), "did you mean `dfs.replication`?");
        assert!(unknown("dfs.ha.namenodes.").is_some() && unknown("dfs.replication.x").is_some());
        let provider = unknown("dfs.client.failover.proxy.provider.prod").unwrap();
        assert!(provider.help.unwrap().contains("observer"));
        assert_eq!(
            (no_number("dfs.replication", "2"), no_number("dfs.ha.namenodes.prod", "a,b")),
            (None, None)
        );
        let told = no_number("dfs.replication", "0").unwrap();
        assert_eq!(told.message, "`dfs.replication` must be a whole number from 1 to 512");
    }
}
