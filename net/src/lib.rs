//! Async TCP, UDP, DNS and DHCP over [`smoltcp`], and the trait of the devices under it.
//!
//! ```text
//!   TcpListener  TcpStream  UdpSocket  resolve()      tasks of the application
//!        └───────────┴─────────┴──────────┘
//!                     Stack                           a handle; not generic
//!        ┌───────────────────────────────────┐
//!        │ state: sockets, smoltcp, TIME-WAIT│        plain code, no futures
//!        └───────────────────────────────────┘
//!                   Runner<D>                         the one task that moves packets
//!                    Device                           netfront, virtio, ...: a driver
//! ```
//!
//! A [`Stack`] is one interface. Its [`Runner`] takes frames from a [`Device`], looks at each one first (checksums,
//! fragments, connection requests), gives it to smoltcp, and sends what comes out, a bounded amount in each turn of
//! the loop. What smoltcp does not have, or has for small devices only, is here:
//!
//! * a cost per packet that does not depend on the number of connections ([`Limits::connections`]): each socket is
//!   found by its name, and only those are looked at to which something has happened;
//! * a real backlog: while it has room, no connection is refused ([`TcpListener`]);
//! * checksum offload per frame, in both directions ([`device`]);
//! * TIME-WAIT without buffers, a bounded end for every dropped connection, limits on everything that peers can make
//!   grow ([`Limits`]), and memory that runs out without a panic;
//! * initial sequence numbers, ports and DNS identifiers from a source that peers cannot predict.
//!
//! # What remains predictable
//!
//! DHCP's transaction identifiers and IPv4's packet identifiers come from smoltcp's own generator, which is seeded
//! once from the unpredictable source. Both are seen only by hosts that could read the traffic anyway.
//!
//! # What is not here
//!
//! * IPv6 fragments, in either direction; path MTU discovery; selective acknowledgements as a sender.
//! * A peer that takes back a window which it has opened (RFC 9293 says it must not), or whose closed window travels
//!   with data and is overtaken by the open one, can make smoltcp wait until the next keep-alive
//!   ([`TcpOptions::keep_alive`], 75 s) before it sends again.
//! * ICMP errors do not reach sockets: a host that is unreachable is one that does not answer.
//! * smoltcp ends a connection ten seconds after both sides have closed, even if a stream still holds unread data;
//!   reading then fails with [`Error::ConnectionReset`].
//! * An answer that smoltcp makes at once (a RST, a pong) is lost when the neighbour's address is not known yet; the
//!   peer's next attempt finds it known. Datagrams that a full UDP socket drops are not counted.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod agenda;
mod announce;
mod checksum;
mod config;
pub mod device;
mod dns;
mod egress;
mod error;
mod frame;
mod halves;
mod ingress;
mod lifecycle;
mod listener;
mod nal;
mod names;
mod options;
pub mod pair;
mod phy;
mod reassembly;
mod reply;
mod runner;
mod sockets;
mod stack;
mod state;
mod stats;
mod stream;
mod time_wait;
mod udp;

pub use config::{Cidr, Config, Ipv4Config, Ipv6Config, Limits, Status};
pub use device::{
    Capabilities, ChecksumOffload, Device, RxChecksum, RxFrame, SegmentationOffload, Segments, TxChecksum, TxFrame,
    TxMeta,
};
pub use error::{Error, Result};
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
pub use listener::TcpListener;
pub use nal::UdpPeer;
pub use options::{ListenOptions, TcpOptions, UdpOptions};
pub use runner::Runner;
pub use stack::Stack;
pub use stats::Stats;
pub use stream::TcpStream;
pub use udp::{Datagram, UdpSocket};
