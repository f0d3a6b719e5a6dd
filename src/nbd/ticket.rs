//! Waiting for the outcome of a request.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::failure::Failure;
use super::reply::Answer;

type Outcome = Result<Answer, Failure>;

/// Where the receiver puts the outcome of a request.
#[derive(Default)]
pub(super) struct Slot {
    outcome: Mutex<Option<Outcome>>,
    filled: Condvar,
}

impl Slot {
    /// Puts the outcome there, unless there is one.
    pub(super) fn fill(&self, outcome: Outcome) {
        self.lock().get_or_insert(outcome);
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was sent.
pub(super) struct Ticket(Arc<Slot>);

impl Ticket {
    /// The ticket of a request whose outcome will be put there.
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// Whether the outcome is there.
    pub(super) fn is_answered(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Waits for the outcome. The receiver of the connection ends the wait where the server stalls or the job is asked to stop.
    pub(super) fn wait(self) -> Outcome {
        let mut outcome = self.0.lock();
        loop {
            if let Some(outcome) = outcome.take() {
                return outcome;
            }
            outcome = self.0.filled.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
