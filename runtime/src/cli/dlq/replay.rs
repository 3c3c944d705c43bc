//! `weir dlq replay`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use clap::Args;
use crossbeam_channel::bounded;
use serde_json::{Value, json};

use super::list::none;
use super::{Filter, dry_run, named, opened, record_of, tell_without_time};
use crate::app::letters::{Wanted, letters};
use crate::app::replay::{self, Copied, Gone, Selected, Sent, TooLarge, replay};
use crate::cli::screen::{self, count, counted};
use crate::cli::{Ended, with_the_next_start};
use crate::config::PipelineConfig;
use crate::origin::{Envelope, replay_topic};
use crate::plan::History;
use crate::sandbox::escape;
use crate::sink::back::{Letter, Stage};

/// Letters that are read ahead of those that are copied.
const AHEAD: usize = 1_000;

/// Send dead letters through the pipeline once more, by the rule that runs now
///
/// The records are copied to a second input of the pipeline as they came: to the topic `weir.PIPELINE.replay`, or, where it reads
/// files, to the directory `replay` in its state directory, all of them as one file. Each goes through
/// once however often this is asked for and wherever it was cut short: its rows say where it came first, and which attempt it
/// is. What fails again is a dead letter again, and may be sent up to `dead_letter.max_attempts` times. The letters themselves
/// stay where they are.
///
/// Of a record of which a sink refused a row, that row alone goes through again, to that sink and target. The record is read from
/// the input once more; where it is not there any more, it is named and left out. Which row it is, its number says: by the rule
/// that runs now, that has to be the row that was refused.
///
/// Mend the rule first, with `weir deploy`, or the table; --dry-run shows what would become of the letters by then, with the changes that would
/// be deployed. Without --yes it says how many letters there are, and asks if one of them can be sent.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
    weir dlq replay pipeline.toml --reason age-not-integer --dry-run
    weir dlq replay pipeline.toml rule-2.wasm --set on_bad_age=null --dry-run
    weir dlq replay pipeline.toml --reason age-not-integer
    weir dlq replay pipeline.toml --plan 0 --topic customers-raw --offsets 100..200 --yes

Exit codes: 0 they are copied, or were, or with --dry-run shown; 1 not wanted, or some are larger than the topic takes, or \
the input does not have their records any more: they are named, and all others are copied; 2 the command or the file is \
wrong; 3 something could not be reached.

What a source could not read as a record is sent where --stage source asks for it.

--dry-run copies nothing, and asks no sink whether it would take the rows. A line is a letter, the attempt at which it \
became one, its fate and more of that, with tabs in between; then comes how many have which fate. A fate is: routed, \
dropped, rejected, failed; stops, where the pipeline would not get past it; sent before, spent, too large or gone, where it \
would not be copied. With --json a line is an object for a letter, and the last one for all of them.")]
pub(super) struct ReplayArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Copy nothing, and show what would become of each letter
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    by: dry_run::By,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object; with --dry-run, one per letter and one for all
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs) -> Result<Ended> {
    // Not left to clap, for which --yes would do instead of --dry-run: the two exclude one another.
    ensure!(
        args.dry_run || args.by.is_what_runs(),
        "COMPONENT, --set and --table are for --dry-run: letters that are sent go through the rule that runs, which \
         `weir deploy` changes"
    );
    let (config, history) = opened(&args.pipeline)?;
    let mut wanted = args.filter.wanted();
    let says_no_stage = wanted.stages.is_empty();
    if says_no_stage {
        wanted.stages = vec![Stage::Transform, Stage::Sink];
    }
    let lacking = replay::lacking(&config, &history, wanted.stages.contains(&Stage::Sink))?;
    ensure!(
        lacking.of_letters.is_empty(),
        "a table of dead letters cannot say which attempt a letter is of: {}",
        lacking.of_letters.join("; ")
    );
    if !lacking.of_refused.is_empty() {
        let lacks = format!(
            "a table of refused rows cannot say which attempt a row is of: {}",
            lacking.of_refused.join("; ")
        );
        ensure!(says_no_stage, "{lacks}");
        eprintln!("rows that a sink refused are left out: {lacks}");
        wanted.stages = vec![Stage::Transform];
    }
    if args.dry_run {
        let dry_run = args.by.open(&config)?;
        let (ended, without_time) = read_ahead(&config, &history, &wanted, |letters| {
            dry_run::show(&config, dry_run, letters, args.json)
        })?;
        tell_without_time(without_time);
        return Ok(ended);
    }
    if !args.yes {
        let Found { n, sent, spent, without_time } = find(&config, &history, &wanted)?;
        match n {
            0 => eprintln!("{}", none(&config, &history, &wanted)?),
            n => eprintln!("found {}", counted(n, "letter")),
        }
        tell_left_out(&config, sent, spent, |line| eprintln!("{line}"));
        tell_without_time(without_time);
        if n == sent + spent {
            if args.json {
                println!("{}", to_json(&Copied { there: sent, spent, ..Copied::default() }));
            }
            return Ok(Ended::Done);
        }
        if !screen::is_wanted("send them through the pipeline again?", args.json)? {
            return Ok(Ended::No);
        }
    }
    let (copied, without_time) =
        read_ahead(&config, &history, &wanted, |letters| replay(&config, &history, letters))?;
    if args.yes {
        tell_without_time(without_time);
    }
    match args.json {
        true => println!("{}", to_json(&copied)),
        false => print(&config, &copied),
    }
    Ok(if copied.too_large.is_empty() && copied.gone.is_empty() { Ended::Done } else { Ended::No })
}

