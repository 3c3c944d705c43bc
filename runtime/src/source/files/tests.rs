//! The laws of listing files and of telling which were there before.

use tempfile::TempDir;

use super::*;
use crate::batch::BatchBuilder;
use crate::budget::Permit;
use crate::offset::{Offset, TopicPartition};
use crate::source::format::Filled;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn paths(listing: &Listing) -> Vec<(&str, Format)> {
    listing.found.iter().map(|f| (f.path.as_str(), f.format)).collect()
}

#[test]
fn files_are_listed_below_the_directory_in_the_order_of_their_paths() {
    let root = directory(&[
        ("b.csv", "x"),
        ("a/z.jsonl", ""),
        ("a/_SUCCESS", ""),
        (".hidden/a.csv", ""),
        (".a.csv", ""),
        ("c.csv.tmp", ""),
        ("d.csv~", ""),
    ]);
    std::os::unix::fs::symlink(root.path().join("b.csv"), root.path().join("link.csv")).unwrap();
    std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.path().join("broken.csv")).unwrap();
    let listing = Inputs::new(root.path(), None).list().unwrap();
    assert_eq!(
        paths(&listing),
        [("a/z.jsonl", Format::JsonLines), ("b.csv", Format::Csv), ("link.csv", Format::Csv)]
    );
    assert_eq!(listing.unknown, ["a/_SUCCESS"]);
    assert_eq!(listing.found[1].length, 1);
}

#[test]
fn a_format_that_is_set_counts_for_every_name() {
    let root = directory(&[("a.csv", ""), ("b", "")]);
    let listing = Inputs::new(root.path(), Some(Format::Raw)).list().unwrap();
    assert_eq!(paths(&listing), [("a.csv", Format::Raw), ("b", Format::Raw)]);
}

#[test]
fn a_single_file_goes_by_its_name_and_must_tell_its_format() {
    let root = directory(&[("a.csv", "id\n"), ("b.dat", "")]);
    let inputs = Inputs::new(root.path().join("a.csv"), None);
    let listing = inputs.list().unwrap();
    assert_eq!(paths(&listing), [("a.csv", Format::Csv)]);
    assert_eq!(inputs.digest(&listing.found[0]).unwrap(), crate::digest::of(b"id\n"));
    assert!(matches!(Inputs::new(root.path().join("b.dat"), None).list(), Err(Error::UnknownFormat { .. })));
    assert!(matches!(Inputs::new(root.path().join("none.csv"), None).list(), Err(Error::Io { .. })));
}

#[test]
fn a_file_that_grows_between_listing_and_hashing_is_refused() {
    let root = directory(&[("a.csv", "id\n")]);
    let inputs = Inputs::new(root.path(), None);
    let listing = inputs.list().unwrap();
    fs::write(root.path().join("a.csv"), "id\n1\n").unwrap();
    assert!(matches!(inputs.digest(&listing.found[0]), Err(Error::Length { was: 3, is: 5, .. })));
}

#[test]
fn a_raw_directory_is_one_partition_in_the_order_of_first_sight() {
    let root = directory(&[("b", "1"), ("c", "")]);
    let inputs = Inputs::new(root.path(), Some(Format::Raw));
    let mut known = Vec::new();
    for late in ["a", "d"] {
        let new = reconcile(&known, &inputs.list().unwrap().found).unwrap().new;
        known.extend(new.into_iter().map(|n| Known { entry: n.entry(String::new()), done: false }));
        fs::write(root.path().join(late), late).unwrap();
    }
    let entries = known.into_iter().map(|k| k.entry).collect();
    let mut reader = DirectoryReader::new(inputs, entries, Offset::new(1), 100);
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), reader.next());
    assert_eq!(reader.fill(&mut builder, 10, usize::MAX).unwrap(), Filled::End);
    let batch = builder.finish(reader.next(), Permit::free()).unwrap();
    assert_eq!(batch.offsets(), [1, 2]);
    assert_eq!(batch.values().iter().collect::<Vec<_>>(), [Some(&b""[..]), Some(b"a")]);
    assert_eq!(batch.headers().get(1).collect::<Vec<_>>(), [("weir-path", Some(&b"a"[..]))]);
}
