//! What Xen does to the words of the FIFO form when a port fires, step by step, for one vCPU and one priority
//! (`evtchn_fifo_set_pending` and `evtchn_fifo_set_link` in xen/common/event_fifo.c, as facts).
//!
//! The tests of `fata-events` read this file, too, and the model checker among them: hence the atomics' other name.

use core::cell::Cell;

use fata_hypercall::Port;
use fata_hypercall::abi::event_fifo::{BUSY, ControlBlock, LINK_MASK, LINKED, MASKED, PENDING, PRIORITY_DEFAULT};
use fata_hypercall::sync::{AtomicU32, Ordering::SeqCst};

/// The list as Xen sees it. The guest has the head.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The port that was linked last, or 0.
    tail: Cell<u32>,
}

impl Queue {
    /// Sets a port pending, and links it if it is not masked. `true` if it was not pending before: a sleeping domain wakes.
    pub(crate) fn set_pending<'a>(
        &self,
        control: &ControlBlock,
        words: impl Fn(Port) -> Option<&'a AtomicU32>,
        port: Port,
    ) -> bool {
        let Some(word) = words(port) else { return false };
        let fresh = word.fetch_or(PENDING, SeqCst) & PENDING == 0;
        if word.load(SeqCst) & MASKED != 0 || word.fetch_or(LINKED, SeqCst) & LINKED != 0 {
            return fresh;
        }
        // A port that was the tail and is not linked any more: the list is empty.
        let tail = self.tail.replace(port.0);
        let tail = (tail != 0 && tail != port.0).then(|| words(Port(tail))).flatten();
        if !tail.is_some_and(|tail| link(tail, port)) {
            control.head[PRIORITY_DEFAULT].store(port.0, SeqCst);
            control.ready.fetch_or(1 << PRIORITY_DEFAULT, SeqCst);
        }
        fresh
    }
}

/// Links `port` behind a port that is still linked itself; `false` if it is not.
fn link(tail: &AtomicU32, port: Port) -> bool {
    for attempt in 0..5 {
        let seen = tail.load(SeqCst);
        if seen & LINKED == 0 {
            tail.fetch_and(!BUSY, SeqCst);
            return false;
        }
        let linked = seen & !(BUSY | LINK_MASK) | port.0;
        if tail.compare_exchange(seen, linked, SeqCst, SeqCst).is_ok() {
            return true;
        }
        if attempt == 0 {
            // Keeps the guest from unmasking, so that it can change the word four times at the most.
            tail.fetch_or(BUSY, SeqCst);
        }
    }
    unreachable!("the guest did to a linked port what it must not");
}
