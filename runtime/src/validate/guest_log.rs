//! Catches what a guest writes to its log while a sample runs, to be shown in one place. It keeps the beginning
//! and counts the rest.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

/// Lines that are kept.
const KEPT: usize = 1_000;

/// What the guest wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestLog {
    /// The first lines, escaped.
    pub lines: Vec<String>,
    /// How many more there were.
    pub more: u64,
}

/// Listens to the log of guests on the threads it is the default of.
#[derive(Clone, Debug, Default)]
pub(super) struct Listener {
    heard: Arc<Mutex<GuestLog>>,
}

impl Listener {
    pub(super) fn heard(&self) -> GuestLog {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "guest" && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.lines.len() < KEPT {
            true => heard.lines.push(line.0),
            false => heard.more += 1,
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guests_are_heard_and_a_flood_is_counted() {
        let listener = Listener::default();
        tracing::subscriber::with_default(listener.clone(), || {
            tracing::info!(target: "guest", "{}", "first");
            tracing::info!("not a guest");
            (0..KEPT).for_each(|_| tracing::info!(target: "guest", "again"));
        });
        let heard = listener.heard();
        assert_eq!((heard.lines[0].as_str(), heard.lines.len(), heard.more), ("first", KEPT, 1));
    }
}
