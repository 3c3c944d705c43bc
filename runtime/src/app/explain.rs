//! What became of one record: which plan had it, what each sink has of it, and what it should have. It reads what sinks and
//! the source have, runs the recorded plan once more in the sandbox, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::again::Again;
use super::letters::{Wanted, letters, reader, used};
use super::{Kept, Options, Origin as Source, recall, topics};
use crate::batch::{Batch, BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::config::{FilesSource, KafkaSource, PipelineConfig, SinkName, SourceConfig};
use crate::kafka::peek::{From, peek};
use crate::kafka::{self, Cluster};
use crate::offset::Offset;
use crate::origin::replay_topic;
use crate::plan::store::Store;
use crate::plan::{History, InputPartition, Plan};
use crate::route::{self, DEAD_LETTERS, Fate, Routed};
use crate::sink::back::{Asked, Coordinates, Letter, Made, Reader, Sought, Stage, Stood};
use crate::sink::state::{PlanRef, SinkState};

/// What became of a record.
#[derive(Debug)]
pub struct Explained {
    /// The record.
    pub origin: Coordinates,
    /// The plan that had it, as the sinks' own cuts say, and what the plan log has under that number; absent where no sink
    /// has it yet.
    pub plan: Option<(PlanRef, Option<Plan>)>,
    /// Where the record was read once more, or why it could not be.
    pub read_from: Result<String, String>,
    /// What becomes of it under that plan, or why that is not known.
    pub fate: Result<&'static str, String>,
    /// When it came again, as far as rows tell of it, written or refused: one that was dropped then left none.
    pub later: Vec<Attempt>,
    /// What each sink has.
    pub sinks: Vec<AtSink>,
    /// Differences that are no sink's own.
    pub differences: Vec<String>,
}

impl Explained {
    /// Whether nothing is there that should not be, and nothing missing, as far as it can be known.
    pub fn is_as_it_should_be(&self) -> bool {
        self.differences.is_empty() && self.sinks.iter().all(|sink| sink.differences.is_empty())
    }
}

/// A record that came again.
#[derive(Debug)]
pub struct Attempt {
    /// 1 where it did so for the first time.
    pub attempt: u16,
    /// The plan that had it.
    pub plan: u64,
    /// What becomes of it under that plan, or why that is not known.
    pub fate: Result<&'static str, String>,
}

/// What a sink has of a record.
#[derive(Debug)]
pub struct AtSink {
    /// The sink.
    pub sink: Arc<str>,
    /// Where it stands in the partition of the record; absent if it never was there.
    pub next: Option<Offset>,
    /// The plan by which it has the record, if it has it.
    pub plan: Option<u64>,
    /// Its rows, each with its target and route.
    pub rows: Vec<(Arc<str>, Arc<str>, Stood)>,
    /// The rows that it refused.
    pub refused: Vec<Letter>,
    /// What is not as it should be.
    pub differences: Vec<String>,
    /// What cannot be known, and why.
    pub unknown: Vec<String>,
}

/// Looks into every sink and at the source.
///
/// # Errors
/// If there can be no such record, or a sink or the plan log cannot be read.
pub fn explain(config: &PipelineConfig, options: &Options, origin: &Coordinates) -> Result<Explained> {
    let kept = Source::of(config)?.log_that_is_there(config)?;
    let kept = kept.with_context(|| format!("pipeline {} has never run", config.name))?;
    let Kept { history, store, .. } = kept;
    let replays = replay_topic(config.name.as_str());
    ensure!(
        *origin.at.topic != *replays,
        "{origin} is a record that came again: explain it by where it came first"
    );
    let of = match &config.source {
        SourceConfig::Files(files) if *files.topic.as_str() == *origin.at.topic => {
            Some(InputPartition::file(origin.at.partition))
        }
        SourceConfig::Files(_) => None,
        SourceConfig::Kafka(_) => Some(InputPartition::of(&origin.at)),
    };
    let Some(of) = of.filter(|of| history.started.contains_key(of)) else {
        bail!(
            "pipeline {} has read nothing of {}: `weir history` shows which partitions there are",
            config.name,
            origin.at
        );
    };

    if let Some(end) = history.done.get(&of).filter(|end| origin.offset >= **end) {
        bail!("there is no record {origin}: {} was read to its end, and has {end} records", origin.at);
    }

    let sinks = used(config, &history);
    let mut opened = Vec::new();
    for (name, sink) in &sinks {
        let reading = || format!("reading sink {name}");
        let mut reader = reader(config, name, sink).with_context(reading)?;
        let state = reader.state(&origin.at).with_context(reading)?;
        opened.push((*name, reader, state));
    }
    let mut explained = Explained {
        origin: origin.clone(),
        plan: None,
        read_from: Err("it was not looked for: no sink has it yet".to_owned()),
        fate: Err("no sink has it yet".to_owned()),
        later: Vec::new(),
        sinks: Vec::new(),
        differences: Vec::new(),
    };
    let plans: BTreeSet<(u64, Arc<str>)> = opened
        .iter()
        .filter_map(|(.., state)| {
            let plan = history.plan_at(&of, state.as_ref()?, origin.offset)?;
            Some((plan.plan, plan.digest))
        })
        .collect();
    if plans.len() > 1 {
        let all: Vec<_> = plans.iter().map(|(plan, _)| plan.to_string()).collect();
        explained.differences.push(format!("sinks have it from different plans: {}", all.join(", ")));
    }
    let Some((plan, digest)) = plans.into_iter().next() else {
        explained.sinks = opened.into_iter().map(|(name, _, state)| without(name, state.as_ref())).collect();
        return Ok(explained);
    };
    let plan = PlanRef { plan, digest };
    let letters = letters_of(config, &history, origin)?;
    let record = Record { config, history: &history, origin };
    let (batch, read_from) = match record.read(&letters) {
        Ok((batch, from)) => (Ok(batch), Ok(from)),
        Err(why) => (Err(why.clone()), Err(why)),
    };
    explained.read_from = read_from;
    let names: Vec<Arc<str>> = sinks.iter().map(|(name, _)| name.as_str().into()).collect();
    let mut reruns =
        Reruns { config, options, history: &history, store, names, batch, done: BTreeMap::new() };
    let first = reruns.of(&plan);
    explained.fate = first.made.as_ref().map(fate).map_err(Clone::clone);
    for (place, (name, mut reader, state)) in opened.into_iter().enumerate() {
        let reading = || format!("reading sink {name}");
        let mut at_sink = without(name, state.as_ref());
        if state.is_some_and(|state| origin.offset < state.next) {
            at_sink.plan = Some(plan.plan);
            let refused = letters.iter().filter(|l| l.stage == Stage::Sink && *l.sink == *name.as_str());
            at_sink.refused = refused.cloned().collect();
            match (&first.again, &first.made) {
                (Ok(again), made) => {
                    Looking { again, origin, made: made.as_ref().ok(), place, plan: plan.plan }
                        .look(&mut at_sink, reader.as_mut())
                        .with_context(reading)?
                }
                (Err(_), made) => at_sink.unknown.extend(made.as_ref().err().cloned()),
            }
        }
        // Since the record came again, other plans had it.
        for by in later_plans(&history, &replays, plan.plan, &at_sink) {
            let Some(what) = history.plans.get(&by) else {
                at_sink
                    .differences
                    .push(format!("a row says it is of plan {by}, which is not in the plan log"));
                continue;
            };
            let rerun = reruns.of(&PlanRef { plan: by, digest: what.digest.clone() });
            match (&rerun.again, &rerun.made) {
                (Ok(again), Ok(made)) => {
                    let looking = Looking { again, origin, made: Some(made), place, plan: by };
                    looking.look_again(&mut at_sink, reader.as_mut()).with_context(reading)?;
                }
                (_, made) => at_sink.unknown.extend(
                    made.as_ref().err().map(|why| format!("whether rows of later attempts are right: {why}")),
                ),
            }
        }
        explained.sinks.push(at_sink);
    }
    explained.later = later(&mut reruns, &explained.sinks);
    let known = history.plans.get(&plan.plan).cloned();
    if known.as_ref().is_some_and(|known| known.digest != plan.digest) {
        explained.differences.push(format!("the plan log has another transform as plan {}", plan.plan));
    }
    explained.plan = Some((plan, known));
    Ok(explained)
}

/// What became of the record each time it came again.
fn later(reruns: &mut Reruns<'_>, sinks: &[AtSink]) -> Vec<Attempt> {
    let rows = || sinks.iter().flat_map(|sink| &sink.rows).map(|(_, route, stood)| (route, stood));
    let written = rows().map(|(_, stood)| (stood.attempt, stood.plan));
    let refused = sinks.iter().flat_map(|sink| &sink.refused).map(|letter| (letter.attempt, letter.plan));
    let all: BTreeSet<(u16, u64)> = written.chain(refused).filter(|(attempt, _)| *attempt > 0).collect();
    // A record that came again for a row which the plan does not make is rejected, whatever it makes of the record otherwise.
    let letters = rows().filter(|(route, _)| ***route == *DEAD_LETTERS);
    let letters: BTreeMap<_, _> =
        letters.map(|(_, stood)| ((stood.attempt, stood.plan), fate_of_letter(stood))).collect();
    let mut fate_by = |plan| match reruns.history.plans.get(&plan) {
        Some(what) => {
            let made = &reruns.of(&PlanRef { plan, digest: what.digest.clone() }).made;
            made.as_ref().map(fate).map_err(Clone::clone)
        }
        None => Err(format!("plan {plan} is not in the plan log")),
    };
    let attempt = |(attempt, plan)| {
        let fate = letters.get(&(attempt, plan)).map_or_else(|| fate_by(plan), |fate| Ok(*fate));
        Attempt { attempt, plan, fate }
    };
    all.into_iter().map(attempt).collect()
}

fn fate_of_letter(letter: &Stood) -> &'static str {
    let trap = letter.row.as_ref().and_then(|row| row.get("trap"));
    if trap.is_some_and(|trap| !trap.is_null()) { "failed" } else { "rejected" }
}

