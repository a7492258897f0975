//! Echo, discard and chargen over TCP, echo over UDP (RFC 862 to 864).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::http::connect;

/// Bytes that look like nothing in particular, and that differ wherever one looks: xorshift64.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Calls `with` for pieces that add up to `bytes`. All but the last are a multiple of eight, so that two [`Noise`]s
/// stay in step whatever the size of a piece.
fn pieces(bytes: u64, buffer: &mut [u8], mut with: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(buffer.len() as u64);
        with(&mut buffer[..now as usize])?;
        left -= now;
    }
    Ok(())
}

/// Sends `bytes` of noise and expects the very same back.
pub(crate) fn echo(address: SocketAddr, bytes: u64, seed: u64) -> io::Result<u64> {
    let mut stream = connect(address)?;
    let mut sending = stream.try_clone()?;
    let sender = thread::spawn(move || {
        let mut noise = Noise::new(seed);
        pieces(bytes, &mut [0; 65536], |piece| {
            noise.fill(piece);
            sending.write_all(piece)
        })?;
        sending.shutdown(Shutdown::Write)
    });
    let mut noise = Noise::new(seed);
    let mut expected = vec![0; 65536];
    let mut at = 0;
    pieces(bytes, &mut [0; 65536], |piece| {
        stream.read_exact(piece)?;
        noise.fill(&mut expected[..piece.len()]);
        if let Some(wrong) = piece.iter().zip(&expected).position(|(a, b)| a != b) {
            return Err(io::Error::other(format!("wrong byte at {}", at + wrong)));
        }
        at += piece.len();
        Ok(())
    })?;
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    if stream.read(&mut [0])? != 0 {
        return Err(io::Error::other("more came back than was sent"));
    }
    Ok(bytes)
}

/// Sends `bytes`, and expects the other side to close without a word.
pub(crate) fn discard(address: SocketAddr, bytes: u64) -> io::Result<u64> {
    let mut stream = connect(address)?;
    let mut noise = Noise::new(9);
    pieces(bytes, &mut [0; 65536], |piece| {
        noise.fill(piece);
        stream.write_all(piece)
    })?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(bytes),
        _ => Err(io::Error::other("discard answered")),
    }
}

/// Reads `bytes` and checks them against RFC 864: lines of 72 characters, each beginning one further on.
pub(crate) fn chargen(address: SocketAddr, bytes: u64) -> io::Result<u64> {
    let mut stream = connect(address)?;
    let mut at = 0_u64;
    pieces(bytes, &mut [0; 65536], |piece| {
        stream.read_exact(piece)?;
        for &byte in piece.iter() {
            let (line, column) = (at / 74, at % 74);
            let expected = match column {
                72 => b'\r',
                73 => b'\n',
                _ => b' ' + ((line + column) % 95) as u8,
            };
            if byte != expected {
                return Err(io::Error::other(format!("byte {at} is {byte}, not {expected}")));
            }
            at += 1;
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Sends `count` datagrams one after another and expects each back.
pub(crate) fn udp(address: SocketAddr, count: u64, size: u64) -> io::Result<u64> {
    let any: SocketAddr = if address.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut sent = vec![0; size as usize];
    let mut received = vec![0; size as usize + 1];
    for n in 0..count {
        Noise::new(n).fill(&mut sent);
        socket.send(&sent)?;
        let length = socket
            .recv(&mut received)
            .map_err(|error| io::Error::other(format!("datagram {n}: {error}")))?;
        if received[..length] != sent[..] {
            return Err(io::Error::other(format!("datagram {n} came back changed")));
        }
    }
    Ok(count * size)
}
