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
//! And what measures, and checks no more than that all arrived, see `load.rs`:
//!
//! ```text
//! fata-peer push ADDRESS --bytes N
//! fata-peer pull ADDRESS --bytes N
//! fata-peer round-trip ADDRESS --requests N --bytes SIZE
//! fata-peer datagrams-in ADDRESS --requests WINDOWS --bytes SIZE
//! fata-peer datagrams-out ADDRESS --requests WINDOWS --bytes SIZE
//! fata-peer ping ADDRESS --requests N
//! fata-peer first-ping ADDRESS --domain ID
//! ```
//!
//! The last one lets that domain run, which was created paused, and asks it until it answers.
//!
//! With `--domain ID` the line says what it cost that domain, see `meter.rs`; with `--open N` there are N idle connections
//! to the same address meanwhile; with `--storm PORT` a thread signals that event channel of the domain in a loop.
//!
//! Installed as `vif-bridge` it is libxl's script for network backends.
//!
//! It prints one line of JSON. Exit status 0 means that nothing failed.
//!
//! `fata-peer serve` is the other side: the services of `ci/guests/services` on Linux.
#![forbid(unsafe_code)]

mod first;
mod http;
mod load;
mod meter;
mod ping;
mod serve;
mod storm;
mod streams;
mod vif;
mod work;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::{Long, Value, ValueExt};

use crate::meter::Meter;
use crate::ping::Pinger;
use crate::storm::Storm;
use crate::work::Summary;

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
    domain: Option<u16>,
    open: usize,
    storm: Option<u32>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    if arguments.next().is_some_and(|name| name.ends_with(vif::NAME)) {
        return vif::run(arguments.next().as_deref());
    }
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("fata-peer: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("fata-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<ExitCode> {
    if options.command == "serve" {
        return serve::run().map(|()| ExitCode::SUCCESS);
    }
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let address = options.address.ok_or_else(|| invalid("no address".into()))?;
    if options.command == "first" {
        return Ok(first::run(address, options));
    }
    // Beyond what the other side takes, this is where it ends.
    let idle: Vec<TcpStream> = (0..options.open)
        .map(|_| http::connect(address))
        .collect::<io::Result<_>>()?;
    let storm = match (options.domain, options.storm) {
        (Some(domain), Some(port)) => Some(Storm::start(domain, port)?),
        _ => None,
    };
    let meter = options.domain.map(Meter::read).transpose()?;
    let summary = load(address, options).ok_or_else(|| invalid(format!("unknown command `{}`", options.command)))?;
    match meter {
        None => println!("{summary}"),
        Some(meter) => println!(r#"{{"load":{summary},"cost":{}}}"#, meter.cost()?),
    }
    drop((idle, storm));
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `None`: there is no such load.
fn load(address: SocketAddr, options: &Options) -> Option<Summary> {
    let &Options {
        requests,
        parallel,
        bytes,
        ..
    } = options;
    Some(match options.command.as_str() {
        "http" => http::run(address, options),
        "echo" => work::run(1, parallel, |n| streams::echo(address, bytes, n)),
        "discard" => work::run(1, 1, |_| streams::discard(address, bytes)),
        "chargen" => work::run(1, 1, |_| streams::chargen(address, bytes)),
        "udp" => work::run(1, 1, |_| streams::udp(address, requests, bytes)),
        "push" => work::run(1, 1, |_| load::push(address, bytes)),
        "pull" => work::run(1, 1, |_| load::pull(address, bytes)),
        "round-trip" => with(
            requests,
            || http::connect(address),
            |stream| load::round_trip(stream, bytes),
        ),
        "datagrams-in" => with(
            requests,
            || load::datagrams(address),
            |socket| load::datagrams_in(socket, bytes),
        ),
        "datagrams-out" => with(
            requests,
            || load::datagrams(address),
            |socket| load::datagrams_out(socket, bytes),
        ),
        "ping" => with(
            requests,
            || Pinger::new(address.ip(), Duration::from_secs(5)),
            |pinger| pinger.ping().map(|()| 64),
        ),
        "first-ping" => work::run(1, 1, |_| {
            ping::first(address.ip(), options.domain.unwrap_or(0)).map(|()| 64)
        }),
        _ => return None,
    })
}

/// Does the same `requests` times, one after the other, with one thing that is opened for all of them.
fn with<T>(
    requests: u64,
    open: impl Fn() -> io::Result<T> + Sync,
    task: impl Fn(&mut T) -> io::Result<u64> + Sync,
) -> Summary {
    work::many(requests, 1, open, |opened, _| match opened {
        Ok(opened) => task(opened),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    })
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
            Long("domain") => options.domain = Some(parser.value()?.parse()?),
            Long("open") => options.open = parser.value()?.parse()?,
            Long("storm") => options.storm = Some(parser.value()?.parse()?),
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