/// Which plans may have made rows of a sink since the record came again: those that its rows name, and those that send rows
/// elsewhere than `first` does, where they are not seen yet.
fn later_plans(history: &History, replays: &str, first: u64, at_sink: &AtSink) -> BTreeSet<u64> {
    let again = at_sink.rows.iter().filter(|(.., stood)| stood.attempt > 0);
    let mut all: BTreeSet<u64> = again.map(|(.., stood)| stood.plan).collect();
    let came_again = history.started.keys().any(|of| of.topic.as_deref() == Some(replays));
    if let Some(routes) = history.plans.get(&first).map(|plan| &plan.routes)
        && came_again
        && at_sink.plan.is_some()
    {
        all.extend(
            history.plans.range(first + 1..).filter(|(_, plan)| plan.routes != *routes).map(|(n, _)| *n),
        );
    }
    all
}

/// A sink that has nothing of the record, or of which that cannot be said.
fn without(name: &SinkName, state: Option<&SinkState>) -> AtSink {
    AtSink {
        sink: name.as_str().into(),
        next: state.map(|state| state.next),
        plan: None,
        rows: Vec::new(),
        refused: Vec::new(),
        differences: Vec::new(),
        unknown: Vec::new(),
    }
}

fn letters_of(config: &PipelineConfig, history: &History, origin: &Coordinates) -> Result<Vec<Letter>> {
    let mut all = Vec::new();
    let wanted = Wanted { sought: Sought::of(origin), ..Wanted::default() };
    letters(config, history, &wanted, &mut |letter| {
        all.push(letter);
        true
    })?;
    Ok(all)
}

