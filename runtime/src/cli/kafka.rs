//! What commands that talk to Kafka have in common.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;

use crate::kafka::Cluster;

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Where the cluster is: addresses of brokers, with commas between them
    #[arg(long, short, value_name = "HOST:PORT", env = "WEIR_BROKERS", default_value = "localhost:9092")]
    brokers: String,
    /// A setting of the client as librdkafka names it, such as security.protocol=SASL_SSL; may be given several times
    #[arg(short = 'X', long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

impl ClusterArgs {
    pub(super) fn cluster(&self) -> Result<Cluster> {
        let properties = self.properties.iter().cloned().collect::<BTreeMap<_, _>>();
        Ok(Cluster::new(self.brokers.as_str(), properties)?)
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no =")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}
