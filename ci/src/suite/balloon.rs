//! Memory that goes to the host and comes back while the guest runs.

use serde_json::Value;

use super::{Bench, Failure, Test, ensure};
use crate::suite::bench::Running;

pub(super) const TESTS: &[Test] = &[
    ("balloon::it_shrinks_and_grows", it_shrinks_and_grows),
    (
        "balloon::it_starts_small_and_grows_to_its_maximum",
        it_starts_small_and_grows_to_its_maximum,
    ),
    (
        "balloon::twenty_times_to_the_floor_under_load",
        twenty_times_to_the_floor_under_load,
    ),
];

pub(super) fn it_shrinks_and_grows(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.memory_mib(32))?;
    http.says("listening")?;
    let at_first = memory(bench, &http)?;
    for mib in [16, 32, 24, 32] {
        set(bench, &http, mib)?;
        let now = memory(bench, &http)?;
        ensure!(
            now.ballooned == f64::from(32 - mib) * 1048576.0,
            "at {mib} MiB of 32: {now:?}"
        );
        ensure!(
            now.total + now.ballooned == at_first.total,
            "{at_first:?}, then {now:?}"
        );
    }
    Ok(())
}

/// With `maxmem` above `memory` Xen does not have all of the memory that there seems to be.
pub(super) fn it_starts_small_and_grows_to_its_maximum(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.server("http", "")?.memory_mib(16).line("maxmem = 64");
    let http = bench.start(http)?;
    http.says("listening")?;
    let at_first = memory(bench, &http)?;
    for mib in [16, 40, 64, 16] {
        set(bench, &http, mib)?;
        let now = memory(bench, &http)?;
        ensure!(
            now.ballooned == f64::from(64 - mib) * 1048576.0,
            "at {mib} MiB of 64: {now:?}"
        );
        ensure!(
            now.total + now.ballooned == at_first.total + at_first.ballooned,
            "{at_first:?}, then {now:?}"
        );
    }
    Ok(())
}

/// More is asked back than there is, again and again, while requests are answered: none fails, and it says so once a time. PVH
/// only, for it takes half a minute; a PV guest does the same in the two tests above.
pub(super) fn twenty_times_to_the_floor_under_load(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.memory_mib(32))?;
    http.says("listening")?;
    let at_first = memory(bench, &http)?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    bench.dom0(&format!(
        "(/tmp/peer http {}:80 / --requests 6000 --parallel 4 --expect Fata > /tmp/load 2>&1; echo \"status $?\" >> /tmp/load) &",
        http.v4
    ))?;
    for round in 0..20 {
        // As much as it keeps free in any case, so that it cannot be had. 4 MiB can, while few requests are in work.
        bench.dom0(&format!("xl mem-set {} 2m", http.name))?;
        // Two megabytes stay free; a batch more may do so for a moment.
        let mut looks = 0;
        while memory(bench, &http)?.free > 3.2 * 1048576.0 {
            looks += 1;
            ensure!(looks < 200, "round {round}: it keeps {:?}", memory(bench, &http)?);
        }
        // It takes a look of the guest's at what is left, which may come later than ours.
        http.says("were asked back")?;
        set(bench, &http, 32)?;
    }
    bench.dom0("n=0; until grep -q status /tmp/load; do n=$((n+1)); test $n -lt 600; usleep 100000; done")?;
    let result = bench.dom0("cat /tmp/load; rm /tmp/load")?;
    ensure!(result.contains("status 0"), "requests failed: {result}");
    let console = bench.host.console(&http.name)?;
    ensure!(
        console.matches("were asked back").count() <= 20,
        "it complains too often:\n{console}"
    );
    ensure!(
        memory(bench, &http)?.total == at_first.total,
        "it has less than at first"
    );
    Ok(())
}

/// What the guest says that it has, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) total: f64,
    pub(super) free: f64,
    pub(super) ballooned: f64,
}

pub(super) fn memory(bench: &Bench<'_>, http: &Running<'_>) -> Result<Memory, Failure> {
    let text = bench.dom0(&format!("curl -sS --fail http://{}/stats", http.v4))?;
    let stats: Value = serde_json::from_str(&text).map_err(|error| Failure::Wrong(format!("{error}: {text}")))?;
    let number = |name: &str| stats["memory"][name].as_f64().unwrap_or(-1.0);
    Ok(Memory {
        total: number("total"),
        free: number("free"),
        ballooned: number("ballooned"),
    })
}

/// Sets the target, and waits until Xen's books show it.
pub(super) fn set(bench: &Bench<'_>, guest: &Running<'_>, mib: u32) -> Result<(), Failure> {
    let name = &guest.name;
    bench.dom0(&format!(
        "xl mem-set {name} {mib}m; n=0; until test $(xl list {name} | awk 'END {{ print $3 }}') -eq {mib}; \
         do n=$((n+1)); test $n -lt 200 || {{ xl list; xenstore-ls /local/domain/$(xl domid {name})/memory; exit 1; }}; usleep 50000; done"
    ))?;
    Ok(())
}
