//! How much of a processor a thread had. It tells no time.

/// Nanoseconds that this thread had of a processor, since some moment. Other work on the machine does not count.
pub(crate) fn thread_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
