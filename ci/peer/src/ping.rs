//! ICMP echo (RFC 792), to the microsecond and as soon as a guest is there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// A request that is not answered by then is followed by the next.
const PATIENCE: Duration = Duration::from_millis(2);
/// After which nothing is expected any more.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks one host.
pub(crate) struct Pinger {
    socket: Socket,
    sequence: u16,
}

impl Pinger {
    /// `patience`: how long to wait for an answer.
    pub(crate) fn new(address: IpAddr, patience: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(&SocketAddr::new(address, 0).into())?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A request and its answer.
    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let [high, low] = self.sequence.to_be_bytes();
        // Type 8 with the identifier 0xfa7a and 56 bytes of data, as ping(8) sends them.
        let mut request = [0; 64];
        request[..8].copy_from_slice(&[8, 0, 0, 0, 0xfa, 0x7a, high, low]);
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
        self.socket.write_all(&request)?;
        let mut packet = [0; 2048];
        loop {
            let length = self.socket.read(&mut packet)?;
            // A raw socket shows the IP header, and whatever ICMP comes from there.
            let header = usize::from(packet[0] & 0xf) * 4;
            let message = packet[..length].get(header..).unwrap_or_default();
            if message.first() == Some(&0) && message.get(4..8) == Some(&request[4..8]) {
                return Ok(());
            }
        }
    }
}

/// Lets a paused domain run, and pings until the first answer.
pub(crate) fn first(address: IpAddr, domain: u16) -> io::Result<()> {
    let mut pinger = Pinger::new(address, PATIENCE)?;
    let began = Instant::now();
    fata_xenctl::unpause(domain)?;
    while let Err(error) = pinger.ping() {
        if began.elapsed() > LIMIT {
            return Err(error);
        }
        // A network that is not there yet refuses at once.
        if error.kind() != io::ErrorKind::WouldBlock {
            thread::sleep(PATIENCE / 2);
        }
    }
    Ok(())
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn a_right_checksum_adds_up_to_nothing() {
        let mut bytes = [8, 0, 0, 0, 0xfa, 0x7a, 0, 1, 0xff, 0xff];
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&bytes), 0);
    }
}
