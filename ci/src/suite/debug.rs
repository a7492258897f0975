//! What is left of a guest leads to the source.

use std::io::Cursor;

use fata_backtrace::{Image, explain};

use super::bench::PATIENCE;
use super::{Bench, Failure, Test, boot, ensure};
use crate::DomainState;

pub(super) const TESTS: &[Test] = &[
    ("debug::a_fault_leads_to_the_source", a_fault_leads_to_the_source),
    ("debug::a_panic_leads_to_the_source", a_panic_leads_to_the_source),
];

/// Cores, which the suite has of PV guests only: of a PVH guest Xen's toolstack tries each page of the first 4 GiB, which takes
/// it ten minutes in this emulation.
pub(super) const CORES: &[Test] = &[
    ("pv::a_core_of_a_running_guest_shows_its_loop", |bench| {
        a_core_of_a_running_guest_shows_its_loop(&bench.with_pv_guests())
    }),
    ("pv::a_crash_leaves_a_core_that_shows_the_fault", |bench| {
        a_crash_leaves_a_core_that_shows_the_fault(&bench.with_pv_guests())
    }),
];

/// What `cargo fata backtrace IMAGE` prints for a log or a core.
pub(super) fn backtrace(bench: &Bench<'_>, image: &str, left: impl AsRef<[u8]>) -> Result<String, Failure> {
    let wrong = |error: fata_backtrace::Error| Failure::Wrong(error.to_string());
    let image = Image::open(&bench.image(&format!("{image}.debug"))).map_err(wrong)?;
    explain(&image, Cursor::new(left)).map_err(wrong)
}

/// All of `parts` must be there, in this order.
fn in_order(text: &str, parts: &[&str]) -> Result<(), Failure> {
    let mut rest = text;
    for part in parts {
        ensure!(
            rest.contains(part),
            "`{part}` is not there, or not in its place:\n{text}"
        );
        rest = rest.split_once(part).map_or("", |(_, rest)| rest);
    }
    Ok(())
}

pub(super) fn a_fault_leads_to_the_source(bench: &Bench<'_>) -> Result<(), Failure> {
    let text = backtrace(bench, "probe", boot::crash(bench, "null")?)?;
    in_order(
        &text,
        &[
            "fata: fault: page fault",
            "rip=",
            "read_null",
            "probe/src/faults.rs:",
            "probe/src/main.rs:",
            "fata_main",
        ],
    )
}

pub(super) fn a_panic_leads_to_the_source(bench: &Bench<'_>) -> Result<(), Failure> {
    let text = backtrace(bench, "probe", boot::crash(bench, "panic")?)?;
    in_order(
        &text,
        &["fata: panic at ", "asked to panic", "probe/src/main.rs:", "fata_main"],
    )
}

fn a_core_of_a_running_guest_shows_its_loop(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.host.wait_for_state(&http.name, DomainState::Blocked, PATIENCE)?;
    let path = format!("/tmp/{}.core", http.name);
    bench
        .host
        .check(&format!("xl dump-core {} {path}", http.name), PATIENCE)?;
    let core = bench.host.get(&path)?;
    bench.dom0(&format!("rm {path}"))?;
    let text = backtrace(bench, "http", core)?;
    in_order(
        &text,
        &["virtual CPU 0", "rip=", "poll", "events/src/xen/run.rs:", "fata_main"],
    )?;
    // It was not harmed.
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4)).map(drop)
}

fn a_crash_leaves_a_core_that_shows_the_fault(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench
        .guest("probe")?
        .arguments("-- null")
        .line("on_crash = \"coredump-destroy\"");
    let probe = bench.start(guest)?;
    bench.host.wait_for_state(&probe.name, DomainState::Absent, PATIENCE)?;
    let path = format!("/var/lib/xen/dump/{}", probe.name);
    let core = bench.host.get(&path)?;
    bench.dom0(&format!("rm {path}"))?;
    let text = backtrace(bench, "probe", core)?;
    in_order(
        &text,
        &[
            "virtual CPU 0",
            "boot/src/shutdown.rs:",
            "fault: vector 14, error 0x0",
            "read_null",
            "probe/src/faults.rs:",
            "probe/src/main.rs:",
            "fata_main",
        ],
    )
}
