//! Where the addresses come from: configuration, DHCP, router advertisements; and the link under them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use fata_events::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, dhcpv4};
use smoltcp::wire::{DhcpOption, EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

use crate::agenda::Id;
use crate::config::{Cidr, Ipv4Config, Ipv6Config, Status};
use crate::device::Capabilities;
use crate::state::{MIN_MTU_IPV6, State, buffer, new_interface};
use crate::{Error, Result};

/// smoltcp solicits routers three times, four seconds apart (RFC 4861 section 10). After that there is none.
const NO_ROUTER: Duration = Duration::from_secs(12);
/// Name servers in use at most.
const NAME_SERVERS: usize = 4;
/// The first DHCPDISCOVER may get lost while a bridge learns its new port: ask again soon.
const DHCP_RETRY: Duration = Duration::from_secs(2);
/// Room for a DHCP server's message, to read from it for how long the lease is (RFC 2131 section 2 has 576 bytes with headers).
const DHCP_MESSAGE: usize = 548;
/// For how long a lease is if the server does not say. smoltcp thinks so, too.
const DHCP_LEASE: Duration = Duration::from_secs(120);
/// DHCP's option for that (RFC 2132 section 9.2).
const OPTION_LEASE_TIME: u8 = 51;
/// DHCP's option for the host's name (RFC 2132 section 3.14).
const OPTION_HOST_NAME: u8 = 12;

/// What a DHCP server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    address: Cidr<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    server: Ipv4Addr,
}

/// Whether a host may have this address.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn cidr_v4(cidr: &Cidr<Ipv4Addr>) -> Result<IpCidr> {
    if cidr.prefix > 32 || !is_host(cidr.address.into()) {
        return Err(Error::InvalidInput);
    }
    Ok(IpCidr::Ipv4(Ipv4Cidr::new(cidr.address, cidr.prefix)))
}

fn cidr_v6(cidr: &Cidr<Ipv6Addr>) -> Result<IpCidr> {
    if cidr.prefix > 128 || !is_host(cidr.address.into()) {
        return Err(Error::InvalidInput);
    }
    Ok(IpCidr::Ipv6(Ipv6Cidr::new(cidr.address, cidr.prefix)))
}

impl State {
    /// Checks the configuration and puts it into force.
    pub(crate) fn start_addresses(&mut self) -> Result<()> {
        let wanted = self.configured()?;
        let gateways = self.configured_gateways();
        // SLAAC may add one address per prefix; beyond what the list holds they are left out.
        let room = self.interface.ip_addrs().len().max(MAX_ADDRESSES);
        let reachable = |gateway: &IpAddress| wanted.iter().any(|cidr| cidr.contains_addr(gateway));
        if wanted.len() > room || !gateways.iter().all(reachable) || self.config.dns.iter().any(|dns| !is_host(*dns)) {
            return Err(Error::InvalidInput);
        }
        if self.config.ipv4 == Ipv4Config::Dhcp {
            let mut socket = dhcpv4::Socket::new();
            let mut retry = dhcpv4::RetryConfig::default();
            retry.discover_timeout = DHCP_RETRY.into();
            retry.initial_request_timeout = DHCP_RETRY.into();
            socket.set_retry_config(retry);
            // smoltcp borrows buffers and options for as long as the socket lives, which is for ever.
            socket.set_receive_packet_buffer(buffer(DHCP_MESSAGE)?.leak());
            if let Some(name) = self.config.hostname.as_ref() {
                if name.is_empty() || name.len() > 63 {
                    return Err(Error::InvalidInput);
                }
                let name: &'static str = Box::leak(name.clone().into_boxed_str());
                let option = DhcpOption {
                    kind: OPTION_HOST_NAME,
                    data: name.as_bytes(),
                };
                socket.set_outgoing_options(Box::leak(Box::new([option])));
            }
            self.dhcp = Some(self.sockets.add_own(Socket::Dhcpv4(socket))?);
        }
        self.apply();
        Ok(())
    }

    fn ipv6_enabled(&self) -> bool {
        // IPv6 needs links of at least this size.
        self.config.ipv6 != Ipv6Config::Off && self.capabilities.mtu >= MIN_MTU_IPV6
    }

