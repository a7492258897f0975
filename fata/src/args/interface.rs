//! What boot arguments say about one network interface.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fata_xenstore::decimal;

use super::{Error, MAX_INTERFACES, Problem};

/// How an interface gets its IPv4 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv4 {
    /// From a DHCP server (RFC 2131).
    #[default]
    Dhcp,
    /// No IPv4.
    Off,
    /// From the boot arguments.
    Static {
        /// The interface's address.
        address: Ipv4Addr,
        /// Bits of the network's part, at most 32.
        prefix: u8,
    },
}

/// How an interface gets its IPv6 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6 {
    /// From what routers announce (SLAAC, RFC 4862).
    #[default]
    Auto,
    /// No IPv6.
    Off,
    /// From the boot arguments.
    Static {
        /// The interface's address.
        address: Ipv6Addr,
        /// Bits of the network's part, at most 128.
        prefix: u8,
    },
}

/// The boot arguments of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceArgs {
    /// `ipv4=`
    pub ipv4: Ipv4,
    /// `gateway=`: the router, only with a static address.
    pub gateway: Option<Ipv4Addr>,
    /// `ipv6=`
    pub ipv6: Ipv6,
    /// `gateway6=`: the router, only with a static address.
    pub gateway6: Option<Ipv6Addr>,
    /// `dns=`: name servers, the first is asked first.
    pub dns: Vec<IpAddr>,
}

/// `net1.ipv4` is `(1, "ipv4")`, and `ipv4` is `(0, "ipv4")`.
pub(super) fn split_key(key: &str) -> Option<(usize, &str)> {
    let Some(rest) = key.strip_prefix("net") else {
        return Some((0, key));
    };
    let (number, key) = rest.split_once('.')?;
    let index = decimal::parse(number.as_bytes(), 0..=MAX_INTERFACES as u64 - 1)?;
    Some((index as usize, key))
}

impl InterfaceArgs {
    /// Takes one `key=value`.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        match key {
            "ipv4" => {
                self.ipv4 = match value {
                    "dhcp" => Ipv4::Dhcp,
                    "none" => Ipv4::Off,
                    _ => match cidr(value) {
                        Some((IpAddr::V4(address), prefix @ ..=32)) => Ipv4::Static { address, prefix },
                        _ => {
                            return Err(Problem::Expected("ADDRESS/PREFIX such as 10.0.0.2/24, dhcp or none"));
                        }
                    },
                }
            }
            "ipv6" => {
                self.ipv6 = match value {
                    "auto" => Ipv6::Auto,
                    "none" => Ipv6::Off,
                    _ => match cidr(value) {
                        Some((IpAddr::V6(address), prefix)) => Ipv6::Static { address, prefix },
                        _ => {
                            return Err(Problem::Expected("ADDRESS/PREFIX such as fd00::2/64, auto or none"));
                        }
                    },
                }
            }
            "gateway" => match address(value) {
                Some(IpAddr::V4(address)) => self.gateway = Some(address),
                _ => return Err(Problem::Expected("an IPv4 address such as 10.0.0.1")),
            },
            "gateway6" => match address(value) {
                Some(IpAddr::V6(address)) => self.gateway6 = Some(address),
                _ => return Err(Problem::Expected("an IPv6 address such as fd00::1")),
            },
            "dns" => {
                const EXPECTED: &str = "addresses with commas between them, such as 10.0.0.1,fd00::1";
                self.dns.clear();
                for one in value.split(',') {
                    self.dns.push(address(one).ok_or(Problem::Expected(EXPECTED))?);
                }
                if self.dns.len() > 3 {
                    return Err(Problem::Expected("three name servers at most"));
                }
            }
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }

    /// What holds only between arguments, whatever their order.
    pub(super) fn check(&self, index: usize) -> Result<(), Error> {
        let name = |key| {
            if index == 0 {
                alloc::string::String::from(key)
            } else {
                ["net", &index.to_string(), ".", key].concat()
            }
        };
        if self.gateway.is_some() && !matches!(self.ipv4, Ipv4::Static { .. }) {
            return Err(Error::of(
                &name("gateway"),
                Problem::Needs("a static ipv4= (DHCP brings its own router)"),
            ));
        }
        if let (Some(gateway), Ipv4::Static { address, prefix }) = (self.gateway, self.ipv4)
            && (u32::from(gateway) ^ u32::from(address)).leading_zeros() < prefix.into()
        {
            return Err(Error::of(
                &name("gateway"),
                Problem::Needs("an address in the network of ipv4="),
            ));
        }
        if let (Some(gateway), Ipv6::Static { address, prefix }) = (self.gateway6, self.ipv6)
            && (u128::from(gateway) ^ u128::from(address)).leading_zeros() < prefix.into()
        {
            return Err(Error::of(
                &name("gateway6"),
                Problem::Needs("an address in the network of ipv6="),
            ));
        }
        if self.gateway6.is_some() && !matches!(self.ipv6, Ipv6::Static { .. }) {
            return Err(Error::of(
                &name("gateway6"),
                Problem::Needs("a static ipv6= (routers announce themselves)"),
            ));
        }
        Ok(())
    }
}

/// `ADDRESS/PREFIX`.
fn cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (text, prefix) = value.split_once('/')?;
    let prefix = decimal::parse(prefix.as_bytes(), 0..=128)?;
    Some((address(text)?, prefix as u8))
}

/// Whether an interface may have this address.
fn usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !broadcast
}

/// An address that an interface may have and a packet can be sent to.
fn address(value: &str) -> Option<IpAddr> {
    value.parse().ok().filter(|&address| usable(address))
}
