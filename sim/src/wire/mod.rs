//! The network in dom0: packets, a bridge, and hosts on it.

mod dhcp;
mod host;
mod impairment;
mod packet;
mod ping;
mod sockets;
mod switch;

pub use dhcp::DhcpConfig;
pub use host::{Accepted, Host, HostConfig};
pub use impairment::Impairment;
pub use packet::{Checksum, Gso, GsoKind, Packet};
pub use sockets::{Connection, Ping, Udp};
pub use switch::{Filter, Plug, Switch};
