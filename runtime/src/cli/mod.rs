//! What a person types and sees. One file per command: its arguments, whose comments are the help, and one function.
//! Nothing here decides what becomes of a record.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program talks to people")]

mod build;
mod completions;
mod demo;
mod deploy;
mod dlq;
mod doctor;
mod explain;
mod fates;
mod history;
mod kafka;
mod new;
mod object;
mod pause;
mod peek;
mod produce;
mod progress;
mod run;
mod schema;
mod screen;
mod shadow;
mod start;
mod status;
mod validate;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::admin::ask;
use crate::app::Options;
use crate::config::{PipelineConfig, SourceConfig};
use crate::sandbox::{SandboxOptions, child};

/// Records from topics and files through rules in a WebAssembly sandbox to topics, files and tables, each exactly once.
///
/// Start with `weir demo`. Exit codes: 0 done; 1 the answer is no, such as a failed check or a partition that
/// stopped; 2 the command or the configuration is wrong, or names what is not there; 3 something outside could not be reached, or
/// may not be.
#[derive(Debug, Parser)]
#[command(version, name = "weir", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    New(new::NewArgs),
    Build(build::BuildArgs),
    Validate(validate::ValidateArgs),
    Doctor(doctor::DoctorArgs),
    Run(run::RunArgs),
    Deploy(deploy::DeployArgs),
    Rollback(deploy::RollbackArgs),
    Shadow(shadow::ShadowArgs),
    Status(status::StatusArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    History(history::HistoryArgs),
    Dlq(dlq::DlqArgs),
    Explain(explain::ExplainArgs),
    Produce(produce::ProduceArgs),
    Peek(peek::PeekArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    /// Compiles one component for a sandbox in another process
    #[command(name = child::COMMAND, hide = true)]
    CompileComponent {
        of: String,
    },
}

/// How a command ended, for whoever called the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All went well.
    Done,
    /// The answer is no.
    No,
    /// The command or the configuration is wrong, or names what is not there.
    Wrong,
    /// Something outside could not be reached, or may not be.
    Outside,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        Self::from(match ended {
            Ended::Done => 0,
            Ended::No => 1,
            Ended::Wrong => 2,
            Ended::Outside => 3,
        })
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.command);
    end_quietly_when_nobody_reads();
    match run_command(cli.command) {
        Ok(ended) => ended.into(),
        Err(error) => screen::explain(&error).into(),
    }
}

fn run_command(command: Command) -> Result<Ended> {
    match command {
        Command::Demo(args) => demo::demo(&args),
        Command::New(args) => new::new(&args),
        Command::Build(args) => build::build(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Run(args) => run::run(&args),
        Command::Deploy(args) => deploy::deploy(&args),
        Command::Rollback(args) => deploy::rollback(&args),
        Command::Shadow(args) => shadow::shadow(&args),
        Command::Status(args) => status::status(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::History(args) => history::history(&args),
        Command::Dlq(args) => dlq::dlq(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Produce(args) => produce::produce(&args),
        Command::Peek(args) => peek::peek(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::CompileComponent { of } => {
            child::serve(&of, std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(Ended::Done)
        }
    }
}

/// Whoever reads what is printed may have seen enough, as `head` has. That ends the program as it ends others, with 141,
/// and is no panic.
fn end_quietly_when_nobody_reads() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(141);
        }
        otherwise(panic);
    }));
}

/// The log goes to standard error; `WEIR_LOG` says how much of it, such as `debug` or `weir::pipeline=trace`. By itself it has
/// what an operator asks for afterwards: who paused it, which plan took over, which partitions came and went. A demo tells
/// that by itself.
fn start_log(command: &Command) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let otherwise = match command {
        Command::Demo(_) => "warn",
        _ => "warn,weir=info",
    };
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::AboveTheLine)
        .with_ansi(terminal)
        .init();
}

/// This program, to compile components in processes of its own. On Linux by a name that stays true while it is replaced.
fn this_program() -> Option<std::path::PathBuf> {
    match cfg!(target_os = "linux") {
        true => Some("/proc/self/exe".into()),
        false => std::env::current_exe().ok(),
    }
}

/// When what was put takes effect, where no process of the pipeline runs on this machine; `None` where one does, or may.
fn with_the_next_start(config: &PipelineConfig) -> Option<&'static str> {
    let processes = ask::processes(&config.admin.socket, config.name.as_str()).ok()?;
    processes.is_empty().then_some(match config.source {
        SourceConfig::Files(_) => "with the next start",
        SourceConfig::Kafka(_) => "with the next start, if none runs on another one",
    })
}

/// `NAME=VALUE`, of an argument.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("there is no `=` in it")?;
    match name {
        "" => Err("there is no name before the `=`".to_owned()),
        name => Ok((name.to_owned(), value.to_owned())),
    }
}

/// For a command that looks at a pipeline, or changes it, and does not run it.
fn options() -> Options {
    Options { cache_dir: cache_dir(), compiler: this_program(), ..Options::default() }
}

/// For a command that runs a transform itself, and no pipeline. What it compiles is kept.
fn sandbox_options() -> SandboxOptions {
    SandboxOptions {
        cache_dir: cache_dir(),
        compiler: this_program(),
        max_instances: 8,
        ..SandboxOptions::default()
    }
}

/// Where this user's programs keep what they can make again: `$XDG_CACHE_HOME/weir`, else `~/.cache/weir`.
fn cache_dir() -> Option<std::path::PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(std::path::PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("weir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_in_a_help_stand_below_one_another() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1);
            for example in examples.take_while(|line| !line.is_empty()) {
                let indent = example.len() - example.trim_start().len();
                assert_eq!(indent, 4, "{}: {example}", command.get_name());
            }
            let at_the_margin = help.lines().find(|line| line.starts_with("weir "));
            assert_eq!(at_the_margin, None, "{}", command.get_name());
        }
    }
}
