//! A DHCP server (RFC 2131) for one client at a time, for [`Host`](super::Host).

use std::net::Ipv4Addr;

/// What the server hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpConfig {
    /// The first client's address; the next client gets the next one.
    pub first: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
    /// The router, if any.
    pub router: Option<Ipv4Addr>,
    /// The name server, if any.
    pub dns: Option<Ipv4Addr>,
    /// Seconds that a lease lasts.
    pub lease: u32,
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 236;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// The server's books.
#[derive(Debug)]
pub(super) struct DhcpServer {
    config: DhcpConfig,
    server: Ipv4Addr,
    /// Hardware addresses, in the order in which they came.
    clients: Vec<[u8; 6]>,
}

impl DhcpServer {
    pub(super) const fn new(config: DhcpConfig, server: Ipv4Addr) -> Self {
        Self {
            config,
            server,
            clients: Vec::new(),
        }
    }

    fn address_of(&mut self, client: [u8; 6]) -> Ipv4Addr {
        let index = self
            .clients
            .iter()
            .position(|&known| known == client)
            .unwrap_or_else(|| {
                self.clients.push(client);
                self.clients.len() - 1
            });
        Ipv4Addr::from_bits(self.config.first.to_bits() + index as u32)
    }

    /// The answer to a request, to be broadcast to port 68; `None`: none.
    pub(super) fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let client: [u8; 6] = request.get(28..34)?.try_into().ok()?;
        if request.first() != Some(&1) || request.get(FIXED..FIXED + 4)? != COOKIE {
            return None;
        }
        let kind = *option(request, 53)?.first()?;
        let address = self.address_of(client);
        let wanted = option(request, 50)
            .or_else(|| request.get(12..16))
            .filter(|ip| *ip != [0; 4]);
        let answer = match kind {
            DISCOVER => OFFER,
            REQUEST if option(request, 54).is_some_and(|server| server != self.server.octets()) => return None,
            REQUEST if wanted == Some(&address.octets()[..]) => ACK,
            REQUEST => NAK,
            _ => return None,
        };
        let mut reply = vec![0; FIXED];
        reply[..4].copy_from_slice(&[2, 1, 6, 0]);
        reply[4..8].copy_from_slice(request.get(4..8)?);
        reply[10] = 0x80;
        reply[28..34].copy_from_slice(&client);
        reply.extend(COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            reply.extend([code, value.len() as u8]);
            reply.extend(value);
        };
        put(53, &[answer]);
        put(54, &self.server.octets());
        if answer != NAK {
            let mask = u32::MAX.checked_shl(32 - u32::from(self.config.prefix)).unwrap_or(0);
            put(51, &self.config.lease.to_be_bytes());
            put(1, &mask.to_be_bytes());
            if let Some(router) = self.config.router {
                put(3, &router.octets());
            }
            if let Some(dns) = self.config.dns {
                put(6, &dns.octets());
            }
        }
        reply.push(255);
        if answer != NAK {
            reply[16..20].copy_from_slice(&address.octets());
        }
        reply.resize(reply.len().max(300), 0);
        Some(reply)
    }
}

/// The value of an option.
fn option(message: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = message.get(FIXED + 4..)?;
    loop {
        match *rest.first()? {
            0 => rest = &rest[1..],
            255 => return None,
            found => {
                let len = usize::from(*rest.get(1)?);
                let value = rest.get(2..2 + len)?;
                if found == code {
                    return Some(value);
                }
                rest = &rest[2 + len..];
            }
        }
    }
}
