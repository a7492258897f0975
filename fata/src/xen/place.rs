//! The place of a device, `device/<type>/<index>`: devices come and go there, one after the other.

use alloc::rc::Rc;
use core::cell::Cell;

use fata_events::{Handle, JoinHandle, Signal};

/// A place, and the task in which its driver lives, or one life after the other.
pub(super) struct Place {
    state: Rc<State>,
    life: Cell<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Raised when it is looked at and there is a device, perhaps another one than before.
    looks: Signal,
    /// No device lives there.
    over: Cell<bool>,
    /// The program ends.
    leaving: Cell<bool>,
}

impl Place {
    /// Starts the driver for the device that is there. `run` is its life, which ends when the device goes, and is called again
    /// when there is one.
    pub(super) fn start(handle: &Handle, run: impl AsyncFn() + 'static) -> Self {
        let state = Rc::new(State::default());
        let place = Rc::clone(&state);
        let life = handle.spawn(async move {
            while !place.leaving.get() {
                // What is seen from here on may be a device that this life does not know.
                let seen = place.looks.count();
                place.over.set(false);
                run().await;
                place.over.set(true);
                place.looks.after(seen).await;
            }
        });
        Self {
            state,
            life: Cell::new(Some(life)),
        }
    }

    /// There is a device.
    pub(super) fn look(&self) {
        self.state.looks.raise();
    }

    /// The driver of the last device has taken leave.
    pub(super) fn is_over(&self) -> bool {
        self.state.over.get()
    }

    /// The program ends: no other life begins, and this one, which `stop` ends, is waited for.
    pub(super) async fn leave(&self, stop: impl FnOnce()) {
        self.state.leaving.set(true);
        self.state.looks.raise();
        stop();
        if let Some(life) = self.life.take() {
            // Cancelled or ended: it is over.
            let _ = life.await;
        }
    }
}
