//! Kafka without ZooKeeper: one to three servers, each broker and controller at once.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::jars::{Jars, java, jvm};
use crate::server::{Kind, Place};
use crate::services::number;
use crate::wait::Interrupt;
use crate::{Error, Result, Server, Service, Services};

pub(crate) const JARS: Jars = Jars { name: "kafka", pom: include_str!("../kafka/pom.xml") };

const NAME: &str = "kafka";

/// 16 bytes in base64 for URLs.
const CLUSTER: &str = "WeirServicesAAAAAAAAAA";

/// The brokers of one cluster. A topic has as many replicas as there are brokers, but one with two.
#[derive(Debug)]
pub struct Kafka {
    host: Ipv4Addr,
    ports: Vec<u16>,
    brokers: Vec<Server>,
}

impl Kafka {
    pub(crate) fn in_services(services: &Services, brokers: Option<u16>) -> Result<Self> {
        let asked = number(brokers, 0, "brokers", NAME)?;
        let names = || (1..=asked).flat_map(|n| [format!("broker-{n}"), format!("controller-{n}")]).collect();
        let ports = services.ports(NAME, names)?;
        let brokers = number(brokers, ports.count("broker-"), "brokers", NAME)?;
        let numbers =
            |what: &str| (1..=brokers).map(|n| ports.get(&format!("{what}-{n}"))).collect::<Result<Vec<_>>>();
        let (ports, controllers) = (numbers("broker")?, numbers("controller")?);
        let broker = |(n, port): (u16, &u16)| {
            let kind = Broker { n, port: *port, controllers: controllers.clone() };
            Server::new(
                format!("Kafka broker {n}"),
                services.place(NAME, &n.to_string()),
                services.lock(),
                kind,
            )
        };
        let brokers = (1..).zip(&ports).map(broker).collect();
        Ok(Self { host: services.host(), ports, brokers })
    }

    /// The broker with this number, from 1.
    pub fn broker(&self, n: u16) -> Result<&Server> {
        let broker = usize::from(n).checked_sub(1).and_then(|n| self.brokers.get(n));
        broker.ok_or_else(|| Error::new(format!("there is no broker {n}: there are {}", self.brokers.len())))
    }
}

impl Service for Kafka {
    fn name(&self) -> &'static str {
        NAME
    }

    fn variable(&self) -> &'static str {
        "WEIR_TEST_KAFKA"
    }

    /// `host:port` of each broker, with commas.
    fn address(&self) -> String {
        self.ports.iter().map(|port| format!("{}:{port}", self.host)).collect::<Vec<_>>().join(",")
    }

    fn servers(&self) -> Vec<&Server> {
        self.brokers.iter().collect()
    }
}

/// A command that runs a program of one file of Java with the client that comes with Kafka; the program's arguments are to
/// follow. It takes a Java that has its compiler, as Debian's runtime without a screen does.
pub fn kafka_client(program: &Path) -> Result<Command> {
    let mut command = jvm("256m")?;
    command.arg("-cp").arg(format!("{}/*", JARS.fetch(&Interrupt::default())?.display())).arg(program);
    Ok(command)
}

#[derive(Debug)]
struct Broker {
    n: u16,
    port: u16,
    /// Of all brokers.
    controllers: Vec<u16>,
}

impl Broker {
    fn controller(&self) -> u16 {
        self.controllers[usize::from(self.n) - 1]
    }

    fn java(&self, place: &Place, heap: &str) -> Result<Command> {
        java(place, heap, &place.dir, &JARS.fetch(&place.interrupt)?)
    }

    fn properties(&self, place: &Place) -> String {
        let host = place.host;
        let voters: Vec<String> =
            self.controllers.iter().zip(1..).map(|(port, n)| format!("{n}@{host}:{port}")).collect();
        let (replicas, in_sync) = if self.controllers.len() == 3 { (3, 2) } else { (1, 1) };
        let (n, port, controller) = (self.n, self.port, self.controller());
        format!(
            "\
process.roles=broker,controller
node.id={n}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
# Each partition of these costs time at every start; the default is 50.
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
# A broker that was killed may come back only when its old session is over; the default is 9 s.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
# How often it is looked for transactions that took too long; the default is 10 s.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
auto.create.topics.enable=false
log.retention.ms=-1
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
",
            voters = voters.join(","),
            data = data(place).display(),
        )
    }
}

impl Kind for Broker {
    fn ports(&self) -> Vec<u16> {
        vec![self.port, self.controller()]
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        place.write("log4j2.properties", include_str!("../kafka/log4j2.properties"))?;
        let own = place.settings().into_iter().map(|(name, value)| format!("{name}={value}\n"));
        // The last of a name counts.
        let properties: String = std::iter::once(self.properties(place)).chain(own).collect();
        place.write("server.properties", &properties)?;
        place.make_once(&data(place), || {
            let mut format = self.java(place, "256m")?;
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]);
            place.run(format)
        })
    }

    fn command(&self, place: &Place) -> Result<Command> {
        // Ten thousand partitions take more than half a gigabyte: short of it, it collects garbage until its session is over.
        let mut command = self.java(place, "1536m")?;
        command.args(["kafka.Kafka", "server.properties"]);
        Ok(command)
    }

    /// It says so when it has left its own quarantine and takes clients; the port is open before that.
    fn is_ready(&self, place: &Place) -> bool {
        place.log_since_start().contains("Kafka Server started")
    }
}

fn data(place: &Place) -> PathBuf {
    place.dir.join("data")
}
