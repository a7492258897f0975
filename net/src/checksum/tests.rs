use alloc::vec::Vec;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{self, IpProtocol, IpRepr, TcpPacket, UdpPacket};

use super::*;
use crate::frame::ETHERNET_HEADER;

/// A frame with a TCP or UDP packet; its checksum is right.
fn frame(v6: bool, udp: bool, addresses: [u8; 32], content: &[u8], padding: usize) -> Vec<u8> {
    let address = |octets: &[u8]| match v6 {
        true => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        false => IpAddr::from(<[u8; 4]>::try_from(&octets[..4]).unwrap()),
    };
    let (source, destination) = (address(&addresses[..16]), address(&addresses[16..]));
    let (protocol, header) = if udp {
        (IpProtocol::Udp, 8)
    } else {
        (IpProtocol::Tcp, 20)
    };
    let mut segment = alloc::vec![0; header];
    segment.extend_from_slice(content);
    if udp {
        let mut packet = UdpPacket::new_unchecked(&mut segment);
        packet.set_len((header + content.len()) as u16);
        packet.fill_checksum(&source.into(), &destination.into());
    } else {
        let mut packet = TcpPacket::new_unchecked(&mut segment);
        packet.set_header_len(20);
        packet.fill_checksum(&source.into(), &destination.into());
    }
    let ip = IpRepr::new(source.into(), destination.into(), protocol, segment.len(), 64);
    let mut frame = alloc::vec![0; ETHERNET_HEADER + ip.header_len()];
    frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
    ip.emit(&mut frame[ETHERNET_HEADER..], &ChecksumCapabilities::default());
    frame.extend_from_slice(&segment);
    frame.extend(core::iter::repeat_n(0x5a, padding));
    frame
}

fn transport(frame: &[u8]) -> Transport {
    match crate::frame::parse(frame) {
        Contents::Transport(transport) => transport,
        other => panic!("{other:?}"),
    }
}

/// smoltcp's opinion.
fn smoltcp_accepts(frame: &[u8], transport: &Transport) -> bool {
    let segment = &frame[transport.start..transport.end];
    let (source, destination) = (transport.source.into(), transport.destination.into());
    match transport.protocol {
        Protocol::Tcp => TcpPacket::new_unchecked(segment).verify_checksum(&source, &destination),
        Protocol::Udp => {
            UdpPacket::new_checked(segment).is_ok_and(|packet| packet.verify_checksum(&source, &destination))
        }
    }
}

proptest! {
    #[test]
    fn sums_are_smoltcps(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(sum(&data), wire::checksum::data(&data));
    }

    /// Right, or with one byte changed: both say the same. (Except for UDP over IPv6 without a checksum, which is not
    /// allowed, and which smoltcp allows.)
    #[test]
    fn verification_is_smoltcps(
        v6: bool,
        udp: bool,
        addresses: [u8; 32],
        content in proptest::collection::vec(any::<u8>(), 0..1500),
        padding in 0usize..8,
        at: prop::sample::Index,
        change: u8,
    ) {
        let mut frame = frame(v6, udp, addresses, &content, padding);
        let before = transport(&frame);
        prop_assert!(verify(&frame, &before));
        let at = before.start + at.index(before.end - before.start);
        frame[at] ^= change;
        let after = transport(&frame);
        let no_sum = udp && v6 && frame[after.start + 6..after.start + 8] == [0, 0];
        prop_assert_eq!(verify(&frame, &after), smoltcp_accepts(&frame, &after) && !no_sum);
    }

    /// What is completed here is right, and what is left blank becomes right by adding the data's sum.
    #[test]
    fn completion_is_right(
        v6: bool,
        addresses: [u8; 32],
        content in proptest::collection::vec(any::<u8>(), 0..1500),
        padding in 0usize..8,
    ) {
        let mut frame = frame(v6, false, addresses, &content, padding);
        let transport = transport(&frame);
        let field = transport.start + TCP_FIELD..transport.start + TCP_FIELD + 2;
        let right = frame[field.clone()].to_vec();
        frame[field.clone()].copy_from_slice(&[0xde, 0xad]);
        prop_assert_eq!(complete(&mut frame, ChecksumOffload::NONE, None).checksum, TxChecksum::Complete);
        prop_assert!(smoltcp_accepts(&frame, &transport));
        prop_assert_eq!(&frame[field.clone()], &right[..]);
        // Segments are cut by who completes them; IPv4's and IPv6's are not the same to him.
        let size = NonZeroU16::MIN;
        let segments = complete(&mut frame, ChecksumOffload::ALL, Some(size)).segments;
        prop_assert_eq!(segments, Some(if v6 { Segments::Ipv6(size) } else { Segments::Ipv4(size) }));
        let meta = complete(&mut frame, ChecksumOffload::ALL, None);
        prop_assert_eq!((meta.checksum, meta.segments), (TxChecksum::Blank, None));
        // What a peer does: it sums up the segment as it is.
        let sum = !sum(&frame[transport.start..transport.end]);
        frame[field.clone()].copy_from_slice(&sum.to_be_bytes());
        prop_assert!(smoltcp_accepts(&frame, &transport));
    }

    /// Frames from outside may be anything.
    #[test]
    fn nonsense_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
        if let Some(at) = bytes.get_mut(12..15) {
            at.copy_from_slice([&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[8, 6, 0]][kind as usize]);
        }
        if let Contents::Transport(transport) = crate::frame::parse(&bytes) {
            prop_assert!(transport.start <= transport.end && transport.end <= bytes.len());
            verify(&bytes, &transport);
            crate::frame::TcpHeader::parse(&bytes, &transport);
        }
        crate::frame::ipv4_header_is_right(&bytes);
        complete(&mut bytes, ChecksumOffload { ipv4: true, ipv6: false }, None);
    }
}

#[test]
fn odd_ends_and_all_ones() {
    for len in 0..40 {
        let ones = alloc::vec![0xff; len];
        assert_eq!(sum(&ones), wire::checksum::data(&ones), "{len}");
    }
    assert_eq!(
        sum(&alloc::vec![0xff; 65_535]),
        wire::checksum::data(&alloc::vec![0xff; 65_535])
    );
}
