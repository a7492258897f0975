//! The client on the other side of the integration tests. It runs in dom0, where it meets a guest through the real
//! netback, and checks every byte it gets.
//!
//! ```text
//! fata-peer http ADDRESS PATH --requests N --parallel C [--keep-alive] [--expect TEXT]
//! fata-peer echo ADDRESS --bytes N [--parallel C]
//! fata-peer discard ADDRESS --bytes N
//! fata-peer chargen ADDRESS --bytes N
//! fata-peer udp ADDRESS --requests N --bytes SIZE
//! fata-peer first ADDRESS PATH --run COMMAND
//! ```
//!
//! It prints one line of JSON. Exit status 0 means that nothing failed.
#![forbid(unsafe_code)]

mod first;
mod http;
mod streams;
mod work;

use std::net::SocketAddr;
use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};

/// The command line.
#[derive(Debug, Default)]
struct Options {
    command: String,
    address: Option<SocketAddr>,
    path: String,
    requests: u64,
    parallel: u64,
    bytes: u64,
    keep_alive: bool,
    expect: String,
    run: String,
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("fata-peer: {error}");
            return ExitCode::from(2);
        }
    };
    let Some(address) = options.address else {
        eprintln!("fata-peer: no address");
        return ExitCode::from(2);
    };
    if options.command == "first" {
        return first::run(address, &options);
    }
    let summary = match options.command.as_str() {
        "http" => http::run(address, &options),
        "echo" => work::run(1, options.parallel, |n| streams::echo(address, options.bytes, n)),
        "discard" => work::run(1, 1, |_| streams::discard(address, options.bytes)),
        "chargen" => work::run(1, 1, |_| streams::chargen(address, options.bytes)),
        "udp" => work::run(1, 1, |_| streams::udp(address, options.requests, options.bytes)),
        other => {
            eprintln!("fata-peer: unknown command `{other}`");
            return ExitCode::from(2);
        }
    };
    println!("{summary}");
    if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        requests: 1,
        parallel: 1,
        ..Options::default()
    };
    let mut words = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("requests") => options.requests = parser.value()?.parse()?,
            Long("parallel") => options.parallel = parser.value()?.parse()?,
            Long("bytes") => options.bytes = parser.value()?.parse()?,
            Long("expect") => options.expect = parser.value()?.string()?,
            Long("run") => options.run = parser.value()?.string()?,
            Long("keep-alive") => options.keep_alive = true,
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let mut words = words.into_iter();
    options.command = words.next().unwrap_or_default();
    options.address = match words.next() {
        Some(word) => Some(word.parse().map_err(|_| format!("`{word}` is not ADDRESS:PORT"))?),
        None => None,
    };
    options.path = words.next().unwrap_or_else(|| "/".into());
    Ok(options)
}
