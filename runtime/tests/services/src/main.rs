//! The command `weir-services`: starts, shows and stops real Kafka, HDFS and PostgreSQL on this machine. It judges nothing by
//! what a command that it runs does with them, and hands on its exit code.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for the terminal and for scripts"
)]

use std::process::ExitCode;

/// Exit code: the command line is wrong.
#[cfg(target_os = "linux")]
const WRONG: u8 = 2;

/// Exit code: a service could not be had, or not be stopped.
const FAILED: u8 = 3;

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod commands;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use arguments::{Arguments, Verb};

    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("weir-services: {problem}\n\n{}", arguments::USAGE);
            return ExitCode::from(WRONG);
        }
    };
    let done = match arguments.verb {
        Verb::Help => {
            println!("{}", arguments::USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Up => commands::up(&arguments),
        Verb::Status => commands::status(&arguments),
        Verb::Down => commands::down(&arguments),
        Verb::Run => commands::run(&arguments),
        Verb::Fetch => commands::fetch(&arguments),
        Verb::Missing => {
            weir_services::missing().iter().for_each(|line| println!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("weir-services: {error}");
        ExitCode::from(FAILED)
    })
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("weir-services: it runs on Linux alone: it knows processes by /proc");
    ExitCode::from(FAILED)
}
