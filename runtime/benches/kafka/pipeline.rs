//! The pipeline of a run: its file, its directory, and the real program at work on it. It reads no record.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::Broker;
use crate::job::ROUTES;
use crate::outputs::{Kind, Output};

/// What all runs share, in a directory.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) broker: Broker,
    pub(crate) topic: String,
}

impl Ground<'_> {
    /// The reference table.
    pub(crate) fn cities(&self) -> PathBuf {
        self.directory.join("cities.csv")
    }

    /// The program, with compiled transforms of its own.
    pub(crate) fn weir(&self) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.env("XDG_CACHE_HOME", self.directory.join("cache")).env("WEIR_LOG", "info");
        weir
    }

    /// Compiles the rule, so that no run has to.
    pub(crate) fn warm_up(&self, rule: &Path) {
        let sample = self.directory.join("sample.jsonl");
        fs::write(&sample, "{\"location\":\"Boston\"}\n").expect("the directory is ours");
        let mut weir = self.weir();
        weir.arg("validate").arg(rule).arg("--sample").arg(sample);
        let table = format!("us_cities={}", self.cities().display());
        let output = weir.args(["--table", &table]).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A pipeline that no run was made of yet.
pub(crate) struct Pipeline<'a> {
    ground: &'a Ground<'a>,
    directory: tempfile::TempDir,
    name: String,
    pub(crate) outputs: Vec<(Kind, Box<dyn Output>)>,
}

impl<'a> Pipeline<'a> {
    /// To sinks of these kinds, each with `more` in its section.
    pub(crate) fn new(ground: &'a Ground<'a>, name: &str, kinds: &[Kind], more: &str) -> Self {
        let directory = tempfile::tempdir_in(ground.directory).expect("the directory is ours");
        let open = |kind: &Kind| (*kind, kind.open(name, directory.path()));
        let outputs: Vec<_> = kinds.iter().map(open).collect();
        let pipeline = Self { ground, name: name.to_owned(), outputs, directory };
        fs::write(pipeline.file(), pipeline.text(more)).expect("the directory is ours");
        pipeline
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("pipeline.toml")
    }

    fn text(&self, more: &str) -> String {
        let (Ground { broker, topic, .. }, name) = (self.ground, &self.name);
        let mut text = format!(
            "[pipeline]\nname = {name:?}\nstate = \"state\"\n\n\
             [source.kafka]\nbrokers = {:?}\ntopics = [{topic:?}]\n\n\
             [transform]\ncomponent = {:?}\ntables.us_cities = {{ file = {:?} }}\n\n[routes]\n",
            broker.0,
            env!("WEIR_CUSTOMERS_WASM"),
            self.ground.cities()
        );
        let kinds = || self.outputs.iter().map(|(kind, _)| kind.name());
        for route in ROUTES {
            let to: Vec<_> = kinds().map(|kind| format!("{kind}.{route}")).collect();
            writeln!(text, "{route} = {to:?}").expect("memory takes text");
        }
        let first = kinds().next().expect("there is a sink");
        write!(text, "\n[dead_letter]\nto = \"{first}.dead_letters\"\n").expect("memory takes text");
        for (kind, output) in &self.outputs {
            let section = output.section();
            write!(text, "\n[sinks.{}.{section}{more}", kind.name()).expect("memory takes text");
        }
        text
    }

    /// The program that runs it.
    pub(crate) fn run(&self) -> Command {
        let mut weir = self.ground.weir();
        weir.arg("run").arg(self.file());
        weir
    }

    /// The same, saying when a worker takes up a plan.
    pub(crate) fn run_and_tell_of_plans(&self) -> Command {
        let mut weir = self.run();
        weir.env("WEIR_LOG", "warn,weir=info,weir::pipeline::threads::worker=debug");
        weir
    }

    /// The program with a command about it.
    pub(crate) fn weir(&self, command: &str) -> Command {
        let mut weir = self.ground.weir();
        weir.arg(command).arg(self.file());
        weir
    }

    /// Removes it and all that it wrote.
    pub(crate) fn clear(mut self) {
        self.outputs.iter_mut().for_each(|(_, output)| output.clear());
        self.ground.broker.delete(&format!("weir.{}.", self.name));
    }
}
