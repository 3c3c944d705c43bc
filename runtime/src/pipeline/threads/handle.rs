//! How everyone else looks at a pipeline while it runs, and tells it something. Whoever looks never waits for the
//! pipeline, and the pipeline never for them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Clock;
use super::shadow::Lane;
use crate::pipeline::shadow::Report;
use crate::pipeline::status::Status;
use crate::pipeline::{Order, Refusal};

/// A status is made at most so often: making one is work for the thread that decides.
const FRESH: Duration = Duration::from_millis(100);

/// So many orders may wait; people give few.
const ORDERS: usize = 8;

const NEVER: u64 = u64::MAX;

/// The outer end, for whoever looks.
#[derive(Clone, Debug)]
pub struct Handle {
    board: Arc<Board>,
    orders: Sender<Given>,
}

/// The inner end, which the pipeline runs on.
pub struct Desk {
    board: Arc<Board>,
    next: Duration,
    orders: Receiver<Given>,
    /// Else there would be an end of orders to wait for, once nobody can give any.
    _open: Sender<Given>,
    /// Who waits for an answer.
    tickets: BTreeMap<u64, Reply>,
    next_ticket: u64,
}

/// What is called with the answer to an order: whether anything is different, and how the pipeline stands. If the
/// pipeline ends first, it is dropped.
pub type Reply = Box<dyn FnOnce(Result<(bool, Status), Refusal>) + Send>;

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("board", &self.board).finish_non_exhaustive()
    }
}

struct Given {
    order: Order,
    reply: Reply,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("order", &self.order).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Board {
    clock: Clock,
    /// When the deciding thread turned last, in milliseconds; [`NEVER`] before it began.
    turned: AtomicU64,
    status: Mutex<Arc<Status>>,
    /// Whether that is of a pipeline that has begun.
    begun: AtomicBool,
    lane: Arc<Lane>,
}

/// Both ends. `first` is what those see who look before the pipeline begins.
pub fn handle(first: Status) -> (Handle, Desk) {
    let (turned, lane) = (AtomicU64::new(NEVER), Arc::new(Lane::new()));
    let status = Mutex::new(Arc::new(first));
    let board = Board { clock: Clock::start(), turned, status, begun: AtomicBool::new(false), lane };
    let board = Arc::new(board);
    let (give, orders) = bounded(ORDERS);
    let desk = Desk {
        board: board.clone(),
        next: Duration::ZERO,
        orders,
        _open: give.clone(),
        tickets: BTreeMap::new(),
        next_ticket: 0,
    };
    (Handle { board, orders: give }, desk)
}

impl Handle {
    /// How the pipeline stood a moment ago.
    pub fn status(&self) -> Arc<Status> {
        self.board.lock().clone()
    }

    /// Whether the pipeline runs, or did.
    pub fn has_begun(&self) -> bool {
        self.board.begun.load(Ordering::Acquire)
    }

    /// What was found by the plan that is tried on live records, or was last.
    pub fn shadow(&self) -> Option<Report> {
        self.board.lane.report()
    }

    /// How long ago the deciding thread turned last; nothing before it began. It turns many times a second, whatever its
    /// pipeline does.
    pub fn silent_for(&self) -> Duration {
        match self.board.turned.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            turned => self.board.clock.now().saturating_sub(Duration::from_millis(turned)),
        }
    }
}

impl Handle {
    /// Gives an order; `reply` is called once it was followed or refused. `false` if too many wait, or it has ended.
    pub fn give(&self, order: Order, reply: Reply) -> bool {
        match self.orders.try_send(Given { order, reply }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Desk {
    /// Where workers meet a plan that is tried on live records.
    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.board.lane
    }

    /// Where to wait for orders.
    pub(super) fn orders(&self) -> &Receiver<impl Sized> {
        &self.orders
    }

    /// The next order, if there is one, with the ticket for its answer.
    pub(super) fn take_order(&mut self) -> Option<(u64, Order)> {
        let Given { order, reply } = self.orders.try_recv().ok()?;
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, reply);
        Some((self.next_ticket, order))
    }

    /// Answers an order.
    pub(super) fn answer(&mut self, ticket: u64, answer: Result<(bool, Status), Refusal>) {
        let reply = self.tickets.remove(&ticket).expect("an order is answered once");
        reply(answer);
    }

    /// To be called at each turn; puts up a new status if the last one is not fresh any more.
    pub(super) fn turn(&mut self, status: impl FnOnce() -> Status) {
        let now = self.board.clock.now();
        self.board.turned.store(now.as_millis() as u64, Ordering::Relaxed);
        if now >= self.next {
            self.next = now + FRESH;
            self.put_up(status());
        }
    }

    /// Puts up a new status in any case.
    pub(crate) fn put_up(&self, status: Status) {
        *self.board.lock() = Arc::new(status);
        self.board.begun.store(true, Ordering::Release);
    }
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Status>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Settings;
    use crate::plan::History;
    use crate::sink::state::{Nonce, PlanRef};

    fn status() -> Status {
        let settings = Settings {
            pipeline: "p".into(),
            owner: Nonce::from_u128(1),
            sinks: vec!["one".into()],
            stop_after_consecutive: 1,
            file_topic: None,
            max_attempts: 1,
            rollback: None,
            on_trial_after: None,
        };
        Status::before(&settings, &History::default(), &PlanRef { plan: 0, digest: "d".into() })
    }

    #[test]
    fn a_status_is_there_before_the_first_turn_and_made_anew_only_when_it_is_old() {
        let (handle, mut desk) = handle(status());
        assert_eq!((&*handle.status(), handle.has_begun()), (&status(), false));
        let ending = || Status { ending: true, ..status() };
        desk.turn(ending);
        assert_eq!((&*handle.status(), handle.has_begun()), (&ending(), true));
        desk.next += Duration::from_secs(3600);
        desk.turn(|| unreachable!("the last one is fresh"));
    }

    #[test]
    fn a_turn_ends_the_silence() {
        let (handle, mut desk) = handle(status());
        assert_eq!(handle.silent_for(), Duration::ZERO, "it has not begun");
        desk.turn(status);
        while handle.silent_for() < Duration::from_millis(5) {
            std::thread::yield_now();
        }
        let before = handle.silent_for();
        desk.turn(status);
        assert!(handle.silent_for() < before + Duration::from_millis(5));
    }
}
