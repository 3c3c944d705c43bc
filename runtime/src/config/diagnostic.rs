//! What is wrong with a pipeline file, shown where it stands. Never decides whether something is wrong.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    path::PathBuf,
};

/// Everything found in one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: PathBuf,
    text: String,
    diagnostics: Vec<Diagnostic>,
}

/// One finding: what it is, where it stands, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Lower case, one sentence, without a period.
    pub message: String,
    /// Bytes of the file; absent if it is about what the file lacks as a whole.
    pub place: Option<Range<usize>>,
    /// What it is about, where that is not the file: an option, or a plan.
    pub given: Option<String>,
    pub help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

impl Report {
    pub(super) fn new(file: PathBuf, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|d| d.place.as_ref().map(|place| place.start));
        Self { file, text: text.to_owned(), diagnostics }
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The findings with the lines they stand on, one empty line between two, for a terminal that
    /// shows colours or for one that does not. Lines are shown as they were written: the value of an environment
    /// variable appears nowhere but in the name of what is not there.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let shown: Vec<_> = self.diagnostics.iter().map(|d| self.render_one(d, paint)).collect();
        shown.join("\n\n")
    }

    fn render_one(&self, diagnostic: &Diagnostic, paint: Paint) -> String {
        let mut out = paint.severity(diagnostic.severity);
        write!(out, "{}", paint.bold(&format!(": {}", printable(&diagnostic.message)))).expect(TO_STRING);
        let indent = match &diagnostic.place {
            Some(place) => self.render_snippet(&mut out, diagnostic.severity, place, paint),
            None => {
                let file = || self.file.display().to_string();
                let about = diagnostic.given.as_ref().map_or_else(file, |given| printable(given));
                write!(out, "\n{} {about}", paint.frame(" -->")).expect(TO_STRING);
                1
            }
        };
        if let Some(help) = &diagnostic.help {
            let mark = paint.frame(&format!("{:indent$} =", ""));
            write!(out, "\n{mark} {}: {}", paint.bold("help"), printable(help)).expect(TO_STRING);
        }
        out
    }

    /// Appends the place and its line; returns the width of the line number.
    fn render_snippet(
        &self,
        out: &mut String,
        severity: Severity,
        place: &Range<usize>,
        paint: Paint,
    ) -> usize {
        let line = Line::of(&self.text, place);
        let number = line.number.to_string();
        let width = number.len();
        let bar = paint.frame(&format!("{:width$} |", ""));
        let arrow = paint.frame(&format!("{:width$}-->", ""));
        let carets = paint.caret(severity, &"^".repeat(line.marked.chars().count().max(1)));
        write!(
            out,
            "\n{arrow} {}:{number}:{}\n{bar}\n{} {}\n{bar} {}{carets}",
            self.file.display(),
            line.before.chars().count() + 1,
            paint.frame(&format!("{number} |")),
            printable(line.text),
            blank(line.before),
        )
        .expect(TO_STRING);
        width
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Diagnostic {
    pub(super) fn error(place: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), place, given: None, help: None }
    }

    pub(super) fn warning(place: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, message) }
    }

    pub(super) fn given(self, by: &str) -> Self {
        Self { place: None, given: Some(by.to_owned()), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn maybe_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

const TO_STRING: &str = "writing to a String does not fail";

/// The line on which a place begins; a place that goes on below is marked to the end of this line.
struct Line<'a> {
    /// From 1.
    number: usize,
    text: &'a str,
    before: &'a str,
    marked: &'a str,
}

impl<'a> Line<'a> {
    fn of(all: &'a str, place: &Range<usize>) -> Self {
        let at = all.floor_char_boundary(place.start);
        let start = all[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let text = all[start..].lines().next().unwrap_or("");
        let from = text.floor_char_boundary(at - start);
        let to = text.floor_char_boundary(place.end.saturating_sub(start)).max(from);
        let number = all[..start].matches('\n').count() + 1;
        Self { number, text, before: &text[..from], marked: &text[from..to] }
    }
}

/// As wide as `text` on a terminal that has its own idea of tabs.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\t' { c } else { ' ' }).collect()
}

/// A file may hold what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn severity(self, severity: Severity) -> String {
        match severity {
            Severity::Error => self.with("1;31", "error"),
            Severity::Warning => self.with("1;33", "warning"),
        }
    }

    fn caret(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Error => self.with("1;31", text),
            Severity::Warning => self.with("1;33", text),
        }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn frame(self, text: &str) -> String {
        self.with("1;34", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, marked: &str, expected: Expect) {
        let start = text.find(marked).expect("the text has what is marked");
        let found = Diagnostic::error(Some(start..start + marked.len()), "wrong").help("mend it");
        expected.assert_eq(&Report::new("p.toml".into(), text, vec![found]).to_string());
    }

    #[test]
    fn columns_count_characters_and_carets_stand_below_them() {
        check(
            "# ä\nö = \"ü\" # x\r\n",
            "\"ü\"",
            expect![[r#"
                error: wrong
                 --> p.toml:2:5
                  |
                2 | ö = "ü" # x
                  |     ^^^
                  = help: mend it"#]],
        );
        check(
            "\ta = 1",
            "a",
            expect![[r#"
            error: wrong
             --> p.toml:1:2
              |
            1 | 	a = 1
              | 	^
              = help: mend it"#]],
        );
    }

    #[test]
    fn a_place_over_several_lines_is_marked_on_its_first() {
        check(
            "a = [\n1,\n]",
            "[\n1,\n]",
            expect![[r#"
            error: wrong
             --> p.toml:1:5
              |
            1 | a = [
              |     ^
              = help: mend it"#]],
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let found = Diagnostic::error(Some(0..1), "unknown key `\u{1b}[2J`");
        let shown = Report::new("p.toml".into(), "a\u{1b}[2J", vec![found]).to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn any_place_can_be_shown() {
        let text = "ä\n\nb";
        for start in 0..8 {
            for end in 0..8 {
                let found = Diagnostic::error(Some(start..end), "wrong");
                assert!(Report::new("p".into(), text, vec![found]).render(true).contains('^'));
            }
        }
    }
}
