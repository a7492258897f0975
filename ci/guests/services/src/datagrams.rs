//! Datagrams in one direction, with so little in the other that it does not count.
//!
//! The benchmark's own protocol. A sink (port 9) answers a datagram whose first byte is not 0 with the number of those that
//! came since its last answer, as a 32-bit little-endian number. A source (port 19) answers a datagram of two such numbers,
//! a count and a size, with that many datagrams of that size.

use fata::net::{Error, Stack};

/// Counts what comes.
pub(crate) async fn sink(net: Stack) -> Result<(), Error> {
    let socket = net.udp(9)?;
    let mut buffer = [0; 2048];
    let mut count = 0_u32;
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        count += 1;
        if buffer[..length].first().is_some_and(|&first| first != 0) {
            socket.send_to(&count.to_le_bytes(), peer).await?;
            count = 0;
        }
    }
}

/// Sends what is asked for.
pub(crate) async fn source(net: Stack) -> Result<(), Error> {
    let socket = net.udp(19)?;
    let mut request = [0; 8];
    let payload = [0; 1472];
    loop {
        let (length, peer) = socket.recv_from(&mut request).await?;
        if length != request.len() {
            continue;
        }
        let [count, size] = [0, 4].map(|at| {
            let number = request[at..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(number)
        });
        let size = usize::try_from(size).unwrap_or(payload.len()).min(payload.len());
        for _ in 0..count.min(1024) {
            socket.send_to(&payload[..size], peer).await?;
        }
    }
}
