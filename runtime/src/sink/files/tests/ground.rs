//! Where the files of a test are: on the local disk, or in a real HDFS that `WEIR_TEST_HDFS` names. A law that holds on
//! both takes an [`On`], and [`laws`] makes a test of it for each.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::sink::files::storage::Storage;
use crate::sink::files::{LocalStorage, Root};

/// On what a law is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Disk,
    #[cfg(feature = "servers")]
    Hdfs,
}

/// A test for each law and each place where files can be.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod on_disk {
            $(#[test] fn $law() { super::$law($crate::sink::files::tests::ground::On::Disk) })*
        }
        #[cfg(feature = "servers")]
        mod in_hdfs {
            $(#[test] fn $law() { super::$law($crate::sink::files::tests::ground::On::Hdfs) })*
        }
    };
}
pub(crate) use laws;

/// A directory of a test's own, gone when it is dropped. Paths are below it.
pub(crate) trait Ground: Send + Sync {
    fn root(&self) -> Root;

    /// Another process's way to it.
    fn storage(&self) -> Arc<dyn Storage>;

    /// The paths of all files, sorted.
    fn files(&self) -> Vec<String>;

    fn read(&self, path: &str) -> Vec<u8>;

    /// Puts a file where there may be one.
    fn write(&self, path: &str, bytes: &[u8]);

    fn remove(&self, path: &str);
}

impl On {
    pub(crate) fn ground(self) -> Box<dyn Ground> {
        match self {
            Self::Disk => Box::new(tempfile::tempdir().unwrap()),
            #[cfg(feature = "servers")]
            Self::Hdfs => Box::new(cluster::Folder::new()),
        }
    }
}

impl Ground for TempDir {
    fn root(&self) -> Root {
        Root::Disk(self.path().to_owned())
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(LocalStorage::open(self.path()).unwrap())
    }

    fn files(&self) -> Vec<String> {
        let below = |path: &Path| path.strip_prefix(self.path()).unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> = files_below(self.path()).iter().map(|path| below(path)).collect();
        files.sort();
        files
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path().join(path)).unwrap()
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path().join(path)).unwrap();
    }
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

#[cfg(feature = "servers")]
mod cluster {
    //! By the library itself, and by nothing of the storage that is under test.

    use std::collections::BTreeMap;

    use hdfs_native::{Client, ClientBuilder, WriteOptions};
    use tokio::runtime::Runtime;

    use super::*;
    use crate::sink::files::HdfsConfig;
    use crate::sink::files::hdfs::Hdfs;
    use crate::sink::state::Nonce;

    pub(super) struct Folder {
        config: HdfsConfig,
        client: Client,
        runtime: Runtime,
        _spool: TempDir,
    }

    impl Folder {
        pub(super) fn new() -> Self {
            let cluster = std::env::var("WEIR_TEST_HDFS").expect(
                "WEIR_TEST_HDFS says where HDFS is: cargo run -p weir-services -- run hdfs --datanodes 3 -- \
                 cargo test -p weir --features servers --lib in_hdfs",
            );
            let runtime = Runtime::new().unwrap();
            let builder = ClientBuilder::new().with_url(&cluster).with_io_runtime(runtime.handle().clone());
            let client = builder.build().unwrap();
            let spool = tempfile::tempdir().unwrap();
            let directory = format!("/weir-tests/{}", Nonce::random());
            let (properties, spool_path) = (BTreeMap::new(), spool.path().to_owned());
            let config = HdfsConfig { cluster, directory, properties, spool: spool_path };
            runtime.block_on(client.mkdirs(&config.directory, 0o755, true)).unwrap();
            Self { config, client, runtime, _spool: spool }
        }

        fn path(&self, path: &str) -> String {
            format!("{}/{path}", self.config.directory)
        }
    }

    impl Ground for Folder {
        fn root(&self) -> Root {
            Root::Hdfs(self.config.clone())
        }

        fn storage(&self) -> Arc<dyn Storage> {
            let hdfs = Hdfs::open(&self.config).unwrap();
            hdfs.trust();
            Arc::new(hdfs)
        }

        fn files(&self) -> Vec<String> {
            let found = self.runtime.block_on(self.client.list_status(&self.config.directory, true)).unwrap();
            let files = found.into_iter().filter(|status| !status.isdir);
            let below = |path: String| path[self.config.directory.len() + 1..].to_owned();
            let mut files: Vec<_> = files.map(|status| below(status.path)).collect();
            files.sort();
            files
        }

        fn read(&self, path: &str) -> Vec<u8> {
            let read = async {
                let mut file = self.client.read(&self.path(path)).await?;
                file.read_bytes(file.file_length()).await
            };
            self.runtime.block_on(read).unwrap().to_vec()
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let (path, bytes) = (self.path(path), bytes.to_vec());
            let write = async {
                let options = WriteOptions::default().overwrite(true);
                let mut file = self.client.create(&path, options).await?;
                Box::pin(file.write_bytes(bytes.into())).await?;
                Box::pin(file.close()).await
            };
            self.runtime.block_on(write).unwrap();
        }

        fn remove(&self, path: &str) {
            assert!(self.runtime.block_on(self.client.delete(&self.path(path), false)).unwrap());
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let gone = self.runtime.block_on(self.client.delete(&self.config.directory, true));
            tracing::debug!(?gone, directory = self.config.directory, "the folder of a test was removed");
        }
    }
}
