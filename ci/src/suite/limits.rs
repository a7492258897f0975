//! What Xen allows a domain to have, to the last one.

use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    ("limits::a_full_grant_table_is_said", a_full_grant_table_is_said),
    (
        "limits::the_grant_table_grows_to_the_limit",
        the_grant_table_grows_to_the_limit,
    ),
];

/// Entries of a page of the table, and those that belong to the toolstack (xen/include/public/grant_table.h).
const ENTRIES: u32 = 512;
const RESERVED: u32 = 8;

/// Has a guest share pages until a table of so many pages is full; it goes on afterwards.
fn fill(bench: &Bench<'_>, pages: u32, limited: bool) -> Result<(), Failure> {
    let entries = pages * ENTRIES - RESERVED;
    // 4 KiB each, beside the program, and some that are too few for a whole vchan.
    let guest = bench
        .guest("probe")?
        .arguments("-- grants")
        .memory_mib(entries / 256 + 10);
    let guest = if limited { guest.max_grant_frames(pages) } else { guest };
    let console = bench.start(guest)?.ends_with(0)?;
    for text in [
        "grant table full: 1 references wanted, 0 free (max_grant_frames= in",
        &format!("full with {entries} in use"),
        "empty with 0 in use",
        "again with 513 in use",
    ] {
        ensure!(console.contains(text), "`{text}` is missing:\n{console}");
    }
    Ok(())
}

pub(super) fn a_full_grant_table_is_said(bench: &Bench<'_>) -> Result<(), Failure> {
    fill(bench, 4, true)
}

/// As far as Xen goes when nobody says anything.
pub(super) fn the_grant_table_grows_to_the_limit(bench: &Bench<'_>) -> Result<(), Failure> {
    fill(bench, 64, false)
}
