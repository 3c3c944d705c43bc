//! Real Kafka, HDFS and PostgreSQL on loopback, for development and tests: each service in a directory, with ports of its
//! own, started, paused, killed and started again as a test wants it. Never touches a server, or a directory, that was not
//! made here, and listens on no other address than 127.0.0.1, but for what a test has at one of its own network.
//!
//! All state is in the directory: what one process started, another one that opens the same directory stops. A test finds
//! the services that it was given with [`Services::given`]; one that needs some to itself makes [`Services::temporary`].
//!
//! ```no_run
//! use weir_services::{Service, Services};
//!
//! # fn main() -> weir_services::Result<()> {
//! let services = Services::temporary()?;
//! let hdfs = services.hdfs_of(3)?;
//! hdfs.start()?;
//! hdfs.wait_ready()?;
//! hdfs.datanode(2)?.kill()?;
//! println!("still there: {}", hdfs.url());
//! # Ok(())
//! # }
//! ```
#![cfg(target_os = "linux")]

mod error;
mod hdfs;
mod jars;
mod kafka;
mod machine;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod server;
mod services;
mod wait;

pub use error::{Error, Result};
pub use hdfs::Hdfs;
pub use kafka::{Kafka, kafka_client};
pub use machine::missing;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use server::{Server, State, stop_all};
pub use services::{DIR, NAMES, Service, Services, fetch, is_fetched};
pub use wait::{Interrupt, until};
