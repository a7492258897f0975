//! A connection to xenstored, one request at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use fata_xenstore::wire::{HEADER_LEN, Header, Packet, Path, Permission, Reply, Request};

/// A connection to xenstored.
pub(crate) struct Store(UnixStream);

impl Store {
    pub(crate) fn connect() -> io::Result<Self> {
        UnixStream::connect("/run/xenstored/socket").map(Self)
    }

    pub(crate) fn read(&mut self, path: &str) -> io::Result<String> {
        let request = Request::Read(Path::new(path).map_err(io::Error::other)?);
        self.ask(&request, |reply| match reply {
            Reply::Value(value) => String::from_utf8(value.to_vec()).ok(),
            _ => None,
        })
    }

    pub(crate) fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        let path = Path::new(path).map_err(io::Error::other)?;
        let value = value.as_bytes();
        self.done(&Request::Write { path, value })
    }

    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.done(&Request::Rm(Path::new(path).map_err(io::Error::other)?))
    }

    /// Gives a node to a domain; dom0 may read it. Nodes that are made below it are the same.
    pub(crate) fn give(&mut self, path: &str, domain: u16) -> io::Result<()> {
        let entries = [format!("n{domain}"), "r0".to_owned()];
        let permissions: Result<Vec<_>, _> = entries
            .iter()
            .map(|entry| Permission::parse(entry.as_bytes()))
            .collect();
        self.done(&Request::SetPerms {
            path: Path::new(path).map_err(io::Error::other)?,
            permissions: permissions.map_err(io::Error::other)?.into(),
        })
    }

    fn done(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.ask(request, |reply| (reply == Reply::Ok).then_some(()))
    }

    fn ask<T>(&mut self, request: &Request<'_>, understand: impl Fn(Reply<'_>) -> Option<T>) -> io::Result<T> {
        let mut message = Vec::new();
        request.encode(0, 0, &mut message).map_err(io::Error::other)?;
        self.0.write_all(&message)?;
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header)?;
        let Header {
            kind, req_id, tx_id, ..
        } = Header::decode(&header);
        let length = Header::decode(&header).payload_len().map_err(io::Error::other)?;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        let packet = Packet {
            kind,
            req_id,
            tx_id,
            payload: &payload,
        };
        let reply = Reply::parse(request.kind(), packet).map_err(io::Error::other)?;
        let strange = format!("xenstored: {reply:?}");
        understand(reply).ok_or_else(|| io::Error::other(strange))
    }
}