fn fate(routed: &Routed) -> &'static str {
    match routed.fates.first().map(|(_, fate)| fate) {
        Some(Fate::Routed) => "routed",
        Some(Fate::Rejected) => "rejected",
        Some(Fate::Dropped) => "dropped",
        Some(Fate::Failed) | None => "failed",
    }
}

/// The record under plans, each run once.
struct Reruns<'a> {
    config: &'a PipelineConfig,
    options: &'a Options,
    history: &'a History,
    store: Arc<dyn Store>,
    /// The sinks.
    names: Vec<Arc<str>>,
    /// The record, or why it is not there.
    batch: Result<Batch, String>,
    done: BTreeMap<u64, Rc<Rerun>>,
}

struct Rerun {
    again: Result<Again>,
    /// What the plan makes of the record, or why that is not known: also where it could not be loaded.
    made: Result<Routed, String>,
}

impl Reruns<'_> {
    fn of(&mut self, plan: &PlanRef) -> Rc<Rerun> {
        if let Some(done) = self.done.get(&plan.plan) {
            return done.clone();
        }
        let Self { config, options, history, store, names, batch, .. } = self;
        let again = Again::load(config, options, history, store.clone(), names.clone(), plan);
        let made = match (&again, batch) {
            (Ok(again), Ok(batch)) => again.run(batch, plan),
            (Err(error), _) => Err(format!("plan {} cannot be run: {error:#}", plan.plan)),
            (_, Err(why)) => Err(why.clone()),
        };
        let rerun = Rc::new(Rerun { again, made });
        self.done.insert(plan.plan, rerun.clone());
        rerun
    }
}