    /// The addresses that do not come from router advertisements.
    fn configured(&self) -> Result<Vec<IpCidr>> {
        let mut list = Vec::new();
        if self.ipv6_enabled() {
            let mac = HardwareAddress::Ethernet(EthernetAddress(self.capabilities.mac));
            let link_local = Ipv6Cidr::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
            list.extend(Ipv6Cidr::from_link_prefix(&link_local, mac).map(IpCidr::Ipv6));
            if let Ipv6Config::Static { addresses, .. } = &self.config.ipv6 {
                for cidr in addresses {
                    list.push(cidr_v6(cidr)?);
                }
            }
        }
        match &self.config.ipv4 {
            Ipv4Config::Off => {}
            Ipv4Config::Dhcp => {
                if let Some(lease) = &self.lease {
                    list.push(cidr_v4(&lease.address)?);
                }
            }
            Ipv4Config::Static { addresses, .. } => {
                for cidr in addresses {
                    list.push(cidr_v4(cidr)?);
                }
            }
        }
        Ok(list)
    }

    fn gateway_v4(&self) -> Option<Ipv4Addr> {
        match &self.config.ipv4 {
            Ipv4Config::Static { gateway, .. } => *gateway,
            _ => self.lease.as_ref().and_then(|lease| lease.router),
        }
    }

    fn gateway_v6(&self) -> Option<Ipv6Addr> {
        match &self.config.ipv6 {
            Ipv6Config::Static { gateway, .. } if self.ipv6_enabled() => *gateway,
            _ => None,
        }
    }

    fn configured_gateways(&self) -> Vec<IpAddress> {
        let mut gateways = Vec::new();
        gateways.extend(self.gateway_v4().map(IpAddress::Ipv4));
        gateways.extend(self.gateway_v6().map(IpAddress::Ipv6));
        gateways
    }

    /// Puts configuration and lease into smoltcp's tables, beside what router advertisements have put there.
    fn apply(&mut self) {
        // Both were checked when they came.
        let wanted = self.configured().unwrap_or_default();
        let slaac = self.config.ipv6 == Ipv6Config::Slaac && self.ipv6_enabled();
        self.interface.update_ip_addrs(|addresses| {
            addresses
                .retain(|cidr| slaac && matches!(cidr, IpCidr::Ipv6(cidr) if !cidr.address().is_unicast_link_local()));
            for cidr in wanted {
                let _ = addresses.push(cidr);
            }
        });
        let (v4, v6) = (self.gateway_v4(), self.gateway_v6());
        let routes = self.interface.routes_mut();
        // The table has room for both and for four routers that advertise themselves.
        match v4 {
            Some(gateway) => _ = routes.add_default_ipv4_route(gateway),
            None => _ = routes.remove_default_ipv4_route(),
        }
        if let Some(gateway) = v6 {
            let _ = routes.add_default_ipv6_route(gateway);
        }
        self.announcements.begin();
        self.refresh_status();
    }

    /// Looks at the link. When it comes up, the device may be another one than before.
    pub(crate) fn set_link(&mut self, now: Instant, up: bool, capabilities: Capabilities) {
        if up == self.status.link_up {
            return;
        }
        if up {
            if self.change_device(now, capabilities).is_err() {
                return;
            }
            self.egress.offload = capabilities.tx_checksum;
        } else {
            self.announcements.link_lost();
        }
        self.status.link_up = up;
        self.refresh_status();
        self.sockets.touch_all();
        self.changed.raise();
    }

    fn change_device(&mut self, now: Instant, capabilities: Capabilities) -> Result<()> {
        let old = self.capabilities;
        let slaac = self.config.ipv6 == Ipv6Config::Slaac;
        let for_smoltcp = |of: Capabilities| (of.mac, of.mtu, of.tx_segmentation);
        if for_smoltcp(old) != for_smoltcp(capabilities) {
            let seed = self.random.next_u64();
            self.interface = new_interface(capabilities, slaac, seed, now)?;
            self.egress.fragmenting = false;
        }
        if let Some(id) = self.dhcp {
            // The network may be another one (RFC 2131 section 3.7). Who is still the same keeps his address until there is
            // an answer, or the lease ends, so that connections outlive a short loss of the link.
            let socket = self.dhcp_socket(id);
            socket.reset();
            let _ = socket.poll();
            if old.mac != capabilities.mac {
                self.lease = None;
            }
        }
        self.capabilities = capabilities;
        self.apply();
        if slaac && self.ipv6_enabled() {
            self.no_router_at = Some(now + NO_ROUTER);
        }
        Ok(())
    }

