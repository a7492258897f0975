//! Amounts of memory that lie beyond something.

use super::{Bench, Failure, Test};

pub(super) const TESTS: &[Test] = &[("memory::pvh_beyond_4_gib", pvh_beyond_4_gib)];

/// Memory up to where the toolstack has its own pages, and some above 4 GiB. Xen has no more than 64 MiB of it. With `hello`, which
/// has no balloon: to say of a million pages that they are not there takes a minute in this emulation.
fn pvh_beyond_4_gib(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = bench.guest("hello")?.memory_mib(64);
    bench.start(hello.line("maxmem = 5120"))?.ends_with(0).map(drop)
}