/// One sink, and what it should have.
struct Looking<'a> {
    again: &'a Again,
    origin: &'a Coordinates,
    /// What the plan makes of the record, if that is known.
    made: Option<&'a Routed>,
    /// The sink's place among those of the plan's bindings.
    place: usize,
    plan: u64,
}

impl Looking<'_> {
    /// What the sink has of the record from when it came first.
    fn look(&self, at_sink: &mut AtSink, reader: &mut dyn Reader) -> Result<()> {
        for Found { target, route, made, rows, unknown } in self.find(reader)? {
            let first: Vec<&Stood> = rows.iter().filter(|stood| stood.attempt == 0).collect();
            if self.made.is_some() {
                compare(at_sink, &target, &route, &made, &first, unknown, self.plan);
            } else {
                at_sink.unknown.extend(unknown.map(|why| format!("{target}: {why}")));
            }
            rows.into_iter().for_each(|stood| at_sink.add(&target, &route, stood));
        }
        Ok(())
    }

    /// What it has since the record came again, as far as this plan made it. Nothing is missed: of a record that comes again,
    /// one row may be meant alone.
    fn look_again(&self, at_sink: &mut AtSink, reader: &mut dyn Reader) -> Result<()> {
        for Found { target, route, made, rows, .. } in self.find(reader)? {
            for stood in rows.into_iter().filter(|stood| stood.attempt > 0 && stood.plan == self.plan) {
                let (attempt, by) = (stood.attempt, self.plan);
                let number = format!("{}, attempt {attempt}", numbered(&target, &route, stood.index));
                match made.iter().find(|should| should.index == stood.index) {
                    Some(should) => at_sink
                        .differences
                        .extend(should.differences(&stood).iter().map(|what| format!("{number}: {what}"))),
                    // There is one also where the plan does not make the row that was meant.
                    None if *route == *DEAD_LETTERS => at_sink.unknown.push(format!(
                        "{number}: whether it should be there; plan {by} makes something of the record"
                    )),
                    None => at_sink
                        .differences
                        .push(format!("{number}: it is there and should not be, by plan {by}")),
                }
                at_sink.add(&target, &route, stood);
            }
        }
        Ok(())
    }

    fn find(&self, reader: &mut dyn Reader) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        let bound = &self.again.loaded.bindings().sinks[self.place];
        for (route, target) in bound {
            let Some(schema) = route::schema_of_route(self.again.loaded.description(), route) else {
                continue;
            };
            let asked = Asked { origin: self.origin, target, route, schema: &schema };
            let found = reader.rows(&asked)?;
            let made = match self.made {
                Some(routed) => of_route(routed, route)?,
                None => Vec::new(),
            };
            // What a table has came by some route, and its number tells by which; where that is not known, it is shown once.
            let others = self.of_other_routes(bound, route, target)?;
            let rows = found.rows.into_iter().filter(|stood| !others.contains(&stood.index)).collect();
            let (target, route, unknown) = (target.clone(), route.clone(), found.unknown);
            all.push(Found { target, route, made, rows, unknown });
        }
        Ok(all)
    }

    /// Numbers of rows that come to a target by other routes.
    fn of_other_routes(
        &self,
        bound: &[(Arc<str>, Arc<str>)],
        route: &str,
        target: &Arc<str>,
    ) -> Result<BTreeSet<i32>> {
        let Some(routed) = self.made else { return Ok(BTreeSet::new()) };
        let mut all = BTreeSet::new();
        for (other, _) in bound.iter().filter(|(other, to)| **other != *route && to == target) {
            all.extend(of_route(routed, other)?.iter().map(|made| made.index));
        }
        Ok(all)
    }
}

