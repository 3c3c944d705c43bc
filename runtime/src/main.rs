//! The program `weir`. It turns an error into a text and an exit code, and does nothing else.
#![expect(clippy::print_stderr, reason = "the last words of a command that failed")]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::Cli::parse().run().unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::from(2)
    })
}
