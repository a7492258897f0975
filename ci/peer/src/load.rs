//! Load for measuring: nothing is checked but that it arrived, so that the client costs little.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::http::connect;

/// How many datagrams are on their way before the other side has to say something: fewer than a ring or a socket's buffer
/// holds, so that none need be lost.
const WINDOW: u32 = 32;
/// How long to wait for the rest of a window; what has not come by then is lost.
const LOST: Duration = Duration::from_millis(200);

/// Sends zeros to a discard server, and waits until it has taken them all.
pub(crate) fn push(address: SocketAddr, bytes: u64) -> io::Result<u64> {
    let mut stream = connect(address)?;
    let piece = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        stream.write_all(&piece[..now as usize])?;
        left -= now;
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(bytes),
        _ => Err(io::Error::other("discard answered")),
    }
}

/// Reads what a character generator sends.
pub(crate) fn pull(address: SocketAddr, bytes: u64) -> io::Result<u64> {
    let stream = connect(address)?;
    match io::copy(&mut stream.take(bytes), &mut io::sink())? {
        read if read == bytes => Ok(read),
        read => Err(io::Error::other(format!("closed after {read} bytes"))),
    }
}

/// A message of `bytes` to an echo server and back.
pub(crate) fn round_trip(stream: &mut TcpStream, bytes: u64) -> io::Result<u64> {
    let mut message = [0; 1400];
    let message = &mut message[..bytes.min(1400) as usize];
    stream.write_all(message)?;
    stream.read_exact(message)?;
    Ok(bytes)
}

/// A socket for [`datagrams_in`] and [`datagrams_out`].
pub(crate) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(LOST))?;
    Ok(socket)
}

/// A window of datagrams of `size` bytes to the sink of `ci/guests/services`: how many arrived.
pub(crate) fn datagrams_in(socket: &UdpSocket, size: u64) -> io::Result<u64> {
    let mut datagram = [0; 1472];
    let datagram = &mut datagram[..size.clamp(1, 1472) as usize];
    for _ in 1..WINDOW {
        socket.send(datagram)?;
    }
    datagram[0] = 1;
    socket.send(datagram)?;
    let mut answer = [0; 4];
    match socket.recv(&mut answer) {
        Ok(_) => Ok(u32::from_le_bytes(answer).into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}

/// A window of datagrams of `size` bytes from the source of `ci/guests/services`: how many arrived.
pub(crate) fn datagrams_out(socket: &UdpSocket, size: u64) -> io::Result<u64> {
    let mut buffer = [0; 1472];
    let request = [WINDOW.to_le_bytes(), (size as u32).to_le_bytes()].concat();
    socket.send(&request)?;
    for received in 0..WINDOW {
        match socket.recv(&mut buffer) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(WINDOW.into())
}
