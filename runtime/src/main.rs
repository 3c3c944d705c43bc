//! The command `weir`: parse, run, say how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    die_where_told();
    weir::cli::main()
}

/// `WEIR_KILL_AT=name:n` kills the process, as `kill -9` does, when it comes by failpoint `name` the `n`th time.
#[cfg(feature = "failpoints")]
fn die_where_told() {
    use std::sync::atomic::{AtomicU32, Ordering};

    let Ok(told) = std::env::var("WEIR_KILL_AT") else { return };
    let (name, n) = told.split_once(':').expect("WEIR_KILL_AT is name:n");
    let left = AtomicU32::new(n.parse().expect("WEIR_KILL_AT is name:n"));
    let kill = move || {
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL)
                .expect("a process may kill itself");
        }
    };
    fail::cfg_callback(name, kill).expect("the name of a failpoint");
}
