//! The FIFO form of event channels: a word for each port, by which those that have fired are linked.
//!
//! A port is unmasked exactly while somebody waits for it and it has not fired; so only what is waited for is ever linked, and
//! a port is at most once in a round. All is done by compare-and-swap on the port's own word, and nothing by hypercalls.
//!
//! Source: xen/common/event_fifo.c in Xen, which says what a guest may do to a linked port's word: set and clear MASKED, clear
//! PENDING, clear LINKED together with the link.

use core::sync::atomic::Ordering;

use fata_hypercall::abi::event_fifo::{BUSY, LINK_MASK, LINKED, MASKED, PENDING};
use fata_hypercall::sync::{AtomicU32, spin_loop};

/// Unmasks a port that has not fired, so that it is linked when it does. `false`: it has fired.
pub(super) fn unmask(word: &AtomicU32) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        if seen & PENDING != 0 {
            return false;
        }
        // Xen holds the word for the few instructions in which it links another behind this one.
        let quiet = seen & !BUSY;
        match word.compare_exchange(quiet, quiet & !MASKED, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
        spin_loop();
    }
}

/// Masks a port.
pub(super) fn mask(word: &AtomicU32) {
    word.fetch_or(MASKED, Ordering::SeqCst);
}

/// Takes an event: the port has not fired any more, and is masked. `true` if there was one. What the peer wrote before it
/// signalled can be seen then, and what it writes later comes with another event (rule 50).
pub(super) fn take(word: &AtomicU32) -> bool {
    let taken = |word: u32| (word & PENDING != 0).then_some(word & !PENDING | MASKED);
    word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, taken).is_ok()
}

/// Takes a port out of its list: what comes behind it, 0 for nothing. And its event, if it is `wanted` and has one.
pub(super) fn unlink(word: &AtomicU32, wanted: bool) -> (u32, bool) {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let fired = wanted && seen & PENDING != 0;
        let unlinked = seen & !(LINKED | LINK_MASK);
        let next = if fired { unlinked & !PENDING | MASKED } else { unlinked };
        match word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return (seen & LINK_MASK, fired),
            Err(now) => seen = now,
        }
    }
}
