//! Looks at all that a pipeline file names, in the order in which a person would mend it: what is on this machine first,
//! then what has to be reached. It starts no pipeline, and decides nothing.
//!
//! What a sink would do is tried and undone. The directories of file sinks are made, since what they stand on can only be
//! tried there; nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Access, access, statvfs};

use super::plans::Candidate;
use super::sinks::{
    files_config, if_unreachable, one_moves_the_group, postgres_config, same_cluster, sinks_of,
    sqlite_config, wanted,
};
use super::{Options, inputs, joined, named, sandbox, topics};
use crate::admin::{self, ask};
use crate::config::{self, KafkaSource, PipelineConfig, SinkConfig, SinkName, SourceConfig, TargetTable};
use crate::kafka::{self, Cluster};
use crate::plan::History;
use crate::route::DEAD_LETTERS;
use crate::sink::files::FilesSink;
use crate::sink::table::{Examined, Wanted};
use crate::sink::{postgres, sqlite};
use crate::source::{self, files::Inputs};

/// Less free space than this is worth a word.
const FREE: u64 = 1 << 30;

/// Clocks that are further apart than this make times confusing; nothing of records depends on them.
const APART_MS: u64 = 5_000;

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What, in the words of the pipeline file.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
}

/// How a thing is.
#[derive(Debug)]
pub enum Verdict {
    /// As it should be; what was found.
    Ok(String),
    /// It will do, and somebody should know.
    Warn {
        /// What was found.
        found: String,
        /// What a person can do.
        fix: Option<String>,
    },
    /// A run would stop at it.
    Fail(anyhow::Error),
}

/// Looks, and tells each finding as soon as it is there. With `offline`, at the file, the component and the tables alone.
pub fn examine(config: &PipelineConfig, options: &Options, offline: bool, tell: &mut dyn FnMut(Finding)) {
    let mut doctor = Doctor { config, options, tell };
    let candidate = doctor.transform();
    if offline {
        return;
    }
    doctor.look("state directory", || state_directory(config));
    doctor.admin();
    let history = doctor.plan(candidate.as_ref());
    doctor.source();
    doctor.sinks(candidate.as_ref(), &history);
}

/// The sinks that do not take what a plan makes, or cannot be asked, each with what it refuses and why.
pub(super) fn refused_by_sinks(
    config: &PipelineConfig,
    options: &Options,
    candidate: &Candidate,
    history: &History,
) -> Vec<(String, anyhow::Error)> {
    let mut refused = Vec::new();
    let mut note = |Finding { what, verdict }| {
        if let Verdict::Fail(error) = verdict {
            refused.push((what, error));
        }
    };
    Doctor { config, options, tell: &mut note }.sinks(Some(candidate), history);
    refused
}

/// That there are none.
///
/// # Errors
/// What the first of them refuses.
pub(super) fn taken_by_sinks(
    config: &PipelineConfig,
    options: &Options,
    candidate: &Candidate,
    history: &History,
) -> Result<()> {
    match refused_by_sinks(config, options, candidate, history).into_iter().next() {
        None => Ok(()),
        Some((what, error)) => Err(error.context(what)),
    }
}

/// The statements that make the tables of all sinks of tables, by sink. Nothing outside is asked.
///
/// # Errors
/// If the transform cannot be loaded, or there can be no table for a route.
pub fn statements(config: &PipelineConfig, options: &Options) -> Result<Vec<(String, Vec<String>)>> {
    let history = History::default();
    let candidate = Candidate::load(config, &sandbox(config, options, &history)?)?;
    let mut all = Vec::new();
    for (name, sink) in sinks_of(config, &history)? {
        let wanted = wanted(config, candidate.description(), name);
        let statements = match sink {
            SinkConfig::Files(_) | SinkConfig::Kafka(_) => continue,
            SinkConfig::Sqlite(tables) => sqlite::statements(&sqlite_config(config, name, tables), &wanted),
            SinkConfig::Postgres(tables) => {
                postgres::statements(&postgres_config(config, name, tables)?, &wanted)
            }
        };
        all.push((format!("sink {name}"), statements.with_context(|| format!("sink {name}"))?));
    }
    Ok(all)
}

struct Doctor<'a> {
    config: &'a PipelineConfig,
    options: &'a Options,
    tell: &'a mut dyn FnMut(Finding),
}

