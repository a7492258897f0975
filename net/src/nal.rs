//! The traits of `embedded-nal-async`, so that crates written for them run on a [`Stack`].

use core::net::{IpAddr, SocketAddr};

use embedded_nal_async::{AddrType, ConnectedUdp, Dns, TcpConnect, UdpStack, UnconnectedUdp};

use crate::options::UdpOptions;
use crate::{Error, Stack, TcpStream, UdpSocket, dns};

impl TcpConnect for Stack {
    type Error = Error;
    type Connection<'a> = TcpStream;

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, Error> {
        Self::connect(self, remote).await
    }
}

impl Dns for Stack {
    type Error = Error;

    async fn get_host_by_name(&self, host: &str, kind: AddrType) -> Result<IpAddr, Error> {
        let family = match kind {
            AddrType::IPv4 => dns::Family::Ipv4,
            AddrType::IPv6 => dns::Family::Ipv6,
            AddrType::Either => dns::Family::Both,
        };
        dns::resolve(self, host, family)
            .await?
            .first()
            .copied()
            .ok_or(Error::NameNotFound)
    }

    /// Reverse look-ups are not offered.
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, Error> {
        Err(Error::NameNotFound)
    }
}

/// A UDP socket that talks to one peer only.
#[derive(Debug)]
pub struct UdpPeer {
    socket: UdpSocket,
    remote: SocketAddr,
}

impl ConnectedUdp for UdpPeer {
    type Error = Error;

    async fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.socket.send_to(data, self.remote).await
    }

    async fn receive_into(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            let (len, from) = self.socket.recv_from(buffer).await?;
            if from == self.remote {
                return Ok(len);
            }
        }
    }
}

impl UnconnectedUdp for UdpSocket {
    type Error = Error;

    /// The local address is chosen by the route: one that is given is not looked at.
    async fn send(&mut self, _local: SocketAddr, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        self.send_to(data, remote).await
    }

    async fn receive_into(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddr, SocketAddr), Error> {
        let datagram = self.receive(buffer).await?;
        let local = SocketAddr::new(datagram.to, self.local_addr().port());
        Ok((datagram.len, local, datagram.from))
    }
}

impl UdpStack for Stack {
    type Error = Error;
    type Connected = UdpPeer;
    type UniquelyBound = UdpSocket;
    type MultiplyBound = UdpSocket;

    async fn connect_from(&self, local: SocketAddr, remote: SocketAddr) -> Result<(SocketAddr, UdpPeer), Error> {
        let source = self.with(|state| state.source_for(remote.ip()))?;
        let socket = self.udp_on(local, UdpOptions::default())?;
        let local = SocketAddr::new(source, socket.local_addr().port());
        Ok((local, UdpPeer { socket, remote }))
    }

    async fn bind_single(&self, local: SocketAddr) -> Result<(SocketAddr, UdpSocket), Error> {
        let socket = self.udp_on(local, UdpOptions::default())?;
        Ok((socket.local_addr(), socket))
    }

    async fn bind_multiple(&self, local: SocketAddr) -> Result<UdpSocket, Error> {
        self.udp_on(local, UdpOptions::default())
    }
}
