//! What only a file system over a network can do wrong, on a real HDFS.

use super::link::Loss;
use super::*;
use crate::sink::files::Root;
use crate::sink::files::tests::ground::{Ground, On};

fn open(ground: &dyn Ground) -> Hdfs {
    let Root::Hdfs(config) = ground.root() else { panic!("it is in HDFS") };
    Hdfs::open(&config).unwrap()
}

fn closing(hdfs: &Hdfs, path: &str, bytes: &[u8]) -> Box<dyn crate::sink::files::storage::Closing> {
    let mut file = hdfs.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.close().unwrap()
}

/// Each look asks the NameNode, which takes a millisecond or more.
fn wait_until(is_so: impl Fn() -> bool) {
    assert!((0..20_000).any(|_| is_so()), "it never came");
}

#[test]
fn a_file_comes_once_whatever_became_of_the_answers() {
    let ground = On::Hdfs.ground();
    let hdfs = open(&*ground);
    for losses in [vec![Loss::Answer], vec![Loss::Request], vec![Loss::Answer, Loss::Request, Loss::Request]]
    {
        *hdfs.courier.link.lose.lock().unwrap() = losses.clone();
        closing(&hdfs, "a/file", b"so it is").wait().unwrap();
        assert_eq!(hdfs.courier.link.lose.lock().unwrap().len(), 0, "{losses:?}");
        assert_eq!(ground.read("a/file"), b"so it is", "{losses:?}");
        // A rename that was only late finds nothing to rename.
        assert_eq!(ground.files(), ["a/file"], "{losses:?}");
        ground.remove("a/file");
    }
}

#[test]
fn a_file_that_is_given_up_gets_no_name_and_leaves_nothing_and_disturbs_no_other() {
    let ground = On::Hdfs.ground();
    let hdfs = open(&*ground);
    let bytes = vec![7; 32 << 20];
    let (given_up, wanted) = (closing(&hdfs, "given-up", &bytes), closing(&hdfs, "wanted", &bytes));
    let is_under_way = || ground.files().iter().any(|path| path.starts_with("given-up."));
    wait_until(is_under_way);
    drop(given_up);
    wanted.wait().unwrap();
    assert!(ground.read("wanted") == bytes);
    closing(&hdfs, "later", b"later").wait().unwrap();
    wait_until(|| !is_under_way());
    assert_eq!(hdfs.length("given-up").unwrap(), None);
}

#[test]
fn files_are_closed_beside_one_another() {
    let ground = On::Hdfs.ground();
    let hdfs = open(&*ground);
    let files: Vec<_> = (0..3 * UPLOADS).map(|n| closing(&hdfs, &format!("a/{n}"), b"x")).collect();
    // From the last to the first: none waits for another to be waited for.
    files.into_iter().rev().for_each(|file| file.wait().unwrap());
    assert_eq!(hdfs.list("a").unwrap().len(), 3 * UPLOADS);
}

/// The NameNode tells a thousand names at once.
#[test]
fn a_long_directory_is_listed_to_its_end() {
    let ground = On::Hdfs.ground();
    let hdfs = open(&*ground);
    let make = async |link: &Link| {
        for n in 0..1_100 {
            link.make_directories(&hdfs.path(&format!("long/{n}"))).await?;
        }
        Ok(())
    };
    hdfs.ask(make).unwrap();
    assert_eq!(hdfs.list("long").unwrap().len(), 1_100);
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_what_to_do() {
    let spool = tempfile::tempdir().unwrap();
    let config = |cluster: &str| HdfsConfig {
        cluster: cluster.to_owned(),
        directory: "/lake".to_owned(),
        properties: BTreeMap::new(),
        spool: spool.path().to_owned(),
    };
    let told = |cluster| match Hdfs::open(&config(cluster)).unwrap_err() {
        Error::Transient(problem) => (problem.to_string(), problem.hint.unwrap_or_default()),
        other => panic!("{other}"),
    };
    // Nobody listens on the port of echoes.
    let (text, _) = told("hdfs://127.0.0.1:7");
    assert_eq!(
        text,
        "cannot open `hdfs://127.0.0.1:7/lake`: no connection: Connection refused (os error 111)"
    );
    let (text, hint) = told("hdfs://nobody-knows");
    assert!(text.ends_with("No NameNode hosts found") && hint.contains("HADOOP_CONF_DIR"), "{text}; {hint}");
}
