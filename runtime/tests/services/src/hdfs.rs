//! HDFS: a NameNode and one to three DataNodes, each a process of its own, so that each can be killed by itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::error::Doing;
use crate::jars::{Jars, java};
use crate::server::{Kind, Place, end_of};
use crate::services::number;
use crate::{Error, Result, Server, Service, Services};

pub(crate) const JARS: Jars = Jars { name: "hdfs", pom: include_str!("../hdfs/pom.xml") };

const NAME: &str = "hdfs";

/// For a running server to answer at all.
const ANSWER: Duration = Duration::from_secs(2);

/// An HDFS. Its superuser is the user who started the NameNode. A file has two replicas, if there are DataNodes for that.
#[derive(Debug)]
pub struct Hdfs {
    port: u16,
    http: u16,
    namenode: Server,
    datanodes: Vec<Server>,
    /// Of the NameNode.
    place: Place,
}

impl Hdfs {
    pub(crate) fn in_services(services: &Services, datanodes: Option<u16>) -> Result<Self> {
        let asked = number(datanodes, 0, "DataNodes", NAME)?;
        let names = || {
            let datanode = |n| ["data", "http", "ipc"].map(|what| format!("{what}-{n}"));
            ["namenode", "namenode-http"]
                .map(str::to_owned)
                .into_iter()
                .chain((1..=asked).flat_map(datanode))
                .collect()
        };
        let ports = services.ports(NAME, names)?;
        let count = number(datanodes, ports.count("data-"), "DataNodes", NAME)?;
        let (port, http) = (ports.get("namenode")?, ports.get("namenode-http")?);
        let site = Site { namenode: port, replicas: count.min(2) };
        let place = services.place(NAME, "namenode");
        let kind = NameNode { site, port, http };
        let namenode = Server::new("HDFS NameNode".to_owned(), place.clone(), services.lock(), kind);
        let datanode = |n: u16| {
            let port = |what: &str| ports.get(&format!("{what}-{n}"));
            let kind = DataNode { site, data: port("data")?, http: port("http")?, ipc: port("ipc")? };
            let place = services.place(NAME, &format!("datanode-{n}"));
            Ok(Server::new(format!("HDFS DataNode {n}"), place, services.lock(), kind))
        };
        Ok(Self { port, http, namenode, datanodes: (1..=count).map(datanode).collect::<Result<_>>()?, place })
    }

    /// `hdfs://host:port`, the same as the address.
    pub fn url(&self) -> String {
        format!("hdfs://{}:{}", self.place.host, self.port)
    }

    /// It is ready as soon as it answers, be it in safe mode. [`Service::wait_ready`] waits for the end of that.
    pub fn namenode(&self) -> &Server {
        &self.namenode
    }

    /// The DataNode with this number, from 1. It is ready when it has told the NameNode which blocks it has.
    pub fn datanode(&self, n: u16) -> Result<&Server> {
        let datanode = usize::from(n).checked_sub(1).and_then(|n| self.datanodes.get(n));
        datanode.ok_or_else(|| {
            Error::new(format!("there is no DataNode {n}: there are {}", self.datanodes.len()))
        })
    }

    /// What Hadoop's own client prints for a command, such as `["-ls", "/"]`. It takes seconds: a JVM for each.
    pub fn fs(&self, arguments: &[&str]) -> Result<String> {
        self.client("org.apache.hadoop.fs.FsShell", arguments)
    }

    /// What Hadoop's tool for administrators prints for a command, such as `["-safemode", "enter"]`. It takes seconds, too.
    pub fn admin(&self, arguments: &[&str]) -> Result<String> {
        self.client("org.apache.hadoop.hdfs.tools.DFSAdmin", arguments)
    }

    fn client(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut command = java(&self.place, "256m", &conf(&self.place), &JARS.fetch(&self.place.interrupt)?)?;
        command.arg(class).args(arguments).env_remove("HADOOP_USER_NAME");
        let output = command.output().doing(|| format!("run {class}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => {
                let end = text(&output.stderr);
                Err(Error::new(format!("{class} {arguments:?} failed:\n{}", end_of(&end))))
            }
        }
    }

    /// Whether the NameNode is out of safe mode and knows all DataNodes. One that was killed it knows for 12 s more.
    fn is_whole(&self) -> bool {
        let safe_mode =
            jmx(self.place.host, self.http, "NameNode", "NameNodeInfo").map(|info| info["Safemode"] == "");
        let known = jmx(self.place.host, self.http, "NameNode", "FSNamesystemState")
            .and_then(|state| state["NumLiveDataNodes"].as_u64());
        safe_mode == Some(true) && known.is_some_and(|known| known >= self.datanodes.len() as u64)
    }
}

impl Service for Hdfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn variable(&self) -> &'static str {
        "WEIR_TEST_HDFS"
    }

    fn address(&self) -> String {
        self.url()
    }

    fn servers(&self) -> Vec<&Server> {
        std::iter::once(&self.namenode).chain(&self.datanodes).collect()
    }

    fn wait_ready(&self) -> Result<()> {
        self.servers().iter().try_for_each(|server| server.wait_ready())?;
        self.namenode.wait_until(|| Ok(self.is_whole()))
    }
}

/// What all of them are told.
#[derive(Debug, Clone, Copy)]
struct Site {
    namenode: u16,
    replicas: u16,
}

