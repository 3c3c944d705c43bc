//! The numbers of a pipeline, in the text form that Prometheus reads. Every one is in one table, from which
//! `docs/metrics.md` is made as well. It counts nothing itself.

use std::fmt::Write as _;
use std::time::Duration;

use super::Answer;
use crate::pipeline::shadow::Standing;
use crate::pipeline::status::{Partition, SinkStatus, State, Status};

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It only grows while the process lives, and begins at 0.
    Counter,
    /// It is what is now.
    Gauge,
}

/// One number, or one for each value of its labels.
struct Metric {
    name: &'static str,
    kind: Kind,
    /// Besides `pipeline`, which all have.
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&View<'_>, &mut Samples<'_>),
}

/// What numbers are read from.
struct View<'a> {
    answer: &'a Answer,
    status: &'a Status,
    silent: Duration,
}

use Kind::{Counter, Gauge};

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&View<'_>, &mut Samples<'_>),
) -> Metric {
    Metric { name, kind, labels, help, read }
}

const METRICS: &[Metric] = &[
    metric(
        "weir_build_info",
        Gauge,
        &["version"],
        "Always 1; the label says which version of the program runs.",
        |view, to| to.add(&[&view.answer.process.version], 1.0),
    ),
    metric(
        "weir_start_time_seconds",
        Gauge,
        &[],
        "When the process began to run the pipeline, in seconds since 1970.",
        |view, to| to.add(&[], view.answer.process.started_ms as f64 / 1e3),
    ),
    metric(
        "weir_heartbeat_age_seconds",
        Gauge,
        &[],
        "How long ago the thread that decides turned last. It turns many times a second, but for when the \
         plan log keeps it waiting; three minutes mean that it is stuck.",
        |view, to| to.add(&[], view.silent.as_secs_f64()),
    ),
    metric(
        "weir_paused",
        Gauge,
        &[],
        "1 if somebody wants nothing to be read at all, else 0.",
        |view, to| {
            to.count(&[], u64::from(view.status.paused.is_some()));
        },
    ),
    metric("weir_plan", Gauge, &[], "The number of the plan that makes new offsets.", |view, to| {
        to.count(&[], view.status.plan.plan);
    }),
    metric(
        "weir_plan_on_trial",
        Gauge,
        &[],
        "1 while that plan may be taken back by itself, or is being taken back, else 0.",
        |view, to| to.count(&[], u64::from(view.status.trial.is_some())),
    ),
    metric(
        "weir_shadow",
        Gauge,
        &[],
        "1 while another plan gets the same records, to be compared, else 0. What differs, `weir shadow status` tells.",
        |view, to| {
            let shadow = &view.status.shadow;
            to.count(&[], u64::from(shadow.as_ref().is_some_and(Standing::is_running)));
        },
    ),
    metric(
        "weir_shadow_records",
        Gauge,
        &["found"],
        "Records of the plan that is tried so, or was last: `same`, `different`, `skipped` since it was busy with \
         others, or `unjudged` since it did not come to an end with them.",
        |view, to| {
            let Some(shadow) = &view.status.shadow else { return };
            to.count(&["same"], shadow.records - shadow.different);
            to.count(&["different"], shadow.different);
            to.count(&["skipped"], shadow.skipped);
            to.count(&["unjudged"], shadow.unjudged);
        },
    ),
    metric(
        "weir_records_total",
        Counter,
        &[],
        "Records taken in that at least one sink did not have. Equal to the sum of `weir_record_fates_total`.",
        |view, to| to.count(&[], view.status.records.taken),
    ),
    metric(
        "weir_record_fates_total",
        Counter,
        &["fate"],
        "What became of them: `routed`, `rejected`, `dropped` or `failed`. Each record has exactly one fate.",
        |view, to| {
            let records = &view.status.records;
            to.count(&["routed"], records.routed);
            to.count(&["rejected"], records.rejected);
            to.count(&["dropped"], records.dropped);
            to.count(&["failed"], records.failed);
        },
    ),
    metric(
        "weir_route_records_total",
        Counter,
        &["route"],
        "Records with a row on a route. One record may be on several.",
        |view, to| view.status.records.routes.iter().for_each(|(route, n)| to.count(&[route], *n)),
    ),
    metric(
        "weir_rejects_total",
        Counter,
        &["reason"],
        "Records refused by the source or the transform, by the first reason.",
        |view, to| view.status.records.reasons.iter().for_each(|(reason, n)| to.count(&[reason], *n)),
    ),
    metric(
        "weir_records_skipped_total",
        Counter,
        &[],
        "Records that a sink was not given because it had them: what a restart reads again.",
        |view, to| to.count(&[], view.status.records.skipped),
    ),
    metric(
        "weir_records_elsewhere_total",
        Counter,
        &[],
        "Records of which a sink was given nothing because they came again for a row that another sink had refused.",
        |view, to| to.count(&[], view.status.records.elsewhere),
    ),
    metric(
        "weir_batches_replayed_total",
        Counter,
        &[],
        "Batches made again for a sink that lags, with a plan older than the newest.",
        |view, to| to.count(&[], view.status.records.replayed_older),
    ),
    metric(
        "weir_transform_records_total",
        Counter,
        &["plan"],
        "Records that a plan made here, those made again included; of the two newest plans that made some.",
        |view, to| {
            for cost in &view.status.costs {
                to.count(&[&cost.plan.to_string()], cost.records);
            }
        },
    ),
    metric(
        "weir_transform_cpu_seconds_total",
        Counter,
        &["plan"],
        "What these records took of a processor. Divided by their number: what a record costs under a plan.",
        |view, to| {
            for cost in &view.status.costs {
                to.add(&[&cost.plan.to_string()], cost.cpu_ns as f64 / 1e9);
            }
        },
    ),
    metric("weir_rows_total", Counter, &["sink", "target"], "Rows that were committed.", |view, to| {
        for sink in &view.status.sinks {
            sink.rows.iter().for_each(|(target, n)| to.count(&[&sink.name, target], *n));
        }
    }),
    metric("weir_commits_total", Counter, &["sink"], "Commits that are durable.", |view, to| {
        to.sinks(view, |sink| sink.writer.commits as f64);
    }),
    metric(
        "weir_rows_refused_total",
        Counter,
        &["sink"],
        "Rows that a database refused for what is in them; they are in its table `weir_reject`.",
        |view, to| to.sinks(view, |sink| sink.own.refused as f64),
    ),
    metric(
        "weir_rows_superseded_total",
        Counter,
        &["sink"],
        "Rows of tables with keys behind which another one of the same commit had their key.",
        |view, to| to.sinks(view, |sink| sink.own.superseded as f64),
    ),
    metric(
        "weir_files_rolled_forward_total",
        Counter,
        &["sink"],
        "Files that a predecessor had committed and this process made visible.",
        |view, to| to.sinks(view, |sink| sink.own.rolled_forward as f64),
    ),
    metric(
        "weir_sink_errors_total",
        Counter,
        &["sink"],
        "Claims, writes and commits that failed, each of them tried again or the reason why a partition stopped.",
        |view, to| to.sinks(view, |sink| sink.writer.errors as f64),
    ),
    metric(
        "weir_commits_unknown_total",
        Counter,
        &["sink"],
        "Commits whose answer was lost, and that were asked for again until it was known.",
        |view, to| to.sinks(view, |sink| sink.writer.unknown_resolved as f64),
    ),
    metric(
        "weir_fenced_total",
        Counter,
        &["sink"],
        "Claims and commits refused because somebody else owned the partition.",
        |view, to| to.sinks(view, |sink| sink.writer.fenced as f64),
    ),
    metric(
        "weir_sink_busy_seconds_total",
        Counter,
        &["sink"],
        "How long a sink was busy with what it was asked. A sink whose rate comes near 1 holds up the others.",
        |view, to| to.sinks(view, |sink| sink.busy_ms as f64 / 1e3),
    ),
    metric(
        "weir_sink_call_seconds",
        Gauge,
        &["sink"],
        "For how long a sink has been busy with one call by now; 0 if it waits for rows.",
        |view, to| to.sinks(view, |sink| sink.calling_ms.unwrap_or(0) as f64 / 1e3),
    ),
    metric(
        "weir_partitions",
        Gauge,
        &["state"],
        "Partitions of this process by what they do: `claiming`, `needs-plan`, `running`, `waiting`, `pausing`, \
         `paused`, `draining` or `stopped`.",
        |view, to| {
            for state in State::ALL {
                let n = view.status.partitions.iter().filter(|partition| partition.state == state).count();
                to.count(&[state.word()], n as u64);
            }
        },
    ),
    metric(
        "weir_partitions_finished_total",
        Counter,
        &[],
        "Partitions of which every sink has all: files that were read to their end.",
        |view, to| to.count(&[], view.status.finished),
    ),
    metric(
        "weir_partition_restarts_total",
        Counter,
        &[],
        "How often a partition began again because a sink failed.",
        |view, to| to.count(&[], view.status.records.restarted),
    ),
    metric(
        "weir_partitions_lost_total",
        Counter,
        &[],
        "How often a sink said that another process owns a partition.",
        |view, to| to.count(&[], view.status.records.lost),
    ),
    metric(
        "weir_partition_read_offset",
        Gauge,
        &["topic", "partition"],
        "The offset up to which the source was heard.",
        |view, to| {
            to.partitions(view, |partition| partition.read.map(|read| read.get() as f64));
        },
    ),
    metric(
        "weir_partition_end_offset",
        Gauge,
        &["topic", "partition"],
        "The offset behind the last record of the partition, where that is known: of a topic, as last seen.",
        |view, to| {
            to.partitions(view, |partition| partition.end.map(|end| end.get() as f64));
        },
    ),
    metric(
        "weir_partition_committed_offset",
        Gauge,
        &["topic", "partition", "sink"],
        "The first offset that a sink does not have for certain.",
        |view, to| {
            for partition in &view.status.partitions {
                let number = partition.partition.to_string();
                for (sink, next) in &partition.committed {
                    to.add(&[&partition.topic, &number, sink], next.get() as f64);
                }
            }
        },
    ),
    metric(
        "weir_budget_used_bytes",
        Gauge,
        &[],
        "Size of the records between the source and the last sink. At its limit, the source waits for the sinks.",
        |view, to| to.count(&[], view.status.budget.used_bytes),
    ),
    metric("weir_budget_limit_bytes", Gauge, &[], "`limits.in_flight_bytes`.", |view, to| {
        to.count(&[], view.status.budget.limit_bytes);
    }),
];

