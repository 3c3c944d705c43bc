//! The command line. It decides nothing: it reads arguments, calls the library and shows what came of it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where people are spoken to")]

mod build;
mod new;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Records from a source, through rules in a WebAssembly sandbox, to sinks, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "weir", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::NewArgs),
    Build(build::BuildArgs),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::New(args) => new::run(&args),
            Command::Build(args) => build::run(&args),
        }
    }
}
