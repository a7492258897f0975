//! ICMP echo requests, made and recognised by hand: a host's stack need not know of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use super::packet::checksum;
use super::sockets::PingState;

/// Identifies this host's pings.
const IDENT: [u8; 2] = [0xfa, 0x7a];
/// How long to wait before a neighbour is asked for its address again.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
const BROADCAST: [u8; 6] = [0xff; 6];
const ICMP4: u8 = 1;
const ICMP6: u8 = 58;

/// Fragments of one IPv4 packet: by offset, and where it ends if that is known.
#[derive(Default)]
struct Fragments {
    parts: BTreeMap<usize, Vec<u8>>,
    end: Option<usize>,
}

impl Fragments {
    fn whole(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for (&offset, part) in &self.parts {
            if offset != bytes.len() {
                return None;
            }
            bytes.extend_from_slice(part);
        }
        (self.end == Some(bytes.len())).then_some(bytes)
    }
}

/// A host's pings and what is needed to send them.
pub(super) struct Pinger {
    mac: [u8; 6],
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    mtu: usize,
    neighbours: BTreeMap<IpAddr, [u8; 6]>,
    asked: BTreeMap<IpAddr, u64>,
    fragments: BTreeMap<u16, Fragments>,
    pings: Vec<Rc<RefCell<PingState>>>,
    last_sequence: u16,
}

impl Pinger {
    pub(super) fn new(mac: [u8; 6], addresses: &[(IpAddr, u8)], mtu: usize) -> Self {
        Self {
            mac,
            ipv4: addresses
                .iter()
                .find_map(|(address, _)| if let IpAddr::V4(ip) = address { Some(*ip) } else { None }),
            ipv6: addresses
                .iter()
                .find_map(|(address, _)| if let IpAddr::V6(ip) = address { Some(*ip) } else { None }),
            mtu,
            neighbours: BTreeMap::new(),
            asked: BTreeMap::new(),
            fragments: BTreeMap::new(),
            pings: Vec::new(),
            last_sequence: 0,
        }
    }

    /// Queues an echo request.
    pub(super) fn ping(&mut self, to: IpAddr, payload: usize) -> Rc<RefCell<PingState>> {
        self.last_sequence = self.last_sequence.wrapping_add(1);
        let payload = (0..payload).map(|i| i as u8).collect();
        let state = PingState {
            to,
            sequence: self.last_sequence,
            payload,
            sent: false,
            answered: false,
        };
        let state = Rc::new(RefCell::new(state));
        self.pings.push(Rc::clone(&state));
        state
    }

    /// The frames that are to be sent now.
    pub(super) fn frames(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for index in 0..self.pings.len() {
            let (to, sent) = {
                let ping = self.pings[index].borrow();
                (ping.to, ping.sent)
            };
            if sent {
                continue;
            }
            if let Some(&mac) = self.neighbours.get(&to) {
                let ping = Rc::clone(&self.pings[index]);
                frames.extend(self.echo_request(mac, &ping.borrow()));
                ping.borrow_mut().sent = true;
            } else if self.asked.get(&to).is_none_or(|&at| at + ASK_AGAIN_NS <= now) {
                self.asked.insert(to, now);
                frames.extend(self.who_has(to));
            }
        }
        frames
    }

    /// When to ask a neighbour again.
    pub(super) fn deadline(&self) -> Option<u64> {
        let waiting = self.pings.iter().filter(|ping| !ping.borrow().sent);
        waiting
            .filter_map(|ping| self.asked.get(&ping.borrow().to))
            .map(|at| at + ASK_AGAIN_NS)
            .min()
    }

