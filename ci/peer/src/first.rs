//! How long a command takes until its server answers for the first time.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::http::get;

/// A SYN that nobody answers is given up after this time and followed by a new one: TCP itself would wait a second.
const PATIENCE: Duration = Duration::from_millis(2);
/// After which nothing is expected any more.
const LIMIT: Duration = Duration::from_secs(120);

/// Starts the command, asks until there is an answer, and prints both times in microseconds.
pub(crate) fn run(address: SocketAddr, options: &Options) -> ExitCode {
    let began = Instant::now();
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(&options.run)
        .stdout(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("fata-peer: {}: {error}", options.run);
            return ExitCode::FAILURE;
        }
    };
    let waiter = thread::spawn(move || (child.wait(), began.elapsed()));
    let first = loop {
        if began.elapsed() > LIMIT {
            eprintln!("fata-peer: no answer");
            return ExitCode::FAILURE;
        }
        let answered = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            get(&mut stream, options)
        });
        match answered {
            Ok(_) => break began.elapsed(),
            // A network that is not there yet refuses at once.
            Err(_) => thread::sleep(PATIENCE / 2),
        }
    };
    match waiter.join() {
        Ok((Ok(status), returned)) if status.success() => {
            println!(
                r#"{{"returned_us":{},"first_us":{}}}"#,
                returned.as_micros(),
                first.as_micros()
            );
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("fata-peer: {} failed", options.run);
            ExitCode::FAILURE
        }
    }
}
