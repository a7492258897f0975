//! How a test looks at a backend.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;

use super::life::Life;
use super::{Driver, XenbusState};
use crate::sim::Waker;

/// The backend of one device. Clones are the same backend.
pub struct Backend<D> {
    pub(super) life: Rc<RefCell<Life<D>>>,
    pub(super) waker: Waker,
}

impl<D: Driver> Backend<D> {
    /// The backend's own state.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        self.life.borrow().end.state()
    }

    /// Both ends are connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state() == XenbusState::Connected
    }

    /// The rings are gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state() == XenbusState::Closed
    }

    /// It has not crashed, and was not stopped.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.life.borrow().end.is_alive()
    }

    /// The frontend's directory in the store. It is another one after the guest was restored.
    #[must_use]
    pub fn frontend_path(&self) -> String {
        self.life.borrow().end.front().to_owned()
    }

    /// The backend's directory in the store. It is another one after the guest was restored.
    #[must_use]
    pub fn backend_path(&self) -> String {
        self.life.borrow().end.back().to_owned()
    }

    /// It hangs: whatever comes, it neither answers nor lets go. Or it goes on.
    pub fn set_silent(&self, silent: bool) {
        self.life.borrow_mut().end.set_silent(silent);
        self.waker.wake();
    }

    /// The driver domain dies: its mappings and ports are gone, and the store still says what it said.
    pub fn crash(&self) {
        self.life.borrow_mut().crash();
    }

    /// The driver starts anew, whether it has crashed before or not. It knows nothing of the frontend but what the
    /// store and the rings say.
    pub fn restart(&self) {
        self.life.borrow_mut().restart();
        self.waker.wake();
    }

    /// The device is taken away: the driver lets go of everything at once, without a word to the frontend.
    pub fn stop(&self) {
        self.life.borrow_mut().remove();
        self.waker.wake();
    }

    pub(crate) fn driver(&self) -> Ref<'_, D> {
        Ref::map(self.life.borrow(), |life| &life.driver)
    }

    pub(crate) fn driver_mut(&self) -> RefMut<'_, D> {
        RefMut::map(self.life.borrow_mut(), |life| &mut life.driver)
    }
}

impl<D> Clone for Backend<D> {
    fn clone(&self) -> Self {
        Self {
            life: Rc::clone(&self.life),
            waker: self.waker.clone(),
        }
    }
}

impl<D: Driver> fmt::Debug for Backend<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}, {:?})", D::NAME, self.backend_path(), self.state())
    }
}
