//! What a guest writes to its standard output and error: bounded, escaped, rate-limited. It never reaches a
//! terminal as the guest wrote it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// The bytes of last lines that are kept for the text of a failure.
const KEPT: usize = 8 << 10;
/// Longer lines are cut into several.
const LINE: usize = 1 << 10;

/// The log of one instance.
#[derive(Debug)]
pub(super) struct GuestLog {
    line: Vec<u8>,
    last: VecDeque<String>,
    kept: usize,
    per_second: u64,
    tokens: u64,
    refilled: Duration,
    dropped: u64,
}

impl GuestLog {
    /// Passes on up to `per_second` bytes a second, and as many at once.
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self {
            line: Vec::new(),
            last: VecDeque::new(),
            kept: 0,
            per_second,
            tokens: per_second,
            refilled: Duration::ZERO,
            dropped: 0,
        }
    }

    /// Forgets the lines of the call before.
    pub(super) fn begin(&mut self) {
        self.line.clear();
        self.last.clear();
        self.kept = 0;
    }

    /// Takes what the guest wrote at `now`, since any fixed moment, and hands the finished lines that the rate
    /// allows to `emit`.
    pub(super) fn write(&mut self, bytes: &[u8], now: Duration, emit: &mut dyn FnMut(&str)) {
        self.refill(now);
        for chunk in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ends) = chunk.strip_suffix(b"\n").map_or((chunk, false), |text| (text, true));
            self.append(text, emit);
            if ends {
                self.finish_line(emit);
            }
        }
    }

    /// The last lines, oldest first, with what stands in an unfinished one.
    pub(super) fn last_lines(&mut self) -> String {
        if !self.line.is_empty() {
            self.finish_line(&mut |_| {});
        }
        Vec::from_iter(self.last.iter().map(String::as_str)).join("\n")
    }

    fn append(&mut self, mut text: &[u8], emit: &mut dyn FnMut(&str)) {
        while self.line.len() + text.len() > LINE {
            let (head, tail) = text.split_at(LINE - self.line.len());
            self.line.extend_from_slice(head);
            self.finish_line(emit);
            text = tail;
        }
        self.line.extend_from_slice(text);
    }

    fn finish_line(&mut self, emit: &mut dyn FnMut(&str)) {
        let line = escape(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        self.pass_on(&line, emit);
        self.keep(line);
    }

    fn pass_on(&mut self, line: &str, emit: &mut dyn FnMut(&str)) {
        let cost = line.len() as u64 + 1;
        if cost > self.tokens {
            self.dropped += cost;
            return;
        }
        self.tokens -= cost;
        if self.dropped > 0 {
            emit(&format!("({} bytes of the log left out)", std::mem::take(&mut self.dropped)));
        }
        emit(line);
    }

    fn keep(&mut self, line: String) {
        self.kept += line.len() + 1;
        self.last.push_back(line);
        while self.kept > KEPT {
            let gone = self.last.pop_front().expect("what is kept is counted");
            self.kept -= gone.len() + 1;
        }
    }

    fn refill(&mut self, now: Duration) {
        let since = now.saturating_sub(self.refilled).as_millis().min(1_000) as u64;
        let more = self.per_second * since / 1_000;
        if more > 0 {
            self.tokens = (self.tokens + more).min(self.per_second);
            self.refilled = now;
        }
    }
}

/// Control characters, and those that turn the direction of writing, as `\u{1b}`.
pub(crate) fn escape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => clean.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escape_one(&mut clean, c),
            c if c.is_control() => escape_one(&mut clean, c),
            c => clean.push(c),
        }
    }
    clean
}

fn escape_one(clean: &mut String, c: char) {
    write!(clean, "{}", c.escape_unicode()).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(log: &mut GuestLog, text: &[u8], at_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        log.write(text, Duration::from_millis(at_ms), &mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_come_out_when_they_end() {
        let mut log = GuestLog::new(1_000);
        assert_eq!(written(&mut log, b"one\ntwo", 0), ["one"]);
        assert_eq!(written(&mut log, b" and\n\n", 0), ["two and", ""]);
        assert_eq!(log.last_lines(), "one\ntwo and\n");
    }

    #[test]
    fn a_line_without_an_end_is_in_the_text_of_a_failure() {
        let mut log = GuestLog::new(1_000);
        assert!(written(&mut log, b"half", 0).is_empty());
        assert_eq!(log.last_lines(), "half");
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut log = GuestLog::new(1_000);
        let lines = written(&mut log, "\u{1b}[31mred\r\u{202e}\u{9b}\tok \u{e4}\n".as_bytes(), 0);
        assert_eq!(lines, ["\\u{1b}[31mred\\u{d}\\u{202e}\\u{9b}\tok \u{e4}"]);
        assert_eq!(written(&mut log, b"\xff\xfe\n", 0), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut log = GuestLog::new(10);
        assert_eq!(written(&mut log, b"12345\n12345\n12345\n", 0), ["12345"]);
        assert_eq!(written(&mut log, b"12345\n", 600), ["(12 bytes of the log left out)", "12345"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut log = GuestLog::new(0);
        written(&mut log, &vec![b'x'; 1 << 20], 0);
        written(&mut log, &vec![b'\n'; 1 << 20], 0);
        written(&mut log, b"the end\n", 0);
        assert!(log.last_lines().len() <= KEPT && log.last_lines().ends_with("the end"));
    }

    #[test]
    fn a_call_begins_with_an_empty_log() {
        let mut log = GuestLog::new(100);
        written(&mut log, b"old\nhalf", 0);
        log.begin();
        written(&mut log, b"new\n", 0);
        assert_eq!(log.last_lines(), "new");
    }
}
