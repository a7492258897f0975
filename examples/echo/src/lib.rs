//! Three services that every network once had: echo (RFC 862) on TCP and UDP port 7, discard (RFC 863) on TCP port 9,
//! and the character generator (RFC 864) on TCP port 19.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::future::Future;
use core::net::Ipv6Addr;

use fata::net::{Error, ListenOptions, Stack, TcpOptions, TcpStream};
use fata::{Env, NetworkError};

/// Bytes that are read at a time.
const BUFFER: usize = 16 << 10;

/// Serves until the program ends.
///
/// # Errors
/// There is no network, or a port is taken.
pub async fn serve(env: Env) -> Result<(), NetworkError> {
    let net = env.net().await?;
    let services = [
        env.spawn(tcp(env.clone(), net.clone(), 7, TcpOptions::default(), echo)),
        env.spawn(tcp(env.clone(), net.clone(), 9, bulk(&net), discard)),
        env.spawn(tcp(env.clone(), net.clone(), 19, bulk(&net), generate)),
        env.spawn(udp_echo(net)),
    ];
    for service in services {
        // They end with an error or not at all; cancelled they are with the program only.
        if let Ok(Err(error)) = service.await {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Settings for few connections that transfer much: buffers sixteen times as large as usual.
fn bulk(net: &Stack) -> TcpOptions {
    let usual = net.limits();
    TcpOptions {
        rx_buffer: Some(16 * usual.tcp_rx_buffer),
        tx_buffer: Some(16 * usual.tcp_tx_buffer),
        ..TcpOptions::default()
    }
}

/// Serves each connection to `port` in a task of its own.
async fn tcp<F, T>(env: Env, net: Stack, port: u16, tcp: TcpOptions, service: F) -> Result<(), Error>
where
    F: Fn(TcpStream) -> T + 'static,
    T: Future<Output = Result<(), Error>> + 'static,
{
    let options = ListenOptions {
        tcp,
        ..ListenOptions::default()
    };
    let listener = net.listen_on((Ipv6Addr::UNSPECIFIED, port).into(), options)?;
    log::info!("listening on TCP port {port}");
    loop {
        let stream = listener.accept().await?;
        let peer = stream.peer_addr();
        let connection = service(stream);
        env.spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("{peer}: {error}");
            }
        })
        .detach();
    }
}

/// Sends back what it gets.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    let mut buffer = alloc::vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.close().await,
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

/// Reads and forgets.
async fn discard(stream: TcpStream) -> Result<(), Error> {
    let mut buffer = alloc::vec![0; BUFFER];
    while stream.read(&mut buffer).await? > 0 {}
    stream.close().await
}

/// Sends [`pattern`] until the client has enough.
async fn generate(stream: TcpStream) -> Result<(), Error> {
    // After as many lines as there are characters, it begins again.
    let lines: Vec<u8> = (0..95).flat_map(pattern).collect();
    loop {
        stream.write_all(&lines).await?;
    }
}

/// Line `number` of the pattern that RFC 864 shows: 72 of the 95 printable characters, one further in each line.
#[must_use]
pub fn pattern(number: usize) -> [u8; 74] {
    let mut line = [0; 74];
    for (column, character) in line.iter_mut().enumerate() {
        *character = match column {
            72 => b'\r',
            73 => b'\n',
            _ => b' ' + ((number % 95 + column) % 95) as u8,
        };
    }
    line
}

/// Sends each datagram back to where it came from.
async fn udp_echo(net: Stack) -> Result<(), Error> {
    let socket = net.udp(7)?;
    let mut buffer = alloc::vec![0; 65_535];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        // A datagram may be lost, and one that cannot be sent is.
        if let Err(error) = socket.send_to(&buffer[..length], peer).await {
            log::debug!("{peer}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_rfc_864() {
        let first = core::str::from_utf8(&pattern(0)).unwrap().to_owned();
        assert!(
            first.starts_with(" !\"#$%&'()*+,-./0123456789:;<=>?@ABC") && first.ends_with("defg\r\n"),
            "{first}"
        );
        assert_eq!(pattern(0)[1..72], pattern(1)[..71]);
        assert_eq!(pattern(95), pattern(0));
        assert!(
            (0..95)
                .flat_map(pattern)
                .all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
        );
    }
}
