//! Looks at a component as a pipeline would: loads it, starts it, runs a sample through it in the sandbox, and
//! holds it to its promises. It reaches nothing outside and prints nothing.

mod given;
mod golden;
mod guest_log;
mod sample;
mod shown;
mod trial;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use golden::Mismatch;
pub use guest_log::GuestLog;
pub use sample::Sample;
pub use shown::Shown;

use crate::config::{Limits, is_misnamed};
use crate::description::Description;
use crate::purity;
use crate::report::{Report, TransformId, milliseconds};
use crate::sandbox::wasi::Import;
use crate::sandbox::{Init, InstanceLimits, Sandbox, StartError, Transform};
use golden::Cases;
use trial::Ran;

/// What is to be looked at.
#[derive(Debug)]
pub struct Request<'a> {
    /// The bytes of the component.
    pub component: &'a [u8],
    /// For the sample; golden cases have their own. Those not given take their defaults.
    pub settings: Vec<(String, String)>,
    /// Files of reference tables by name.
    pub tables: Vec<(String, PathBuf)>,
    /// The records to run, if any.
    pub sample: Option<Sample>,
    /// The file of golden cases, if any.
    pub expect: Option<PathBuf>,
    /// What an instance may use.
    pub limits: InstanceLimits,
    /// How many rows of each route are kept to be shown.
    pub show: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Validation {
    /// Counts and checks, in this order, as far as it came: `loads`, `describes`, `starts`, `conserved`,
    /// `no-failures`, `deterministic`, `expect`.
    pub report: Report,
    /// What the transform imports and gets.
    pub imports: Vec<Import>,
    /// What the transform says of itself under the settings given.
    pub description: Option<Arc<Description>>,
    /// The first rows of each route, dead letters last.
    pub shown: Vec<Shown>,
    /// What the transform wrote to its log while the sample ran.
    pub log: GuestLog,
    /// Golden cases that came out otherwise.
    pub mismatches: Vec<Mismatch>,
    /// Files of the sample's directory that were not read.
    pub left_out: Vec<String>,
}