impl Doctor<'_> {
    fn say(&mut self, what: impl Into<String>, verdict: Verdict) {
        (self.tell)(Finding { what: what.into(), verdict });
    }

    fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.say(what, Verdict::Ok(found.into()));
    }

    fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, fix: Option<&str>) {
        self.say(what, Verdict::Warn { found: found.into(), fix: fix.map(str::to_owned) });
    }

    fn look(&mut self, what: &str, look: impl FnOnce() -> Result<Verdict>) {
        let verdict = look().unwrap_or_else(Verdict::Fail);
        self.say(what, verdict);
    }

    /// The component, its settings, tables and routes: all that makes the plan.
    fn transform(&mut self) -> Option<Candidate> {
        let sandbox = sandbox(self.config, self.options, &History::default());
        let candidate = match sandbox.and_then(|sandbox| Candidate::load(self.config, &sandbox)) {
            Ok(candidate) => candidate,
            Err(error) => {
                self.say("transform", Verdict::Fail(error));
                return None;
            }
        };
        let plan = candidate.plan();
        self.ok("transform", format!("{} {} ({})", plan.name, plan.version, plan.digest));
        for (name, table) in &plan.tables {
            self.ok(format!("table {name}"), table.digest.to_string());
        }
        for (route, to) in &plan.routes {
            let what =
                if route == DEAD_LETTERS { "dead letters".to_owned() } else { format!("route {route}") };
            let to = if to.is_empty() { "none: its rows are left out".to_owned() } else { to.join(", ") };
            self.ok(what, to);
        }
        self.upserts();
        Some(candidate)
    }

    /// What no look at a table can find out.
    fn upserts(&mut self) {
        for (name, sink) in &self.config.sinks {
            let tables = match sink {
                SinkConfig::Sqlite(sink) => &sink.tables,
                SinkConfig::Postgres(sink) => &sink.tables,
                SinkConfig::Files(_) | SinkConfig::Kafka(_) => continue,
            };
            for TargetTable { table, key } in tables.values() {
                let Some(key) = key else { continue };
                let found = format!(
                    "rows take the place of those with their key ({}): each key has to stay in one partition of the \
                     input, or the order of its rows is not known",
                    key.join(", ")
                );
                self.ok(format!("sink {name}, table {table}"), found);
            }
        }
    }

    fn admin(&mut self) {
        let admin = &self.config.admin;
        match ask::processes(&admin.socket, self.config.name.as_str()) {
            Ok(running) if running.is_empty() => {}
            Ok(running) => {
                let pids: Vec<_> = running.iter().map(|(_, answer)| answer.process.pid.to_string()).collect();
                self.ok("processes", format!("it runs already on this machine: process {}", pids.join(", ")));
            }
            Err(error) => {
                let found = format!("a process is there, and it cannot be told whose: {error}");
                self.warn("processes", found, error.hint());
            }
        }
        self.look("admin.socket", || Ok(Verdict::Ok(writable(&admin.socket)?)));
        let Some(address) = admin.listen else { return };
        if !address.ip().is_loopback() {
            let found = format!("whoever reaches {address} may see names, counts and errors of the pipeline");
            self.warn(
                "admin.listen",
                found,
                Some("put a proxy with TLS and passwords in front of 127.0.0.1"),
            );
        }
        match admin::is_free(address) {
            Ok(true) => self.ok("admin.listen", format!("{address} is free")),
            Ok(false) => self.ok("admin.listen", format!("{address} is taken: the next free port is used")),
            Err(error) => self.say("admin.listen", Verdict::Fail(error.into())),
        }
    }

    /// Whether the file is what ran last.
    fn plan(&mut self, candidate: Option<&Candidate>) -> History {
        let history = match super::history(self.config) {
            Ok(history) => history.unwrap_or_default(),
            Err(error) => {
                self.say("plan log", Verdict::Fail(error));
                return History::default();
            }
        };
        let changed = candidate.and_then(|candidate| candidate.changed(&history));
        match (history.newest(), changed) {
            (None, _) => self.ok("plan", "none yet: the first run takes the file over"),
            (Some((n, newest)), None) if newest.made.is_some() => self.ok(
                "plan",
                format!("the file is as it was when it was taken over last; plan {n} runs, which somebody put since"),
            ),
            (Some((n, _)), None) => {
                self.ok("plan", format!("plan {n}, which ran last, is what the file says"))
            }
            (Some(_), Some(changed)) => {
                self.warn(
                    "plan",
                    changed.to_string(),
                    Some("`weir run --adopt` makes the file the next plan"),
                );
            }
        }
        if let Some(by) = &history.paused {
            self.warn(
                "paused",
                format!("by {}: nothing is read", by.who),
                Some("`weir resume` while it runs"),
            );
        }
        history
    }

    fn source(&mut self) {
        match &self.config.source {
            SourceConfig::Files(files) => {
                let inputs = Inputs::new(&files.path, files.format.map(inputs::format_of));
                self.look("source.files", || {
                    named::source(self.config)?;
                    list(&inputs, &files.path)
                });
            }
            SourceConfig::Kafka(source) => self.topics(source),
        }
    }

    fn topics(&mut self, source: &KafkaSource) {
        let cluster = match topics::cluster(source) {
            Ok(cluster) => cluster,
            Err(error) => return self.say("source.kafka", Verdict::Fail(error)),
        };
        for topic in &source.topics {
            let looked = topic_of(&cluster, topic.as_str());
            let gone = matches!(looked, Err(kafka::Error::Unreachable { .. }));
            self.look(&format!("source.kafka, topic {topic}"), || {
                if let Err(error @ kafka::Error::NoTopic { .. }) = &looked {
                    self.config.refuse_absent(vec![topics::absent(error)])?;
                }
                Ok(Verdict::Ok(looked?))
            });
            if gone {
                return;
            }
        }
    }

    fn sinks(&mut self, candidate: Option<&Candidate>, history: &History) {
        let sinks = match sinks_of(self.config, history) {
            Ok(sinks) => sinks,
            Err(error) => {
                self.say("sinks", Verdict::Fail(error.into()));
                sinks_of(self.config, &History::default()).unwrap_or_default()
            }
        };
        if matches!(self.config.source, SourceConfig::Kafka(_))
            && let Err(error) = one_moves_the_group(&sinks)
        {
            self.say("sinks", Verdict::Fail(error.into()));
        }
        // Side by side, since each waits for somebody else most of the time; told in their order.
        let Self { config, options, .. } = *self;
        let ask = |name: &SinkName, sink: &SinkConfig| {
            let wanted = candidate.map(|candidate| wanted(config, candidate.description(), name));
            let mut found = Vec::new();
            let mut tell = |finding| found.push(finding);
            Doctor { config, options, tell: &mut tell }.sink(name, sink, &wanted.unwrap_or_default());
            found
        };
        thread::scope(|scope| {
            let asked: Vec<_> =
                sinks.iter().map(|(name, sink)| scope.spawn(move || ask(name, sink))).collect();
            for asked in asked {
                joined(asked).into_iter().for_each(&mut *self.tell);
            }
        });
    }

    fn sink(&mut self, name: &SinkName, sink: &SinkConfig, wanted: &[Wanted]) {
        let what = format!("sink {name}");
        match sink {
            SinkConfig::Files(files) => self.look(&what, || {
                let opened = FilesSink::open(files_config(self.config, name, files));
                drop(opened.map_err(|error| if_unreachable(self.config, name, error))?);
                Ok(match &files.root {
                    config::Root::Disk(path) => roomy(path, "it publishes without overwriting")?,
                    config::Root::Hdfs(hdfs) => {
                        let (cluster, directory) = (&hdfs.cluster, &hdfs.directory);
                        Verdict::Ok(format!("{cluster}{directory}: it publishes without overwriting"))
                    }
                })
            }),
            SinkConfig::Sqlite(tables) if !tables.path.exists() => {
                self.look(&what, || Ok(Verdict::Ok(format!("it will be made: {}", writable(&tables.path)?))));
            }
            SinkConfig::Sqlite(tables) => {
                let examined = sqlite::examine(&sqlite_config(self.config, name, tables), wanted);
                self.database(&what, &tables.path.display().to_string(), examined.map_err(Into::into));
            }
            SinkConfig::Postgres(tables) => {
                let config = postgres_config(self.config, name, tables);
                let shown =
                    config.as_ref().map_or_else(|_| String::new(), |config| config.server.to_string());
                let examined = config.and_then(|config| {
                    let examined = postgres::examine(&config, wanted);
                    Ok(examined.map_err(|error| if_unreachable(self.config, name, error))?)
                });
                self.database(&what, &shown, examined);
            }
            SinkConfig::Kafka(written) => self.topics_out(name, written, wanted),
        }
    }

    /// The topics of a sink: there, or made by the first run.
    fn topics_out(&mut self, name: &SinkName, written: &config::KafkaSink, wanted: &[Wanted]) {
        let what = format!("sink {name}");
        let cluster = match topics::cluster_of(&written.cluster, &format!("sinks.{name}.kafka")) {
            Ok(cluster) => cluster,
            Err(error) => return self.say(what, Verdict::Fail(error.into())),
        };
        let targets: BTreeSet<_> = wanted.iter().map(|wanted| &*wanted.target).collect();
        for target in targets {
            let named = written.topics.iter().find(|(name, _)| name.as_str() == target);
            let topic = named.map_or(target, |(_, topic)| topic.as_str());
            let looked = topic_of(&cluster, topic);
            let gone = matches!(looked, Err(kafka::Error::Unreachable { .. }));
            let missing = matches!(looked, Err(kafka::Error::NoTopic { .. }));
            self.look(&format!("{what}, topic {topic}"), || {
                Ok(Verdict::Ok(if missing && written.create {
                    "it will be made".to_owned()
                } else {
                    looked?
                }))
            });
            if gone {
                return;
            }
        }
        if let SourceConfig::Kafka(source) = &self.config.source
            && let Err(error) = topics::cluster(source).and_then(|source| same_cluster(&source, &cluster))
        {
            self.say(what, Verdict::Fail(error));
        }
    }

    fn database(&mut self, what: &str, shown: &str, examined: Result<Examined>) {
        let examined = match examined {
            Ok(examined) => examined,
            Err(error) => return self.say(what, Verdict::Fail(error)),
        };
        let about = [vec![examined.database], examined.notes].concat().join("; ");
        self.ok(what, format!("{shown}: {about}"));
        for warning in examined.warnings {
            self.warn(what, warning, None);
        }
        let apart = examined.clock_ms.map(|clock| clock.abs_diff(admin::now_ms() as i64));
        if let Some(apart) = apart.filter(|apart| *apart > APART_MS) {
            let found = format!("its clock and ours are {} s apart", apart / 1000);
            self.warn(
                what,
                found,
                Some("let both follow a time server: only times that people read depend on it"),
            );
        }
        for table in examined.tables {
            let what = format!("{what}, {}", table.name);
            match table.found {
                Ok(true) => self.ok(what, "it is there and fits"),
                Ok(false) => self.ok(what, "it will be made"),
                Err(error) => self.say(what, Verdict::Fail(error.into())),
            }
        }
    }
}

