//! Ports whose peers signal for nothing, time after time, are listened to less and less often (rule 55, XSA-391).

use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use fata_hypercall::{Port, SystemTime};

/// Events for nothing, in a row, that cost the peer nothing: an honest one causes some, for instance by signalling what
/// has been found already.
const FREE: u32 = 32;

/// The first pause. It doubles with each further event for nothing.
const FIRST: Duration = Duration::from_micros(50);

/// The longest: a storm costs a hundred turns of the loop in a second, and hides an event for 10 ms.
const LONGEST: Duration = Duration::from_millis(10);

/// How long a port is left alone after so many events for nothing.
pub(super) fn after(vain: u32) -> Duration {
    match vain.checked_sub(FREE) {
        None | Some(0) => Duration::ZERO,
        Some(over) => FIRST.saturating_mul(1 << (over - 1).min(31)).min(LONGEST),
    }
}

/// The ports that are left alone at the moment, and until when. They are few.
#[derive(Debug, Default)]
pub(super) struct Pauses(RefCell<Vec<(SystemTime, Port)>>);

impl Pauses {
    pub(super) fn contains(&self, port: Port) -> bool {
        self.0.borrow().iter().any(|&(_, paused)| paused == port)
    }

    pub(super) fn add(&self, until: SystemTime, port: Port) {
        self.0.borrow_mut().push((until, port));
    }

    pub(super) fn remove(&self, port: Port) {
        self.0.borrow_mut().retain(|&(_, paused)| paused != port);
    }

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes out a port whose pause is over.
    pub(super) fn pop_due(&self, now: SystemTime) -> Option<Port> {
        let mut pauses = self.0.borrow_mut();
        let due = pauses.iter().position(|&(until, _)| until <= now)?;
        Some(pauses.swap_remove(due).1)
    }

    /// When the next pause is over.
    pub(super) fn earliest(&self) -> Option<SystemTime> {
        self.0.borrow().iter().map(|&(until, _)| until).min()
    }
}
