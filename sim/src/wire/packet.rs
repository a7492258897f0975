//! A frame on its way between backends, bridges and hosts in dom0, with what Linux keeps beside it in an skb.

use std::num::NonZeroU16;

/// What is known about the TCP or UDP checksum of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is complete, as far as anybody knows (`CHECKSUM_NONE`).
    #[default]
    Complete,
    /// It was verified (`CHECKSUM_UNNECESSARY`).
    Validated,
    /// The field holds the pseudo-header's sum only (`CHECKSUM_PARTIAL`): the frame has not left the machine.
    Blank,
}

/// Which protocol a large packet is to be cut into (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4 = 1,
    /// TCP over IPv6.
    Tcp6 = 2,
}

/// A packet larger than the wire's, to be cut into segments with so many bytes of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol.
    pub kind: GsoKind,
    /// Bytes of payload in each segment.
    pub size: u16,
}

/// An Ethernet frame without its check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// From the destination address on.
    pub bytes: Vec<u8>,
    /// What is known about its checksum.
    pub checksum: Checksum,
    /// Set if it is larger than the wire allows.
    pub gso: Option<Gso>,
}

/// Where TCP or UDP begins in a frame, and the sum over what is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transport {
    start: usize,
    end: usize,
    /// Where the checksum is.
    field: usize,
    pseudo: u16,
    is_udp: bool,
}

/// Adds the 16-bit words of `bytes` to a one's complement sum.
fn sum(start: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
    })
}

const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The Internet checksum (RFC 1071) over parts of even length, the last one excepted.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().fold(0, |total, part| sum(total, part)))
}

impl Packet {
    /// A frame with a complete checksum.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            checksum: Checksum::Complete,
            gso: None,
        }
    }

    /// Finds TCP or UDP in an unfragmented IPv4 or IPv6 frame without extension headers.
    fn transport(&self) -> Option<Transport> {
        let frame = &self.bytes[..];
        let at16 = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let (start, end, protocol, addresses) = match at16(12)? {
            0x0800 => {
                let header = usize::from(frame.get(14)? & 15) * 4;
                let (len, fragment) = (usize::from(at16(16)?), at16(20)? & 0x3fff);
                if header < 20 || len < header || fragment != 0 {
                    return None;
                }
                (14 + header, 14 + len, *frame.get(23)?, frame.get(26..34)?)
            }
            0x86dd => (54, 54 + usize::from(at16(18)?), *frame.get(20)?, frame.get(22..54)?),
            _ => return None,
        };
        let field = start
            + match protocol {
                6 => 16,
                17 => 6,
                _ => return None,
            };
        if end > frame.len() || field + 2 > end {
            return None;
        }
        let pseudo = fold(sum(u64::from(protocol) + (end - start) as u64, addresses));
        Some(Transport {
            start,
            end,
            field,
            pseudo,
            is_udp: protocol == 17,
        })
    }

    fn sum_of(&self, transport: Transport) -> u16 {
        fold(sum(0, &self.bytes[transport.start..transport.end]))
    }

    /// Completes a blank checksum, as a network card does. False if there is nothing to complete, or the field does
    /// not hold the pseudo-header's sum, which a card would turn into a wrong checksum.
    pub fn complete(&mut self) -> bool {
        if self.checksum != Checksum::Blank {
            return true;
        }
        self.checksum = Checksum::Validated;
        let Some(transport) = self.transport() else {
            return false;
        };
        let was = u16::from_be_bytes([self.bytes[transport.field], self.bytes[transport.field + 1]]);
        // 0 and 0xffff are the same number in one's complement. A GSO packet may leave the length out of its sum.
        let same = |a: u16, b: u16| a % 0xffff == b % 0xffff;
        let good = same(was, transport.pseudo) || self.gso.is_some();
        self.bytes[transport.field..transport.field + 2].copy_from_slice(&transport.pseudo.to_be_bytes());
        let value = !self.sum_of(transport);
        let value = if transport.is_udp && value == 0 { 0xffff } else { value };
        self.bytes[transport.field..transport.field + 2].copy_from_slice(&value.to_be_bytes());
        good
    }

    /// Makes a long TCP segment many, each with so many bytes of payload: whoever needs them cuts it.
    pub(super) fn aggregate(&mut self, size: NonZeroU16) {
        let kind = match self.bytes.get(12..14) {
            Some([0x86, 0xdd]) => GsoKind::Tcp6,
            _ => GsoKind::Tcp4,
        };
        self.gso = Some(Gso { kind, size: size.get() });
        self.blank();
    }

    /// Fills in the checksum of a TCP segment, whatever the field holds.
    pub(super) fn fill(&mut self) {
        if self.transport().is_some_and(|transport| !transport.is_udp) {
            self.blank();
            self.complete();
            self.checksum = Checksum::Complete;
        }
    }

    /// Puts the pseudo-header's sum into the field, as a sender on the same machine leaves it. False if this is no
    /// TCP or UDP.
    pub fn blank(&mut self) -> bool {
        let Some(transport) = self.transport() else {
            return false;
        };
        self.bytes[transport.field..transport.field + 2].copy_from_slice(&transport.pseudo.to_be_bytes());
        self.checksum = Checksum::Blank;
        true
    }

    /// Where the part of the frame ends of which a checksum tells when a bit of it changes; 0 if there is no such part.
    pub(super) fn protected(&self) -> usize {
        match self.transport() {
            Some(transport) if self.gso.is_none() && self.verify() == Some(true) => transport.end,
            _ => 0,
        }
    }

    /// Whether the TCP or UDP checksum is right; `None` if there is none.
    #[must_use]
    pub fn verify(&self) -> Option<bool> {
        let transport = self.transport()?;
        let field = u16::from_be_bytes([self.bytes[transport.field], self.bytes[transport.field + 1]]);
        if transport.is_udp && field == 0 {
            return None;
        }
        Some(fold(u64::from(self.sum_of(transport)) + u64::from(transport.pseudo)) == 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DNS query by UDP over IPv4 with a right checksum, computed by hand from RFC 768.
    fn udp() -> Packet {
        let mut bytes = vec![0; 12];
        bytes.extend([0x08, 0x00]);
        bytes.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0x12, 0x34, 0x00, 0x35, 0, 12, 0, 0, 1, 2, 3, 4]);
        let mut packet = Packet::new(bytes);
        packet.checksum = Checksum::Blank;
        // 0a00+0001+0a00+0002 + 0011 + 000c = 1420
        packet.bytes[40..42].copy_from_slice(&[0x14, 0x20]);
        packet
    }

    #[test]
    fn completes_and_blanks() {
        let mut packet = udp();
        assert!(packet.complete());
        // ~(1420 + 1234 + 0035 + 000c + 0102 + 0304) = ~(2a9b) = d564
        assert_eq!(packet.bytes[40..42], [0xd5, 0x64]);
        assert_eq!(packet.verify(), Some(true));
        packet.bytes[42] ^= 1;
        assert_eq!(packet.verify(), Some(false));
        packet.bytes[42] ^= 1;
        assert!(packet.blank());
        assert_eq!(packet, udp());
    }

    #[test]
    fn a_wrong_pseudo_sum_shows() {
        let mut packet = udp();
        packet.bytes[41] ^= 1;
        assert!(!packet.complete());
    }

    #[test]
    fn cut_frames_are_no_transport() {
        for len in 0..udp().bytes.len() {
            let cut = Packet {
                bytes: udp().bytes[..len].to_vec(),
                ..udp()
            };
            assert_eq!(cut.verify(), None, "{len}");
        }
    }
}
