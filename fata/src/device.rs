//! From a port's [`Interface`] to the network stack's [`Device`].

use alloc::rc::Rc;
use core::task::{Context, Poll};

use fata_net::{Capabilities, Device, RxChecksum, RxFrame, TxFrame, TxMeta};

use crate::port::Interface;

/// An interface as a device. The stack is compiled for this type only.
pub(crate) struct InterfaceDevice(pub(crate) Rc<dyn Interface>);

/// A frame that was taken out of the device.
pub(crate) struct Received<'a> {
    interface: &'a dyn Interface,
    checksum: RxChecksum,
    used: bool,
}

/// Room that was reserved in the device.
pub(crate) struct Room<'a> {
    interface: &'a dyn Interface,
    used: bool,
}

impl InterfaceDevice {
    fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().then(|| Room { interface: &*self.0, used: false })
    }
}

impl Device for InterfaceDevice {
    type Rx<'a> = Received<'a>;
    type Tx<'a> = Room<'a>;

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn link_up(&self) -> bool {
        self.0.link_up()
    }

    fn receive(&mut self) -> Option<(Received<'_>, Room<'_>)> {
        // Room first: it can be given back without a trace, and a frame cannot.
        let room = self.room()?;
        let checksum = self.0.receive()?;
        Some((Received { interface: &*self.0, checksum, used: false }, room))
    }

    fn transmit(&mut self) -> Option<Room<'_>> {
        self.room()
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }
}

impl RxFrame for Received<'_> {
    fn checksum(&self) -> RxChecksum {
        self.checksum
    }

    fn consume<R>(mut self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.used = true;
        let (mut f, mut result) = (Some(f), None);
        self.interface.read(&mut |bytes| result = f.take().map(|f| f(bytes)).or(result.take()));
        // An interface that does not call back breaks its promise; the stack then sees a frame without bytes.
        result.or_else(|| f.take().map(|f| f(&[]))).unwrap_or_else(|| unreachable!())
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.interface.read(&mut |_| ());
        }
    }
}

impl TxFrame for Room<'_> {
    fn consume<R>(mut self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        self.used = true;
        let (mut f, mut result) = (Some(f), None);
        self.interface.write(len, &mut |bytes| {
            let Some(f) = f.take() else { return TxMeta::default() };
            let (value, meta) = f(bytes);
            result = Some(value);
            meta
        });
        // An interface that does not call back breaks its promise; the stack's frame then goes nowhere.
        result.or_else(|| f.take().map(|f| f(&mut alloc::vec![0; len]).0)).unwrap_or_else(|| unreachable!())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.interface.unreserve();
        }
    }
}
