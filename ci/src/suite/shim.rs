//! PV guests inside a Xen of their own, which is a PVH guest of the host's (`pvshim`).

use super::bench::PATIENCE;
use super::{Bench, Failure, Test, ensure};
use crate::Guest;

pub(super) const TESTS: &[Test] = &[
    ("shim::hello_says_what_it_was_given", hello_says_what_it_was_given),
    ("shim::http_serves", http_serves),
];

/// In a Xen of its own, which wants 20 MiB. What QEMU emulates calls itself a K8, whose register HWCR a Xen believes to have, and
/// another Xen does not let it: one of a newer family does not look for it.
fn in_shim(guest: Guest) -> Guest {
    guest
        .memory_mib(64)
        .line("pvshim = 1")
        .line("cpuid = \"host,family=23\"")
}

fn hello_says_what_it_was_given(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = in_shim(bench.guest("hello")?).arguments("hostname=inner -- one");
    let console = bench.start(hello)?.ends_with(0)?;
    ensure!(
        console.contains("inner") && console.contains("one"),
        "not what it was given:\n{console}"
    );
    Ok(())
}

fn http_serves(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(in_shim(bench.server("http", "")?))?;
    http.says("listening")?;
    bench.peer(&format!(
        "http {}:80 / --requests 200 --parallel 8 --expect Fata",
        http.v4
    ))?;
    bench.host.shutdown(&http.name, PATIENCE)?;
    http.ends_with(0).map(drop)
}
