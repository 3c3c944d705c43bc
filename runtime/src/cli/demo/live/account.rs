//! Where the records of the stream are while they flow: how far the source and the sink are, against the rows that the sink has
//! counted. These are counted apart, so what is missing shows.

use std::fmt;

use super::super::super::screen::count;
use super::DEAD_LETTERS;
use crate::pipeline::status::Status;

/// See the module. Each record makes one row, or none on purpose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Records that the source has read.
    read: u64,
    /// Rows on routes that the sink has committed.
    written: u64,
    /// The same of dead letters.
    dead_letters: u64,
    /// Records of its commits that were left out on purpose.
    dropped: u64,
    /// Records that were read, and lie behind where the sink stands.
    under_way: u64,
    /// Whether a partition began anew: rows of a commit whose answer was lost are there then, and nobody has counted them.
    began_anew: bool,
}

impl Account {
    /// By how the pipeline stands, where it has read nothing but files of `length` records each since it began. `None` while it
    /// is not known where the sink stands in one of them, as while that is claimed.
    pub(super) fn of(status: &Status, length: u64) -> Option<Self> {
        let (read, began_anew) = (status.finished * length, status.records.restarted > 0);
        let mut account = Self { read, began_anew, ..Self::default() };
        for partition in &status.partitions {
            let (read, committed) = (partition.read?, partition.committed.values().min()?);
            account.read += read.get() as u64;
            account.under_way += read.since(*committed);
        }
        for sink in &status.sinks {
            account.dropped += sink.dropped;
            for (target, rows) in &sink.rows {
                match &**target {
                    DEAD_LETTERS => account.dead_letters += rows,
                    _ => account.written += rows,
                }
            }
        }
        Some(account)
    }

    /// Records of which it is known where they are.
    fn found(&self) -> u64 {
        self.written + self.dead_letters + self.dropped + self.under_way
    }

    /// Whether each record that was read is in one place, as far as that can be known.
    pub(super) fn holds(&self) -> bool {
        self.read == self.found() || self.began_anew
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, written, dead_letters, dropped, under_way, began_anew } = self;
        let mut parts = vec![(written, "written"), (dead_letters, "dead letters")];
        // Mostly there are none, and 80 columns are few.
        parts.extend((*dropped > 0).then_some((dropped, "dropped")));
        parts.push((under_way, "under way"));
        let parts: Vec<_> = parts.into_iter().map(|(n, what)| format!("{} {what}", count(*n))).collect();
        let (read, found, parts) = (*read, self.found(), parts.join(" + "));
        match read.checked_sub(found) {
            Some(0) => write!(f, "{} in = {parts}, 0 lost", count(read)),
            _ if *began_anew => write!(f, "{} in, {parts} (not all: a partition began anew)", count(read)),
            Some(lost) => write!(f, "E_NOT_CONSERVED: {} in, and {parts}: {} lost", count(read), count(lost)),
            None => {
                let more = count(found - read);
                write!(f, "E_NOT_CONSERVED: {} in, and {parts}: {more} too many", count(read))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::progress::tests::status;
    use crate::pipeline::status::{SinkCounts, SinkStatus};

    /// Two files of 1,000 records are through, of a third 40 records were read, and the sink has 30: with so many rows.
    fn with(usa: u64, dead_letters: u64, dropped: u64) -> Status {
        let mut status = status(1_000, 0);
        status.finished = 2;
        status.sinks.push(SinkStatus {
            name: "out".into(),
            rows: BTreeMap::from([("usa".into(), usa), (DEAD_LETTERS.into(), dead_letters)]),
            dropped,
            writer: crate::commit::WriterStats::default(),
            own: SinkCounts::default(),
            busy_ms: 0,
            calling_ms: None,
        });
        status
    }

    #[test]
    fn a_record_that_is_missing_is_told_and_one_that_is_there_twice_too() {
        let told = |usa, dead_letters, dropped| {
            let account = Account::of(&with(usa, dead_letters, dropped), 1_000).expect("all is known");
            (account.holds(), account.to_string())
        };
        let whole = "2,040 in = 2,000 written + 30 dead letters + 10 under way, 0 lost";
        assert_eq!(told(2_000, 30, 0), (true, whole.to_owned()));
        let dropped = "2,040 in = 1,990 written + 30 dead letters + 10 dropped + 10 under way, 0 lost";
        assert_eq!(told(1_990, 30, 10), (true, dropped.to_owned()));
        for (dead_letters, what) in [(29, "1 lost"), (31, "1 too many")] {
            let parts = format!("2,000 written + {dead_letters} dead letters + 10 under way");
            let wrong = format!("E_NOT_CONSERVED: 2,040 in, and {parts}: {what}");
            assert_eq!(told(2_000, dead_letters, 0), (false, wrong));
        }
    }

    #[test]
    fn what_was_committed_without_an_answer_is_not_called_lost() {
        let mut status = with(1_990, 30, 0);
        status.records.restarted = 10;
        let account = Account::of(&status, 1_000).expect("all is known");
        let told =
            "2,040 in, 1,990 written + 30 dead letters + 10 under way (not all: a partition began anew)";
        assert_eq!((account.holds(), account.to_string()), (true, told.to_owned()));
    }

    #[test]
    fn nothing_is_said_while_it_is_not_known_where_the_sink_stands() {
        let mut status = with(2_000, 30, 0);
        status.partitions[0].committed.clear();
        assert_eq!(Account::of(&status, 1_000), None);
    }
}
