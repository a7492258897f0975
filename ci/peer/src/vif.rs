//! libxl's script for network backends as a program (xen: docs/misc/xl-network-configuration, "script"): puts a vif into
//! its bridge, and says so in xenstore. It is for measuring: of a shell script's 16 million instructions on the way to a
//! guest's start, next to none are Xen's or the guest's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::{env, fs};

use fata_xenstore::wire::{HEADER_LEN, Header, Packet, Path, Reply, Request};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

/// The name by which libxl calls this program.
pub(crate) const NAME: &str = "vif-bridge";

/// Does what libxl asks by the first argument and the environment (`xen:tools/libs/light/libxl_linux.c`).
pub(crate) fn run(action: Option<&str>) -> ExitCode {
    if action != Some("online") {
        // The bridge forgets an interface that disappears.
        return ExitCode::SUCCESS;
    }
    match online() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn online() -> io::Result<()> {
    let variable = |name| env::var(name).map_err(|_| io::Error::other(format!("no {name}")));
    let (vif, node) = (variable("vif")?, variable("XENBUS_PATH")?);
    let mut store = Store(UnixStream::connect("/run/xenstored/socket")?);
    let bridge = store.read(&format!("{node}/bridge"))?;
    let joined = join(&vif, &bridge);
    if let Err(error) = &joined {
        let text = format!("cannot add {vif} to bridge {bridge}: {error}");
        store.write(&format!("{node}/hotplug-error"), &text)?;
    }
    let status = if joined.is_ok() { "connected" } else { "error" };
    store.write(&format!("{node}/hotplug-status"), status)?;
    joined
}

/// Sets `vif` up, as a port of `bridge`: one message to the kernel (rtnetlink(7), `RTM_SETLINK`).
fn join(vif: &str, bridge: &str) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    // Its protocol 0 is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(
        &socket,
        &set_link(index(vif)?, index(bridge)?),
        SendFlags::empty(),
        &kernel,
    )?;
    let mut answer = [0; 128];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    match acknowledged(&answer[..length]) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The number of a network interface.
fn index(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// `struct nlmsghdr`, `struct ifinfomsg`, and one attribute: `IFLA_MASTER`.
fn set_link(index: u32, master: u32) -> Vec<u8> {
    const RTM_SETLINK: u16 = 19;
    const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    const IFLA_MASTER: u16 = 10;
    let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    let words = [
        40,
        halves(RTM_SETLINK, NLM_F_REQUEST_AND_ACK),
        1,
        0,
        0,
        index,
        IFF_UP,
        IFF_UP,
        halves(8, IFLA_MASTER),
        master,
    ];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// What an `NLMSG_ERROR` says: 0, or a negative error number.
fn acknowledged(message: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let value = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(value)
}

/// A connection to xenstored.
struct Store(UnixStream);

impl Store {
    fn read(&mut self, path: &str) -> io::Result<String> {
        let request = Request::Read(Path::new(path).map_err(io::Error::other)?);
        self.ask(&request, |reply| match reply {
            Reply::Value(value) => String::from_utf8(value.to_vec()).ok(),
            _ => None,
        })
    }

    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        let path = Path::new(path).map_err(io::Error::other)?;
        let value = value.as_bytes();
        let request = Request::Write { path, value };
        self.ask(&request, |reply| (reply == Reply::Ok).then_some(()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_it_says() {
        let message = set_link(7, 3);
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[20..24], 7_u32.to_ne_bytes());
        assert_eq!(message[36..], 3_u32.to_ne_bytes());
    }

    #[test]
    fn an_error_is_not_an_acknowledgement() {
        let mut answer = [0; 36];
        answer[4] = 2;
        assert_eq!(acknowledged(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-19_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer), Some(-19));
        answer[4] = 3;
        assert_eq!(acknowledged(&answer), None);
        assert_eq!(acknowledged(&answer[..10]), None);
    }
}
