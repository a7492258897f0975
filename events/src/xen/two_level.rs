//! The two-level form of event channels: a pending bit for each port, in words of 64.
//!
//! The form is that of xen/include/public/xen.h, whose mask and selector are not needed here.

use core::sync::atomic::Ordering;

use fata_hypercall::Port;
use fata_hypercall::abi::shared_info::SharedInfo;

/// Masks every port.
pub(super) fn mask_all(info: &SharedInfo) {
    for word in &info.evtchn_mask {
        word.store(u64::MAX, Ordering::Release);
    }
}

/// Takes a port's pending bit; `true` if it was set. See [`take`].
pub(super) fn take_port(info: &SharedInfo, port: Port) -> bool {
    take(info, port.0 as usize / 64, 1 << (port.0 % 64)) != 0
}

/// Takes the pending bits of `word` that are in `wanted`: they are clear afterwards, and what the peers wrote before
/// they signalled can be seen.
pub(super) fn take(info: &SharedInfo, word: usize, wanted: u64) -> u64 {
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
