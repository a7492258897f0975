//! Looks at every received frame before smoltcp does.
//!
//! * Checksums, frame by frame ([`checksum`](crate::checksum)), and fragments ([`reassembly`](crate::reassembly)).
//! * TIME-WAIT ([`time_wait`](crate::time_wait)).
//! * The backlog. In smoltcp a listening socket *becomes* the connection, and a SYN that finds none gets a RST. Here
//!   no socket ever listens: the SYN itself makes one. It is shown the SYN by an interface of its own, which draws the
//!   initial sequence number ([`State::fresh_interface`]); from then on it is a half-open connection like any other,
//!   for which the real interface sends the SYN-ACK. When there is no room, the SYN is dropped, and the peer sends it
//!   again.
//! * Whose it is: smoltcp gets the frame together with that one socket ([`sockets`](crate::sockets)).

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use fata_events::Instant;
use smoltcp::socket::tcp;

use crate::agenda::Id;
use crate::checksum;
use crate::device::{Device, RxChecksum, TxFrame};
use crate::frame::{self, Contents, Protocol, TcpHeader, Transport};
use crate::names::Tuple;
use crate::phy::Port;
use crate::reply;
use crate::sockets::Stage;
use crate::state::{State, set_only_address, time};
use crate::{Error, Result};

/// Where DHCP's answers go to (RFC 2131 section 4.1).
const DHCP_CLIENT: u16 = 68;

/// What is to be done with a frame.
enum Verdict {
    /// smoltcp shall have it, with this socket or with none.
    Deliver(Option<Id>),
    /// It completes this packet.
    Whole(Vec<u8>),
    /// It asks the listener with this number for a connection.
    Connect(u64, Tuple),
    /// It is a FIN that was acknowledged before.
    Acknowledge(Transport, TcpHeader),
    Drop,
}

impl State {
    /// Takes one frame in, and answers it where it must be answered at once.
    pub(crate) fn receive<D: Device>(&mut self, now: Instant, frame: &[u8], flag: RxChecksum, answer: D::Tx<'_>) {
        self.stats.rx_frames += 1;
        self.stats.rx_bytes += frame.len() as u64;
        match self.inspect(now, frame, flag) {
            Verdict::Whole(packet) => {
                let verdict = self.inspect_packet(&packet, RxChecksum::Unknown);
                self.carry_out::<D>(now, &packet, verdict, answer);
            }
            verdict => self.carry_out::<D>(now, frame, verdict, answer),
        }
    }

    fn carry_out<D: Device>(&mut self, now: Instant, frame: &[u8], verdict: Verdict, answer: D::Tx<'_>) {
        match verdict {
            Verdict::Drop | Verdict::Whole(_) => {}
            Verdict::Deliver(id) => self.deliver::<D>(now, frame, id, answer),
            Verdict::Connect(listener, tuple) => self.half_open::<D>(now, frame, listener, tuple),
            Verdict::Acknowledge(transport, header) => {
                if let Some(reply) = reply::acknowledgement(frame, &transport, &header) {
                    let offload = self.egress.offload;
                    answer.consume(reply.len(), |out| {
                        out.copy_from_slice(&reply);
                        ((), checksum::complete(out, offload, None))
                    });
                    self.egress.frames += 1;
                    self.egress.bytes += reply.len() as u64;
                }
            }
        }
    }

    fn deliver<D: Device>(&mut self, now: Instant, frame: &[u8], id: Option<Id>, answer: D::Tx<'_>) {
        let mut port = Port::<D>::frame(frame, answer, &self.capabilities, &mut self.egress);
        let set = match id {
            Some(id) => &mut self.sockets.slot(id).set,
            None => &mut self.nobody,
        };
        self.interface.poll_ingress_single(time(now), &mut port, set);
        match id {
            Some(id) => {
                self.sockets.agenda.touch(id);
                self.advance(now, id, false);
            }
            None if self.sockets.anybody_waits() => {
                if let Some(neighbour) = frame::neighbour(frame) {
                    self.sockets.neighbour_spoke(neighbour);
                }
            }
            None => {}
        }
    }

    fn inspect(&mut self, now: Instant, frame: &[u8], flag: RxChecksum) -> Verdict {
        // Whatever it is, it must be for this station.
        let Some(destination) = frame.first_chunk::<6>() else {
            self.stats.rx_malformed += 1;
            return Verdict::Drop;
        };
        let group = destination[0] & 1 != 0;
        if !group && *destination != self.capabilities.mac {
            return Verdict::Drop;
        }
        if let Contents::Fragment(fragment) = frame::parse(frame) {
            if group || !self.is_own(fragment.key.destination.into()) || !frame::ipv4_header_is_right(frame) {
                self.stats.rx_fragments_dropped += 1;
                return Verdict::Drop;
            }
            return match self.reassembly.add(now, frame, &fragment) {
                Ok(None) => Verdict::Drop,
                Ok(Some(packet)) => {
                    self.stats.rx_reassembled += 1;
                    Verdict::Whole(packet)
                }
                Err(_) => {
                    self.stats.rx_fragments_dropped += 1;
                    Verdict::Drop
                }
            };
        }
        if !frame::ipv4_header_is_right(frame) {
            self.stats.rx_bad_checksum += 1;
            return Verdict::Drop;
        }
        self.inspect_packet(frame, flag)
    }

