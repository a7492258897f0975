//! HTTP/1.1 GET, on one connection each or on one connection for all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Options;
use crate::work::{self, Summary};

/// No answer may take longer: the guest is an emulated one on a busy computer.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run(address: SocketAddr, options: &Options) -> Summary {
    work::many(
        options.requests,
        options.parallel,
        || None,
        |connection: &mut Option<TcpStream>, _| {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => connect(address)?,
            };
            let bytes = get(&mut stream, options)?;
            if options.keep_alive {
                *connection = Some(stream);
            }
            Ok(bytes)
        },
    )
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its whole answer: bytes of the body.
pub(crate) fn get(stream: &mut TcpStream, options: &Options) -> io::Result<u64> {
    let connection = if options.keep_alive { "keep-alive" } else { "close" };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: guest\r\nConnection: {connection}\r\n\r\n",
        options.path
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let body_at = loop {
        if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(stream, &mut answer)?;
    };
    let length = body_length(&answer[..body_at])?;
    while answer.len() < body_at + length {
        read_more(stream, &mut answer)?;
    }
    if answer.len() > body_at + length {
        return Err(io::Error::other("more bytes than Content-Length says"));
    }
    if !options.keep_alive && stream.read(&mut [0])? != 0 {
        return Err(io::Error::other("bytes after the answer"));
    }
    let body = &answer[body_at..];
    let expect = options.expect.as_bytes();
    if !expect.is_empty() && !body.windows(expect.len()).any(|part| part == expect) {
        return Err(io::Error::other(format!("the body lacks {}", options.expect)));
    }
    Ok(length as u64)
}

fn read_more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16384];
    match stream.read(&mut buffer)? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("closed after {} bytes", answer.len()),
        )),
        n => {
            answer.extend_from_slice(&buffer[..n]);
            Ok(())
        }
    }
}

/// Checks that the head says 200, and gives its Content-Length.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).map_err(io::Error::other)?;
    if response.code != Some(200) {
        return Err(io::Error::other(format!("status {:?}", response.code)));
    }
    response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .ok_or_else(|| io::Error::other("no Content-Length"))
}
