//! A frame in the hands of the stack.

use core::cell::RefMut;
use core::fmt;

use fata_hypercall::Hypervisor;

use crate::rx::{Rx, RxMeta};
use crate::stats::Counters;
use crate::tx::{Tx, TxMeta};

/// A received frame; see [`Vif::receive`](crate::Vif::receive).
pub struct RxFrame<'a, H: Hypervisor> {
    rx: RefMut<'a, Rx<H>>,
    meta: RxMeta,
    counters: &'a Counters,
    consumed: bool,
}

impl<'a, H: Hypervisor> RxFrame<'a, H> {
    pub(crate) fn new(rx: RefMut<'a, Rx<H>>, meta: RxMeta, counters: &'a Counters) -> Self {
        Self {
            rx,
            meta,
            counters,
            consumed: false,
        }
    }

    /// What is known of it beside its bytes.
    #[must_use]
    pub fn meta(&self) -> RxMeta {
        self.meta
    }

    /// Shows its bytes to `f`, in place, then gives their memory back. The backend cannot change them meanwhile.
    pub fn consume<R>(mut self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.consumed = true;
        self.rx.take(self.counters, f)
    }
}

impl<H: Hypervisor> Drop for RxFrame<'_, H> {
    fn drop(&mut self) {
        if !self.consumed {
            self.rx.take(self.counters, |_| ());
        }
    }
}

impl<H: Hypervisor> fmt::Debug for RxFrame<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RxFrame({} bytes)", self.meta.len)
    }
}

/// Room for a frame to send; see [`Vif::transmit`](crate::Vif::transmit).
pub struct TxFrame<'a, H: Hypervisor> {
    tx: RefMut<'a, Tx<H>>,
    counters: &'a Counters,
}

impl<'a, H: Hypervisor> TxFrame<'a, H> {
    pub(crate) fn new(tx: RefMut<'a, Tx<H>>, counters: &'a Counters) -> Self {
        Self { tx, counters }
    }

    /// Has `f` write a frame of `len` bytes, Ethernet header included, and say what goes beside its bytes; then queues
    /// it. The backend sees it after [`Vif::flush`](crate::Vif::flush).
    ///
    /// The memory may hold earlier frames of ours to the same backend: `f` writes all of it. A frame that is shorter
    /// than its header is counted and not sent.
    ///
    /// # Panics
    /// If `len` is more than the interface's MTU and an Ethernet header, and more than the longest frame of many
    /// segments ([`Segmentation::longest`](crate::Segmentation::longest)).
    pub fn consume<R>(mut self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        self.tx.send(self.counters, len, f)
    }
}

impl<H: Hypervisor> fmt::Debug for TxFrame<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TxFrame")
    }
}
