//! What `weir validate` tells a person. It cuts what is too wide for the terminal; `--json` has all of it.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Row, Table, presets};
use indicatif::{HumanBytes, HumanCount};

use crate::description::Description;
use crate::report::{Check, Report};
use crate::route::DEAD_LETTERS;
use crate::sandbox::escape;
use crate::sandbox::wasi::Import;
use crate::validate::{GuestLog, Mismatch, Shown, Validation};

/// Where nobody knows how wide the output is.
const WIDTH: usize = 120;
/// Lines of the guest's log that are shown.
const LOG_LINES: usize = 20;
/// Golden cases that are shown.
const MISMATCHES: usize = 20;

pub(super) fn print(found: &Validation, component_bytes: usize) {
    let paper = Paper::new();
    if let Some(description) = &found.description {
        paper.transform(found, description, component_bytes);
    }
    let ran = found.report.checks.iter().any(|check| check.name == "conserved");
    if let (true, Some(description)) = (ran, &found.description) {
        paper.counts(&found.report, description);
        found.shown.iter().filter(|shown| !shown.rows.is_empty()).for_each(|shown| paper.rows(shown));
        paper.log(&found.log);
    }
    paper.mismatches(&found.mismatches);
    paper.checks(&found.report.checks);
    for file in &found.left_out {
        println!("  left out: {} (its name does not tell how to read it)", escape(file));
    }
    println!("\n{}", paper.closing(&found.report));
}

/// What is printed on.
struct Paper {
    width: usize,
    colour: bool,
}

