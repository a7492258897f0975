//! Amounts of memory that lie beyond something.

use super::balloon::{memory, set};
use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    ("memory::pvh_beyond_4_gib", pvh_beyond_4_gib),
    ("memory::pv_grows_as_far_as_its_books", |bench| {
        pv_grows_as_far_as_its_books(&bench.with_pv_guests())
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
