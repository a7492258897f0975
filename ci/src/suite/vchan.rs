//! Streams between domains, with Xen's own libxenvchan at the other end, and without.

use std::io::Write;

use super::bench::Running;
use super::{Bench, Failure, Test, ensure};
use crate::Guest;

pub(super) const TESTS: &[Test] = &[
    ("vchan::libxenvchan_connects_to_us", libxenvchan_connects_to_us),
    ("vchan::we_connect_to_libxenvchan", we_connect_to_libxenvchan),
    ("vchan::two_guests_talk", two_guests_talk),
    ("vchan::a_client_is_destroyed", a_client_is_destroyed),
];

/// Where all of them meet, below the server's own nodes.
const PATH: &str = "data/vchan/test";

/// The number of a running guest.
fn id(guest: &Running<'_>) -> Result<u32, Failure> {
    Ok(guest.host.domain(&guest.name)?.map_or(0, |domain| domain.id))
}

/// Has a guest listen with rings of that size, and then do something.
fn listen<'a>(bench: &Bench<'a>, guest: Guest, size: usize, work: &str) -> Result<Running<'a>, Failure> {
    let guest = bench.start(guest.arguments(format!("-- vchan listen {PATH} {size} {work}")))?;
    guest.says("whose?")?;
    Ok(guest)
}

fn for_client(server: &Running<'_>, client: u32) -> Result<(), Failure> {
    let mut terminal = server.host.attach(&server.name)?;
    write!(terminal, "{client}\r").map_err(|error| Failure::Wrong(format!("console: {error}")))?;
    server.says("listening")?;
    Ok(())
}

/// Has a guest wait for a server, and then do something.
fn connect<'a>(bench: &Bench<'a>, guest: Guest, server: u32, work: &str) -> Result<Running<'a>, Failure> {
    let path = format!("/local/domain/{server}/{PATH}");
    bench.start(guest.arguments(format!("-- vchan connect {server} {path} {work}")))
}

/// Sends 1 MiB through `vchan-socket-proxy` in dom0, gets it back, and compares. Then the proxy is killed, in whose stead Linux
/// tells the guest; or, if the guest has closed its end, it ends by itself.
fn through_the_proxy(bench: &Bench<'_>, arguments: &str) -> Result<(), Failure> {
    // Its input does not end before it does, and is a file description of its own: it makes it non-blocking.
    bench.dom0(&format!(
        "cd /tmp; head -c 1048576 /dev/urandom >vchan.sent; rm -f vchan.*k vchan.pipe; mkfifo vchan.pipe; exec 3<>vchan.pipe\n\
         vchan-socket-proxy {arguments} - <vchan.pipe >vchan.back & cat vchan.sent >&3\n\
         while [ $(stat -c %s vchan.back) -lt 1048576 ]; do sleep 0.1; done\n\
         cmp vchan.sent vchan.back && {{ kill -KILL $! || true; }}"
    ))?;
    Ok(())
}

/// Whether the guest has ended, and noticed its peer's end if it was that which ended it.
fn ended(guest: &Running<'_>, by_the_other: bool) -> Result<(), Failure> {
    let console = guest.ends_with(0)?;
    let seen = console.contains("the other end is gone");
    ensure!(seen || !by_the_other, "nothing was noticed:\n{console}");
    Ok(())
}

pub(super) fn libxenvchan_connects_to_us(bench: &Bench<'_>) -> Result<(), Failure> {
    let server = listen(bench, bench.guest("probe")?, 0, "echo 2000000000")?;
    for_client(&server, 0)?;
    let id = id(&server)?;
    through_the_proxy(bench, &format!("{id} /local/domain/{id}/{PATH}"))?;
    ended(&server, true)
}

pub(super) fn we_connect_to_libxenvchan(bench: &Bench<'_>) -> Result<(), Failure> {
    let client = connect(bench, bench.guest("probe")?, 0, "echo 1048576")?;
    let id = id(&client)?;
    through_the_proxy(bench, &format!("--mode=server {id} /local/domain/0/{PATH}"))?;
    ended(&client, false)
}

/// A PV guest answers a PVH guest, through rings of many pages. Then its domain is destroyed.
fn two_guests_talk(bench: &Bench<'_>) -> Result<(), Failure> {
    let server = listen(bench, bench.guest("probe")?.pv(), 1 << 20, "echo 2000000000")?;
    let client = connect(bench, bench.guest("probe")?, id(&server)?, "ask 1048576")?;
    for_client(&server, id(&client)?)?;
    client.says("answered")?;
    server.host.destroy(&server.name)?;
    ended(&client, true)
}

/// The server has nothing but Xen to tell it.
fn a_client_is_destroyed(bench: &Bench<'_>) -> Result<(), Failure> {
    let server = listen(bench, bench.guest("probe")?, 0, "echo 2000000000")?;
    let client = connect(bench, bench.guest("probe")?, id(&server)?, "ask 1000")?;
    for_client(&server, id(&client)?)?;
    client.says("answered")?;
    client.host.destroy(&client.name)?;
    ended(&server, true)
}
