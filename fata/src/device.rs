//! From a port's [`Interface`] to the network stack's [`Device`].

use alloc::rc::Rc;
use core::task::{Context, Poll};

use fata_net::{Capabilities, Device, RxChecksum, RxFrame, TxFrame, TxMeta};

use crate::port::Interface;

/// An interface as a device. The stack is compiled for this type only.
pub(crate) struct InterfaceDevice(pub(crate) Rc<dyn Interface>);

/// The next received frame.
pub(crate) struct Received<'a> {
    interface: &'a dyn Interface,
    checksum: RxChecksum,
    used: bool,
}

/// Room for one frame to send. The device is borrowed, so nobody else can take it.
pub(crate) struct Room<'a>(&'a dyn Interface);

impl InterfaceDevice {
    fn room(&self) -> Option<Room<'_>> {
        self.0.has_room().then_some(Room(&*self.0))
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
        // The frame first: nobody shall wait for room who has nothing to send.
        let checksum = self.0.peek()?;
        let room = self.room()?;
        Some((
            Received {
                interface: &*self.0,
                checksum,
                used: false,
            },
            room,
        ))
    }

    fn transmit(&mut self) -> Option<Room<'_>> {
        self.room()
    }

    fn listen(&mut self, groups: &[[u8; 6]]) {
        self.0.listen(groups);
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
        let (mut f, mut value) = (Some(f), None);
        read(self.interface, &mut |frame| {
            if let Some(f) = f.take() {
                value = Some(f(frame));
            }
        });
        value.unwrap_or_else(|| unreachable!("a frame is shown in any case"))
    }
}

/// Shows the next frame to `f`, or one without bytes, which the stack drops: the link may have gone down between the look
/// and the reading.
fn read(interface: &dyn Interface, f: &mut dyn FnMut(&[u8])) {
    let mut shown = false;
    interface.read(&mut |frame| {
        shown = true;
        f(frame);
    });
    if !shown {
        f(&[]);
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
    fn consume<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        let (mut f, mut value) = (Some(f), None);
        write(self.0, len, &mut |frame| {
            let Some(f) = f.take() else { return TxMeta::default() };
            let (result, meta) = f(frame);
            value = Some(result);
            meta
        });
        value.unwrap_or_else(|| unreachable!("a frame is written in any case"))
    }
}

/// Has `f` write a frame, and queues it, unless the link went down meanwhile: then it is lost, as frames may be.
fn write(interface: &dyn Interface, len: usize, f: &mut dyn FnMut(&mut [u8]) -> TxMeta) {
    let mut written = false;
    interface.write(len, &mut |frame| {
        written = true;
        f(frame)
    });
    if !written {
        f(&mut alloc::vec![0; len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::cell::{Cell, RefCell};
    use fata_net::{ChecksumOffload, SegmentationOffload, TxChecksum};

    /// An interface that gives back what it is sent, as long as it is up.
    #[derive(Default)]
    struct Loop {
        up: Cell<bool>,
        frames: RefCell<Vec<Vec<u8>>>,
    }

    impl Interface for Loop {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                mac: [2; 6],
                mtu: 1500,
                tx_checksum: ChecksumOffload::NONE,
                tx_segmentation: SegmentationOffload::NONE,
            }
        }
        fn link_up(&self) -> bool {
            self.up.get()
        }
        fn problem(&self) -> String {
            String::new()
        }
        fn peek(&self) -> Option<RxChecksum> {
            (!self.frames.borrow().is_empty()).then_some(RxChecksum::Validated)
        }
        fn read(&self, f: &mut dyn FnMut(&[u8])) {
            if self.up.get() {
                let frame = self.frames.borrow_mut().remove(0);
                f(&frame);
            }
        }
        fn has_room(&self) -> bool {
            true
        }
        fn write(&self, length: usize, f: &mut dyn FnMut(&mut [u8]) -> TxMeta) {
            if self.up.get() {
                let mut frame = alloc::vec![0; length];
                assert_eq!(f(&mut frame).checksum, TxChecksum::Blank);
                self.frames.borrow_mut().push(frame);
            }
        }
        fn listen(&self, _: &[[u8; 6]]) {}
        fn flush(&self) {}
        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    fn send(device: &mut InterfaceDevice, text: &[u8]) -> usize {
        device.transmit().unwrap().consume(text.len(), |frame| {
            frame.copy_from_slice(text);
            (frame.len(), TxMeta::new(TxChecksum::Blank))
        })
    }

    #[test]
    fn frames_pass_in_both_directions() {
        let interface = Rc::new(Loop::default());
        let mut device = InterfaceDevice(interface.clone());
        interface.up.set(true);
        assert!(device.receive().is_none());
        assert_eq!(send(&mut device, b"one"), 3);
        assert_eq!(send(&mut device, b"two"), 3);
        assert_eq!(send(&mut device, b"three"), 5);
        let (frame, _room) = device.receive().unwrap();
        assert_eq!(frame.checksum(), RxChecksum::Validated);
        assert_eq!(frame.consume(<[u8]>::to_vec), b"one");
        drop(device.receive());
        assert_eq!(
            device.receive().unwrap().0.consume(<[u8]>::to_vec),
            b"three",
            "a dropped frame is gone"
        );
    }

    #[test]
    fn a_link_that_goes_down_in_between_loses_the_frame() {
        let interface = Rc::new(Loop::default());
        let mut device = InterfaceDevice(interface.clone());
        interface.frames.borrow_mut().push(b"x".to_vec());
        assert_eq!(send(&mut device, b"lost"), 4);
        assert_eq!(device.receive().unwrap().0.consume(<[u8]>::len), 0);
        assert_eq!(interface.frames.borrow().len(), 1);
    }
}
