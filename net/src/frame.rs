//! Looks into an Ethernet frame: where the TCP segment or UDP datagram is, and between whom it travels.
//!
//! The bytes come from outside. Nothing here trusts a length: a frame is longer than its packet (Ethernet pads to 60
//! bytes), shorter than it claims, or nonsense.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;

/// Length of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Length of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;
/// Length of the smallest TCP header.
pub(crate) const TCP_HEADER: usize = 20;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const HOP_BY_HOP: u8 = 0;

/// What carries a checksum over a pseudo-header; the values are IANA's protocol numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp = 6,
    Udp = 17,
}

impl Protocol {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    fn header(self) -> usize {
        match self {
            Self::Tcp => TCP_HEADER,
            Self::Udp => UDP_HEADER,
        }
    }
}

/// A whole TCP segment or UDP datagram in `start..end` of a frame; at least its smallest header is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) protocol: Protocol,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Transport {
    /// The port that a datagram is for.
    pub(crate) fn udp_destination(&self, frame: &[u8]) -> Option<u16> {
        let header = frame.get(self.start..self.end)?.first_chunk::<UDP_HEADER>()?;
        Some(u16::from_be_bytes([header[2], header[3]]))
    }
}

/// A fragment of an IPv4 packet, its payload in `start..end` of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) key: FragmentKey,
    /// Where the payload belongs in the whole packet's payload, in bytes.
    pub(crate) offset: usize,
    pub(crate) last: bool,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What the fragments of one packet have in common (RFC 791 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) identification: u16,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// A TCP segment or UDP datagram.
    Transport(Transport),
    /// Part of an IPv4 packet.
    Fragment(Fragment),
    /// Something else that is smoltcp's business alone: ARP, ICMP, IPv6 with extension headers.
    Other,
    /// Not what it says it is.
    Malformed,
}

/// Looks into a frame.
pub(crate) fn parse(frame: &[u8]) -> Contents {
    let Some((ethernet, packet)) = frame.split_first_chunk::<ETHERNET_HEADER>() else {
        return Contents::Malformed;
    };
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => ipv4(packet).unwrap_or(Contents::Malformed),
        ETHERTYPE_IPV6 => ipv6(packet).unwrap_or(Contents::Malformed),
        _ => Contents::Other,
    }
}

fn ipv4(packet: &[u8]) -> Option<Contents> {
    let header = packet.first_chunk::<IPV4_HEADER>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER || total_len < header_len || total_len > packet.len() {
        return None;
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let (start, end) = (ETHERNET_HEADER + header_len, ETHERNET_HEADER + total_len);
    if more || offset != 0 {
        return Some(Contents::Fragment(Fragment {
            key: FragmentKey {
                source,
                destination,
                protocol: header[9],
                identification: u16::from_be_bytes([header[4], header[5]]),
            },
            offset,
            last: !more,
            start,
            end,
        }));
    }
    transport(header[9], source.into(), destination.into(), start, end)
}

/// Whether the header checksum of the IPv4 packet in this frame is right. True for every other frame.
pub(crate) fn ipv4_header_is_right(frame: &[u8]) -> bool {
    let Some((ethernet, packet)) = frame.split_first_chunk::<ETHERNET_HEADER>() else {
        return false;
    };
    if u16::from_be_bytes([ethernet[12], ethernet[13]]) != ETHERTYPE_IPV4 {
        return true;
    }
    let header_len = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    packet
        .get(..header_len)
        .is_some_and(|header| header_len >= IPV4_HEADER && checksum::header_is_right(header))
}

fn ipv6(packet: &[u8]) -> Option<Contents> {
    let header = packet.first_chunk::<IPV6_HEADER>()?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || IPV6_HEADER + payload_len > packet.len() {
        return None;
    }
    let source = Ipv6Addr::from(*header.get(8..24)?.first_chunk::<16>()?);
    let destination = Ipv6Addr::from(*header.get(24..40)?.first_chunk::<16>()?);
    let end = IPV6_HEADER + payload_len;
    let (mut next, mut start) = (header[6], IPV6_HEADER);
    // The one extension header that smoltcp passes over on its way to a segment. Behind any other one it does not
    // look, so there is nothing to verify either.
    if next == HOP_BY_HOP {
        let extension = packet.get(start..end)?.first_chunk::<2>()?;
        next = extension[0];
        start += (usize::from(extension[1]) + 1) * 8;
    }
    transport(
        next,
        source.into(),
        destination.into(),
        ETHERNET_HEADER + start,
        ETHERNET_HEADER + end,
    )
}

/// Who speaks, if the frame may tell where he is: ARP's sender (RFC 826), and every source of a neighbour
/// advertisement or solicitation (RFC 4861).
pub(crate) fn neighbour(frame: &[u8]) -> Option<IpAddr> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_ARP => Some(Ipv4Addr::from(*packet.get(14..)?.first_chunk::<4>()?).into()),
        ETHERTYPE_IPV6 => Some(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn transport(protocol: u8, source: IpAddr, destination: IpAddr, start: usize, end: usize) -> Option<Contents> {
    let Some(protocol) = Protocol::from_number(protocol) else {
        return Some(Contents::Other);
    };
    (end.checked_sub(start)? >= protocol.header()).then_some(Contents::Transport(Transport {
        protocol,
        source,
        destination,
        start,
        end,
    }))
}

/// Whether the frame is an IPv4 fragment with more to come (`Some(true)`), the last one (`Some(false)`), or no
/// fragment.
pub(crate) fn more_fragments(frame: &[u8]) -> Option<bool> {
    match parse(frame) {
        Contents::Fragment(fragment) => Some(!fragment.last),
        _ => None,
    }
}

/// The fields of a TCP header that decide about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpHeader {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    /// As it is in the header, before window scaling.
    pub(crate) window: u16,
    /// Bytes of data in the segment.
    pub(crate) payload: usize,
    pub(crate) fin: bool,
    pub(crate) syn: bool,
    pub(crate) rst: bool,
    pub(crate) ack: bool,
}

impl TcpHeader {
    /// Reads the header of the segment at `transport`. `None` if it is shorter than it says.
    pub(crate) fn parse(frame: &[u8], transport: &Transport) -> Option<Self> {
        let segment = frame.get(transport.start..transport.end)?;
        let header = segment.first_chunk::<TCP_HEADER>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < TCP_HEADER {
            return None;
        }
        Some(Self {
            source_port: u16::from_be_bytes([header[0], header[1]]),
            destination_port: u16::from_be_bytes([header[2], header[3]]),
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            acknowledgement: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            window: u16::from_be_bytes([header[14], header[15]]),
            payload: segment.len().checked_sub(header_len)?,
            fin: header[13] & 0x01 != 0,
            syn: header[13] & 0x02 != 0,
            rst: header[13] & 0x04 != 0,
            ack: header[13] & 0x10 != 0,
        })
    }
}