    /// The same for a frame that holds a whole packet.
    fn inspect_packet(&mut self, frame: &[u8], flag: RxChecksum) -> Verdict {
        match frame::parse(frame) {
            Contents::Malformed | Contents::Fragment(_) => {
                self.stats.rx_malformed += 1;
                Verdict::Drop
            }
            Contents::Other => Verdict::Deliver(None),
            Contents::Transport(transport) => {
                if !checksum::accept(frame, &transport, flag) {
                    self.stats.rx_bad_checksum += 1;
                    return Verdict::Drop;
                }
                match transport.protocol {
                    Protocol::Udp => Verdict::Deliver(self.find_udp(frame, &transport)),
                    Protocol::Tcp => match TcpHeader::parse(frame, &transport) {
                        Some(header) => self.inspect_tcp(transport, header),
                        None => {
                            self.stats.rx_malformed += 1;
                            Verdict::Drop
                        }
                    },
                }
            }
        }
    }

    fn inspect_tcp(&mut self, transport: Transport, header: TcpHeader) -> Verdict {
        let tuple = Tuple {
            local: SocketAddr::new(transport.destination, header.destination_port),
            remote: SocketAddr::new(transport.source, header.source_port),
        };
        // A connection is between two hosts (RFC 9293 section 3.9.2.3, MUST-57 and MUST-63).
        if !self.is_own(transport.destination) || !self.is_peer(transport.source) {
            return Verdict::Drop;
        }
        if header.syn && !header.ack && !header.rst && !header.fin {
            return self.inspect_syn(tuple);
        }
        if let Some(id) = self.sockets.find(&tuple) {
            return match self.sockets.slot(id).is_overtaken(&header) {
                true => Verdict::Drop,
                false => Verdict::Deliver(Some(id)),
            };
        }
        if self.time_wait.contains(&tuple) {
            return if header.fin && header.ack && !header.rst && !header.syn {
                Verdict::Acknowledge(transport, header)
            } else {
                Verdict::Drop
            };
        }
        // smoltcp refuses it.
        Verdict::Deliver(None)
    }

    fn find_udp(&mut self, frame: &[u8], transport: &Transport) -> Option<Id> {
        let port = transport.udp_destination(frame)?;
        match self.dhcp {
            Some(id) if port == DHCP_CLIENT => Some(id),
            _ => {
                let group = !self.is_own(transport.destination);
                self.sockets.bound(SocketAddr::new(transport.destination, port), group)
            }
        }
    }

    fn inspect_syn(&mut self, tuple: Tuple) -> Verdict {
        if let Some(id) = self.sockets.find(&tuple) {
            let state = self.sockets.tcp(id).state();
            let closing = self.sockets.slot(id).stage == Stage::Closing;
            match state {
                // It only waits for its end: it has it now.
                tcp::State::TimeWait if closing => self.sockets.remove(id),
                // It is over, and a stream still holds it. Its name is free.
                tcp::State::Closed if self.sockets.tcp(id).remote_endpoint().is_none() => {}
                // A connection of that name exists, and it answers.
                _ => return Verdict::Deliver(Some(id)),
            }
        }
        let exact = |address: Option<IpAddr>| address.is_some();
        let listeners = self.listeners.iter().filter(|listener| listener.takes(tuple.local));
        let Some(listener) = listeners.max_by_key(|listener| exact(listener.address)) else {
            return Verdict::Deliver(None);
        };
        if tuple.remote.port() == 0 || listener.half_open + listener.ready.len() >= listener.options.backlog {
            self.stats.tcp_backlog_full += 1;
            return Verdict::Drop;
        }
        if self.half_open >= self.limits.half_open {
            self.stats.tcp_no_memory += 1;
            return Verdict::Drop;
        }
        Verdict::Connect(listener.id, tuple)
    }

    /// Makes the connection that a SYN asks for. On every failure the SYN is as good as lost.
    fn half_open<D: Device>(&mut self, now: Instant, syn: &[u8], listener: u64, tuple: Tuple) {
        let made = self
            .fresh_interface(now)
            .and_then(|fresh| Ok((fresh, self.prepare(listener, tuple)?)));
        let Ok((mut fresh, id)) = made else {
            self.stats.tcp_no_memory += 1;
            return;
        };
        set_only_address(&mut fresh, tuple.local.ip());
        let mut port = Port::<D>::silent(syn, &self.capabilities, &mut self.egress);
        fresh.poll_ingress_single(time(now), &mut port, &mut self.sockets.slot(id).set);
        if self.sockets.tcp(id).state() != tcp::State::SynReceived {
            // smoltcp did not like the SYN's options.
            self.stats.rx_malformed += 1;
            return self.sockets.remove(id);
        }
        self.time_wait.remove(&tuple);
        self.sockets.set_deadline(id, now + self.limits.half_open_timeout);
        self.half_open += 1;
        if let Some(listener) = self.listener(listener) {
            listener.half_open += 1;
        }
    }

    /// A socket that waits for one SYN.
    fn prepare(&mut self, listener: u64, tuple: Tuple) -> Result<Id> {
        let options = self.listener(listener).ok_or(Error::NotConnected)?.options.tcp;
        let mut socket = self.new_tcp_socket(&options)?;
        socket.listen(tuple.local.port()).map_err(|_| Error::InvalidInput)?;
        self.sockets.add_connection(socket, tuple, Stage::HalfOpen { listener })
    }
}
