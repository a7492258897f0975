//! Amounts of memory that lie beyond something.

use super::balloon::{memory, set};
use super::debug::backtrace;
use super::suspend::{SAVE_AND_RESTORE, toolstack};
use super::{Bench, Failure, Test, ensure};
use crate::{DomainState, Guest};

pub(super) const TESTS: &[Test] = &[
    ("memory::pvh_beyond_4_gib", pvh_beyond_4_gib),
    ("memory::pv_grows_as_far_as_its_books", |bench| {
        pv_grows_as_far_as_its_books(&bench.with_pv_guests())
    }),
    ("memory::pv_is_saved_with_its_list_behind_2_mib", |bench| {
        is_saved_and_dumped(&bench.with_pv_guests(), |guest| guest)
    }),
    ("memory::pv_is_saved_with_a_longer_list_behind_2_mib", |bench| {
        is_saved_and_dumped(&bench.with_pv_guests(), |guest| guest.line("maxmem = 512"))
    }),
];

/// Memory up to where the toolstack has its own pages, and some above 4 GiB. Xen has no more than 64 MiB of it. With `hello`, which
/// has no balloon: to say of a million pages that they are not there takes a minute in this emulation.
fn pvh_beyond_4_gib(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = bench.guest("hello")?.memory_mib(64);
    bench.start(hello.line("maxmem = 5120"))?.ends_with(0).map(drop)
}

/// A PV guest keeps books of 32 times what it begins with. What Xen would let it have beyond that it does without.
fn pv_grows_as_far_as_its_books(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.server("http", "")?.memory_mib(8).line("maxmem = 1024");
    let http = bench.start(http)?;
    http.says("listening")?;
    let holds = |mib: u32| {
        let now = memory(bench, &http)?;
        let ballooned = f64::from(8 * 32 - mib) * 1048576.0;
        ensure!(now.ballooned == ballooned, "at {mib} MiB: {now:?}");
        Ok(())
    };
    holds(8)?;
    for mib in [24, 8] {
        set(bench, &http, mib)?;
        holds(mib)?;
    }
    Ok(())
}

/// Xen's toolstack finds a PV guest's memory by its list of machine frames, wherever that lies. With a module before it the
/// builder's list lies behind 2 MiB, and with a large maximum our longer one behind that.
fn is_saved_and_dumped(bench: &Bench<'_>, with: fn(Guest) -> Guest) -> Result<(), Failure> {
    let http = bench.server("http", "")?.memory_mib(32).ramdisk(vec![0; 1 << 20]);
    let http = bench.start(with(http))?;
    http.says("listening")?;
    for _ in 0..2 {
        bench
            .host
            .wait_for_state(&http.name, DomainState::Blocked, super::bench::PATIENCE)?;
        let path = format!("/tmp/{}.core", http.name);
        bench.dom0(&format!("xl dump-core {} {path}", http.name))?;
        let core = bench.host.get(&path)?;
        bench.dom0(&format!("rm {path}"))?;
        let text = backtrace(bench, "http", core)?;
        ensure!(
            text.contains("events/src/xen/run.rs:"),
            "its loop is not there:\n{text}"
        );
        toolstack(bench, &http, SAVE_AND_RESTORE)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    }
    Ok(())
}
