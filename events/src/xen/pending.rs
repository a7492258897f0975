//! The two-level ABI's bits: which word and which bit a port has, and taking them.

use core::sync::atomic::Ordering;

use fata_hypercall::Port;
use fata_hypercall::abi::shared_info::{EVTCHN_PORTS, EVTCHN_WORDS, SharedInfo};

/// Ports in a word of bits.
pub(crate) const PORTS_PER_WORD: usize = 64;

/// Where a port's bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) word: usize,
    pub(crate) bit: u64,
}

/// Where `port`'s bits are; `None` if it has none: port 0 is never valid, and there are 4096.
pub(crate) fn place(port: Port) -> Option<Place> {
    let index = port.0 as usize;
    (port.0 != 0 && port.0 < EVTCHN_PORTS).then(|| Place {
        word: index / PORTS_PER_WORD,
        bit: 1 << (index % PORTS_PER_WORD),
    })
}

/// Masks every port.
pub(crate) fn mask_all(info: &SharedInfo) {
    for word in &info.evtchn_mask {
        word.store(u64::MAX, Ordering::Release);
    }
}

/// Takes the pending bits of `word` that are in `wanted`: they are clear afterwards, and what the peers wrote before
/// they signalled can be seen.
pub(crate) fn take(info: &SharedInfo, word: usize, wanted: u64) -> u64 {
    let Some(pending) = info.evtchn_pending.get(word) else {
        return 0;
    };
    let fired = pending.load(Ordering::Relaxed) & wanted;
    if fired == 0 {
        return 0;
    }
    // A full barrier on x86: what is looked at from here on is looked at after the bit is clear, so whatever comes
    // too late to be seen sets the bit again (rule 50).
    pending.fetch_and(!fired, Ordering::SeqCst) & fired
}

const _: () = assert!(EVTCHN_WORDS * PORTS_PER_WORD == EVTCHN_PORTS as usize);