    /// Takes over what DHCP and router advertisements have changed.
    pub(crate) fn poll_addresses(&mut self, now: Instant) {
        if let Some(id) = self.dhcp {
            let news = match self.dhcp_socket(id).poll() {
                Some(dhcpv4::Event::Configured(config)) => {
                    Some(lease(&config).map(|lease| (lease, now + duration(&config))))
                }
                Some(dhcpv4::Event::Deconfigured) => Some(None),
                None => self.lease_ends.filter(|ends| *ends <= now).map(|_| None),
            };
            if let Some(news) = news {
                let (lease, ends) = news.unzip();
                self.lease_ends = ends;
                if core::mem::replace(&mut self.lease, lease.clone()) != lease {
                    self.apply();
                }
            }
        }
        let known = self.status.addresses.len();
        let now = self.interface.ip_addrs();
        let same = known == now.len()
            && now
                .iter()
                .zip(&self.status.addresses)
                .all(|(new, old)| IpAddr::from(new.address()) == old.address);
        if !same {
            self.announcements.begin();
            self.refresh_status();
        }
    }

    fn refresh_status(&mut self) {
        let lease = self.lease.as_ref();
        let leased = lease.map(|lease| lease.dns.as_slice()).unwrap_or_default();
        let mut dns = self.config.dns.clone();
        dns.extend(leased.iter().map(|address| IpAddr::V4(*address)));
        dns.truncate(NAME_SERVERS);
        let routes = self.interface.routes();
        let mut gateways = Vec::new();
        for route in [routes.get_default_ipv4_route(), routes.get_default_ipv6_route()] {
            gateways.extend(route.map(|route| IpAddr::from(route.via_router)));
        }
        let addresses = self.interface.ip_addrs().iter();
        let status = Status {
            link_up: self.status.link_up,
            mac: self.capabilities.mac,
            mtu: usize::from(self.capabilities.mtu),
            addresses: addresses
                .map(|cidr| Cidr::new(cidr.address().into(), cidr.prefix_len()))
                .collect(),
            gateways,
            dns,
            dhcp_server: lease.map(|lease| lease.server),
        };
        if status != self.status {
            self.status = status;
            // Who has lost his address has to know; who waits for a neighbour may reach him now.
            self.sockets.touch_all();
            self.changed.raise();
        }
    }

    /// The multicast groups by which others reach the interface, as Ethernet addresses: all hosts (RFC 1112), all nodes, and the
    /// solicited nodes of each IPv6 address, without which no neighbour would find it (RFC 4291, section 2.8).
    pub(crate) fn groups(&self) -> Vec<[u8; 6]> {
        let mut groups = Vec::new();
        for cidr in &self.status.addresses {
            match cidr.address {
                IpAddr::V4(_) => groups.push([1, 0, 0x5e, 0, 0, 1]),
                IpAddr::V6(address) => {
                    let [.., a, b, c] = address.octets();
                    groups.extend([[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, a, b, c]]);
                }
            }
        }
        groups
    }

    /// Whether nobody has answered the router solicitations for long enough.
    pub(crate) fn no_router(&mut self, now: Instant) -> bool {
        let due = self.no_router_at.is_some_and(|deadline| deadline <= now);
        if due {
            self.no_router_at = None;
        }
        due
    }

    fn dhcp_socket(&mut self, id: Id) -> &mut dhcpv4::Socket<'static> {
        self.sockets.slot(id).set.get_mut(SocketHandle::default())
    }
}

/// How many addresses smoltcp was compiled to hold.
const MAX_ADDRESSES: usize = 8;

/// For how long the server gives it.
fn duration(config: &dhcpv4::Config<'_>) -> Duration {
    let message = config.packet.as_ref();
    let option = message.and_then(|message| message.options().find(|option| option.kind == OPTION_LEASE_TIME));
    let seconds = option.and_then(|option| option.data.try_into().ok());
    seconds.map_or(DHCP_LEASE, |bytes| {
        Duration::from_secs(u32::from_be_bytes(bytes).into())
    })
}

/// The lease, if it can be used.
fn lease(config: &dhcpv4::Config<'_>) -> Option<Lease> {
    let address = Cidr::new(config.address.address(), config.address.prefix_len());
    cidr_v4(&address).ok()?;
    let host = |address: &Ipv4Addr| is_host((*address).into());
    Some(Lease {
        address,
        router: config
            .router
            .filter(|router| host(router) && config.address.contains_addr(router)),
        dns: config.dns_servers.iter().copied().filter(host).collect(),
        server: config.server.address,
    })
}
