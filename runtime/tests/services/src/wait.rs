//! Waiting for other processes: looking again at short intervals until a limit, or until told to give up. What is waited
//! for happens elsewhere and rings no bell, so this is the one place that asks the clock.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Ends every wait that shares it, once it is told.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Every wait ends now with an error, and so does every later one.
    pub fn tell(&self) {
        let (told, bell) = &*self.0;
        *told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
    }

    pub fn is_told(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the next look is due, or it is told.
    fn pause(&self) {
        let (told, bell) = &*self.0;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        drop(bell.wait_timeout_while(told, INTERVAL, |told| !*told));
    }
}

/// What `look` finds; `None` if it found nothing within `limit`. It looks at least once.
pub fn until<T>(
    interrupt: &Interrupt,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the limit is for people who wait, and decides nothing else"
    )]
    let begun = Instant::now();
    loop {
        if interrupt.is_told() {
            return Err(Error::new("interrupted"));
        }
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if begun.elapsed() >= limit {
            return Ok(None);
        }
        interrupt.pause();
    }
}