/// What a target has of the record by one route, and what it should have.
struct Found {
    target: Arc<str>,
    route: Arc<str>,
    made: Vec<Made>,
    rows: Vec<Stood>,
    unknown: Option<String>,
}

impl AtSink {
    fn add(&mut self, target: &Arc<str>, route: &Arc<str>, stood: Stood) {
        if !self.rows.iter().any(|(of, _, known)| of == target && *known == stood) {
            self.rows.push((target.clone(), route.clone(), stood));
        }
    }
}

/// A row, for people.
fn numbered(target: &str, route: &str, index: i32) -> String {
    match route == DEAD_LETTERS {
        true => format!("{target}, row {index} (the dead letter)"),
        false => format!("{target}, row {index} (route {route})"),
    }
}

fn of_route(routed: &Routed, route: &str) -> Result<Vec<Made>> {
    let mut all = Vec::new();
    for part in routed.parts.iter().filter(|part| *part.route == *route) {
        all.extend(Made::of(part)?);
    }
    Ok(all)
}

/// Holds what a target has against what it should have.
fn compare(
    at_sink: &mut AtSink,
    target: &str,
    route: &str,
    made: &[Made],
    rows: &[&Stood],
    unknown: Option<String>,
    plan: u64,
) {
    for should in made {
        let number = numbered(target, route, should.index);
        let there: Vec<&Stood> = rows.iter().copied().filter(|stood| stood.index == should.index).collect();
        let is_refused = at_sink.refused.iter().any(|letter| letter.index == should.index);
        match &there[..] {
            [] if is_refused || should.deletes => {}
            [] => match &unknown {
                Some(why) => at_sink.unknown.push(format!("{number} is not there: {why}")),
                None => at_sink.differences.push(format!("{number} is missing")),
            },
            [stood] => {
                if stood.plan != plan {
                    let by = stood.plan;
                    at_sink
                        .differences
                        .push(format!("{number} says it is of plan {by}, and should be of plan {plan}"));
                }
                let different = should.differences(stood);
                at_sink.differences.extend(different.into_iter().map(|what| format!("{number}: {what}")));
            }
            more => at_sink.differences.push(format!("{number} is there {} times", more.len())),
        }
    }
    let extra = rows.iter().filter(|stood| made.iter().all(|should| should.index != stood.index));
    for Stood { index, .. } in extra {
        let number = numbered(target, route, *index);
        at_sink.differences.push(format!("{number} is there and should not be"));
    }
}

/// The record, where it came from.
struct Record<'a> {
    config: &'a PipelineConfig,
    history: &'a History,
    origin: &'a Coordinates,
}

