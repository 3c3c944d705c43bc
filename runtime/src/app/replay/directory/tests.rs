//! The laws of copying to a directory.

use tempfile::TempDir;

use super::super::tests::alone;
use super::super::{Choosing, Copied, Selected, copy as copy_chosen};
use super::*;
use crate::plan::History;

/// A pipeline that has run, as far as this is concerned.
fn pipeline() -> (TempDir, PipelineConfig) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeline.toml");
    let text = "[pipeline]\nname = \"p\"\nstate = \"state\"\n[source.files]\npath = \"in\"\ntopic = \"t\"\n[transform]\n\
                component = \"c.wasm\"\n[routes]\n[dead_letter]\nto = \"out.dead\"\nmax_attempts = 3\n[sinks.out.files]\npath = \"out\"\n\
                format = \"jsonl\"\n";
    fs::write(&file, text).unwrap();
    let config = PipelineConfig::load(&file).unwrap();
    (dir, config)
}

fn letter(origin: &str) -> Letter {
    Letter {
        origin: origin.parse().unwrap(),
        meant: None,
        key: None,
        value: Some(vec![0xff, b'\n']),
        headers: vec![("own".to_owned(), None)],
        timestamp_ms: 7,
    }
}

fn copy(config: &PipelineConfig, letters: &[&str]) -> Result<Copied> {
    copy_to(Directory::open(config)?, config, letters.iter().map(|origin| Ok(letter(origin))))
}

fn copy_to(
    (directory, known): (Directory, Known),
    config: &PipelineConfig,
    letters: impl Iterator<Item = Result<Letter>>,
) -> Result<Copied> {
    let history = History::default();
    let selected = letters.map(|letter| letter.map(Selected::Letter));
    copy_chosen(selected, Choosing { config, history: &history, known }, directory)
}

/// What is in the files, file by file.
fn there(config: &PipelineConfig) -> Vec<Vec<String>> {
    let replays = Replays::new(config);
    let file = |(_, found): &(i32, crate::source::files::Found)| {
        let mut there = BTreeSet::new();
        read(replays.inputs().open(&found.path).unwrap(), &found.path, &mut there).unwrap();
        there.iter().map(ToString::to_string).collect()
    };
    replays::list(replays.inputs()).unwrap().ours.iter().map(file).collect()
}

fn names(config: &PipelineConfig) -> Vec<String> {
    let entries = fs::read_dir(Replays::new(config).dir()).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_selection_is_one_file_and_no_letter_is_in_two() {
    let _alone = alone();
    let (_dir, config) = pipeline();
    let copied = copy(&config, &["t/0/5/0", "t/0/6/0", "t/0/5/0", "t/0/7/3"]).unwrap();
    assert_eq!(copied, Copied { copied: 2, there: 1, spent: 1, ..Copied::default() });
    assert_eq!(copy(&config, &["t/0/6/0", "t/0/5/1", "t/1/5/0"]).unwrap().copied, 2);
    assert_eq!(there(&config), [vec!["t/0/5/1", "t/0/6/1"], vec!["t/0/5/2", "t/1/5/1"]]);
    // A selection of which all is there makes no file.
    assert_eq!(copy(&config, &["t/0/6/0"]).unwrap(), Copied { there: 1, ..Copied::default() });
    assert_eq!(names(&config), ["0000000000.jsonl", "0000000001.jsonl"]);
}

#[test]
fn of_two_who_copy_at_once_the_second_copies_nothing_and_says_so() {
    let _alone = alone();
    let (_dir, config) = pipeline();
    let (first, second) = (Directory::open(&config).unwrap(), Directory::open(&config).unwrap());
    assert_eq!(copy_to(second, &config, [Ok(letter("t/0/5/0"))].into_iter()).unwrap().copied, 1);
    let both = [Ok(letter("t/0/5/0")), Ok(letter("t/0/6/0"))].into_iter();
    let late = copy_to(first, &config, both).unwrap_err().to_string();
    assert!(late.contains("somebody else") && late.contains("ask again"), "{late}");
    assert_eq!(names(&config), ["0000000000.jsonl"]);
    assert_eq!(copy(&config, &["t/0/5/0", "t/0/6/0"]).unwrap().copied, 1);
    assert_eq!(there(&config), [["t/0/5/1"], ["t/0/6/1"]]);
}

#[test]
fn a_letter_that_cannot_be_read_leaves_nothing_behind() {
    let _alone = alone();
    let (_dir, config) = pipeline();
    let many = (0..=super::super::AT_ONCE.0).map(|n| Ok(letter(&format!("t/0/{n}/0"))));
    let failed = copy_to(
        Directory::open(&config).unwrap(),
        &config,
        many.chain([Err(anyhow::anyhow!("the sink is gone"))]),
    );
    assert!(failed.unwrap_err().to_string().contains("the sink is gone"));
    assert!(names(&config).is_empty(), "{:?}", names(&config));
}

#[cfg(feature = "failpoints")]
#[test]
fn one_who_dies_anywhere_copied_all_or_nothing_and_whoever_asks_again_copies_the_rest_once() {
    let _alone = alone();
    for point in ["replay.mid_letters", "replay.before_commit", "replay.after_commit"] {
        let (_dir, config) = pipeline();
        assert_eq!(copy(&config, &["t/0/0/0", "t/0/1/0"]).unwrap().copied, 2, "{point}");
        let letters = ["t/0/0/0", "t/0/1/0", "t/0/2/0", "t/0/3/0"];
        fail::cfg(point, "1*panic(the process dies)").unwrap();
        let of = config.clone();
        let died = std::thread::spawn(move || copy(&of, &letters)).join();
        fail::remove(point);
        assert!(died.is_err(), "{point} was not reached");
        let done = point == "replay.after_commit";
        assert_eq!(there(&config).len(), if done { 2 } else { 1 }, "{point}");
        assert_eq!(copy(&config, &letters).unwrap().copied, if done { 0 } else { 2 }, "{point}");
        assert_eq!(there(&config), [["t/0/0/1", "t/0/1/1"], ["t/0/2/1", "t/0/3/1"]], "{point}");
    }
}
