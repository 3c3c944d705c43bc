//! Tables and errors, as a terminal or a pipe wants them.

use std::error::Error as _;
use std::io::{self, IsTerminal, Write as _};

use comfy_table::{
    Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use indicatif::HumanCount;

use super::Ended;
use crate::app::deploy::{AlreadyTried, NeverRan, NoRoom, Overtaken, UnreadTarget, WrongLimit};
use crate::app::letters::NotThere;
use crate::app::{Changed, Held, NewSink, OtherCluster, TwoMoveTheGroup, Unfit};
use crate::pipeline::Stop;
use crate::{admin, config, kafka, plan, sandbox, sink, source};

/// Whether to use colour: on a terminal, unless the environment says no.
pub(super) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The least width of a column of words, so that they stay whole.
const WORDS: u16 = 24;

/// A table without lines but the one below its head; numbers in `right` columns stand to the right. On a terminal
/// the last column takes what room is left, or some words' width if that is more; what stands in the others is there to be
/// copied, and stays in one piece.
pub(super) fn table(head: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let bold = colour();
    table.set_header(head.iter().map(|name| {
        let cell = Cell::new(name);
        if bold { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    let last = head.len().saturating_sub(1);
    table.column_iter_mut().take(last).for_each(|column| {
        column.set_constraint(ColumnConstraint::ContentWidth);
    });
    if let Some(column) = table.column_mut(last).filter(|_| std::io::stdout().is_terminal()) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(WORDS)));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A number as people read it.
pub(super) fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// So many of what is called so in the singular: `1 letter`, `2 letters`.
pub(super) fn counted(n: u64, one: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {one}{ending}", count(n))
}

/// A moment in milliseconds since 1970, as people read it, in UTC.
pub(super) fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// The first few of many.
pub(super) fn some_of(all: &[String], most: usize) -> String {
    let shown = all.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Asks a person; no, where nobody is there to answer, or only a program is.
pub(super) fn is_wanted(question: &str, in_json: bool) -> io::Result<bool> {
    if in_json || !io::stdin().is_terminal() {
        eprintln!("not asked, since nobody is there to answer: --yes does without");
        return Ok(false);
    }
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Tells a person on standard error what went wrong and what to do, and says how to end.
pub(super) fn explain(error: &anyhow::Error) -> Ended {
    if let Some(refused) = find::<config::Error>(error) {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprintln!("{}", of_file(refused, colour));
        if let Some(cause) = refused.source() {
            eprintln!("  {cause}");
        }
        if let Some(hint) = refused.hint() {
            eprintln!("hint: {hint}");
        }
        return Ended::Wrong;
    }
    eprintln!("error: {}", chain(error));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
    ended(error)
}

/// What is wrong with a pipeline file. Findings say by themselves that they are errors.
fn of_file(refused: &config::Error, colour: bool) -> String {
    let text = refused.render(colour);
    match refused {
        config::Error::Read { .. } | config::Error::Component { .. } => format!("error: {text}"),
        config::Error::Refused(_) => text,
    }
}

/// The same for whoever goes on: what went wrong, what to do, and how a run would end for it.
pub(super) fn told(error: &anyhow::Error) -> (String, Option<String>, Ended) {
    match find::<config::Error>(error) {
        Some(refused) => (refused.render(false), refused.hint().map(str::to_owned), Ended::Wrong),
        None => (chain(error), hint(error), ended(error)),
    }
}

/// All causes, each once: some texts already hold the next.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// The cause of that type; also one that an error of the system stands for, and does not name as its cause.
fn find<E: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| {
        let within = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
        cause.downcast_ref().or_else(within)
    })
}

fn hint(error: &anyhow::Error) -> Option<String> {
    if find::<Changed>(error).is_some() {
        return Some(
            "`--adopt` makes what the file says the next plan; `weir deploy` does so while it runs"
                .to_owned(),
        );
    }
    if find::<NewSink>(error).is_some() {
        let hint =
            "a pipeline of another name, with a state directory of its own, reads its input from the start";
        return Some(hint.to_owned());
    }
    if find::<NeverRan>(error).is_some() {
        return Some("`weir run` takes the file over at its first start".to_owned());
    }
    if find::<Overtaken>(error).is_some() {
        return Some("see `weir history`, and deploy again if it still is what you want".to_owned());
    }
    if let Some(tried) = find::<AlreadyTried>(error) {
        return Some(how_it_is_ended(tried));
    }
    if find::<NoRoom>(error).is_some() {
        return Some("write the limit into the file, and start the processes anew with --adopt".to_owned());
    }
    if find::<UnreadTarget>(error).is_some() {
        return Some("stop the processes, and start them with --adopt".to_owned());
    }
    if let Some(refused) = find::<NotThere>(error) {
        return refused.hint().map(str::to_owned);
    }
    if let Some(refused) = find::<WrongLimit>(error) {
        return refused.hint().map(str::to_owned);
    }
    if find::<TwoMoveTheGroup>(error).is_some() {
        return Some("one sink can have several targets; or let each have a pipeline of its own".to_owned());
    }
    if find::<OtherCluster>(error).is_some() {
        return Some("write to topics of that cluster, and have them copied to the other one".to_owned());
    }
    if find::<Held>(error).is_some() {
        return Some(
            "stop that process first, or give this pipeline a state directory of its own".to_owned(),
        );
    }
    if let Some(refused) = find::<Unfit>(error) {
        return Some(refused.hint());
    }
    if let Some(refused) = find::<sandbox::LoadError>(error) {
        return Some(refused.hint().to_owned());
    }
    if let Some(sink::Error::Transient(problem) | sink::Error::Permanent(problem)) = find(error) {
        return problem.hint.clone();
    }
    if let Some(stop) = find::<Stop>(error) {
        return stop.hint.clone();
    }
    if let Some(refused) = find::<kafka::Error>(error) {
        return refused.hint();
    }
    if let Some(refused) = find::<admin::Error>(error) {
        return refused.hint().map(str::to_owned);
    }
    if let Some(refused) = find::<admin::ask::Error>(error) {
        return refused.hint().map(str::to_owned);
    }
    find::<source::Error>(error)?.hint().map(str::to_owned)
}

/// Who tries another plan since when, and what to do with that.
fn how_it_is_ended(tried: &AlreadyTried) -> String {
    let since = tried.made.as_ref().map_or_else(String::new, |made| {
        let why = if made.why.is_empty() { String::new() } else { format!(" ({})", made.why) };
        sandbox::escape(&format!("{} began it at {}{why}; ", made.by.who, time(made.by.at_ms)))
    });
    let file = tried.file.display();
    format!(
        "{since}`weir shadow status {file}` shows what it found, and `weir shadow promote {file}` or `weir shadow drop \
         {file}` ends it"
    )
}

/// How to end for several things that are not well: what is wrong here is mended first.
pub(super) fn of_all(ends: &[Ended]) -> Option<Ended> {
    [Ended::Wrong, Ended::No, Ended::Outside].into_iter().find(|ended| ends.contains(ended))
}

/// What was named and is not there is wrong, as is what was not understood. What is there, or may be, and does not answer
/// or may not be looked at is outside.
fn ended(error: &anyhow::Error) -> Ended {
    if let Some(asked) = find::<admin::ask::Error>(error) {
        return if asked.is_no() { Ended::No } else { Ended::Outside };
    }
    if find::<sandbox::LoadError>(error).is_some()
        || find::<Overtaken>(error).is_some()
        || find::<AlreadyTried>(error).is_some()
        || find::<UnreadTarget>(error).is_some()
        || find::<NoRoom>(error).is_some()
    {
        return Ended::No;
    }
    let outside = find(error)
        .map(|error| matches!(error, sink::Error::Transient(_)))
        .or_else(|| find(error).map(|error| matches!(error, plan::Error::Io { .. })))
        .or_else(|| {
            find(error)
                .map(|error| matches!(error, kafka::Error::Unreachable { .. } | kafka::Error::Denied { .. }))
        })
        .or_else(|| of_source(find(error)?))
        .or_else(|| find(error).map(|_: &admin::Error| false))
        .or_else(|| find(error).map(|error: &io::Error| !config::is_misnamed(error)));
    if outside == Some(true) { Ended::Outside } else { Ended::Wrong }
}

/// Whether an error of the source lies outside, where its kind alone says so.
fn of_source(error: &source::Error) -> Option<bool> {
    match error {
        source::Error::Unreachable { .. } => Some(true),
        source::Error::Input { .. } => Some(false),
        source::Error::Io { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> kafka::Error {
        kafka::Error::Denied { what: "asking".to_owned(), text: "no".to_owned() }
    }

    fn in_the_plan_log(error: kafka::Error) -> plan::Error {
        plan::Error::Io { what: "the plan log".to_owned(), source: io::Error::other(error) }
    }

    #[test]
    fn what_is_not_there_is_wrong_and_what_may_not_be_looked_at_is_outside() {
        let of_system =
            |kind: io::ErrorKind| anyhow::Error::new(io::Error::from(kind)).context("reading a file");
        for (error, expected) in [
            (of_system(io::ErrorKind::NotFound), Ended::Wrong),
            (of_system(io::ErrorKind::IsADirectory), Ended::Wrong),
            (of_system(io::ErrorKind::PermissionDenied), Ended::Outside),
            (of_system(io::ErrorKind::TimedOut), Ended::Outside),
            (denied().into(), Ended::Outside),
            (in_the_plan_log(denied()).into(), Ended::Outside),
            (anyhow::anyhow!("not understood"), Ended::Wrong),
        ] {
            assert_eq!(ended(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn an_error_of_the_pipeline_file_says_once_that_it_is_one_also_in_colours() {
        let unreadable = config::PipelineConfig::load(std::path::Path::new("/nowhere/at/all")).unwrap_err();
        let nobody = |_: &str| None;
        let refused =
            config::PipelineConfig::parse("a = [", std::path::Path::new("p.toml"), &nobody).unwrap_err();
        for error in [unreadable, refused] {
            for colour in [false, true] {
                let text = of_file(&error, colour);
                assert_eq!(text.matches("error").count(), 1, "{text}");
            }
        }
    }

    #[test]
    fn what_to_do_is_told_also_where_the_plan_log_in_kafka_was_asked() {
        assert!(hint(&in_the_plan_log(denied()).into()).is_some_and(|hint| hint.contains("ACL")));
    }
}
