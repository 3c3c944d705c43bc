//! `weir deploy` and `weir rollback`.

mod ddl;
mod sample;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use crossbeam_channel::{Receiver, after, select};
use serde_json::{Value, json};

use super::run::{clock, stop_on_signals};
use super::screen;
use super::shadow;
use super::{Ended, options, pair, with_the_next_start};
use crate::admin;
use crate::admin::ask;
use crate::app::Difference;
use crate::app::deploy::{Ask, Changes, Deployment, Looked, Sample, Statements};
use crate::config::{Period, PipelineConfig, SourceConfig};
use crate::pipeline::status::State;
use crate::sandbox::escape;

/// How often it is looked whether the plan was taken over.
const EVERY: Duration = Duration::from_millis(50);

/// How often processes of this machine are asked whether they can.
const ASK_EVERY: u32 = 10;

/// Replace the rule of a pipeline while it runs
///
/// Without anything to change, what the pipeline file says now becomes the next plan. With a
/// component, a table, a setting or a limit, all else stays as it runs; the file goes on saying
/// what it said. It is checked first: the component loads and starts with its settings and tables,
/// its routes have places, and the sinks take their columns. Then it says what would be different,
/// the columns of routes among it, tries the plan on what stands last in the input, and asks.
///
/// That trial has the last 1,000 records (--sample) go through the plan that runs and through the
/// new one, and shows how many are routed, rejected, dropped and failed under each, and some of
/// those that differ. Nothing of it is written. A plan that fails at every record of them, or would
/// stop a partition, is refused where the one that runs does not; all else is for you to judge.
/// Where the input has no records any more, it says so and goes on.
///
/// Every process takes the plan over between two batches of a partition, and the first offset of it
/// is written down. The old one goes on making what it has begun. A plan that is refused changes
/// nothing.
///
/// With --shadow nothing is replaced: in every process the new plan gets the same live records as
/// the one that runs, and what it makes of them is compared and thrown away. The command waits for
/// the end of that and says what differs; Ctrl-C leaves it running. `weir shadow` looks at it,
/// promotes it and drops it.
///
/// A plan that then rejects more records than the one before, fails at more or cannot go on is
/// taken back by itself, as `[deploy]` in the pipeline file says: `weir status` shows how it
/// stands, and `weir history` why it was.
///
/// Files begin anew where the plan changes, and rows in topics say which plan made them. A table
/// has to have the columns: those that may be null can be added by `--migrate`, and `--ddl` prints
/// how; for anything else it is refused, and the column named, also by `--ddl`.
///
/// Examples:
///     weir deploy pipeline.toml
///     weir deploy pipeline.toml rule-2.wasm --set strict=true
///     weir deploy pipeline.toml --table us_cities=new.csv --why "three cities more" --yes
///     weir deploy pipeline.toml rule-2.wasm --shadow --records 100000
///     weir deploy pipeline.toml rule-2.wasm --sample 0    # it fails at what is there, and is right
///
/// Exit codes: 0 it is in the plan log, and with --shadow nothing differs; 1 something does, it is
/// not wanted, it cannot be right, another plan was faster, or a process cannot run it; 2 the
/// command or the file is wrong, or does not fit the transform or a sink; 3 something could not be
/// reached, or with --shadow no process runs that could try it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DeployArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Another component, a .wasm file
    #[arg(value_name = "COMPONENT")]
    component: Option<PathBuf>,
    /// A setting of the transform
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// A reference table, from a CSV or a Parquet file
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = pair)]
    tables: Vec<(String, String)>,
    /// A limit of the transform: memory, deadline, output_bytes, fuel_per_record
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = pair)]
    limits: Vec<(String, String)>,
    /// Try it first on so many records that stand last in the input, in seconds at most; 0: on none
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "shadow")]
    sample: usize,
    /// Keep it whatever it does: it is not taken back by itself
    #[arg(long)]
    no_trial: bool,
    /// Add the columns that its tables lack and that may be null, before it takes over
    #[arg(long, conflicts_with = "shadow")]
    migrate: bool,
    /// Print the statements that add those columns, and do nothing
    #[arg(long, conflicts_with_all = ["migrate", "shadow"])]
    ddl: bool,
    /// Try it on live records beside the plan that runs: nothing of it is written, what differs is shown
    #[arg(long)]
    shadow: bool,
    #[command(flatten)]
    until: shadow::UntilArgs,
    #[command(flatten)]
    how: How,
}

