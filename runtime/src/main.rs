//! The command `weir`: parse, run, say how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::main()
}
