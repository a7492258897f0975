//! The few frames that the stack writes itself.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, IpRepr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, NdiscRouterFlags, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::frame::{ETHERNET_HEADER, TcpHeader, Transport};

/// The group of all IPv6 hosts of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The Ethernet address of that group (RFC 2464 section 7).
const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
/// What neighbour discovery demands, to be sure that the sender is on the link (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;

/// `len` zero bytes after an Ethernet header; nothing when there is no memory.
fn blank(source: EthernetAddress, destination: EthernetAddress, kind: EthernetProtocol, len: usize) -> Option<Vec<u8>> {
    let mut frame = crate::state::buffer(ETHERNET_HEADER + len).ok()?;
    let repr = EthernetRepr {
        src_addr: source,
        dst_addr: destination,
        ethertype: kind,
    };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    Some(frame)
}

/// The acknowledgement of a FIN for a connection of which nothing is left but its name.
///
/// The FIN acknowledges all we sent, so its acknowledgement number is our sequence number; and it is the last of what
/// the peer sent. The checksum is left to the caller.
pub(crate) fn acknowledgement(fin: &[u8], transport: &Transport, header: &TcpHeader) -> Option<Vec<u8>> {
    let ethernet = EthernetFrame::new_checked(fin).ok()?;
    let next = header.sequence.wrapping_add(header.payload as u32).wrapping_add(1);
    let tcp = TcpRepr {
        src_port: header.destination_port,
        dst_port: header.source_port,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(header.acknowledgement as i32),
        ack_number: Some(TcpSeqNumber(next as i32)),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (transport.destination.into(), transport.source.into());
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let kind = match transport.source {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    };
    let len = ip.header_len() + tcp.buffer_len();
    let mut frame = blank(ethernet.dst_addr(), ethernet.src_addr(), kind, len)?;
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    let mut checksums = ChecksumCapabilities::default();
    ip.emit(&mut *packet, &checksums);
    checksums.tcp = smoltcp::phy::Checksum::None;
    let segment = packet.get_mut(ip.header_len()..)?;
    tcp.emit(
        &mut TcpPacket::new_unchecked(segment),
        &source,
        &destination,
        &checksums,
    );
    Some(frame)
}

/// Tells the neighbours that `address` is at `mac`: a gratuitous ARP request (RFC 5227 section 3), or an unsolicited
/// neighbour advertisement (RFC 4861 section 7.2.6). A bridge learns the port from it, too.
pub(crate) fn announcement(mac: [u8; 6], address: IpAddr) -> Option<Vec<u8>> {
    let mac = EthernetAddress(mac);
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address),
        IpAddr::V6(address) => {
            let repr = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::OVERRIDE,
                target_addr: address,
                lladdr: Some(mac.into()),
            };
            discovery(mac, ALL_NODES_MAC, address, repr)
        }
    }
}

fn gratuitous_arp(mac: EthernetAddress, address: Ipv4Addr) -> Option<Vec<u8>> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let mut frame = blank(
        mac,
        EthernetAddress::BROADCAST,
        EthernetProtocol::Arp,
        repr.buffer_len(),
    )?;
    repr.emit(&mut ArpPacket::new_unchecked(frame.get_mut(ETHERNET_HEADER..)?));
    Some(frame)
}

/// A router advertisement that says nothing, as if it came from this host itself.
///
/// smoltcp stops soliciting after three times, but then it wants to be polled at once, again and again, until some
/// advertisement comes. So one comes: with a lifetime of zero and no prefix it only ends the search.
pub(crate) fn no_router(mac: [u8; 6], link_local: Ipv6Addr) -> Option<Vec<u8>> {
    let repr = NdiscRepr::RouterAdvert {
        hop_limit: 0,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: smoltcp::time::Duration::ZERO,
        reachable_time: smoltcp::time::Duration::ZERO,
        retrans_time: smoltcp::time::Duration::ZERO,
        lladdr: None,
        mtu: None,
        prefix_info: None,
    };
    discovery(EthernetAddress(mac), ALL_NODES_MAC, link_local, repr)
}

fn discovery(mac: EthernetAddress, to: EthernetAddress, source: Ipv6Addr, repr: NdiscRepr<'_>) -> Option<Vec<u8>> {
    let icmp = Icmpv6Repr::Ndisc(repr);
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: ALL_NODES,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let mut frame = blank(mac, to, EthernetProtocol::Ipv6, ip.buffer_len() + icmp.buffer_len())?;
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
    let message = packet.get_mut(ip.buffer_len()..)?;
    icmp.emit(
        &source,
        &ALL_NODES,
        &mut Icmpv6Packet::new_unchecked(message),
        &ChecksumCapabilities::default(),
    );
    Some(frame)
}