/// Take a plan back: what ran before becomes the next plan
///
/// It is checked, asked for and taken over as by `weir deploy`, and stays whatever it does. Plans are never removed: the one
/// that goes back has a number of its own, and what was made in between stays as it is.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// The plan to go back to, by its number in `weir history`; without it, what ran before the plan in force, but for what
    /// was undone since, by somebody or by itself
    #[arg(long, value_name = "PLAN")]
    to: Option<u64>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(super) struct How {
    /// Why, for `weir history`
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) why: String,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// How long to wait until all partitions are taken over, which those without new records are not: 10 s if it is not
    /// said, and for a shadow until it ends
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) wait: Option<Period>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// So long it is waited until a plan is taken over, if nothing else is said.
const WAIT: Period = Period::seconds(10);

pub(super) fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).map_err(|complaint| complaint.message)
}

pub(super) fn deploy(args: &DeployArgs) -> Result<Ended> {
    // Not left to clap, for which --migrate or --ddl would do instead of --shadow: they exclude it.
    ensure!(args.shadow || !args.until.is_said(), "--records and --for are for --shadow");
    let config = PipelineConfig::load(&args.pipeline)?.in_haste();
    let changes = Changes {
        component: args.component.clone(),
        settings: args.settings.clone(),
        tables: args.tables.iter().map(|(name, file)| (name.clone(), file.into())).collect(),
        limits: args.limits.clone(),
    };
    let deployment = Deployment::prepare(&config, &options(), &changes)?;
    if args.ddl {
        return ddl::print(&deployment, args.how.json);
    }
    let on_trial = !args.no_trial && config.deploy.limits().is_some();
    let (how, migrate, sample) = (&args.how, args.migrate, args.sample);
    let deploying = Deploying { config: &config, deployment, how, on_trial, migrate, sample };
    if args.shadow { deploying.try_out(&args.until) } else { deploying.run() }
}

/// The statements of all sinks.
fn flat(statements: &Statements) -> Vec<&str> {
    statements.iter().flat_map(|(_, statements)| statements).map(String::as_str).collect()
}

/// Says what sinks do not take, and why. The same for a program, and how the command ends for it, if there is anything.
fn refused(found: Vec<(String, anyhow::Error)>, say: impl Fn(&str)) -> (Vec<Value>, Option<Ended>) {
    let (mut refused, mut ends) = (Vec::new(), Vec::new());
    for (what, error) in found {
        let (found, fix, ended) = screen::told(&error);
        say(&format!("{what}: {found}"));
        if let Some(fix) = &fix {
            say(&format!("  hint: {fix}"));
        }
        ends.push(ended);
        refused.push(json!({ "what": what, "found": found, "fix": fix }));
    }
    (refused, screen::of_all(&ends))
}

pub(super) fn rollback(args: &RollbackArgs) -> Result<Ended> {
    let config = PipelineConfig::load(&args.pipeline)?.in_haste();
    let deployment = Deployment::back(&config, &options(), args.to)?;
    // Whoever goes back knows why, and may want just what it makes more rejects of.
    Deploying { config: &config, deployment, how: &args.how, on_trial: false, migrate: false, sample: 0 }
        .run()
}

/// What is tried on live records, or was to its end, becomes the next plan.
pub(super) fn promote(pipeline: &Path, how: &How, no_trial: bool) -> Result<Ended> {
    let config = PipelineConfig::load(pipeline)?.in_haste();
    let (_, deployment) = Deployment::promotion(&config, &options())?;
    let on_trial = !no_trial && config.deploy.limits().is_some();
    Deploying { config: &config, deployment, how, on_trial, migrate: false, sample: 0 }.run()
}

