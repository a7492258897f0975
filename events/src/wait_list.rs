//! Wakers that wait for the same thing.
#![allow(clippy::indexing_slicing, reason = "no index comes from outside")]

use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::Waker;

/// Names a place in a [`WaitList`]; the future that got it gives it back when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// Wakers that wait for the same thing.
///
/// A future that waits holds a place, so that a dropped future leaves nothing behind (rule 59). Hand-written `poll`
/// functions have nowhere to keep a place: they leave their waker among the `guests`, at most once per task, and it
/// stays until the next wake.
#[derive(Debug, Default)]
pub(crate) struct WaitList(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    places: Vec<Option<Waker>>,
    free: Vec<u32>,
    guests: Vec<Waker>,
}

impl WaitList {
    /// Waits at `place`, which is taken if need be.
    pub(crate) fn wait(&self, place: &mut Option<Place>, waker: &Waker) {
        let inner = &mut *self.0.borrow_mut();
        let index = match place {
            Some(Place(index)) => *index,
            None => inner.free.pop().unwrap_or_else(|| {
                inner.places.push(None);
                (inner.places.len() - 1) as u32
            }),
        };
        *place = Some(Place(index));
        match &mut inner.places[index as usize] {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, place: Place) {
        let inner = &mut *self.0.borrow_mut();
        inner.places[place.0 as usize] = None;
        inner.free.push(place.0);
    }

    /// Waits without a place.
    pub(crate) fn wait_as_guest(&self, waker: &Waker) {
        let guests = &mut self.0.borrow_mut().guests;
        if !guests.iter().any(|guest| guest.will_wake(waker)) {
            guests.push(waker.clone());
        }
    }

    /// Wakes everybody. Each wakes outside the borrow: a waker is foreign code.
    pub(crate) fn wake_all(&self) {
        let mut index = 0;
        loop {
            let waker = match self.0.borrow_mut().places.get_mut(index) {
                Some(place) => place.take(),
                None => break,
            };
            if let Some(waker) = waker {
                waker.wake();
            }
            index += 1;
        }
        // As many as there are now: a guest that comes back from inside its wake waits for the next one.
        let guests = self.0.borrow().guests.len();
        for _ in 0..guests {
            let guest = self.0.borrow_mut().guests.pop();
            if let Some(waker) = guest {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let list = WaitList::default();
        for _ in 0..100 {
            let mut places = [None; 3];
            for place in &mut places {
                list.wait(place, Waker::noop());
                list.wait(place, Waker::noop());
                list.wait_as_guest(Waker::noop());
            }
            places.into_iter().flatten().for_each(|place| list.leave(place));
        }
        let inner = list.0.borrow();
        assert_eq!((inner.places.len(), inner.free.len(), inner.guests.len()), (3, 3, 1));
    }
}
