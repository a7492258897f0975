//! The ports that somebody waits for.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use fata_hypercall::Port;
use fata_hypercall::abi::sched::POLL_MAX_PORTS;

/// A set of ports, as a bit for each.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    words: RefCell<Vec<u64>>,
    len: Cell<usize>,
    /// Where the next list begins.
    next: Cell<u32>,
}

const fn place(port: Port) -> (usize, u64) {
    (port.0 as usize / 64, 1 << (port.0 % 64))
}

impl Awaited {
    pub(super) fn insert(&self, port: Port) {
        let (index, bit) = place(port);
        let mut words = self.words.borrow_mut();
        if words.len() <= index {
            words.resize(index + 1, 0);
        }
        if let Some(word) = words.get_mut(index)
            && *word & bit == 0
        {
            *word |= bit;
            self.len.set(self.len.get() + 1);
        }
    }

    pub(super) fn remove(&self, port: Port) {
        let (index, bit) = place(port);
        if let Some(word) = self.words.borrow_mut().get_mut(index)
            && *word & bit != 0
        {
            *word &= !bit;
            self.len.set(self.len.get() - 1);
        }
    }

    pub(super) fn contains(&self, port: Port) -> bool {
        let (index, bit) = place(port);
        self.word(index) & bit != 0
    }

    pub(super) fn clear(&self) {
        self.words.take();
        self.len.set(0);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// How many words there are.
    pub(super) fn words(&self) -> usize {
        self.words.borrow().len()
    }

    /// The bits of 64 ports.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.borrow().get(index).copied().unwrap_or(0)
    }

    /// Fills in as many as have room, and says how many; the next call goes on with the next.
    pub(super) fn list(&self, list: &mut [Port; POLL_MAX_PORTS]) -> usize {
        let words = self.words();
        let (start_word, start_bit) = (self.next.get() as usize / 64, self.next.get() % 64);
        let mut len = 0;
        // The first word comes twice: its upper part first, its lower part last.
        for step in 0..=words {
            let index = (start_word + step) % words.max(1);
            let mut bits = match step {
                0 => self.word(index) & u64::MAX << start_bit,
                _ if step == words => self.word(index) & !(u64::MAX << start_bit),
                _ => self.word(index),
            };
            while bits != 0 {
                let port = index as u32 * 64 + bits.trailing_zeros();
                let Some(entry) = list.get_mut(len) else {
                    self.next.set(port);
                    return len;
                };
                bits &= bits - 1;
                *entry = Port(port);
                len += 1;
            }
        }
        self.next.set(0);
        len
    }
}
