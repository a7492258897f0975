//! A web server with a small site compiled in.
//!
//! * `/`, `/style.css`, `/favicon.svg`: the site.
//! * `/stats`: the machine's figures as JSON.
//!
//! HTTP/1.1 with connections that stay open and requests that come before the answer to the last one; GET and HEAD.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod request;
pub mod response;
pub mod site;
mod stats;

use alloc::vec::Vec;
use core::time::Duration;

use fata::net::TcpStream;
use fata::{Env, NetworkError};

use response::{Response, Status};

/// Where it listens.
pub const PORT: u16 = 80;

/// How long a client may take for a request's head, and how long a connection may idle.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(15);

/// How long a client may take to accept an answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How long a client may take to notice that the connection is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes of memory that stay free: with less, a new connection is told to come again.
const RESERVE: usize = 128 << 10;

/// Serves until the program ends.
///
/// # Errors
/// There is no network, or the port is taken.
pub async fn serve(env: Env) -> Result<(), NetworkError> {
    let net = env.net().await?;
    let listener = net.listen(PORT)?;
    log::info!("listening on port {PORT}");
    loop {
        let stream = listener.accept().await?;
        env.spawn(connection(env.clone(), stream)).detach();
    }
}

/// Answers the requests of one connection, one after the other.
async fn connection(env: Env, stream: TcpStream) {
    let mut received = Vec::new();
    loop {
        let response = match env.timeout(REQUEST_PATIENCE, next(&env, &stream, &mut received)).await {
            Ok(Some(response)) => response,
            // Silence in the middle of a request gets an answer; silence between two does not.
            Err(_) if !received.is_empty() => Response::error(Status::RequestTimeout),
            Ok(None) | Err(_) => return,
        };
        let sent = env.timeout(ANSWER_PATIENCE, send(&stream, &response)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return stream.abort();
        }
        if !response.keep_alive {
            break;
        }
    }
    // What the client still sends is read: closing with bytes unread would be a reset, which may overtake the answer.
    stream.shutdown();
    let mut rest = [0; 512];
    let farewell = async { while let Ok(1..) = stream.read(&mut rest).await {} };
    let _ = env.timeout(FAREWELL, farewell).await;
}

/// Receives the next request and answers it; `None` if the client has closed the connection.
async fn next(env: &Env, stream: &TcpStream, received: &mut Vec<u8>) -> Option<Response> {
    loop {
        match request::parse(received) {
            Ok(None) => {}
            Ok(Some((request, length))) => {
                let response = Response::to(&request, || stats::json(&env.stats()));
                received.drain(..length);
                return Some(response);
            }
            Err(status) => return Some(Response::error(status)),
        }
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.ok().filter(|&length| length > 0)?;
        if env.memory().free() < RESERVE || received.try_reserve(length).is_err() {
            return Some(Response::error(Status::ServiceUnavailable));
        }
        received.extend_from_slice(&buffer[..length]);
    }
}

async fn send(stream: &TcpStream, response: &Response) -> Result<(), fata::net::Error> {
    for part in [response.head().as_bytes(), response.body()] {
        stream.write_all(part).await?;
    }
    Ok(())
}
