//! What the codes of errors mean, and what to do about each: `docs/errors.md` is made from here, and a test holds the table
//! against the codes that the sources have. It is data; nothing asks it while records flow.

/// A code that begins a message, for good: alarms and runbooks go by it.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// `E_` and what it is about.
    pub code: &'static str,
    /// What is the case.
    pub means: &'static str,
    /// What becomes of the pipeline.
    pub then: &'static str,
    /// What a person can do.
    pub fix: &'static str,
}

const STOPS: &str = "The partition stops and keeps its position; the others go on.";
/// Of what a transform does.
const STOPS_OR_GOES_BACK: &str = "The partition stops and keeps its position; the others go on. Where the plan is on trial \
                                 (`[deploy]`), it is taken back, and the partition goes on with the plan before.";
const WAITS: &str = "The partition begins again where the sinks stand, with longer and longer waits in between, and goes on by \
                     itself once it can.";
const REFUSED: &str = "The program says so and exits with 2, before a record flows.";

/// All codes, in the order of the way of a record.
pub const ALL: &[Explained] = &[
    Explained {
        code: "E_INPUT_TOPIC",
        means: "A topic that is to be read is not there.",
        then: "At the start the program says so and exits with 2. Later it goes on asking, and says so again and again.",
        fix: "Make it, or mend `topics` in `[source.kafka]`. One that was deleted and is made again is another topic: see \
              E_TOPIC_REPLACED.",
    },
    Explained {
        code: "E_INPUT_DENIED",
        means: "The user who runs the pipeline may not read a topic, or not as a member of its consumer group.",
        then: "At the start the program says so and exits with 3. Later the partition begins again where the sinks stand, with longer \
               and longer waits in between, and goes on by itself once it can.",
        fix: "Give the user READ and DESCRIBE of the topic, and READ of the group `weir.PIPELINE`.",
    },
    Explained {
        code: "E_TOO_OLD",
        means: "A server is too old for what is needed of it: PostgreSQL before 12, Kafka before 3.0.",
        then: REFUSED,
        fix: "Run a newer one.",
    },
    Explained {
        code: "E_INPUT_GAP",
        means: "Records that not all sinks have are not there any more: the retention of a topic took them, or a file is gone.",
        then: STOPS,
        fix: "Put the file back. For a topic: lengthen its retention before the next one goes; what is lost is named by its \
              offsets. To do without them, start a pipeline of another name behind the gap.",
    },
    Explained {
        code: "E_INPUT_TRUNCATED",
        means: "A topic ends before the offset up to which sinks have its records: it lost some, as by an unclean election of a leader.",
        then: STOPS,
        fix: "Find out which of the lost records the sinks have. Restore the topic, or read the new one with a pipeline of another name.",
    },
    Explained {
        code: "E_INPUT_CORRUPT",
        means: "Records of a topic are not those that were written: a checksum is wrong, or they are packed in a way that is not known.",
        then: STOPS,
        fix: "It is never passed over. Restore the partition from a replica; the message names the offset.",
    },
    Explained {
        code: "E_TOPIC_REPLACED",
        means: "The topic was deleted and made again, or it lost records and got others, as by an unclean election of a leader: its \
                offsets are those of other records. Or the state directory of a pipeline from files was lost.",
        then: STOPS,
        fix: "Restore the state directory; or read the new topic with a pipeline of another name.",
    },
    Explained {
        code: "E_STALE_GENERATION",
        means: "The consumer group of the pipeline was deleted, or forgotten by Kafka after all processes were gone for longer than \
                `offsets.retention.minutes`: its generations began again below those that the sinks have seen.",
        then: "It is found by joining the group anew, and written into the plan log as another incarnation of the group, which \
               every process follows. Then all goes on where the sinks stand.",
        fix: "Nothing. Do not delete the group of a pipeline: nothing is gained.",
    },
    Explained {
        code: "E_INPUT_CHANGED",
        means: "A file has other bytes, another length or another format than when it was first seen.",
        then: STOPS,
        fix: "Put the file back as it was. New data comes in new files, which are moved in complete.",
    },
    Explained {
        code: "E_INPUT_HEADER",
        means: "The header of a CSV file cannot be one: it has a name twice, or is longer than a record may be.",
        then: STOPS,
        fix: "Mend the file's first line, or set `format` if it is no CSV file.",
    },
    Explained {
        code: "E_STALL",
        means: "The transform did not answer within `limits.deadline`, twice, for the same records, and no single record is to blame.",
        then: STOPS_OR_GOES_BACK,
        fix: "Raise `limits.deadline`, or find the records with `weir validate`. The machine may be short of processors.",
    },
    Explained {
        code: "E_OUTPUT",
        means: "What the transform made of one batch is more than 256 MiB.",
        then: STOPS_OR_GOES_BACK,
        fix: "Lower `limits.batch_records` and `limits.batch_bytes`.",
    },
    Explained {
        code: "E_FAILING",
        means: "The transform failed on `dead_letter.stop_after_consecutive` records in a row: the rules are wrong, not the records.",
        then: STOPS_OR_GOES_BACK,
        fix: "Run `weir validate` on such records (`weir peek` makes a sample), mend the transform, and run with `--adopt`.",
    },
    Explained {
        code: "E_NONDETERMINISTIC",
        means: "The transform made something else of the same records the second time.",
        then: STOPS_OR_GOES_BACK,
        fix: "What becomes of a record may depend on the record, the settings and the tables alone: no state over records, no \
              order of a hash map. `weir validate` finds such places.",
    },
    Explained {
        code: "E_NOT_CONSERVED",
        means: "A record has no fate, or two: more or fewer are accounted for than went in.",
        then: STOPS_OR_GOES_BACK,
        fix: "If the transform is to blame, the message says what it answered. Otherwise this is a defect of Weir: report it.",
    },
    Explained {
        code: "E_PLAN_MISSING",
        means: "A sink has rows of a plan that the plan log does not have, or has differently.",
        then: STOPS,
        fix: "The plan log (`plans` in the state directory, or the topic `weir.PIPELINE.plans`) is older than the sinks, or another \
              one: restore the newer one.",
    },
    Explained {
        code: "E_PLANS_DIFFER",
        means: "Two sinks say that different plans made the same offset.",
        then: STOPS,
        fix: "One of them was restored from a backup of another pipeline, or edited. Restore it.",
    },
    Explained {
        code: "E_STORE",
        means: "The bytes of a component or table that a plan names are not there, or are others.",
        then: STOPS,
        fix: "Restore `store` in the state directory, or the topic `weir.PIPELINE.store`, from a backup.",
    },
    Explained {
        code: "E_LOG_CORRUPT",
        means: "Something that Weir wrote cannot be read: an entry of the plan log, a commit log, a row of `weir_position`.",
        then: STOPS,
        fix: "It is never passed over. Restore it from a backup; the message names the file, topic or row.",
    },
    Explained {
        code: "E_LOG_NEWER",
        means: "Something was written by a newer version of Weir than this one.",
        then: STOPS,
        fix: "Run the newer version.",
    },
    Explained {
        code: "E_STATE_MISSING",
        means: "A sink had a position of this partition once and has none now.",
        then: STOPS,
        fix: "It is never begun anew, since rows would be there twice. Restore `_weir` below the sink's directory, `weir_position`, or \
              the topic `weir.PIPELINE.progress`.",
    },
    Explained {
        code: "E_POSITION_MISMATCH",
        means: "The offset of the consumer group is not where the sink's own record says that it is: somebody moved it.",
        then: STOPS,
        fix: "Set the offset of the group back to the one in the message (`kafka-consumer-groups --reset-offsets --to-offset`).",
    },
    Explained {
        code: "E_TRANSACTION_OPEN",
        means: "A transaction in the topic of positions was not ended within 40 s: nobody can read on behind it. Its coordinator may be \
                away; then it ends by itself. Or its end is lost: brokers of Kafka 4.3 and 4.4.0 do not write it to a partition that has \
                no leader just then, and never again (KAFKA-20734), such as where a single broker is killed and comes back. Readers of \
                what is committed then see neither these records nor any behind them in that partition.",
        then: WAITS,
        fix: "Look whether all brokers are there. If the end is lost, stop the pipeline and run brokers without that error. Until then \
              the next transaction of the same producer ends the lost one as it ends itself: it may drop records that were committed, \
              or show ones that were given up. Which way it was decided tell the partitions in which it was ended: where rows of the \
              same commit are visible in one, it was committed. One that was committed nowhere may be aborted, in every partition in \
              which it is open, `__consumer_offsets` among them (`kafka-transactions.sh describe-producers` for each, then `abort \
              --topic T --partition P --start-offset N`). To abort one that was committed takes its position away: its rows are then \
              written again, and are there twice. Read the input with a pipeline of another name, to other targets, instead.",
    },
    Explained {
        code: "E_OTHER_GROUP",
        means: "The position in the sink belongs to another consumer group, and so to another pipeline of the same name.",
        then: STOPS,
        fix: "Give one of the two pipelines another name.",
    },
    Explained {
        code: "E_OTHER_CLUSTER",
        means: "Records come from one Kafka cluster and are to go to another: a transaction is in one cluster.",
        then: REFUSED,
        fix: "Write to topics of the first cluster, and have them copied to the other one.",
    },
    Explained {
        code: "E_TWO_KAFKA_SINKS",
        means: "Two sinks write to Kafka, where the records come from; the offsets of the group move in the transactions of one.",
        then: REFUSED,
        fix: "One sink can have several targets. Or let each have a pipeline of its own.",
    },
    Explained {
        code: "E_NEW_SINK",
        means: "A sink was added to a pipeline that has run without it: it would never get what came before.",
        then: REFUSED,
        fix: "A pipeline of another name, with a state directory of its own, reads its input from the start.",
    },
    Explained {
        code: "E_SINK_SCHEMA",
        means: "A table does not fit the route, or would not take its rows: a column is missing or has another type, a key is no key.",
        then: STOPS,
        fix: "The message names the column, and has the statement where there is one; `weir doctor --ddl` prints all of them.",
    },
    Explained {
        code: "E_SINK_TOPIC",
        means: "A topic that rows are to go to is not there, and may not be made.",
        then: STOPS,
        fix: "Make it with the command in the message, or set `create = true`.",
    },
    Explained {
        code: "E_SINK_DENIED",
        means: "The user who runs the pipeline may not do something in a directory, table or topic.",
        then: WAITS,
        fix: "Give the right that the message names.",
    },
    Explained {
        code: "E_SINK_FULL",
        means: "There is no room where a sink writes: a disk, a quota, or the local spool of files for HDFS.",
        then: WAITS,
        fix: "Make room.",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_page_of_errors_says_what_the_table_says() {
        let mut page =
            "# Errors\n\nA message that begins with one of these codes means this. This page is made from \
                        `runtime/src/errors.rs`: change that\nand run the tests with `UPDATE_EXPECT=1`.\n"
                .to_owned();
        for Explained { code, means, then, fix } in ALL {
            writeln!(page, "\n## {code}\n\n{means}\n\n{then}\n\n*What to do:* {fix}").unwrap();
        }
        expect_file!["../docs/errors.md"].assert_eq(&page);
    }

    /// Codes in the texts of a directory: a quote, `E_`, capitals, and a colon or the end of the word.
    fn codes(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                codes(&entry, found);
                continue;
            }
            let text = fs::read_to_string(&entry).unwrap_or_default();
            for (_, behind) in text.match_indices("\"E_").map(|(at, _)| text.split_at(at + 1)) {
                let code: String =
                    behind.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
                if behind[code.len()..].starts_with(':') {
                    found.insert(code);
                }
            }
        }
    }

    #[test]
    fn every_code_is_explained_and_none_that_there_is_not() {
        let mut found = BTreeSet::new();
        codes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let explained: BTreeSet<_> = ALL.iter().map(|explained| explained.code.to_owned()).collect();
        assert_eq!(explained, found);
    }
}