struct Deploying<'a> {
    config: &'a PipelineConfig,
    deployment: Deployment,
    how: &'a How,
    /// Whether it is taken back by itself where it does worse.
    on_trial: bool,
    /// Whether columns are added that its tables lack.
    migrate: bool,
    /// On how many records it is tried before.
    sample: usize,
}

impl Deploying<'_> {
    fn run(mut self) -> Result<Ended> {
        let (replaces, _) = self.deployment.replaces();
        let added = if self.migrate { self.deployment.lacking_columns()? } else { Statements::new() };
        let runs_already = self.deployment.runs_already();
        if runs_already && added.is_empty() {
            self.say(&format!("nothing to do: plan {replaces} is that already"));
            self.end(json!({ "deployed": false, "plan": replaces, "differences": [] }));
            return Ok(Ended::Done);
        }
        let ask = Ask {
            // Else they are looked at once they have what they lack.
            sinks: added.is_empty(),
            // Columns that are added change nothing of what the plan makes.
            last_records: Some(self.sample).filter(|n| *n > 0 && !runs_already),
        };
        let tell = |differences: &[Difference]| {
            self.say(&format!("{}: what changes after plan {replaces}", self.config.name));
            differences.iter().for_each(|difference| self.say(&format!("  {difference}")));
            for (sink, statements) in &added {
                statements.iter().for_each(|statement| self.say(&format!("  {sink}: {statement}")));
            }
        };
        let Looked { differences, refused, sample } = self.deployment.look(ask, tell);
        if let Some((refused, ended)) = self.refused(refused) {
            self.say("refused: nothing was changed");
            self.end(json!({ "deployed": false, "differences": differences, "refused": refused }));
            return Ok(ended);
        }
        let sample = sample.and_then(|sample| self.told_sample(sample, replaces));
        if let Some(found) = sample.as_ref().and_then(|sample| sample.refused.as_deref()) {
            let fix = "`--sample 0` makes it the next plan all the same";
            self.say(&format!("{}\n  hint: {fix}\nrefused: nothing was changed", escape(found)));
            let refused = [json!({ "what": "sample", "found": found, "fix": fix })];
            self.end(json!({
                "deployed": false, "differences": differences, "sample": sample, "refused": refused,
            }));
            return Ok(Ended::No);
        }
        if !self.how.yes && !screen::is_wanted("make this the next plan?", self.how.json)? {
            self.say("nothing was changed");
            self.end(json!({ "deployed": false, "differences": differences, "sample": sample }));
            return Ok(Ended::No);
        }
        if !added.is_empty() {
            self.deployment.add_columns()?;
            self.say("the columns are there");
            if differences.is_empty() {
                self.say(&format!("  plan {replaces} is what was wanted besides"));
                self.end(json!({ "deployed": false, "plan": replaces, "statements": flat(&added) }));
                return Ok(Ended::Done);
            }
            if let Some((refused, ended)) = self.refused(self.deployment.refused_by_sinks()) {
                self.say("refused: nothing else was changed");
                self.end(json!({
                    "deployed": false, "differences": differences, "sample": sample, "statements": flat(&added),
                    "refused": refused,
                }));
                return Ok(ended);
            }
        }
        let stop = stop_on_signals("the plan is in the log, and is taken over without this command")?;
        let number = self.deployment.put(&self.how.why, self.on_trial)?;
        let (begun, logged_at_ms) = (clock(), admin::now_ms());
        self.say(&format!("plan {number} is in the plan log"));
        if let Some(limits) = self.config.deploy.limits().filter(|_| self.on_trial) {
            let (records, time) = (screen::count(limits.records.get()), limits.time);
            self.say(&format!(
                "  on trial: taken back if it does worse in its first {records} records or {time}"
            ));
        }
        if let Some(by) = self.deployment.paused() {
            let (who, file) = (&by.who, self.config.file.display());
            self.say(&format!("  paused by {who}: it takes effect once it goes on, by `weir resume {file}`"));
        }
        let followed = match self.nobody_runs_it() {
            true => Followed::default(),
            false => self.follow(number, begun, &stop)?,
        };
        let cuts: Vec<_> = followed.cuts.iter().map(Cut::to_json).collect();
        self.end(json!({
            "deployed": true, "plan": number, "logged_at_ms": logged_at_ms, "differences": differences, "sample": sample,
            "statements": flat(&added), "cuts": cuts, "without_records": followed.left, "refused": followed.refused,
            "taken_back": followed.taken_back,
        }));
        Ok(if followed.refused.or(followed.taken_back).is_some() { Ended::No } else { Ended::Done })
    }

    /// Says what becomes of the last records of the input under both plans, if that is known.
    fn told_sample(&self, sample: Result<Sample>, replaces: u64) -> Option<Sample> {
        match sample {
            Ok(sample) => {
                if !self.how.json {
                    sample::print(&sample, replaces);
                }
                Some(sample)
            }
            // What is to mend a pipeline must not wait for its input.
            Err(error) => {
                self.say(&format!("not tried before: {}", screen::told(&error).0));
                None
            }
        }
    }

    /// The same, beside the plan that runs.
    fn try_out(mut self, until: &shadow::UntilArgs) -> Result<Ended> {
        let differences = self.deployment.differences();
        let (beside, _) = self.deployment.replaces();
        if differences.is_empty() {
            self.say(&format!("nothing to try: plan {beside} is that already"));
            self.end(json!({ "shadow": null, "beside": beside, "differences": [] }));
            return Ok(Ended::Done);
        }
        self.say(&format!("{}: what would be different after plan {beside}", self.config.name));
        differences.iter().for_each(|difference| self.say(&format!("  {difference}")));
        let refused = self.refused(self.deployment.refused_by_sinks());
        if until.promotes()
            && let Some((refused, ended)) = refused
        {
            self.say(
                "refused, since it could not take over by itself; without --promote-up-to it can be tried",
            );
            self.end(json!({ "shadow": null, "beside": beside, "refused": refused }));
            return Ok(ended);
        }
        if refused.is_some() {
            self.say("it can be tried all the same, and is refused when it is deployed");
        }
        let stop = stop_on_signals("it is tried on without this command: `weir shadow status` shows it")?;
        let place = self.deployment.put_shadow(&self.how.why, until.meant(), self.on_trial)?;
        self.say(&format!("shadow {place} gets the records of plan {beside}, {}", until.told()));
        let mut tried = shadow::Tried::new(place, beside);
        if !self.nobody_runs_it() {
            tried.follow(self.config, &mut self.deployment, self.how.wait, &stop, self.how.json)?;
        }
        match self.how.json {
            true => {
                let refused = refused.map(|(refused, _)| refused);
                self.end(json!({ "differences": differences, "refused": refused, "tried": tried.to_json() }));
            }
            false => tried.print(self.config),
        }
        Ok(tried.verdict())
    }

    /// Says what sinks do not take; the same for a program, and how the command ends for it.
    fn refused(&self, found: Vec<(String, anyhow::Error)>) -> Option<(Vec<Value>, Ended)> {
        let (refused, ended) = refused(found, |line| self.say(line));
        if !refused.is_empty() && self.deployment.lacking_columns().is_ok_and(|lacking| !lacking.is_empty()) {
            self.say("  columns that may be null: `--migrate` adds them, `--ddl` prints how");
        }
        Some((refused, ended?))
    }

    /// Waits until every partition that is read was taken over, somebody cannot, or it has taken long enough.
    fn follow(&mut self, number: u64, begun: Instant, stop: &Receiver<()>) -> Result<Followed> {
        let mut followed = Followed::default();
        for turn in 0.. {
            let adopted = match self.deployment.adopted(number) {
                Ok(adopted) => adopted,
                Err(error) => {
                    self.say(&format!("  who takes it over cannot be seen: {error:#}"));
                    return Ok(followed);
                }
            };
            let took = begun.elapsed();
            for (of, cut) in adopted.iter().filter_map(|(of, cut)| Some((of.to_string(), cut.as_ref()?))) {
                if followed.cuts.iter().all(|cut| cut.of != of) {
                    let cut = Cut { of, from: cut.from.get(), took };
                    self.say(&format!(
                        "  {}: from offset {} on, written {} ms after",
                        cut.of,
                        cut.from,
                        took.as_millis()
                    ));
                    followed.cuts.push(cut);
                }
            }
            followed.left =
                adopted.iter().filter(|(_, cut)| cut.is_none()).map(|(of, _)| of.to_string()).collect();
            if let Some((by, made)) = self.deployment.taken_back(number) {
                self.say(&format!("plan {by} took its place: {}: {}", made.by.who, made.why));
                followed.taken_back = Some(made.why.clone());
                return Ok(followed);
            }
            if adopted.is_empty() {
                self.say("  no partition is being read: it takes effect with the next one");
            }
            if followed.left.is_empty() {
                return Ok(followed);
            }
            if turn % ASK_EVERY == ASK_EVERY - 1 {
                followed.refused = self.who_cannot(number);
                if let Some(why) = &followed.refused {
                    self.say(&format!("a process cannot run it, and reads nothing until it can: {why}"));
                    self.say(&format!("  hint: `weir rollback {}`", self.config.file.display()));
                    return Ok(followed);
                }
            }
            if took >= self.how.wait.unwrap_or(WAIT).duration() || stopped(stop) {
                self.say(&format!(
                    "  {} of {} partitions take it over with their next records: {}",
                    followed.left.len(),
                    adopted.len(),
                    screen::some_of(&followed.left, 8),
                ));
                return Ok(followed);
            }
        }
        Ok(followed)
    }

    /// Says so, and whether it is known: processes on other machines are not.
    fn nobody_runs_it(&self) -> bool {
        let Some(when) = with_the_next_start(self.config) else { return false };
        self.say(&format!("  no process of it runs on this machine: it takes effect {when}"));
        matches!(self.config.source, SourceConfig::Files(_))
    }

    /// Why a process on this machine cannot run the plan, if one says so.
    fn who_cannot(&self, number: u64) -> Option<String> {
        let processes = ask::processes(&self.config.admin.socket, self.config.name.as_str()).ok()?;
        let cannot = processes.into_iter().find(|(_, answer)| answer.status.not_ready == Some(number))?;
        let mut partitions = cannot.1.status.partitions.into_iter();
        let told = partitions.find_map(|at| at.trouble.filter(|_| at.state == State::NeedsPlan));
        Some(told.map_or_else(|| "it says so".to_owned(), |told| told.text))
    }

    fn say(&self, line: &str) {
        if !self.how.json {
            println!("{line}");
        }
    }

    fn end(&self, said: Value) {
        if self.how.json {
            println!("{said}");
        }
    }
}

#[derive(Default)]
struct Followed {
    cuts: Vec<Cut>,
    /// Partitions that had no record since.
    left: Vec<String>,
    /// Why a process cannot run it.
    refused: Option<String>,
    /// Why it is no more the newest.
    taken_back: Option<String>,
}

struct Cut {
    of: String,
    from: i64,
    took: Duration,
}

impl Cut {
    fn to_json(&self) -> Value {
        json!({ "partition": self.of, "from": self.from, "after_ms": self.took.as_millis() as u64 })
    }
}

/// Waits a little; whether it was told to stop meanwhile.
pub(super) fn stopped(stop: &Receiver<()>) -> bool {
    select! {
        recv(stop) -> _ => true,
        recv(after(EVERY)) -> _ => false,
    }
}
