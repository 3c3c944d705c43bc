//! Processes on hosts of their own, and a cable that is cut. A host is a network namespace; the one of the servers also has
//! the bridge that all cables lead to. It takes root and `ip`, and nothing of it is seen outside of the namespaces.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

use weir::sink::state::Nonce;
use weir_services::{Service, Services};

use crate::group::{FILE_NAME, Pipeline};

/// Names the network to a test that runs on the host of its servers.
const INSIDE: &str = "WEIR_TEST_NETWORK";

/// Where the servers are. The others have the addresses from 10.77.0.1.
const SERVERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

const HOSTS: [u8; 3] = [1, 2, 3];

const PARTITIONS: u16 = 9;

/// Hosts, each with a cable to that of the servers.
struct Network {
    name: String,
}

/// One that is gone when this is dropped.
struct Own(Network);

impl Own {
    fn new() -> Self {
        let own = Self(Network { name: format!("weir-{}", Nonce::random().short()) });
        let network = &own.0;
        let servers = network.servers();
        ip(&format!("netns add {servers}"));
        ip(&format!("-n {servers} link set lo up"));
        ip(&format!("-n {servers} link add bridge type bridge"));
        ip(&format!("-n {servers} address add {SERVERS}/24 dev bridge"));
        ip(&format!("-n {servers} link set bridge up"));
        for n in HOSTS {
            let host = network.host(n);
            ip(&format!("netns add {host}"));
            ip(&format!("-n {host} link set lo up"));
            ip(&format!("-n {servers} link add cable{n} type veth peer name eth0 netns {host}"));
            ip(&format!("-n {servers} link set cable{n} master bridge up"));
            ip(&format!("-n {host} address add 10.77.0.{n}/24 dev eth0"));
            ip(&format!("-n {host} link set eth0 up"));
        }
        own
    }

    /// Runs a test of this program by itself on the host of the servers.
    fn run(&self, test: &str) {
        let output = on(&self.0.servers(), env::current_exe().unwrap().to_str().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, &self.0.name)
            .output()
            .unwrap();
        let text = text(&output);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

impl Network {
    fn servers(&self) -> String {
        format!("{}-servers", self.name)
    }

    fn host(&self, n: u8) -> String {
        format!("{}-{n}", self.name)
    }

    /// Pulls the cable of a host, as at the other end of it, or plugs it in again.
    fn plug(&self, n: u8, how: &str) {
        ip(&format!("-n {} link set cable{n} {how}", self.servers()));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for host in HOSTS.map(|n| self.0.host(n)).into_iter().chain([self.0.servers()]) {
            // One that was never made is told, and that is all.
            drop(Command::new("ip").args(["netns", "delete", &host]).output());
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("it takes the program ip, of iproute2: {error}"));
    assert!(output.status.success(), "ip {words}: {} (it takes root)", text(&output));
}

/// A program on a host.
fn on(host: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, program]);
    command
}

fn replaced(text: &str, there: &str, by: &str) -> String {
    assert!(text.contains(there), "{there} is not in it: {text}");
    text.replace(there, by)
}

fn text(output: &Output) -> String {
    [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_process_whose_cable_is_cut_is_done_without_and_goes_on_by_itself_and_every_record_arrives_once() {
    match env::var(INSIDE) {
        Ok(name) => cut_and_mend(&Network { name }),
        Err(_) => Own::new().run(
            "network::a_process_whose_cable_is_cut_is_done_without_and_goes_on_by_itself_and_every_record_arrives_once",
        ),
    }
}

fn cut_and_mend(network: &Network) {
    let services = Services::temporary_at(SERVERS).unwrap();
    let (kafka, postgres) = (services.kafka().unwrap(), services.postgres().unwrap());
    let hdfs = services.hdfs().unwrap();
    let servers: [&dyn Service; 3] = [&kafka, &postgres, &hdfs];
    servers.iter().for_each(|server| server.start().unwrap());
    servers.iter().for_each(|server| server.wait_ready().unwrap());

    let mut pipeline = Pipeline::on(kafka.address(), postgres.address(), PARTITIONS);
    let file = fs::read_to_string(pipeline.path(FILE_NAME)).unwrap();
    let lake = replaced(&file, "path = \"out\"", &format!("url = \"{}/out\"", hdfs.url()));
    // On another machine it would have to prove its name.
    let lake = replaced(&lake, "[sinks.base.postgres]", "[sinks.base.postgres]\ntls = \"disable\"");
    let files = HOSTS.map(|n| format!("pipeline-{n}.toml"));
    for (n, name) in HOSTS.iter().zip(&files) {
        let own = replaced(&lake, "state = \"state\"", &format!("state = \"state-{n}\""));
        fs::write(pipeline.path(name), own).unwrap();
    }
    let partitions = usize::from(PARTITIONS);

    let weir = env!("CARGO_BIN_EXE_weir");
    let processes = [0, 1, 2].map(|i| pipeline.start_by(on(&network.host(HOSTS[i]), weir), &files[i]));
    pipeline.wait_until_shared(&files, partitions);
    pipeline.send(20_000, &[]);
    pipeline.wait_for(5_000);
    network.plug(HOSTS[0], "down");
    pipeline.send(20_000, &[]);
    // Its partitions go to the others once it was missed for longer than its session lasts, and not before.
    pipeline.wait_for(40_000);
    pipeline.wait_until_shared(&files[1..], partitions);
    network.plug(HOSTS[0], "up");
    pipeline.send(20_000, &[]);
    pipeline.wait_until_shared(&files, partitions);
    pipeline.send(20_000, &[]);
    pipeline.wait_for(80_000);
    for process in processes {
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    }
    hdfs.fs(&["-get", "/out", pipeline.path("out").to_str().unwrap()]).unwrap();
    pipeline.check();
}