impl Paper {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = if terminal { Table::new().width().map(usize::from) } else { None };
        let width = width.or_else(columns).unwrap_or(WIDTH).max(40);
        Self { width, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn heading(&self, text: &str, more: &str) {
        println!("\n{}{}", self.bold(text), self.paint("2", more));
    }

    fn transform(&self, found: &Validation, description: &Description, bytes: usize) {
        println!("{}", self.bold(&escape(&format!("{} {}", description.name, description.version))));
        if !description.doc.is_empty() {
            self.wrapped("  ", &escape(&description.doc));
        }
        let digest = found.report.transform.as_ref().map_or("", |transform| &transform.digest);
        println!("  digest    {digest}");
        println!("  size      {}", HumanBytes(bytes as u64));
        self.list(
            "settings",
            description.settings.iter().map(|setting| {
                let default = setting
                    .default
                    .as_ref()
                    .map_or("required".to_owned(), |value| format!("default {value}"));
                let choices = setting
                    .choices
                    .as_ref()
                    .map_or(String::new(), |all| format!(", one of {}", all.join(", ")));
                format!("{}: {} ({default}{choices})", setting.key, setting.doc)
            }),
        );
        self.list(
            "tables",
            description.tables.iter().map(|need| {
                let columns: Vec<&str> = need.columns.iter().map(|column| column.name.as_str()).collect();
                let required = if need.required { "" } else { ", may be left out" };
                format!("{}: {} ({}{required})", need.name, need.doc, columns.join(", "))
            }),
        );
        self.list("imports", imports(&found.imports).into_iter());
    }

    /// Under one name, one line each.
    fn list(&self, name: &str, lines: impl Iterator<Item = String>) {
        let wrapped = lines.flat_map(|line| wrap_hanging(&escape(&line), self.width - 12));
        for (i, line) in wrapped.enumerate() {
            println!("  {:<10}{line}", if i == 0 { name } else { "" });
        }
    }

    fn counts(&self, report: &Report, description: &Description) {
        self.heading(&format!("{} in", records(report.records)), "");
        let mut table = self.table();
        let mut row = |what: &str, n: u64, doc: &str| {
            let share = if report.records == 0 { 0.0 } else { n as f64 * 100.0 / report.records as f64 };
            let numbers = [HumanCount(n).to_string(), format!("{share:.1} %")];
            let numbers = numbers.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
            let mut row = Row::from(
                [Cell::new(escape(what))]
                    .into_iter()
                    .chain(numbers)
                    .chain([Cell::new(escape(doc))])
                    .collect::<Vec<_>>(),
            );
            row.max_height(1);
            table.add_row(row);
        };
        for route in &description.routes {
            row(
                &format!("route {}", route.name),
                report.routed.get(&route.name).copied().unwrap_or(0),
                &route.doc,
            );
        }
        for (code, n) in &report.rejected {
            let reason = description.reasons.iter().find(|reason| reason.code == *code);
            row(
                &format!("rejected, {code}"),
                *n,
                reason.map_or("not a record; found by the source", |r| &r.message),
            );
        }
        row("dropped", report.dropped, "");
        row("failed", report.failed, "");
        self.print_table(&table);
    }

    fn rows(&self, shown: &Shown) {
        let (name, of) = match &*shown.route {
            DEAD_LETTERS => ("Dead letters".to_owned(), shown.total),
            route => (format!("Route {route}"), shown.total),
        };
        let more = match shown.rows.len() as u64 {
            n if n == of => String::new(),
            n => format!(" (the first {n} of {})", HumanCount(of)),
        };
        self.heading(&escape(&name), &more);
        let mut table = self.table();
        let head = shown.columns.iter().map(|name| {
            let cell = Cell::new(escape(name));
            if self.colour { cell.add_attribute(Attribute::Dim) } else { cell }
        });
        table.set_header(head.collect::<Vec<_>>());
        for cells in &shown.rows {
            let mut row = Row::from(cells.clone());
            row.max_height(1);
            table.add_row(row);
        }
        self.print_table(&table);
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_truncation_indicator("…").set_width((self.width - 1) as u16);
        if self.colour {
            table.enforce_styling();
        }
        table
    }

    /// One column further in, like all that stands below a heading.
    fn print_table(&self, table: &Table) {
        for line in table.lines() {
            println!(" {}", line.trim_end());
        }
    }

    fn log(&self, log: &GuestLog) {
        if log.lines.is_empty() {
            return;
        }
        let shown = log.lines.len().min(LOG_LINES);
        let more = (log.lines.len() - shown) as u64 + log.more;
        let more = if more == 0 {
            String::new()
        } else {
            format!(" (the first {shown} lines; {} more)", HumanCount(more))
        };
        self.heading("What the transform wrote to its log", &more);
        log.lines[..shown].iter().for_each(|line| println!("  {}", cut(line, self.width - 2)));
    }

    fn mismatches(&self, mismatches: &[Mismatch]) {
        if mismatches.is_empty() {
            return;
        }
        let shown = mismatches.len().min(MISMATCHES);
        let more = if shown == mismatches.len() {
            String::new()
        } else {
            format!(" (the first {shown} of {})", mismatches.len())
        };
        self.heading("Cases that came out otherwise", &more);
        for mismatch in &mismatches[..shown] {
            let alone = if mismatch.alone { ", only when it is alone in its batch" } else { "" };
            println!("  line {}, {}{alone}", mismatch.line, escape(&mismatch.case));
            for (place, expected, found) in mismatch.differences() {
                let line = |sign: &str, what: &str, value: &str| {
                    cut(&format!("    {sign} {place} {what} {}", escape(value)), self.width)
                };
                println!("{}", self.paint("31", &line("-", "expected", &expected)));
                println!("{}", self.paint("32", &line("+", "found   ", &found)));
            }
        }
    }

    fn checks(&self, checks: &[Check]) {
        self.heading("Checks", "");
        let names = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let indent = " ".repeat(names + 12);
        for check in checks {
            let mark = if check.ok { self.paint("32", "ok    ") } else { self.paint("1;31", "not ok") };
            let lines = wrap(&escape(&check.detail), self.width.saturating_sub(indent.len()));
            println!("  {mark}  {:names$}  {}", check.name, lines.join(&format!("\n{indent}")));
            if let Some(hint) = check.hint.as_ref().filter(|_| !check.ok) {
                let lines = wrap(&format!("hint: {hint}"), self.width.saturating_sub(indent.len()));
                println!("{indent}{}", self.paint("36", &lines.join(&format!("\n{indent}"))));
            }
        }
    }

    fn wrapped(&self, indent: &str, text: &str) {
        wrap(text, self.width - indent.len()).iter().for_each(|line| println!("{indent}{line}"));
    }

    fn closing(&self, report: &Report) -> String {
        let bad: Vec<&str> = report.checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
        let verdict = match bad[..] {
            [] => self.paint("1;32", "All checks are ok"),
            _ => self.paint("1;31", &format!("Not ok: {}", bad.join(", "))),
        };
        let timing = &report.timing;
        let rate = timing.records_per_second.zip(timing.ns_per_record).map_or(String::new(), |(rate, ns)| {
            let (ms, rate, us) = (timing.run_ms, HumanCount(rate as u64), ns / 1e3);
            format!("; {} in {ms:.1} ms ({rate} a second, {us:.1} µs each)", records(report.records))
        });
        format!("{verdict}{rate}; loaded in {:.0} ms", timing.load_ms)
    }
}

/// By how they are answered. Versions are left out.
fn imports(all: &[Import]) -> Vec<String> {
    let name = |import: &Import| import.interface.split('@').next().unwrap_or_default().to_owned();
    let mut by_answer: Vec<(&str, Vec<String>)> = Vec::new();
    for import in all {
        match by_answer.iter_mut().find(|(answer, _)| *answer == import.answer) {
            Some((_, names)) => names.push(name(import)),
            None => by_answer.push((import.answer, vec![name(import)])),
        }
    }
    if by_answer.is_empty() {
        return vec!["nothing".to_owned()];
    }
    by_answer.iter().map(|(answer, names)| format!("{}: {answer}", names.join(", "))).collect()
}

fn records(n: u64) -> String {
    if n == 1 { "1 record".to_owned() } else { format!("{} records", HumanCount(n)) }
}

/// At most `width` characters.
fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// As [`wrap`], all lines but the first two characters further in.
fn wrap_hanging(text: &str, width: usize) -> Vec<String> {
    let lines = wrap(text, width - 2).into_iter().enumerate();
    lines.map(|(i, line)| if i == 0 { line } else { format!("  {line}") }).collect()
}

/// Lines of at most `width` characters, broken at spaces; a longer word is a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        let fits = line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width;
        match (fits, line.is_empty()) {
            (true, true) => line.push_str(word),
            (true, false) => *line = format!("{line} {word}"),
            (false, _) => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a incomprehensible b", 3), ["a", "incomprehensible", "b"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn what_is_too_wide_ends_in_dots() {
        assert_eq!((cut("four", 4).as_str(), cut("fiver", 4).as_str()), ("four", "fiv…"));
    }
}