fn state_directory(config: &PipelineConfig) -> Result<Verdict> {
    writable(&config.state)?;
    roomy(&config.state, "it can be written to")
}

/// The file system around `path` has room.
fn roomy(path: &Path, found: &str) -> Result<Verdict> {
    let there = nearest(path);
    let space = statvfs(&there)
        .map_err(std::io::Error::from)
        .with_context(|| format!("looking at {}", there.display()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{}: {found}; {} MiB free", path.display(), free >> 20);
    Ok(match free < FREE {
        true => Verdict::Warn { found, fix: Some("make room: a full disk stops partitions".to_owned()) },
        false => Verdict::Ok(found),
    })
}

/// What of a path is there already.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.exists());
    there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Whether files can be made in the directory at `path`, or in the one in which it can be made itself.
fn writable(path: &Path) -> Result<String> {
    let there = nearest(path);
    let shown = there.display();
    let what = fs::metadata(&there).with_context(|| format!("looking at {shown}"))?;
    ensure!(what.is_dir(), "{shown} is no directory");
    access(&there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(std::io::Error::from)
        .with_context(|| format!("this user may not write to {shown}"))?;
    Ok(path.display().to_string())
}

fn list(inputs: &Inputs, path: &Path) -> Result<Verdict> {
    const SHOWN: usize = 3;
    let listing = inputs.list().map_err(source::Error::from)?;
    for file in &listing.found {
        inputs.open(&file.path).map_err(source::Error::from)?;
    }
    let bytes: u64 = listing.found.iter().map(|file| file.length).sum();
    let found = format!("{}: {} files, {} KiB", path.display(), listing.found.len(), bytes.div_ceil(1024));
    Ok(match &listing.unknown[..] {
        [] => Verdict::Ok(found),
        unknown => {
            let shown = unknown[..unknown.len().min(SHOWN)].join(", ");
            let found = format!("{found}; {} are left out, such as {shown}", unknown.len());
            let fix =
                "their names do not tell a format: set `format`, or name them .csv or .jsonl".to_owned();
            Verdict::Warn { found, fix: Some(fix) }
        }
    })
}

fn topic_of(cluster: &Cluster, topic: &str) -> Result<String, kafka::Error> {
    let partitions = cluster.extents(topic)?;
    let offsets: u64 = partitions.iter().map(|(first, end)| end.since(*first)).sum();
    let n = partitions.len();
    Ok(format!("at {}: {n} partitions with {offsets} offsets", cluster.brokers()))
}
