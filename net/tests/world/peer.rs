//! Many connections whose other ends are numbers.

use std::net::SocketAddr;

use smoltcp::wire::TcpControl;

use super::{OURS, THEIRS, Wire, World, at, tcp_frame};

const FIRST_PORT: u16 = 10_000;
/// Connections that are opened together: fewer than the wire holds frames.
pub(crate) const TOGETHER: usize = 100;

/// The peer's side of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) port: u16,
    server: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
}

impl Peer {
    /// One of the numbers up to 50,000, before it has spoken to this port.
    pub(crate) fn new(index: usize, server: u16) -> Self {
        Self {
            port: FIRST_PORT + index as u16,
            server,
            sequence: 1_000,
            acknowledgement: 0,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        at(THEIRS, self.port)
    }

    pub(crate) fn frame(&self, control: TcpControl, data: &[u8]) -> Vec<u8> {
        let acknowledgement = (control != TcpControl::Syn).then_some(self.acknowledgement);
        let server = at(OURS, self.server);
        tcp_frame(self.address(), server, control, self.sequence, acknowledgement, data)
    }
}

/// Opens so many connections to this port, a few at a time.
pub(crate) fn open(world: &mut World, wire: &mut Wire, server: u16, count: usize) -> Vec<Peer> {
    let mut peers: Vec<Peer> = (0..count).map(|index| Peer::new(index, server)).collect();
    for some in peers.chunks_mut(TOGETHER) {
        for peer in some.iter() {
            wire.send(&peer.frame(TcpControl::Syn, &[]));
        }
        let first = some[0].port;
        for answer in wire.segments(world) {
            let peer = &mut some[usize::from(answer.destination.port() - first)];
            peer.sequence = 1_001;
            peer.acknowledgement = answer.sequence.wrapping_add(1);
            wire.send(&peer.frame(TcpControl::None, &[]));
        }
        world.settle();
    }
    peers
}
