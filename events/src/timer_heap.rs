//! The running timers, soonest first.
#![allow(clippy::indexing_slicing, reason = "no index comes from outside")]

use alloc::vec::Vec;
use core::task::Waker;

use crate::Instant;

/// Names a timer. It stays harmless when the timer is over: the place's next tenant has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    slot: u32,
    generation: u32,
}

/// One running timer, as it lies in the heap.
#[derive(Clone, Copy)]
struct Entry {
    deadline: Instant,
    /// Orders timers with the same deadline by when they were set, so that runs repeat exactly.
    sequence: u64,
    slot: u32,
}

impl Entry {
    fn sooner(&self, other: &Self) -> bool {
        (self.deadline, self.sequence) < (other.deadline, other.sequence)
    }
}

/// Where a timer lies, and whom it wakes.
struct Slot {
    generation: u32,
    /// Index into the heap.
    position: usize,
    /// `None` when the place is free.
    waker: Option<Waker>,
}

/// A binary heap whose entries know where they lie: set, cancel and fire in O(log n), and no allocation once it has
/// grown to the most timers that ever ran at a time. Timeouts are set for every request and almost never fire, so
/// cancelling has to be cheap and leave nothing behind.
#[derive(Default)]
pub(crate) struct TimerHeap {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    sequence: u64,
}

impl TimerHeap {
    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the soonest is due.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Sets a timer.
    pub(crate) fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        let position = self.heap.len();
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = &mut self.slots[slot as usize];
                place.position = position;
                place.waker = Some(waker);
                slot
            }
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    position,
                    waker: Some(waker),
                });
                (self.slots.len() - 1) as u32
            }
        };
        self.heap.push(Entry {
            deadline,
            sequence: self.sequence,
            slot,
        });
        self.sequence += 1;
        self.sift_up(position);
        TimerKey {
            slot,
            generation: self.slots[slot as usize].generation,
        }
    }

    /// Has the timer wake `waker` from now on. `false` if it is over: it fired.
    pub(crate) fn update(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.slots.get_mut(key.slot as usize) {
            Some(Slot {
                generation,
                waker: Some(old),
                ..
            }) if *generation == key.generation => {
                old.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    /// Cancels a timer, if it still runs.
    pub(crate) fn remove(&mut self, key: TimerKey) {
        if let Some(slot) = self.slots.get(key.slot as usize)
            && slot.generation == key.generation
            && slot.waker.is_some()
        {
            self.take(slot.position);
        }
    }

    /// Takes one timer that is due at `now`: whom to wake.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        if self.earliest()? > now {
            return None;
        }
        self.take(0)
    }

    /// Takes the entry at `position` out of the heap and frees its slot.
    fn take(&mut self, position: usize) -> Option<Waker> {
        let entry = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.settle(position);
            // The last entry came here from another branch: it may belong further down or further up.
            let position = self.sift_down(position);
            self.sift_up(position);
        }
        let slot = &mut self.slots[entry.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(entry.slot);
        slot.waker.take()
    }

    /// Tells the entry at `position` where it lies.
    fn settle(&mut self, position: usize) {
        let slot = self.heap[position].slot;
        self.slots[slot as usize].position = position;
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if !self.heap[position].sooner(&self.heap[parent]) {
                break;
            }
            self.swap(position, parent);
            position = parent;
        }
    }

    fn sift_down(&mut self, mut position: usize) -> usize {
        loop {
            let left = 2 * position + 1;
            let Some(child) = (left..self.heap.len().min(left + 2))
                .reduce(|a, b| if self.heap[b].sooner(&self.heap[a]) { b } else { a })
            else {
                return position;
            };
            if !self.heap[child].sooner(&self.heap[position]) {
                return position;
            }
            self.swap(position, child);
            position = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::sync::{Arc, AtomicBool, Ordering};

    /// Says that it was woken.
    #[derive(Default)]
    struct Flag(AtomicBool);

    impl alloc::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Remove(usize),
        Update(usize),
        Due(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..50_u64).prop_map(Op::Insert),
            2 => any::<prop::sample::Index>().prop_map(|i| Op::Remove(i.index(64))),
            1 => any::<prop::sample::Index>().prop_map(|i| Op::Update(i.index(64))),
            1 => (0..50_u64).prop_map(Op::Due),
        ]
    }

    proptest! {
        /// Against a sorted map: the same timers fire in the same order, and a key that is over does nothing.
        #[test]
        fn fires_like_a_sorted_map(ops in prop::collection::vec(op(), 0..300)) {
            let mut heap = TimerHeap::default();
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            let mut flags: Vec<Arc<Flag>> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(deadline) => {
                        let flag = Arc::new(Flag::default());
                        let deadline = Instant::from_nanos(deadline);
                        keys.push((heap.insert(deadline, flag.clone().into()), deadline));
                        model.insert((deadline, keys.len() - 1), ());
                        flags.push(flag);
                    }
                    Op::Remove(index) => {
                        if let Some((key, deadline)) = keys.get(index) {
                            heap.remove(*key);
                            model.remove(&(*deadline, index));
                        }
                    }
                    Op::Update(index) => {
                        if let Some((key, deadline)) = keys.get(index) {
                            let flag = Arc::new(Flag::default());
                            let runs = heap.update(*key, &flag.clone().into());
                            prop_assert_eq!(runs, model.contains_key(&(*deadline, index)));
                            if runs {
                                flags[index] = flag;
                            }
                        }
                    }
                    Op::Due(now) => {
                        let now = Instant::from_nanos(now);
                        while let Some(waker) = heap.pop_due(now) {
                            let ((deadline, index), ()) = model.pop_first().expect("the model has one too");
                            prop_assert!(deadline <= now);
                            waker.wake();
                            prop_assert!(flags[index].0.load(Ordering::Relaxed), "the right one fired");
                        }
                        prop_assert!(model.keys().next().is_none_or(|(deadline, _)| *deadline > now));
                    }
                }
                prop_assert_eq!(heap.len(), model.len());
                prop_assert_eq!(heap.earliest(), model.keys().next().map(|(deadline, _)| *deadline));
            }
            let most = keys.len();
            prop_assert!(heap.slots.len() <= most);
            prop_assert_eq!(heap.slots.len() - heap.free.len(), heap.len(), "no place is lost");
        }
    }
}