impl Record<'_> {
    /// The record as a batch of its own, and where it was found: at its source, else in one of its dead letters.
    fn read(&self, letters: &[Letter]) -> Result<(Batch, String), String> {
        let at_source = match &self.config.source {
            SourceConfig::Files(files) => self.of_file(files),
            SourceConfig::Kafka(kafka) => self.of_topic(kafka),
        };
        let why = match at_source {
            Ok(found) => return Ok(found),
            Err(error) => format!("{error:#}"),
        };
        let letter = letters.iter().find(|letter| letter.stage == Stage::Transform);
        let letter = letter.ok_or(why)?;
        let headers: Vec<_> =
            letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = RecordRef {
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &headers,
            timestamp_ms: letter.timestamp_ms.unwrap_or(-1),
        };
        Ok((self.alone(record), format!("its dead letter in sink {}", letter.sink)))
    }

    fn alone(&self, record: RecordRef<'_>) -> Batch {
        let mut builder = BatchBuilder::new(self.origin.at.clone(), self.origin.offset);
        builder.push(self.origin.offset, record);
        builder.finish(self.origin.offset.next(), Permit::free()).expect("it covers one offset")
    }

    fn of_topic(&self, kafka: &KafkaSource) -> Result<(Batch, String)> {
        let Coordinates { at, offset } = self.origin;
        let cluster = topics::cluster(kafka)?;
        if let Some(why) = topics::why_gone(&cluster, self.history, &at.topic)? {
            bail!(why);
        }
        let mut found = None;
        peek(&cluster, &at.topic, Some(at.partition), From::At(*offset), &mut |seen| {
            found = Some(seen).filter(|seen| seen.offset == *offset);
            false
        })?;
        let Some(seen) = found else { bail!(not_there(&cluster, self.origin)?) };
        Ok((self.alone(seen.record(&seen.header_refs())), format!("topic {}", at.topic)))
    }

    fn of_file(&self, files: &FilesSource) -> Result<(Batch, String)> {
        let Coordinates { at, offset } = self.origin;
        let mut found = None;
        let file = recall::of_file(files, self.history, at, &BTreeSet::from([*offset]), &mut |_, batch| {
            found = Some(batch);
        })?;
        Ok((found.expect("it was handed over, or is an error"), format!("file {file}")))
    }
}

/// Why a topic has no record where one was read.
fn not_there(cluster: &Cluster, origin: &Coordinates) -> Result<String> {
    let at = &origin.at;
    let place =
        |from| Ok::<_, kafka::Error>(cluster.places(&at.topic, &[at.partition], from)?[&at.partition]);
    let (first, end) = (place(From::Start)?, place(From::Last(0))?);
    // Who may not ask how a topic is configured is told both.
    let is_compacted = cluster.is_compacted(&at.topic).ok();
    Ok(why_not_there(origin, first, end, is_compacted))
}

fn why_not_there(origin: &Coordinates, first: Offset, end: Offset, is_compacted: Option<bool>) -> String {
    let Coordinates { at, offset } = origin;
    if *offset < first {
        return format!("{at} begins at offset {first} by now: retention took it, or somebody deleted it");
    }
    if *offset >= end {
        return format!("{at} ends at offset {end} by now: it lost records, or the topic was made anew");
    }
    let mark = "there never was a record, but the mark of a transaction or what one gave up";
    match is_compacted {
        Some(true) => format!("the topic is compacted, and has a newer record of its key; or {mark}"),
        Some(false) => format!("{at} has no record there: {mark}"),
        None => format!("{at} has no record there: it was compacted away, or {mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_a_topic_does_not_have_went_by_retention_or_by_compaction_or_never_was_one() {
        let origin: Coordinates = "t/0/5".parse().unwrap();
        let why = |first, end, is_compacted| {
            why_not_there(&origin, Offset::new(first), Offset::new(end), is_compacted)
        };
        assert!(why(6, 9, Some(true)).contains("retention took it"));
        assert!(why(0, 5, Some(false)).contains("ends at offset 5 by now"));
        assert!(why(5, 6, Some(true)).contains("is compacted, and has a newer record of its key"));
        let (kept, unknown) = (why(5, 6, Some(false)), why(5, 6, None));
        assert!(kept.contains("mark of a transaction") && !kept.contains("compacted"), "{kept}");
        assert!(unknown.contains("it was compacted away, or"), "{unknown}");
    }
}