impl Site {
    /// Writes the configuration of one server, which is the common one and `own`.
    fn write(self, place: &Place, own: &[(&str, String)]) -> Result<()> {
        let conf = conf(place);
        // The jars hold no web pages, and the servers want only that the directories are there.
        for pages in ["hdfs", "datanode", "static", "secondary"] {
            let pages = conf.join("webapps").join(pages).join("WEB-INF");
            fs::create_dir_all(&pages).doing(|| format!("make {}", pages.display()))?;
        }
        place.write("conf/log4j.properties", include_str!("../hdfs/log4j.properties"))?;
        let address = format!("{}:{}", place.host, self.namenode);
        let core = [
            ("fs.defaultFS", format!("hdfs://{address}")),
            ("hadoop.tmp.dir", place.temp().display().to_string()),
            ("hadoop.security.token.service.use_ip", "true".to_owned()),
        ];
        place.write("conf/core-site.xml", &xml(&core))?;
        let common = [
            ("dfs.namenode.rpc-address", address),
            ("dfs.replication", self.replicas.to_string()),
            ("dfs.namenode.handler.count", "4".to_owned()),
            ("dfs.namenode.safemode.extension", "0".to_owned()),
            ("dfs.namenode.datanode.registration.ip-hostname-check", "false".to_owned()),
            // A lost DataNode is noticed in seconds, not in minutes.
            ("dfs.heartbeat.interval", "1".to_owned()),
            ("dfs.namenode.heartbeat.recheck-interval", "1000".to_owned()),
            ("dfs.namenode.stale.datanode.interval", "3000".to_owned()),
            ("dfs.namenode.lease-recheck-interval-ms", "500".to_owned()),
            ("dfs.namenode.redundancy.interval.seconds", "1s".to_owned()),
            // Tests want files of many blocks that are small.
            ("dfs.namenode.fs-limits.min-block-size", "1024".to_owned()),
            ("dfs.blockreport.initialDelay", "0".to_owned()),
            ("dfs.datanode.handler.count", "2".to_owned()),
            ("dfs.datanode.du.reserved", "0".to_owned()),
            ("dfs.disk.balancer.enabled", "false".to_owned()),
        ];
        let told = place.settings();
        // The last of a name counts.
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        place.write("conf/hdfs-site.xml", &xml(&[&common, own, &told].concat()))
    }
}

#[derive(Debug)]
struct NameNode {
    site: Site,
    port: u16,
    http: u16,
}

impl NameNode {
    fn java(place: &Place) -> Result<Command> {
        let mut command = java(place, "256m", &conf(place), &JARS.fetch(&place.interrupt)?)?;
        command.arg("org.apache.hadoop.hdfs.server.namenode.NameNode");
        Ok(command)
    }
}

impl Kind for NameNode {
    fn ports(&self) -> Vec<u16> {
        vec![self.port, self.http]
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        let data = place.dir.join("data");
        self.site.write(
            place,
            &[
                ("dfs.namenode.http-address", format!("{}:{}", place.host, self.http)),
                ("dfs.namenode.name.dir", url(&data)),
            ],
        )?;
        place.make_once(&data, || {
            let mut format = Self::java(place)?;
            format.args(["-format", "-nonInteractive", "-clusterid", "weir-services"]);
            place.run(format)
        })
    }

    fn command(&self, place: &Place) -> Result<Command> {
        Self::java(place)
    }

    fn is_ready(&self, place: &Place) -> bool {
        TcpStream::connect_timeout(&(place.host, self.port).into(), ANSWER).is_ok()
            && jmx(place.host, self.http, "NameNode", "NameNodeInfo")
                .is_some_and(|info| info["Safemode"].is_string())
    }
}

#[derive(Debug)]
struct DataNode {
    site: Site,
    data: u16,
    http: u16,
    ipc: u16,
}

impl Kind for DataNode {
    fn ports(&self) -> Vec<u16> {
        vec![self.data, self.http, self.ipc]
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        self.site.write(
            place,
            &[
                ("dfs.datanode.data.dir", url(&place.dir.join("data"))),
                ("dfs.datanode.address", format!("{}:{}", place.host, self.data)),
                ("dfs.datanode.http.address", format!("{}:{}", place.host, self.http)),
                ("dfs.datanode.ipc.address", format!("{}:{}", place.host, self.ipc)),
            ],
        )
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = java(place, "192m", &conf(place), &JARS.fetch(&place.interrupt)?)?;
        command.arg("org.apache.hadoop.hdfs.server.datanode.DataNode");
        Ok(command)
    }

    /// Asked of the DataNode itself: the NameNode counts one that was killed for a while.
    fn is_ready(&self, place: &Place) -> bool {
        jmx(place.host, self.http, "DataNode", "DataNodeInfo").is_some_and(|info| is_registered(&info))
            && place.log_since_start().contains("Successfully sent block report")
    }
}

fn is_registered(info: &Value) -> bool {
    // JSON in a string of the JSON.
    let actors =
        info["BPServiceActorInfo"].as_str().and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    actors.is_some_and(|actors| {
        !actors.is_empty() && actors.iter().all(|actor| actor["ActorState"] == "RUNNING")
    })
}

fn conf(place: &Place) -> PathBuf {
    place.dir.join("conf")
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Hadoop's form of properties. No value has a character that XML would mind: paths are checked, the rest is ours.
fn xml(properties: &[(&str, String)]) -> String {
    let lines = properties
        .iter()
        .map(|(name, value)| format!("<property><name>{name}</name><value>{value}</value></property>\n"));
    format!("<configuration>\n{}</configuration>\n", lines.collect::<String>())
}

/// One of the things that a Hadoop server tells of itself; `None` if it does not answer.
fn jmx(host: Ipv4Addr, port: u16, service: &str, name: &str) -> Option<Value> {
    let path = format!("/jmx?qry=Hadoop:service={service},name={name}");
    let mut stream = TcpStream::connect_timeout(&(host, port).into(), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    // In this version of HTTP the answer ends where the connection does.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mut answer: Value = serde_json::from_str(body).ok()?;
    Some(answer.get_mut("beans")?.get_mut(0)?.take())
}
