//! The command line, parsed. It opens and starts nothing.

use std::ffi::OsString;
use std::path::PathBuf;

use weir_services::NAMES;

pub(crate) const USAGE: &str = "\
usage: weir-services COMMAND

  up [NAMES] [--dir DIR] [--brokers N] [--datanodes N]
                  starts what does not run yet, waits until it answers, and prints where it is
  status [--dir DIR]
  down [NAMES] [--dir DIR] [--wipe]
                  stops them; --wipe also deletes their data, logs and ports
  run NAMES [--dir DIR] [--brokers N] [--datanodes N] -- COMMAND...
                  runs a command while they are up, stops what it started, and exits as the command did
  fetch [NAMES]   fetches Kafka and HDFS, and starts nothing
  missing         what this machine lacks for them, a line for each, with the command that installs it

NAMES are among postgres, pgbouncer (a pooler, with postgres), kafka and hdfs; none means all, but pgbouncer is only
started where it is named. DIR is $WEIR_SERVICES_DIR if it is not given, or else one in the
directory for temporary files: always the same for `up`, a new one for `run`. A command is told the addresses in
WEIR_TEST_POSTGRES, WEIR_TEST_POSTGRES_POOLER, WEIR_TEST_KAFKA and WEIR_TEST_HDFS, and DIR in WEIR_SERVICES_DIR.

Exit codes: 2 the command line is wrong; 3 a service cannot be had.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Help,
    Up,
    Status,
    Down,
    Run,
    Fetch,
    Missing,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) verb: Verb,
    /// In the order of [`NAMES`].
    pub(crate) names: Vec<&'static str>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) brokers: Option<u16>,
    pub(crate) datanodes: Option<u16>,
    pub(crate) wipe: bool,
    /// What is run, not empty for [`Verb::Run`].
    pub(crate) command: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let verb = words.next().ok_or("which command?")?;
        let verb = match verb.to_str() {
            Some("help" | "--help" | "-h") => Verb::Help,
            Some("up") => Verb::Up,
            Some("status") => Verb::Status,
            Some("down") => Verb::Down,
            Some("run") => Verb::Run,
            Some("fetch") => Verb::Fetch,
            Some("missing") => Verb::Missing,
            _ => return Err(format!("there is no command {}", verb.display())),
        };
        let mut arguments = Self {
            verb,
            names: Vec::new(),
            dir: None,
            brokers: None,
            datanodes: None,
            wipe: false,
            command: Vec::new(),
        };
        while let Some(word) = words.next() {
            if word == "--" && verb == Verb::Run {
                arguments.command = words.collect();
                break;
            }
            arguments.take(&word, &mut words)?;
        }
        arguments.complete()
    }

    /// One word, and its value.
    fn take(&mut self, word: &OsString, words: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        let mut value = || words.next().ok_or_else(|| format!("{} wants a value", word.display()));
        let starts = matches!(self.verb, Verb::Up | Verb::Run);
        let has_dir = starts || matches!(self.verb, Verb::Status | Verb::Down);
        let has_names = starts || matches!(self.verb, Verb::Down | Verb::Fetch);
        match word.to_str() {
            Some("--help" | "-h") => self.verb = Verb::Help,
            Some("--dir") if has_dir => self.dir = Some(value()?.into()),
            Some("--brokers") if starts => self.brokers = Some(number(&value()?)?),
            Some("--datanodes") if starts => self.datanodes = Some(number(&value()?)?),
            Some("--wipe") if self.verb == Verb::Down => self.wipe = true,
            Some(name) if has_names => {
                let known = NAMES.into_iter().find(|known| *known == name);
                self.names.push(known.ok_or_else(|| format!("there is no service or option {name}"))?);
            }
            _ => return Err(format!("this command does not take {}", word.display())),
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Self, String> {
        if self.verb == Verb::Run && self.command.is_empty() {
            return Err("which command shall be run? It goes behind --".to_owned());
        }
        if self.verb == Verb::Run && self.names.is_empty() {
            return Err("which services does the command need?".to_owned());
        }
        let typed = std::mem::take(&mut self.names);
        let (starts, pooler) = (matches!(self.verb, Verb::Up | Verb::Run), typed.contains(&"pgbouncer"));
        let is_meant = |name: &&str| match *name {
            "pgbouncer" if starts => pooler,
            "postgres" if starts && pooler => true,
            name => typed.is_empty() || typed.contains(&name),
        };
        self.names = NAMES.into_iter().filter(is_meant).collect();
        for (count, option, service) in
            [(self.brokers, "--brokers", "kafka"), (self.datanodes, "--datanodes", "hdfs")]
        {
            if count.is_some() && !self.names.contains(&service) {
                return Err(format!("{option} is for {service}"));
            }
        }
        Ok(self)
    }
}

fn number(word: &OsString) -> Result<u16, String> {
    let number = word.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| (1..=3).contains(number))
        .ok_or_else(|| format!("1, 2 or 3, not {}", word.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn no_names_are_all_names_and_the_order_is_always_the_same() {
        assert_eq!(parse("down").unwrap().names, NAMES);
        assert_eq!(parse("down hdfs postgres --wipe").unwrap().names, ["postgres", "hdfs"]);
    }

    #[test]
    fn a_pooler_is_started_where_it_is_named_and_with_its_server() {
        assert_eq!(parse("up").unwrap().names, ["postgres", "kafka", "hdfs"]);
        assert_eq!(parse("up pgbouncer").unwrap().names, ["postgres", "pgbouncer"]);
        assert_eq!(parse("down pgbouncer").unwrap().names, ["pgbouncer"]);
        assert_eq!(parse("run kafka pgbouncer -- true").unwrap().names, ["postgres", "pgbouncer", "kafka"]);
    }

    #[test]
    fn all_behind_two_dashes_is_the_command() {
        let arguments = parse("run kafka --dir /d --brokers 3 -- cargo test -- --dir x").unwrap();
        assert_eq!(arguments.command, ["cargo", "test", "--", "--dir", "x"]);
        assert_eq!((arguments.dir, arguments.brokers), (Some("/d".into()), Some(3)));
    }

    #[test]
    fn what_a_command_does_not_take_is_refused() {
        for (line, problem) in [
            ("", "which command?"),
            ("start", "there is no command start"),
            ("up redis", "there is no service or option redis"),
            ("up --wipe", "there is no service or option --wipe"),
            ("up --dir", "--dir wants a value"),
            ("up --brokers 4", "1, 2 or 3, not 4"),
            ("up postgres --brokers 3", "--brokers is for kafka"),
            ("status kafka", "this command does not take kafka"),
            ("missing --dir d", "this command does not take --dir"),
            ("run kafka", "which command shall be run? It goes behind --"),
            ("run -- true", "which services does the command need?"),
        ] {
            assert_eq!(parse(line).unwrap_err(), problem, "{line}");
        }
    }
}
