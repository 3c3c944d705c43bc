//! The records of `weir demo --live`: customers as the old producer sent them, each value a string, in files that are moved in
//! one after the other.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Records of a file.
pub(super) const RECORDS: u64 = 50_000;

/// So many files are there that are not through. The source looks for new ones once a second.
const AHEAD: u64 = 4;

/// One in so many has an age that is none.
const BAD_AGE: u64 = 50;

const CITIES: [&str; 6] = ["Austin, TX", "Riga", "Porto", "Denver", "Osaka", "Chicago, IL"];
const NAMES: [&str; 5] = ["Rosa", "Priya", "Jonas", "Mei", "Tomasz"];

/// See the module.
pub(super) struct Stream {
    dir: PathBuf,
    /// How many records each file has.
    pub(super) sent: Vec<u64>,
    text: String,
    ended: bool,
}

/// The file of a partition: partitions are numbered as files are first seen, which is in the order of their names.
pub(super) fn name(partition: i32) -> String {
    format!("customers-{partition:04}.jsonl")
}

impl Stream {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, sent: Vec::new(), text: String::new(), ended: false }
    }

    /// Sends as much as it takes for the pipeline to have something to do, which is through with so many files.
    pub(super) fn feed(&mut self, finished: u64) -> Result<()> {
        while !self.ended && (self.sent.len() as u64) < finished + AHEAD {
            self.send()?;
        }
        Ok(())
    }

    /// Nothing more is sent.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Moves one more file in, complete.
    fn send(&mut self) -> Result<()> {
        let n = self.sent.len();
        self.text.clear();
        for i in 0..RECORDS {
            let id = n as u64 * RECORDS + i;
            let (first, city) = (NAMES[(id % 5) as usize], CITIES[(id % 6) as usize]);
            let age = if id % BAD_AGE == 7 { "unknown".to_owned() } else { (18 + id % 60).to_string() };
            writeln!(
                self.text,
                r#"{{"id":"{id}","first_name":"{first}","last_name":"Doe","email":"{id}@example.com","age":"{age}","location":"{city}"}}"#
            )
            .expect("memory takes it");
        }
        let to = self.dir.join(name(n as i32));
        let from = to.with_extension("tmp");
        fs::write(&from, &self.text)
            .and_then(|()| fs::rename(&from, &to))
            .with_context(|| format!("writing {}", to.display()))?;
        self.sent.push(RECORDS);
        Ok(())
    }
}
