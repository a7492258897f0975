//! How long a command takes until its server answers for the first time.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::http::get;

/// How long one attempt to connect may take. Until the server's Ethernet address is known the kernel keeps its SYN; so
/// one attempt waits for the guest without a use of the processor, and goes on with the guest's first word.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between attempts, when the guest is there and its server is not.
const PAUSE: Duration = Duration::from_micros(200);
/// After which nothing is expected any more.
const LIMIT: Duration = Duration::from_secs(120);

/// Starts the command, asks until there is an answer, and prints both times in microseconds.
pub(crate) fn run(address: SocketAddr, options: &Options) -> ExitCode {
    let mut words = options.run.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdout(Stdio::null());
    let began = Instant::now();
    let mut child = match command.spawn() {
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
            Err(_) => thread::sleep(PAUSE),
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
