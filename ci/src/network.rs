//! The addresses between this computer, dom0 and the guests.
//!
//! ```text
//!   this computer            QEMU's user network            dom0                   guests
//!   127.0.0.1:PORT  ->  10.0.0.254  ====  eth0 10.0.0.253 | xenbr0 10.0.0.1 ====  10.0.0.2, ...
//!                                                           fd00::1/64            fd00::2, ...
//! ```
//!
//! The user network is cut off from the world (`restrict=on`): tests depend on nothing outside, and no guest reaches it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// dom0 on the guests' bridge; their gateway, and where a test's servers listen.
pub const DOM0: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// dom0 on the guests' bridge, by IPv6.
pub const DOM0_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The bridge's name.
pub const BRIDGE: &str = "xenbr0";

/// Where the agent listens: dom0 on the side of this computer.
pub(crate) const AGENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 253), 7000);

/// QEMU's `-netdev`: DHCP and DNS addresses are set to ones that nobody uses.
pub(crate) fn qemu_netdev() -> String {
    let (agent, port) = AGENT;
    let user =
        "user,id=outside,restrict=on,ipv6=off,net=10.0.0.0/24,host=10.0.0.254,dns=10.0.0.252,dhcpstart=10.0.0.251";
    format!("{user},hostfwd=tcp:127.0.0.1:0-{agent}:{port}")
}

/// The port of 127.0.0.1 that leads to `address:port`, in the answer to QEMU's `info usernet`: lines of
/// `TCP[HOST_FORWARD] FD SOURCE-ADDRESS SOURCE-PORT DEST-ADDRESS DEST-PORT RECVQ SENDQ`.
pub(crate) fn forwarded_port(table: &str, address: Ipv4Addr, port: u16) -> Option<u16> {
    let (address, port) = (address.to_string(), port.to_string());
    table.lines().rev().find_map(|line| {
        let mut fields = line.split_whitespace();
        let fits = fields.next()? == "TCP[HOST_FORWARD]";
        let (_, _, source) = (fields.next()?, fields.next()?, fields.next()?);
        (fits && fields.next()? == address && fields.next()? == port).then(|| source.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_forwarded_port() {
        let table = "Hub -1 (outside):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
             TCP[HOST_FORWARD]  14       127.0.0.1 40123      10.0.0.253  7000     0     0\n  \
             TCP[ESTABLISHED]   15       127.0.0.1 50000      10.0.0.2    80       0     0\n";
        assert_eq!(forwarded_port(table, AGENT.0, AGENT.1), Some(40123));
        assert_eq!(forwarded_port(table, Ipv4Addr::new(10, 0, 0, 2), 80), None);
    }
}
