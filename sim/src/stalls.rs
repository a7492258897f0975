//! Lost wake-ups: everybody sleeps, and something is due.
//!
//! A retransmission timer often covers up for an event that was forgotten: the data arrives, late. So whoever has a
//! ring says when something in it waits for a peer that was told, or for itself although nobody told it; and if that
//! lasts while nobody runs, it is a broken rule.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::sim::Sim;

/// Longer than any peer may put off what is due, to do more at once or to slow a storm down.
const LIMIT: Duration = Duration::from_millis(500);

type Due = Box<dyn Fn() -> Option<String>>;

struct Check {
    due: Due,
    since: Cell<Option<u64>>,
}

/// Who can be asked whether something is due.
#[derive(Default)]
pub(crate) struct Stalls(RefCell<Vec<Check>>);

impl Stalls {
    /// `due` says what is due, if anything, while everybody sleeps.
    pub(crate) fn watch(&self, due: impl Fn() -> Option<String> + 'static) {
        self.0.borrow_mut().push(Check {
            due: Box::new(due),
            since: Cell::new(None),
        });
    }
}

impl Sim {
    /// Nobody will run before `next`.
    pub(crate) fn look_for_stalls(&self, next: u64) {
        for Check { due, since } in self.stalls.0.borrow().iter() {
            let Some(what) = due() else {
                since.set(None);
                continue;
            };
            let began = since.get().unwrap_or(self.machine.now.get());
            since.set(Some(began));
            if next.saturating_sub(began) > LIMIT.as_nanos() as u64 {
                since.set(None);
                self.machine.violation(format!("lost wake-up: {what}"));
            }
        }
    }
}