/// All numbers of a process whose deciding thread has been silent for so long.
pub fn render(answer: &Answer, silent: Duration) -> String {
    let view = View { answer, status: &answer.status, silent };
    let mut text = String::new();
    for metric in METRICS {
        let kind = metric.kind.word();
        writeln!(text, "# HELP {} {}", metric.name, metric.help.replace('\\', "\\\\")).expect(TO_STRING);
        writeln!(text, "# TYPE {} {kind}", metric.name).expect(TO_STRING);
        (metric.read)(&view, &mut Samples { metric, pipeline: &view.status.pipeline, text: &mut text });
    }
    text
}

const TO_STRING: &str = "writing to a String does not fail";

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
        }
    }
}

/// The lines of one metric.
struct Samples<'a> {
    metric: &'a Metric,
    pipeline: &'a str,
    text: &'a mut String,
}

impl Samples<'_> {
    /// One line, with a value for each label.
    fn add(&mut self, labels: &[&str], value: f64) {
        assert_eq!(labels.len(), self.metric.labels.len(), "{} has other labels", self.metric.name);
        write!(self.text, "{}{{pipeline=\"{}\"", self.metric.name, escaped(self.pipeline)).expect(TO_STRING);
        for (name, label) in self.metric.labels.iter().zip(labels) {
            write!(self.text, ",{name}=\"{}\"", escaped(label)).expect(TO_STRING);
        }
        writeln!(self.text, "}} {value}").expect(TO_STRING);
    }

    fn count(&mut self, labels: &[&str], n: u64) {
        self.add(labels, n as f64);
    }

    fn sinks(&mut self, view: &View<'_>, value: impl Fn(&SinkStatus) -> f64) {
        view.status.sinks.iter().for_each(|sink| self.add(&[&sink.name], value(sink)));
    }

    fn partitions(&mut self, view: &View<'_>, value: impl Fn(&Partition) -> Option<f64>) {
        for partition in &view.status.partitions {
            if let Some(value) = value(partition) {
                self.add(&[&partition.topic, &partition.partition.to_string()], value);
            }
        }
    }
}

