//! The command `weir`: parse, run, say how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_little();
    #[cfg(feature = "failpoints")]
    die_where_told();
    weir::cli::main()
}

/// Records come from one thread and are freed by another, in pieces of all sizes up to a batch. With what glibc does by default,
/// an arena for every other thread and large pieces cut from them once one was freed, half of what was ever used stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator is the C library's")]
fn keep_little() {
    const ARENAS: i32 = 4;
    const LARGE: i32 = 1 << 20;
    // SAFETY: no other thread is there yet. What is not understood changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
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
