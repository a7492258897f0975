//! The door between the facade and the machine under it.
//!
//! An application sees an [`Env`](crate::Env), and the `Env` sees this trait. So an application's source names no
//! port, and an image that carries several ports has one copy of everything above them.

#[cfg(feature = "net")]
use alloc::rc::Rc;
use alloc::string::String;
#[cfg(any(feature = "net", feature = "9pfs"))]
use alloc::vec::Vec;
use core::task::{Context, Poll};
use core::time::Duration;

#[cfg(any(feature = "net", feature = "9pfs"))]
use fata_events::Signal;
#[cfg(feature = "net")]
use fata_net::{Capabilities, RxChecksum, TxMeta};

use crate::stats::{Events, Grants, Memory};

/// What a port provides.
pub trait Port {
    /// What the machine is, for messages: `Xen 4.17`.
    fn machine(&self) -> String;

    /// The machine's own name, if somebody gave it one.
    fn name(&self) -> Option<String>;

    /// Time since 1970 (UTC). It may jump.
    fn wall_clock(&self) -> Duration;

    /// Writes to the console. It never blocks: what does not fit is dropped and counted.
    fn write(&self, bytes: &[u8]);

    /// Waits, a tenth of a second at the most, until the console has taken what was written. It stops the whole
    /// program meanwhile.
    fn flush(&self);

    /// Bytes that were written to the console and dropped.
    fn console_dropped(&self) -> u64;

    /// The next line of console input; `None` if there never will be one.
    fn poll_line(&self, cx: &mut Context<'_>) -> Poll<Option<String>>;

    /// The heap.
    fn memory(&self) -> Memory;

    /// Pages shared with other domains.
    fn grants(&self) -> Grants;

    /// Open event channels, or interrupts, by the port's kind.
    fn ports(&self) -> usize;

    /// What has happened on them.
    fn events(&self) -> Events;

    /// Places in the machine's configuration that are watched for changes.
    fn watches(&self) -> usize;

    /// What streams to other domains are made with, if the machine has such a thing.
    #[cfg(feature = "vchan")]
    fn vchans(&self) -> Option<fata_vchan::Vchans>;

    /// The directories that the host shares, whether connected or not.
    #[cfg(feature = "9pfs")]
    fn shares(&self) -> Vec<fata_9pfront::Share>;

    /// Raised when one of them has come, or gets or loses its connection.
    #[cfg(feature = "9pfs")]
    fn share_changes(&self) -> &Signal;

    /// The network interfaces there are, by number.
    #[cfg(feature = "net")]
    fn interfaces(&self) -> Vec<(usize, Rc<dyn Interface>)>;

    /// Raised when one of them has come or gone, or has another link or address.
    #[cfg(feature = "net")]
    fn interface_changes(&self) -> &Signal;

    /// What an administrator does to give the program a network interface.
    #[cfg(feature = "net")]
    fn how_to_add_interface(&self) -> String;
}

/// A network interface: [`fata_net::Device`] as an object, and what a report says of it.
///
/// Frames go through objects so that the network stack is compiled once, for whatever ports the image carries, and
/// not at all into a program that never asks for the network. A call through a table per frame costs nothing beside
/// what a frame costs.
#[cfg(feature = "net")]
pub trait Interface {
    /// Its address and abilities.
    fn capabilities(&self) -> Capabilities;

    /// Whether frames can be exchanged now.
    fn link_up(&self) -> bool;

    /// Why they cannot, and what to do about it.
    fn problem(&self) -> String;

    /// What the peer says about the checksum of the next received frame, if there is one.
    fn peek(&self) -> Option<RxChecksum>;

    /// Takes the next received frame and shows it to `f`. Without a frame, `f` is not called.
    fn read(&self, f: &mut dyn FnMut(&[u8]));

    /// Whether there is room for one more frame to send, of whatever length.
    fn has_room(&self) -> bool;

    /// Has `f` write a frame of `length` bytes, and queues it. Without room, `f` is not called.
    fn write(&self, length: usize, f: &mut dyn FnMut(&mut [u8]) -> TxMeta);

    /// As [`fata_net::Device::listen`].
    fn listen(&self, groups: &[[u8; 6]]);

    /// Makes it all visible to the peer, with one notification at most.
    fn flush(&self);

    /// As [`fata_net::Device::poll_ready`].
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;
}