/// Why there is nothing to say about a component.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command is wrong, or a file is not what it should be.
    #[error("{text}")]
    Wrong {
        /// What is wrong.
        text: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A file is there and did not let itself be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Error {
    fn wrong(text: String, hint: &str) -> Self {
        Self::Wrong { text, hint: Some(hint.to_owned()) }
    }

    /// A file that is not there is the command's fault, one that cannot be read is not.
    pub fn of_file(text: String, error: &io::Error) -> Self {
        match is_misnamed(error) {
            true => Self::Wrong { text, hint: None },
            false => Self::Unreadable(text),
        }
    }
}

/// Looks at a component. What it does wrong is in the report's checks; the first that keeps it from running is the
/// last.
///
/// # Errors
/// [`Error`], where the request itself is at fault.
pub fn validate(sandbox: &Sandbox, request: Request<'_>) -> Result<Validation, Error> {
    let cases = request.expect.as_deref().map(Cases::read).transpose()?;
    let mut found = Validation::default();
    let Some(transform) = found.load(sandbox, request.component) else { return Ok(found) };
    let Some(description) = found.describe(&transform, &request.settings, &request.limits)? else {
        return Ok(found);
    };
    if let Some(mut sample) = request.sample {
        found.left_out = sample.left_out().to_vec();
        let tables = given::load_tables(&description, &request.tables)?;
        let init = Init { settings: request.settings, tables, limits: request.limits.clone(), description };
        found.try_sample(&transform, &init, &mut sample, request.show)?;
    }
    if let Some(cases) = cases {
        found.mismatches = cases.run(&transform, &request.tables, &request.limits)?;
        found.check_expected(&cases);
    }
    Ok(found)
}

impl Validation {
    fn load(&mut self, sandbox: &Sandbox, component: &[u8]) -> Option<Transform> {
        let (loaded, took) = timed(|| sandbox.load(component));
        self.report.timing.load_ms = milliseconds(took);
        match loaded {
            Ok(transform) => {
                self.imports = transform.imports().to_vec();
                let imports = match transform.imports().len() {
                    0 => "nothing".to_owned(),
                    1 => "1 interface".to_owned(),
                    n => format!("{n} interfaces"),
                };
                self.report
                    .ok("loads", format!("a component of {} bytes that imports {imports}", component.len()));
                Some(transform)
            }
            Err(e) => {
                self.report.not_ok("loads", e.to_string(), Some(e.hint().to_owned()));
                None
            }
        }
    }

    /// First without settings, which tells those that there are, then with them.
    fn describe(
        &mut self,
        transform: &Transform,
        settings: &[(String, String)],
        limits: &InstanceLimits,
    ) -> Result<Option<Arc<Description>>, Error> {
        let described = match transform.describe(&[], limits) {
            Ok(description) => {
                given::check_settings(&description, settings)?;
                transform.describe(settings, limits)
            }
            refused => refused,
        };
        match described {
            Ok(description) => {
                let (name, version) = (description.name.clone(), description.version.clone());
                self.report.ok("describes", format!("{name} {version}: {}", extent(&description)));
                self.report.transform =
                    Some(TransformId { name, version, digest: transform.digest().clone() });
                self.description = Some(Arc::new(description));
                Ok(self.description.clone())
            }
            Err(e) => {
                self.report.not_ok("describes", told_start(&e), None);
                Ok(None)
            }
        }
    }

    fn try_sample(
        &mut self,
        transform: &Transform,
        init: &Init,
        sample: &mut Sample,
        show: usize,
    ) -> Result<(), Error> {
        let (instance, took) = timed(|| transform.instance(init));
        let instance = match instance {
            Ok(instance) => instance,
            Err(e) => {
                self.report.not_ok("starts", told_start(&e), None);
                return Ok(());
            }
        };
        self.report.ok("starts", format!("in {:.1} ms, {}", milliseconds(took), with_tables(init)));
        let ran = trial::run(transform, init, instance, sample, show)?;
        self.report.count(&ran.tally, ran.took);
        self.check_run(&ran);
        (self.shown, self.log) = (ran.shown, ran.log);
        Ok(())
    }

    fn check_run(&mut self, ran: &Ran) {
        let (report, tally) = (&mut self.report, &ran.tally);
        let sum = tally.accounts();
        match (&ran.stopped, tally.conserved()) {
            (None, true) => report.ok("conserved", sum),
            (None, false) => report.not_ok("conserved", format!("E_NOT_CONSERVED: {sum}"), None),
            (Some(_), _) => {
                report.not_ok("conserved", format!("the sample did not run to its end; {sum}"), None)
            }
        }
        match (&ran.stopped, tally.failed) {
            (Some(text), _) => report.not_ok("no-failures", text, Some(STALL_HINT.to_owned())),
            (None, 0) => report.ok("no-failures", no_failures(ran.split)),
            (None, failed) => {
                let each = ran.failures.join("; ");
                let text =
                    format!("the transform failed on {failed} of {}: {each}", count(tally.records, "record"));
                report.not_ok("no-failures", text, Some(FAILURE_HINT.to_owned()));
            }
        }
        match &ran.difference {
            None if ran.stopped.is_some() => {}
            None => report.ok(
                "deterministic",
                format!(
                    "{} again in other batches, another order and another instance: the same",
                    count(ran.compared, "record")
                ),
            ),
            Some(text) => {
                let text = format!("E_NONDETERMINISTIC: {text}");
                report.not_ok("deterministic", text, Some(purity::HINT.to_owned()));
            }
        }
    }

    fn check_expected(&mut self, cases: &Cases) {
        let of = count(cases.len() as u64, "case");
        match self.mismatches.len() {
            0 => self.report.ok("expect", format!("{of}, each alone and all together")),
            n => self.report.not_ok("expect", format!("{n} of {of} came out otherwise"), None),
        }
    }
}

const STALL_HINT: &str = "a loop without an end, or too much work for one batch: `limits.deadline` is 5 s in a pipeline \
                          that says nothing else";
const FAILURE_HINT: &str = "a record that cannot be used is to be rejected with a reason; a failure costs its whole batch \
                            time, and tells nobody what is wrong with the record";

/// As a pipeline has them that says nothing of limits.
pub fn limits() -> InstanceLimits {
    let limits = Limits::default();
    InstanceLimits {
        memory_bytes: limits.memory.bytes() as usize,
        deadline: limits.deadline.duration(),
        output_bytes: limits.output_bytes.bytes() as usize,
        fuel_per_record: limits.fuel_per_record.get(),
        log_bytes_per_second: limits.log_bytes_per_second.bytes() as u32,
        ..InstanceLimits::default()
    }
}

fn extent(description: &Description) -> String {
    let routes: Vec<&str> = description.routes.iter().map(|route| &*route.name).collect();
    let reasons = count(description.reasons.len() as u64, "reason");
    match routes[..] {
        [] => format!("no routes, {reasons}"),
        _ => format!("routes {}; {reasons} to reject", routes.join(", ")),
    }
}

fn with_tables(init: &Init) -> String {
    let tables: Vec<String> =
        init.tables.iter().map(|t| format!("{} ({})", t.name, count(t.rows.into(), "row"))).collect();
    if tables.is_empty() { "without tables".to_owned() } else { format!("with {}", tables.join(", ")) }
}

fn no_failures(split: u64) -> String {
    match split {
        0 => "no trap, error or output that breaks the contract".to_owned(),
        n => format!("no record failed, but {} went through in parts only", count(n, "batch")),
    }
}

/// `1 record`, `2,000 records`
fn count(n: u64, what: &str) -> String {
    match (n, what) {
        (1, _) => format!("1 {what}"),
        (n, "batch") => format!("{n} batches"),
        (n, _) => format!("{n} {what}s"),
    }
}

/// With the guest's last words, since a trap alone tells nothing.
fn told_start(error: &StartError) -> String {
    let log = match error {
        StartError::Call { source, .. } => source.log(),
        _ => "",
    };
    match last_words(log) {
        Some(last) => format!("{}; its last words: {last}", told(error)),
        None => told(error),
    }
}

/// The last lines of a log on one line. What Rust says of backtraces behind every panic tells nothing.
fn last_words(log: &str) -> Option<String> {
    let telling =
        |line: &&str| !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE");
    let lines: Vec<&str> = log.lines().filter(telling).collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    (!last.is_empty()).then(|| last.join(" | "))
}

/// An error and its causes on one line.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What `work` gives, and how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "people want to know how long it took; nothing is decided by it"
)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = work();
    (made, start.elapsed())
}
