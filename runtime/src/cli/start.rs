//! What a run says first: what it reads, where it writes, and where it can be looked at. Passwords are not among what it
//! shows.

use std::path::Path;

use crate::admin::Server;
use crate::config::{PipelineConfig, Root, SinkConfig, SourceConfig};

/// One line with the plan, the input and the sinks that get something.
pub(super) fn what(config: &PipelineConfig, plan: u64, sinks: &[impl AsRef<str>]) -> String {
    let sink = |name: &str| {
        let (_, sink) = config.sinks.iter().find(|(known, _)| known.as_str() == name)?;
        Some(format!("{name} ({})", place(sink)))
    };
    let sinks: Vec<_> = sinks.iter().filter_map(|name| sink(name.as_ref())).collect();
    format!("{}, plan {plan}: from {} to {}", config.name, input(&config.source), sinks.join(", "))
}

fn input(source: &SourceConfig) -> String {
    match source {
        SourceConfig::Files(files) => files.path.display().to_string(),
        SourceConfig::Kafka(kafka) => {
            let topics: Vec<_> = kafka.topics.iter().map(|topic| topic.as_str()).collect();
            let what = if topics.len() == 1 { "topic" } else { "topics" };
            format!("{what} {} at {}", topics.join(", "), kafka.cluster.brokers)
        }
    }
}

fn place(sink: &SinkConfig) -> String {
    match sink {
        SinkConfig::Files(files) => match &files.root {
            Root::Disk(path) => path.display().to_string(),
            Root::Hdfs(hdfs) => format!("{}{}", hdfs.cluster, hdfs.directory),
        },
        SinkConfig::Sqlite(sqlite) => sqlite.path.display().to_string(),
        SinkConfig::Postgres(postgres) => {
            let server = &postgres.server;
            format!("PostgreSQL, {} at {}:{}", server.database, server.host, server.port)
        }
        SinkConfig::Kafka(kafka) => format!("topics at {}", kafka.cluster.brokers),
    }
}

/// Where others may look. A run that ends by itself needs nobody to look at it, unless it is not where it was looked for.
pub(super) fn where_to_look(server: &Server, file: &Path, once: bool) -> Option<String> {
    let file = file.display();
    match server.address() {
        Some(address) if server.moved() => Some(format!(
            "look at it: http://{address}/ (the port in [admin] is taken), or weir status {file}"
        )),
        _ if once => None,
        Some(address) => Some(format!("look at it: http://{address}/, or weir status {file}")),
        None => Some(format!("look at it: weir status {file}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [pipeline]
        name = "orders"
        state = "state"
        [source.kafka]
        brokers = "one:9092,two:9092"
        topics = ["new", "old"]
        [transform]
        component = "orders.wasm"
        [routes]
        good = ["lake.good", "base.good"]
        other = "hdfs.other"
        [dead_letter]
        to = "small.dead"
        [sinks.lake.files]
        path = "out"
        [sinks.hdfs.files]
        url = "hdfs://namenode:8020/lake"
        [sinks.small.sqlite]
        path = "db/dead.db"
        [sinks.base.postgres]
        url = "${URL}"
    "#;

    #[test]
    fn the_first_line_names_input_and_sinks_and_no_password() {
        let url = |_: &str| Some("postgres://ada:secret@db/shop".to_owned());
        let config = PipelineConfig::parse(FILE, Path::new("conf/orders.toml"), &url).unwrap();
        assert_eq!(
            what(&config, 3, &["base", "hdfs", "lake", "small"]),
            "orders, plan 3: from topics new, old at one:9092,two:9092 to base (PostgreSQL, shop at db:5432), hdfs \
             (hdfs://namenode:8020/lake), lake (conf/out), small (conf/db/dead.db)"
        );
    }
}
