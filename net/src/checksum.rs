//! The Internet checksum (RFC 1071), and who has to check or to fill it.
//!
//! smoltcp decides about checksums once per device; netif and virtio-net tell it per frame. So smoltcp is told to
//! leave TCP's and UDP's checksum of received packets and TCP's of sent ones alone, and this module does both, frame
//! by frame. The rest stays where it was: smoltcp checks and fills ICMP, and fills IPv4's header and UDP. (UDP is not
//! left to the peer, because a datagram may leave in fragments, of which no peer can complete the sum.)

use core::net::IpAddr;
use core::num::NonZeroU16;

use crate::device::{ChecksumOffload, RxChecksum, Segments, TxChecksum, TxMeta};
use crate::frame::{self, Contents, Protocol, Transport};

/// Where the checksum is in a TCP header.
const TCP_FIELD: usize = 16;
/// Where the checksum is in a UDP header.
const UDP_FIELD: usize = 6;

/// The ones' complement sum of `data` as big-endian 16-bit words, not complemented.
pub(crate) fn sum(data: &[u8]) -> u16 {
    // Words of 64 bits: the sum may be taken in any word size that is a multiple of 16 bits (RFC 1071, 2 (B)).
    let (words, rest) = data.as_chunks::<8>();
    let mut total = 0u64;
    for word in words {
        let word = u64::from_be_bytes(*word);
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut last = [0; 8];
    if let Some(head) = last.get_mut(..rest.len()) {
        head.copy_from_slice(rest);
    }
    let last = u64::from_be_bytes(last);
    fold(total + (last >> 32) + (last & 0xffff_ffff))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

/// The sum over the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1), not complemented: what the field holds
/// in a packet that is sent blank.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: Protocol, length: usize) -> u16 {
    let addresses = |address| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    fold(u64::from(addresses(source)) + u64::from(addresses(destination)) + protocol as u64 + length as u64)
}

/// Whether a received packet may be given to the stack.
pub(crate) fn accept(frame: &[u8], transport: &Transport, flag: RxChecksum) -> bool {
    match flag {
        RxChecksum::Validated | RxChecksum::Blank => true,
        RxChecksum::Unknown => verify(frame, transport),
    }
}

/// Whether the packet's checksum is right.
fn verify(frame: &[u8], transport: &Transport) -> bool {
    let Some(mut segment) = frame.get(transport.start..transport.end) else {
        return false;
    };
    if transport.protocol == Protocol::Udp {
        let [_, _, _, _, length_high, length_low, sum_high, sum_low, ..] = *segment else {
            return false;
        };
        if [sum_high, sum_low] == [0, 0] {
            // "The transmitter generated no checksum" (RFC 768). Over IPv6 that is not allowed (RFC 8200, 8.1).
            return transport.source.is_ipv4();
        }
        // The sum covers what UDP's own length covers, not what IP carries.
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        match segment.get(..length) {
            Some(datagram) if length >= frame::UDP_HEADER => segment = datagram,
            _ => return false,
        }
    }
    let pseudo = pseudo_header(
        transport.source,
        transport.destination,
        transport.protocol,
        segment.len(),
    );
    add(pseudo, sum(segment)) == 0xffff
}

/// Whether the header of an IPv4 packet adds up.
pub(crate) fn header_is_right(header: &[u8]) -> bool {
    sum(header) == 0xffff
}

/// Finishes a frame that smoltcp has written: fills in TCP's checksum, or the pseudo-header's sum where the peer
/// completes it. `segment`: the peer is to cut the frame into segments with so much payload.
pub(crate) fn complete(frame: &mut [u8], offload: ChecksumOffload, segment: Option<NonZeroU16>) -> TxMeta {
    let Contents::Transport(transport) = frame::parse(frame) else {
        return TxMeta::new(TxChecksum::Complete);
    };
    let (blank, version): (_, fn(_) -> _) = match transport.source {
        IpAddr::V4(_) => (offload.ipv4, Segments::Ipv4),
        IpAddr::V6(_) => (offload.ipv6, Segments::Ipv6),
    };
    let segments = segment.map(version);
    let Some(segment) = frame.get_mut(transport.start..transport.end) else {
        return TxMeta::new(TxChecksum::Complete);
    };
    let field = match transport.protocol {
        Protocol::Tcp => TCP_FIELD..TCP_FIELD + 2,
        // Already complete.
        Protocol::Udp => return TxMeta::new(TxChecksum::Complete),
    };
    let pseudo = pseudo_header(
        transport.source,
        transport.destination,
        transport.protocol,
        segment.len(),
    );
    put(segment, field.clone(), 0);
    let (value, checksum) = if blank {
        (pseudo, TxChecksum::Blank)
    } else {
        (!add(pseudo, sum(segment)), TxChecksum::Complete)
    };
    put(segment, field, value);
    TxMeta { checksum, segments }
}

fn put(segment: &mut [u8], field: core::ops::Range<usize>, value: u16) {
    if let Some(field) = segment.get_mut(field) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

const _: () = assert!(UDP_FIELD + 2 == frame::UDP_HEADER);

#[cfg(test)]
mod tests;
