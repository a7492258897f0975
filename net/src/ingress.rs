//! Looks at every received frame before smoltcp does.
//!
//! * Checksums, frame by frame ([`checksum`](crate::checksum)), and fragments ([`reassembly`](crate::reassembly)).
//! * TIME-WAIT ([`time_wait`](crate::time_wait)).
//! * The backlog. In smoltcp a listening socket *becomes* the connection, and a SYN that finds none gets a RST. Here
//!   no socket ever listens: the SYN itself makes one. It is shown the SYN by an interface of its own, which draws the
//!   initial sequence number ([`State::fresh_interface`]), and then it moves, already half-open, into the table, where
//!   the real interface finds it and sends the SYN-ACK. When there is no room, the SYN is dropped, and the peer sends
//!   it again.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use fata_events::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, tcp};

use crate::checksum;
use crate::device::{Device, RxChecksum, TxFrame};
use crate::frame::{self, Contents, Protocol, TcpHeader, Transport};
use crate::phy::Port;
use crate::reply;
use crate::state::{HalfOpen, State, set_only_address, time};
use crate::time_wait::Tuple;

/// What is to be done with a frame.
enum Verdict {
    /// smoltcp shall have it.
    Deliver,
    /// smoltcp shall have it, and it may end half-open connections.
    DeliverReset,
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
            Verdict::Deliver | Verdict::DeliverReset => {
                let mut port = Port::<D>::frame(frame, answer, &self.capabilities, &mut self.egress);
                self.interface
                    .poll_ingress_single(time(now), &mut port, &mut self.sockets);
                if matches!(verdict, Verdict::DeliverReset) {
                    self.sweep_half_open(now);
                }
            }
            Verdict::Connect(listener, tuple) => self.half_open::<D>(now, frame, listener, tuple),
            Verdict::Acknowledge(transport, header) => {
                if let Some(reply) = reply::acknowledgement(frame, &transport, &header) {
                    let offload = self.egress.offload;
                    answer.consume(reply.len(), |out| {
                        out.copy_from_slice(&reply);
                        ((), checksum::complete(out, offload))
                    });
                    self.egress.frames += 1;
                    self.egress.bytes += reply.len() as u64;
                }
            }
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
            Contents::Other => Verdict::Deliver,
            Contents::Transport(transport) => {
                if !checksum::accept(frame, &transport, flag) {
                    self.stats.rx_bad_checksum += 1;
                    return Verdict::Drop;
                }
                match transport.protocol {
                    Protocol::Udp => Verdict::Deliver,
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
        if self.time_wait.contains(&tuple) {
            return if header.fin && header.ack && !header.rst && !header.syn {
                Verdict::Acknowledge(transport, header)
            } else {
                Verdict::Drop
            };
        }
        if header.rst {
            Verdict::DeliverReset
        } else {
            Verdict::Deliver
        }
    }

    fn inspect_syn(&mut self, tuple: Tuple) -> Verdict {
        if let Some(handle) = self.find(&tuple) {
            // A connection of that name exists, and it answers. If it only waits for its end, it has it now.
            if self.tcp(handle).state() != tcp::State::TimeWait || !self.is_closing(handle) {
                return Verdict::Deliver;
            }
            self.forget_closing(handle);
        }
        let exact = |address: Option<IpAddr>| address.is_some();
        let listeners = self.listeners.iter().filter(|listener| listener.takes(tuple.local));
        let Some(listener) = listeners.max_by_key(|listener| exact(listener.address)) else {
            // smoltcp refuses it.
            return Verdict::Deliver;
        };
        if tuple.remote.port() == 0 || listener.half_open + listener.ready.len() >= listener.options.backlog {
            self.stats.tcp_backlog_full += 1;
            return Verdict::Drop;
        }
        if self.half_open.len() >= self.limits.half_open {
            self.stats.tcp_no_memory += 1;
            return Verdict::Drop;
        }
        Verdict::Connect(listener.id, tuple)
    }

    /// Makes the connection that a SYN asks for. On every failure the SYN is as good as lost.
    fn half_open<D: Device>(&mut self, now: Instant, syn: &[u8], listener: u64, tuple: Tuple) {
        let socket = self.prepare(listener, &tuple);
        let fresh = self.fresh_interface(now);
        let (Some((handle, limit)), Ok(mut fresh)) = (socket, fresh) else {
            if let Some((handle, _)) = socket {
                self.nursery.remove(handle);
            }
            self.stats.tcp_no_memory += 1;
            return;
        };
        set_only_address(&mut fresh, tuple.local.ip());
        let mut port = Port::<D>::silent(syn, &self.capabilities, &mut self.egress);
        fresh.poll_ingress_single(time(now), &mut port, &mut self.nursery);
        let socket = self.nursery.remove(handle);
        let accepted = matches!(&socket, Socket::Tcp(socket) if socket.state() == tcp::State::SynReceived);
        if !accepted {
            // smoltcp did not like the SYN's options.
            self.stats.rx_malformed += 1;
            return;
        }
        self.time_wait.remove(&tuple);
        let handle = self.add_tcp_socket(socket);
        self.half_open.push(HalfOpen {
            handle,
            listener,
            deadline: now + limit,
        });
        if let Some(listener) = self.listener(listener) {
            listener.half_open += 1;
        }
    }

    /// A socket in the nursery that waits for one SYN.
    fn prepare(&mut self, listener: u64, tuple: &Tuple) -> Option<(SocketHandle, core::time::Duration)> {
        let options = self.listener(listener)?.options.tcp;
        self.half_open.try_reserve(1).ok()?;
        let mut socket = self.new_tcp_socket(&options).ok()?;
        socket.listen(tuple.local.port()).ok()?;
        Some((self.nursery.add(socket), self.limits.half_open_timeout))
    }
}
