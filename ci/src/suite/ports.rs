//! Guests with very many event channels.

use super::bench::PATIENCE;
use super::suspend::{SAVE_AND_RESTORE, toolstack};
use super::{Bench, Failure, Test, ensure};
use crate::Guest;

pub(super) const TESTS: &[Test] = &[
    ("ports::six_thousand_and_a_restore", six_thousand_and_a_restore),
    (
        "ports::all_that_the_configuration_gives",
        all_that_the_configuration_gives,
    ),
];

/// A guest that wants so many, and may have so many if that is said.
fn guest(bench: &Bench<'_>, wanted: &str, limit: Option<u32>) -> Result<Guest, Failure> {
    let guest = bench.guest("ports")?.memory_mib(32).arguments(wanted);
    Ok(match limit {
        Some(limit) => guest.event_channels(limit),
        None => guest,
    })
}

/// More than the two-level form has. All are opened, signalled and closed; the ports of the new domain are other ones, and it
/// changes over to the FIFO form again.
pub(super) fn six_thousand_and_a_restore(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.start(guest(bench, "6000", Some(8191))?)?;
    guest.says("1: signalled 6000 ports")?;
    toolstack(bench, &guest, SAVE_AND_RESTORE)?;
    let console = guest.says("2: signalled 6000 ports")?;
    for life in [1, 2] {
        let form = format!("{life}: 6000 ports, FIFO");
        ensure!(console.contains(&form), "not the FIFO form:\n{console}");
    }
    // xenstore's; boot's console waits for no event.
    let open = console.lines().filter(|line| line.ends_with(" events, 1 open")).count();
    ensure!(open == 2, "ports are left:\n{console}");
    bench.host.shutdown(&guest.name, PATIENCE)?;
    guest.ends_with(0).map(drop)
}

/// At the limit an error says how to have more, and what is open works; that is so in either form. By default there are as
/// many as fit into the two-level form, which is not left then.
pub(super) fn all_that_the_configuration_gives(bench: &Bench<'_>) -> Result<(), Failure> {
    for (limit, form, most) in [(None, "two-level", 1023), (Some(1100), "FIFO", 1100)] {
        let guest = bench.start(guest(bench, "all", limit)?)?;
        let console = guest.says("1: signalled")?;
        ensure!(
            console.contains("no more: no event channel is free (max_event_channels= in the domain's configuration)"),
            "no reason:\n{console}"
        );
        // All but one or both of console's and xenstore's, and maybe a single one.
        let ports = console.lines().find_map(|line| {
            line.trim()
                .strip_prefix("1: ")?
                .strip_suffix(&format!(" ports, {form}"))
        });
        let ports: u32 = ports.and_then(|ports| ports.parse().ok()).unwrap_or(0);
        ensure!(
            (most - 3..most).contains(&ports),
            "{limit:?}: {ports} ports, {form}:\n{console}"
        );
    }
    Ok(())
}
