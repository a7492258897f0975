//! The conversation with the agent in dom0 (`ci/dom0/agent`): one TCP connection per request.
//!
//! A connection per request is what survives a snapshot best: nothing is open when it is taken, and requests from several
//! threads do not wait for each other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Beyond a command's own limit, for the way there and back on a busy computer.
const GRACE: Duration = Duration::from_secs(60);
/// For transferring a file.
const TRANSFER: Duration = Duration::from_secs(120);
/// The exit status of a command that `timeout -s KILL` ended.
const KILLED: i32 = 137;

/// What a command in dom0 left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 137 when it was killed because its time was over.
    pub status: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// Where the agent is reached: a port of 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent {
    pub(crate) port: u16,
}

impl Agent {
    /// Runs a shell script; it is killed after `limit`.
    pub(crate) fn run(&self, script: &str, limit: Duration) -> Result<Output, Error> {
        let header = format!("run {} {}\n", limit.as_secs_f64().ceil().max(1.0), script.len());
        let (status, stdout, stderr) = self.ask(&header, script.as_bytes(), limit + GRACE, first_line(script))?;
        if status == KILLED {
            let log = format!("{}{}", lossy(&stdout), lossy(&stderr));
            return Err(Error::Timeout {
                what: format!("`{}` in dom0", first_line(script)),
                after: limit,
                log,
            });
        }
        Ok(Output {
            status,
            stdout: lossy(&stdout),
            stderr: lossy(&stderr),
        })
    }

    /// Writes a file, with its folders; it appears under its name only when it is whole.
    pub(crate) fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        check_path(path)?;
        let header = format!("put {} {mode:o} {path}\n", content.len());
        let (status, _, stderr) = self.ask(&header, content, TRANSFER, path)?;
        succeed(format!("write {path}"), status, &stderr)
    }

    /// Reads a file.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        check_path(path)?;
        let (status, stdout, stderr) = self.ask(&format!("get {path}\n"), &[], TRANSFER, path)?;
        succeed(format!("read {path}"), status, &stderr).map(|()| stdout)
    }

    /// Runs a script whose standard input and output are the returned connection.
    pub(crate) fn stream(&self, script: &str) -> Result<TcpStream, Error> {
        let open = || {
            let mut stream = self.connect()?;
            stream.write_all(format!("stream {}\n{script}", script.len()).as_bytes())?;
            io::Result::Ok(stream)
        };
        open().map_err(|source| Error::Agent {
            what: first_line(script).to_owned(),
            source,
        })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn ask(&self, header: &str, body: &[u8], limit: Duration, what: &str) -> Result<(i32, Vec<u8>, Vec<u8>), Error> {
        let exchange = || {
            let mut stream = Limited {
                stream: self.connect()?,
                end: Instant::now() + limit,
            };
            stream.stream.set_write_timeout(Some(limit))?;
            // One write, so that one packet carries a small request.
            stream.stream.write_all(&[header.as_bytes(), body].concat())?;
            let (status, out, err) = parse_header(&read_line(&mut stream)?)?;
            let stdout = read_exactly(&mut stream, out)?;
            let stderr = read_exactly(&mut stream, err)?;
            io::Result::Ok((status, stdout, stderr))
        };
        exchange().map_err(|source| Error::Agent {
            what: what.to_owned(),
            source,
        })
    }
}

/// A connection with one deadline for everything that is read.
struct Limited {
    stream: TcpStream,
    end: Instant,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < 100 && stream.read(&mut byte)? == 1 {
        match byte {
            [b'\n'] => return Ok(lossy(&line)),
            [byte] => line.push(byte),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection was closed before an answer",
    ))
}

fn read_exactly(stream: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = stream.take(length).read_to_end(&mut content)? as u64;
    if read == length {
        Ok(content)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// STATUS OUT ERR
fn parse_header(line: &str) -> io::Result<(i32, u64, u64)> {
    let mut fields = line.split(' ');
    let mut parse = || {
        let status = fields.next()?.parse().ok()?;
        Some((status, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    parse().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("strange answer `{line}`")))
}

fn succeed(command: String, status: i32, stderr: &[u8]) -> Result<(), Error> {
    if status == 0 {
        Ok(())
    } else {
        Err(Error::Command {
            command,
            status,
            output: lossy(stderr),
        })
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    if path.starts_with('/') && !path.contains(['\n', '\\']) {
        return Ok(());
    }
    Err(Error::Argument {
        what: format!("`{path}` is no absolute path in dom0"),
    })
}

fn first_line(script: &str) -> &str {
    script.trim().lines().next().unwrap_or_default()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// An agent that takes one connection, expects `request` and sends `answer`.
    fn fake(request: &'static str, answer: &'static str) -> (Agent, thread::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = vec![0; request.len()];
            stream.read_exact(&mut seen).unwrap();
            assert_eq!(String::from_utf8(seen).unwrap(), request);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        (Agent { port }, thread)
    }

    #[test]
    fn a_command_has_a_status_and_two_outputs() {
        let (agent, thread) = fake("run 3 7\nxl list", "2 3 4\nouterr!");
        let output = agent.run("xl list", Duration::from_millis(2500)).unwrap();
        assert_eq!(
            output,
            Output {
                status: 2,
                stdout: "out".into(),
                stderr: "err!".into()
            }
        );
        thread.join().unwrap();
    }

    #[test]
    fn a_killed_command_is_a_timeout() {
        let (agent, thread) = fake("run 1 8\nsleep 99", "137 1 0\nx");
        let error = agent.run("sleep 99", Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, Error::Timeout { log, .. } if log == "x"));
        thread.join().unwrap();
    }

    #[test]
    fn files_go_both_ways() {
        let (agent, thread) = fake("put 2 755 /a b\nhi", "0 0 0\n");
        agent.put("/a b", 0o755, b"hi").unwrap();
        thread.join().unwrap();
        let (agent, thread) = fake("get /x\n", "1 0 7\nmissing");
        assert!(matches!(agent.get("/x"), Err(Error::Command { status: 1, output, .. }) if output == "missing"));
        thread.join().unwrap();
        assert!(matches!(agent.get("relative"), Err(Error::Argument { .. })));
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        for answer in ["", "1 2", "x y z\n", "0 9 0\nshort"] {
            let (agent, thread) = fake("get /x\n", answer);
            assert!(matches!(agent.get("/x"), Err(Error::Agent { .. })), "{answer:?}");
            thread.join().unwrap();
        }
    }
}
