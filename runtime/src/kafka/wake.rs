//! A bell that the client library rings from its threads. It carries nothing but that it rang.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Rings when 8 bytes, the number 1, are written to it.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Default for Wake {
    /// # Panics
    /// If the system gives no file descriptor.
    fn default() -> Self {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Self(eventfd(0, flags).expect("the system gives file descriptors"))
    }
}

impl Wake {
    /// For those who ring.
    pub(super) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Returns once it rang since the last call, at the latest after `time`.
    pub(super) fn wait(&self, time: Duration) {
        let time = Timespec::try_from(time).expect("a short time");
        // Whether it rang, was interrupted or time is up: the caller looks at everything again.
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&time)).is_ok_and(|n| n > 0) {
            rustix::io::read(&self.0, &mut [0; 8]).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_rang_before_is_heard_once() {
        let wake = Wake::default();
        rustix::io::write(&wake.0, &1_u64.to_ne_bytes()).unwrap();
        rustix::io::write(&wake.0, &1_u64.to_ne_bytes()).unwrap();
        wake.wait(Duration::from_secs(60));
        assert!(rustix::io::read(&wake.0, &mut [0; 8]).is_err(), "nothing is left");
    }
}