    /// Learns from a received frame.
    pub(super) fn look(&mut self, frame: &[u8]) {
        let Some(source) = frame.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok()) else {
            return;
        };
        match frame.get(12..14) {
            // ARP: the sender's protocol address.
            Some([8, 6]) => self.learn::<4>(frame.get(28..32), source),
            Some([8, 0]) => {
                self.learn::<4>(frame.get(26..30), source);
                self.look_at_ipv4(&frame[14..]);
            }
            Some([0x86, 0xdd]) => {
                self.learn::<16>(frame.get(22..38), source);
                let from = frame.get(22..38).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                let len = frame
                    .get(18..20)
                    .map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
                if let (Some(&ICMP6), Some(from), Some(body)) = (frame.get(20), from, frame.get(54..54 + len)) {
                    self.look_at_reply(from.into(), body, 129);
                }
            }
            _ => {}
        }
    }

    fn learn<const N: usize>(&mut self, address: Option<&[u8]>, mac: [u8; 6])
    where
        IpAddr: From<[u8; N]>,
    {
        if let Some(address) = address.and_then(|bytes| <[u8; N]>::try_from(bytes).ok()) {
            self.neighbours.insert(address.into(), mac);
        }
    }

    fn look_at_ipv4(&mut self, packet: &[u8]) {
        let Some(&[version, _, len_high, len_low, id_high, id_low, high, low, _, protocol]) = packet.first_chunk()
        else {
            return;
        };
        let (header, len) = (
            usize::from(version & 15) * 4,
            usize::from(u16::from_be_bytes([len_high, len_low])),
        );
        let (Some(body), Some(from)) = (packet.get(header..len), packet.get(12..16)) else {
            return;
        };
        let Ok(from) = <[u8; 4]>::try_from(from) else { return };
        if protocol != ICMP4 {
            return;
        }
        let word = u16::from_be_bytes([high, low]);
        let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
        if offset == 0 && !more {
            return self.look_at_reply(from.into(), body, 0);
        }
        let id = u16::from_be_bytes([id_high, id_low]);
        let fragments = self.fragments.entry(id).or_default();
        fragments.parts.insert(offset, body.to_vec());
        if !more {
            fragments.end = Some(offset + body.len());
        }
        if let Some(whole) = fragments.whole() {
            self.fragments.remove(&id);
            self.look_at_reply(from.into(), &whole, 0);
        }
    }

    fn look_at_reply(&mut self, from: IpAddr, body: &[u8], kind: u8) {
        let Some(([found, 0, _, _, id_high, id_low, high, low], payload)) = body.split_first_chunk::<8>() else {
            return;
        };
        let sum = match (from, self.ipv6) {
            (IpAddr::V4(_), _) => checksum(&[body]),
            (IpAddr::V6(from), Some(own)) => checksum(&[&pseudo(from, own, body.len()), body]),
            _ => return,
        };
        if *found != kind || [*id_high, *id_low] != IDENT || sum != 0 {
            return;
        }
        self.pings.retain(|ping| {
            let mut ping = ping.borrow_mut();
            ping.answered |=
                ping.to == from && ping.sequence == u16::from_be_bytes([*high, *low]) && ping.payload == payload;
            !ping.answered
        });
    }

    fn frame(&self, to: [u8; 6], protocol: [u8; 2], parts: &[&[u8]]) -> Vec<u8> {
        let mut frame = [&to[..], &self.mac, &protocol].concat();
        for part in parts {
            frame.extend_from_slice(part);
        }
        frame
    }

    /// An ARP request (RFC 826) or a neighbour solicitation (RFC 4861).
    fn who_has(&self, address: IpAddr) -> Option<Vec<u8>> {
        match address {
            IpAddr::V4(address) => {
                let head = [0, 1, 8, 0, 6, 4, 0, 1];
                let (own, nobody) = (self.ipv4?.octets(), [0; 6]);
                Some(self.frame(BROADCAST, [8, 6], &[&head, &self.mac, &own, &nobody, &address.octets()]))
            }
            IpAddr::V6(address) => {
                let [.., a, b, c] = address.octets();
                let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
                let mut body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &address.octets(), &[1, 1], &self.mac].concat();
                Some(self.icmp6([0x33, 0x33, 0xff, a, b, c], group, &mut body)?)
            }
        }
    }

    fn icmp6(&self, mac: [u8; 6], to: Ipv6Addr, body: &mut [u8]) -> Option<Vec<u8>> {
        let own = self.ipv6?;
        let sum = checksum(&[&pseudo(own, to, body.len()), body]);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        let [high, low] = (body.len() as u16).to_be_bytes();
        let head = [0x60, 0, 0, 0, high, low, ICMP6, 255];
        Some(self.frame(mac, [0x86, 0xdd], &[&head, &own.octets(), &to.octets(), body]))
    }

    /// One frame, or several fragments over IPv4.
    fn echo_request(&self, mac: [u8; 6], ping: &PingState) -> Vec<Vec<u8>> {
        let kind = if ping.to.is_ipv4() { 8 } else { 128 };
        let mut body = [
            &[kind, 0, 0, 0][..],
            &IDENT,
            &ping.sequence.to_be_bytes(),
            &ping.payload,
        ]
        .concat();
        let to = match ping.to {
            IpAddr::V6(to) => return self.icmp6(mac, to, &mut body).into_iter().collect(),
            IpAddr::V4(to) => to,
        };
        let Some(own) = self.ipv4 else { return Vec::new() };
        let sum = checksum(&[&body]);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        let room = (self.mtu - 20) / 8 * 8;
        let pieces = body.chunks(if body.len() + 20 <= self.mtu { body.len() } else { room });
        let mut offset = 0;
        let mut frames = Vec::new();
        for piece in pieces {
            let more = offset + piece.len() < body.len();
            let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            let (len, place, id) = (
                (piece.len() as u16 + 20).to_be_bytes(),
                place.to_be_bytes(),
                ping.sequence.to_be_bytes(),
            );
            let head = [
                0x45, 0, len[0], len[1], id[0], id[1], place[0], place[1], 64, ICMP4, 0, 0,
            ];
            let mut head = [&head[..], &own.octets(), &to.octets()].concat();
            let sum = checksum(&[&head]);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            frames.push(self.frame(mac, [8, 0], &[&head, piece]));
            offset += piece.len();
        }
        frames
    }
}

/// The pseudo-header of ICMPv6.
fn pseudo(from: Ipv6Addr, to: Ipv6Addr, len: usize) -> Vec<u8> {
    [
        &from.octets()[..],
        &to.octets(),
        &(len as u32).to_be_bytes(),
        &[0, 0, 0, ICMP6],
    ]
    .concat()
}