/// The value of a label may be anything that a transform or a file calls itself.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::admin::tests::answer;

    const INTRODUCTION: &str = "\
# Metrics

Every process that runs a pipeline answers `/metrics` at its address (`listen` in `[admin]`) and at its socket, in the
text form of Prometheus. All numbers are of that process alone, and counters begin at 0 when it starts: what was delivered
stands in the sinks. Each has the label `pipeline` besides those that are named here.

What is worth an alarm:

* `weir_partitions{state=\"stopped\"} > 0`: somebody has to do something; `weir status` says what.
* `weir_partitions{state=\"waiting\"} > 0` for some minutes: a sink cannot be reached, or refuses.
* `weir_heartbeat_age_seconds > 180`, or no answer: the process is stuck or gone.
* `rate(weir_record_fates_total{fate=~\"rejected|failed\"}[10m])` is more than it used to be: the input or the rule changed.
* `weir_partition_read_offset` stands still, or is far from what the source has.
* `rate(weir_transform_cpu_seconds_total[5m]) / rate(weir_transform_records_total[5m])` is a multiple under a new plan of
  what it was under the one before: the transform became slower.

This page is made from `runtime/src/admin/metrics.rs`: change that and run the tests with `UPDATE_EXPECT=1`.

| metric | type | labels | meaning |
|---|---|---|---|
";

    #[test]
    fn the_reference_says_what_the_table_says() {
        let mut page = INTRODUCTION.to_owned();
        for Metric { name, kind, labels, help, .. } in METRICS {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(page, "| `{name}` | {} | {} | {help} |", kind.word(), labels.join(", "))
                .expect(TO_STRING);
        }
        expect_file!["../../docs/metrics.md"].assert_eq(&page);
    }

    #[test]
    fn a_counter_says_so_by_its_name_and_no_name_is_there_twice() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("weir_"), "{name}");
            assert_eq!(metric.kind == Counter, name.ends_with("_total"), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn a_label_with_quotes_and_line_breaks_is_one_line() {
        let mut answer = answer();
        answer.status.records.reasons.insert("a \"b\"\\\nc".into(), 7);
        let text = render(&answer, Duration::ZERO);
        let line = r#"weir_rejects_total{pipeline="p",reason="a \"b\"\\\nc"} 7"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let text = render(&answer(), Duration::from_millis(1500));
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, rest) = line.split_once('{').expect("all have a label");
            let (_, value) = rest.rsplit_once("} ").expect("a value stands behind the labels");
            assert!(METRICS.iter().any(|metric| metric.name == name), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.contains("weir_transform_records_total{pipeline=\"p\",plan=\"1\"} 4\n"), "{text}");
        assert!(text.contains("weir_transform_cpu_seconds_total{pipeline=\"p\",plan=\"1\"} 0.000006\n"));
        assert!(text.contains("weir_heartbeat_age_seconds{pipeline=\"p\"} 1.5\n"), "{text}");
        assert!(text.contains(
            "weir_partition_committed_offset{pipeline=\"p\",topic=\"t\",partition=\"3\",sink=\"lake\"} 40\n"
        ));
    }
}
