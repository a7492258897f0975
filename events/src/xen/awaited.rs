//! The ports that somebody waits for.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use fata_hypercall::Port;
use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::abi::shared_info::EVTCHN_WORDS;

/// A set of ports, as a bit for each.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Those of the two-level form lie open: each turn of the loop looks at all of them.
    low: [Cell<u64>; EVTCHN_WORDS],
    high: RefCell<Vec<u64>>,
    /// Behind the last word that was ever used.
    words: Cell<usize>,
    len: Cell<usize>,
    /// Where the next list begins.
    next: Cell<u32>,
}

impl Default for Awaited {
    fn default() -> Self {
        Self {
            low: [const { Cell::new(0) }; EVTCHN_WORDS],
            high: RefCell::default(),
            words: Cell::new(0),
            len: Cell::new(0),
            next: Cell::new(0),
        }
    }
}

const fn place(port: Port) -> (usize, u64) {
    (port.0 as usize / 64, 1 << (port.0 % 64))
}

impl Awaited {
    pub(super) fn insert(&self, port: Port) {
        let (index, bit) = place(port);
        let word = self.word(index);
        if word & bit == 0 {
            self.set_word(index, word | bit);
            self.len.set(self.len.get() + 1);
            self.words.set(self.words.get().max(index + 1));
        }
    }

    pub(super) fn remove(&self, port: Port) {
        let (index, bit) = place(port);
        let word = self.word(index);
        if word & bit != 0 {
            self.set_word(index, word & !bit);
            self.len.set(self.len.get() - 1);
        }
    }

    pub(super) fn contains(&self, port: Port) -> bool {
        let (index, bit) = place(port);
        self.word(index) & bit != 0
    }

    pub(super) fn clear(&self) {
        self.low.iter().for_each(|word| word.set(0));
        self.high.take();
        self.len.set(0);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// How many words there are.
    pub(super) fn words(&self) -> usize {
        self.words.get()
    }

    /// The bits of 64 ports.
    pub(super) fn word(&self, index: usize) -> u64 {
        match self.low.get(index) {
            Some(word) => word.get(),
            None => self.high_word(index - EVTCHN_WORDS),
        }
    }

    fn set_word(&self, index: usize, bits: u64) {
        match self.low.get(index) {
            Some(word) => word.set(bits),
            None => self.set_high_word(index - EVTCHN_WORDS, bits),
        }
    }

    #[cold]
    fn high_word(&self, index: usize) -> u64 {
        self.high.borrow().get(index).copied().unwrap_or(0)
    }

    #[cold]
    fn set_high_word(&self, index: usize, bits: u64) {
        let mut high = self.high.borrow_mut();
        if high.len() <= index {
            high.resize(index + 1, 0);
        }
        if let Some(word) = high.get_mut(index) {
            *word = bits;
        }
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
