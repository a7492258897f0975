//! A backend's life, step by step.

use fata_hypercall::DomId;

use super::{Driver, End, XenbusState};
use crate::sim::Next;

pub(super) struct Life<D> {
    pub(super) end: End,
    pub(super) driver: D,
    /// The device's number among the guest's of its kind.
    pub(super) index: u32,
}

impl<D: Driver> Life<D> {
    /// One small piece of work.
    pub(super) fn step(&mut self) -> Next {
        if !self.end.is_working() {
            return Next::Sleep;
        }
        if self.end.begins() {
            self.driver.offer(&self.end);
            self.end.switch_to(XenbusState::InitWait);
            return Next::Again;
        }
        // Linux runs xenbus and the rings in threads of their own: any order may happen.
        let store_first = self.end.dom0.machine.one_in(2);
        if store_first && self.follow() {
            return Next::Again;
        }
        let next = self.driver.work(&mut self.end);
        if next != Next::Again && !store_first && self.follow() {
            return Next::Again;
        }
        next
    }

    /// Looks at the frontend's state if it may have changed. True if it did something.
    fn follow(&mut self) -> bool {
        let news = self.end.news();
        if let Some(state) = news {
            self.driver.follow(&mut self.end, state);
        }
        news.is_some()
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(super) fn due(&self) -> Option<String> {
        let end = &self.end;
        let asleep = end.dom0.machine.domain(end.guest)?.sleep.get().is_some();
        if !asleep || !end.is_working() || end.state() != XenbusState::Connected || end.key("state")? != "4" {
            return None;
        }
        Some(format!("{} ({})", self.driver.due()?, end.back()))
    }

    pub(super) fn crash(&mut self) {
        self.end.die();
        self.driver.disconnect();
    }

    pub(super) fn restart(&mut self) {
        if !self.end.is_removed() {
            self.crash();
            self.end.restart();
        }
    }

    pub(super) fn move_to(&mut self, guest: DomId, front: String, back: String) {
        self.crash();
        self.end.move_to(guest, front, back);
    }

    pub(super) fn remove(&mut self) {
        self.crash();
        self.end.remove();
        self.driver.remove();
    }
}