/// Letters that are asked for.
struct Found {
    n: u64,
    /// Those of them that were sent before.
    sent: u64,
    /// Those that failed as often as `dead_letter.max_attempts` says.
    spent: u64,
    /// How many others were left out since their records have no time.
    without_time: u64,
}

fn find(config: &PipelineConfig, history: &History, wanted: &Wanted) -> Result<Found> {
    let known = Sent::look(config)?;
    let (mut n, mut sent, mut spent) = (0, 0, 0);
    let without_time = letters(config, history, wanted, &mut |letter| {
        n += 1;
        if letter.attempt >= config.dead_letter.max_attempts.get() {
            spent += 1;
        } else if known.has(&named(&letter)) {
            sent += 1;
        }
        true
    })?;
    Ok(Found { n, sent, spent, without_time })
}

/// Letters are read while others are copied, and never all in memory. What came of it, and how many were left out since their
/// records have no time.
fn read_ahead<T>(
    config: &PipelineConfig,
    history: &History,
    wanted: &Wanted,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<Selected>>) -> Result<T>,
) -> Result<(T, u64)> {
    let (to, from) = bounded(AHEAD);
    let without_time = AtomicU64::new(0);
    let taken = thread::scope(|scope| {
        let left_out = &without_time;
        let mut read = Some(move || {
            let read = letters(config, history, wanted, &mut |letter| to.send(Ok(selected(letter))).is_ok());
            match read {
                Ok(n) => left_out.store(n, Ordering::Relaxed),
                // Nobody listens any more: the copy has failed, and says why.
                Err(error) => drop(to.send(Err(error))),
            }
        });
        // Nothing is read before there is a place for it: a database would wait meanwhile, in a transaction.
        let next = || {
            read.take().into_iter().for_each(|read| drop(scope.spawn(read)));
            from.recv().ok()
        };
        take(&mut std::iter::from_fn(next))
    })?;
    Ok((taken, without_time.into_inner()))
}

fn selected(letter: Letter) -> Selected {
    let named = named(&letter);
    if letter.stage == Stage::Sink {
        return Selected::InInput(named);
    }
    let Envelope { origin, meant } = named;
    let Letter { key, value, headers, timestamp_ms, .. } = letter;
    let timestamp_ms = timestamp_ms.unwrap_or(-1);
    Selected::Letter(replay::Letter { origin, meant, key, value, headers, timestamp_ms })
}

/// Letters that are left where they are.
fn tell_left_out(config: &PipelineConfig, sent: u64, spent: u64, tell: impl Fn(String)) {
    if sent > 0 {
        tell(format!("  sent already, and left out: {}", count(sent)));
    }
    if spent > 0 {
        let most = config.dead_letter.max_attempts;
        tell(format!("  failed {most} times (dead_letter.max_attempts), and left out: {}", count(spent)));
    }
}

fn to_json(Copied { copied, there, spent, too_large, gone }: &Copied) -> Value {
    let large = |TooLarge { origin, bytes, most }: &TooLarge| json!({ "letter": record_of(origin).to_string(), "attempt": origin.attempt - 1, "bytes": bytes, "most": most });
    let too_large: Vec<_> = too_large.iter().map(large).collect();
    let gone = gone.iter().map(|Gone { letter, why }| {
        json!({
            "letter": record_of(&letter.origin).to_string(),
            "attempt": letter.origin.attempt,
            "row": letter.meant.as_ref().map(ToString::to_string),
            "why": why,
        })
    });
    let gone: Vec<_> = gone.collect();
    json!({ "copied": copied, "there": there, "spent": spent, "too_large": too_large, "gone": gone })
}

fn print(config: &PipelineConfig, Copied { copied, there, spent, too_large, gone }: &Copied) {
    println!("to go through {} again: {}", config.name, counted(*copied, "letter"));
    tell_left_out(config, *there, *spent, |line| println!("{line}"));
    for TooLarge { origin, bytes, most } in too_large {
        let (letter, bytes, most) = (record_of(origin), count(*bytes as u64), count(*most as u64));
        println!("  too large: {letter} takes {bytes} bytes, and the topic takes {most} at once");
    }
    if !too_large.is_empty() {
        println!(
            "  {} are too large: raise max.message.bytes of {}, and ask again",
            count(too_large.len() as u64),
            replay_topic(config.name.as_str())
        );
    }
    for Gone { letter, why } in gone {
        println!("  gone: {}: {}", record_of(&letter.origin), escape(why));
    }
    if *copied > 0 {
        let who = match with_the_next_start(config) {
            Some(when) => format!("no process of it runs on this machine: they go through {when}"),
            None => "what runs takes them".to_owned(),
        };
        println!("  {who}; see what becomes of them: weir status {}", config.file.display());
    }
}
