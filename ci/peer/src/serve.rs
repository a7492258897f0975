//! The services of `ci/guests/services`, on Linux: what Fata is compared with.
//!
//! One thread with an event loop, as a server on Linux is written today, and buffers as large as suit Linux.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use http::request;
use http::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const BUFFER: usize = 64 << 10;

/// Serves for ever.
pub(crate) fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        tokio::spawn(tcp(7, echo));
        tokio::spawn(tcp(9, discard));
        tokio::spawn(tcp(19, generate));
        tokio::spawn(udp_echo());
        tokio::spawn(udp_sink());
        tokio::spawn(udp_source());
        tcp(http::PORT, pages).await
    })
}

async fn tcp<F>(port: u16, service: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    let listener: TcpListener = socket.listen(4096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(service(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

async fn discard(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn generate(mut stream: TcpStream) -> io::Result<()> {
    let lines: Vec<u8> = (0..BUFFER / 74).flat_map(echo::pattern).collect();
    loop {
        stream.write_all(&lines).await?;
    }
}

async fn pages(mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 1024];
    loop {
        let response = match request::parse(&received) {
            Ok(None) => {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    return Ok(());
                }
                received.extend_from_slice(&buffer[..length]);
                continue;
            }
            Ok(Some((request, length))) => {
                let response = Response::to(&request, statistics);
                received.drain(..length);
                response
            }
            Err(status) => Response::error(status),
        };
        // In one piece: two small writes would be two segments.
        let mut answer = response.head().into_bytes();
        answer.extend_from_slice(response.body());
        stream.write_all(&answer).await?;
        if !response.keep_alive {
            stream.shutdown().await?;
            while stream.read(&mut buffer).await? > 0 {}
            return Ok(());
        }
    }
}

/// The interrupts of the network interface so far, which are the events that its backend has sent; nothing if there is no
/// such line. netfront names them after the interface and its queue.
fn statistics() -> String {
    let interrupts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let events = interrupts
        .lines()
        .filter(|line| line.contains("-q0"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .reduce(|a, b| a + b);
    let Some(events) = events else {
        return "{}\n".into();
    };
    format!("{{\"events\":{{\"received\":{events}}}}}\n")
}

async fn udp_echo() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7)).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..length], peer).await?;
    }
}

/// See `ci/guests/services/src/datagrams.rs`.
async fn udp_sink() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)).await?;
    let mut buffer = vec![0; BUFFER];
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

/// See `ci/guests/services/src/datagrams.rs`.
async fn udp_source() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 19)).await?;
    let mut request = [0; 8];
    let payload = [0; 1472];
    loop {
        let (length, peer) = socket.recv_from(&mut request).await?;
        if length != request.len() {
            continue;
        }
        let [count, size] =
            [0, 4].map(|at| u32::from_le_bytes(request[at..].first_chunk().copied().unwrap_or_default()));
        for _ in 0..count.min(1024) {
            socket
                .send_to(&payload[..payload.len().min(size as usize)], peer)
                .await?;
        }
    }
}
