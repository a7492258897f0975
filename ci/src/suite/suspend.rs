//! Guests that are saved, restored, migrated and copied.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::bench::Running;
use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    ("suspend::a_download_survives", a_download_survives),
    ("suspend::nothing_is_left_behind", nothing_is_left_behind),
    (
        "suspend::a_save_that_fails_changes_nothing",
        a_save_that_fails_changes_nothing,
    ),
    ("suspend::four_interfaces", four_interfaces),
    ("suspend::a_guest_with_a_balloon", a_guest_with_a_balloon),
    ("suspend::a_guest_without_a_backend", a_guest_without_a_backend),
    ("suspend::a_copy_changes_nothing", a_copy_changes_nothing),
    (
        "suspend::tasks_are_told_and_clocks_are_right",
        tasks_are_told_and_clocks_are_right,
    ),
];

/// `xl save` and `xl restore`. The restored domain has another number.
pub(super) const SAVE_AND_RESTORE: &str =
    "xl save NAME /tmp/NAME.save 2>&1 && xl restore /tmp/NAME.save 2>&1 && rm /tmp/NAME.save";

/// To this host and without a network in between; else as to any other.
const MIGRATE: &str = "xl migrate -s '' NAME 'xl migrate-receive' 2>&1";

/// Debian's Xen is built without shadow page tables, and so cannot tell which pages of a running PV guest change
/// (xen/arch/x86/mm/shadow/none.c): no PV guest is migrated here, whoever it is. It must live through the attempt.
const MIGRATE_IN_VAIN: &str = "! xl migrate -s '' NAME 'xl migrate-receive' 2>&1";

fn migrate(bench: &Bench<'_>, guest: &Running<'_>) -> Result<(), Failure> {
    let script = if bench.is_pv() { MIGRATE_IN_VAIN } else { MIGRATE };
    toolstack(bench, guest, script)
}

/// Makes a copy while the guest stands still, and lets it go on.
const COPY: &str = "xl save -c NAME /tmp/NAME.save 2>&1 && rm /tmp/NAME.save";

pub(super) fn toolstack(bench: &Bench<'_>, guest: &Running<'_>, script: &str) -> Result<(), Failure> {
    bench.dom0(&script.replace("NAME", &guest.name)).map(drop)
}

/// What must not grow: grants, ports, watches, tasks, memory in use.
pub(super) fn holdings(bench: &Bench<'_>, guest: &Running<'_>) -> Result<[u64; 5], Failure> {
    let text = bench.dom0(&format!("curl -sS --fail http://{}/stats", guest.v4))?;
    let stats: Value = serde_json::from_str(&text).map_err(|error| Failure::Wrong(format!("{error}: {text}")))?;
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(u64::MAX);
    ensure!(number("/grants/quarantined") == 0, "pages in quarantine: {text}");
    Ok(["/grants/active", "/ports", "/watches", "/tasks", "/memory/used"].map(number))
}

pub(super) fn a_download_survives(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    bench.peer(&format!("chargen {}:19 --bytes 1", echo.v4))?;
    // Every byte is compared with what it should be.
    bench.dom0(&format!(
        "(/tmp/peer chargen {}:19 --bytes {} > /tmp/download 2>&1; echo \"status $?\" >> /tmp/download) &",
        echo.v4,
        64 << 20
    ))?;
    let received = || {
        bench.dom0(&format!(
            "cat /sys/class/net/vif$(xl domid {}).0/statistics/rx_bytes",
            echo.name
        ))
    };
    let began = Instant::now();
    while received()?.trim().parse().unwrap_or(0_u64) < 8 << 20 {
        ensure!(began.elapsed() < Duration::from_secs(60), "the download does not begin");
    }
    toolstack(bench, &echo, SAVE_AND_RESTORE)?;
    let rest = received()?.trim().parse().unwrap_or(0_u64);
    ensure!(rest < 48 << 20, "it was over before the guest was saved");
    bench.dom0("n=0; until grep -q status /tmp/download; do n=$((n+1)); test $n -lt 600; usleep 100000; done")?;
    let result = bench.dom0("cat /tmp/download; rm /tmp/download")?;
    ensure!(result.contains("status 0"), "the download failed: {result}");
    Ok(())
}

pub(super) fn nothing_is_left_behind(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    // Once, so that what is made at the first time is there.
    toolstack(bench, &http, SAVE_AND_RESTORE)?;
    let before = holdings(bench, &http)?;
    for round in 0..20 {
        toolstack(bench, &http, SAVE_AND_RESTORE)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
        let [.., used] = before;
        let after = holdings(bench, &http)?;
        let [.., used_now] = after;
        ensure!(
            before[..4] == after[..4] && used_now < used + (16 << 10),
            "round {round}: {before:?}, {after:?}"
        );
    }
    for _ in 0..5 {
        migrate(bench, &http)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    }
    let after = holdings(bench, &http)?;
    ensure!(
        before == after,
        "grants, ports, watches, tasks, heap: {before:?}, at the end {after:?}"
    );
    Ok(())
}

pub(super) fn a_copy_changes_nothing(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    let id = bench.host.domain(&http.name)?.map(|domain| domain.id);
    let before = holdings(bench, &http)?;
    for _ in 0..3 {
        toolstack(bench, &http, COPY)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    }
    let console = http.says("only copied")?;
    ensure!(!console.contains("resumed"), "it takes itself for restored:\n{console}");
    let same = bench.host.domain(&http.name)?.map(|domain| domain.id);
    ensure!(id == same, "another domain: {id:?}, {same:?}");
    let after = holdings(bench, &http)?;
    ensure!(
        before == after,
        "grants, ports, watches, tasks, heap: {before:?}, after three copies {after:?}"
    );
    // And a guest that was copied can still be saved.
    toolstack(bench, &http, SAVE_AND_RESTORE)?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4)).map(drop)
}

pub(super) fn tasks_are_told_and_clocks_are_right(bench: &Bench<'_>) -> Result<(), Failure> {
    let probe = bench.start(bench.guest("probe")?.arguments("-- lifecycle"))?;
    probe.says("waiting")?;
    bench.dom0(&format!("xl save {0} /tmp/{0}.save 2>&1 && sleep 3", probe.name))?;
    bench.dom0(&format!(
        "xl restore /tmp/{0}.save 2>&1 && rm /tmp/{0}.save",
        probe.name
    ))?;
    let console = probe.says("timers run")?;
    let number = |before: &str, after: &str| {
        let (_, rest) = console.split_once(before)?;
        rest.split_once(after)?.0.trim().parse::<u64>().ok()
    };
    let (Some(then), Some(up), Some(clock)) = (
        number("suspending, up", "ms"),
        number("resumed, up", "ms"),
        number("ms, clock", "s"),
    ) else {
        return Err(Failure::Wrong(format!("not told:\n{console}")));
    };
    ensure!(
        (then..then + 2500).contains(&up),
        "{then} ms up, after three seconds in a file {up} ms"
    );
    let now: u64 = bench.dom0("date +%s")?.trim().parse().unwrap_or_default();
    ensure!(
        (now - 60..=now + 1).contains(&clock),
        "its clock says {clock}, dom0's {now}"
    );
    Ok(())
}

/// The disk is full when most is written: the toolstack gives up, and the guest, which stood still already, goes on.
pub(super) fn a_save_that_fails_changes_nothing(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    let before = holdings(bench, &http)?;
    let script = "mkdir -p /tmp/small && mount -t tmpfs -o size=1m none /tmp/small || exit 1; \
                  xl save NAME /tmp/small/NAME 2>&1; saved=$?; umount /tmp/small; test $saved -ne 0";
    toolstack(bench, &http, script)?;
    http.says("not suspended after all")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    let after = holdings(bench, &http)?;
    ensure!(
        before == after,
        "grants, ports, watches, tasks, heap: {before:?}, after the failure {after:?}"
    );
    Ok(())
}

/// Several backends, and more pages of grants than one.
pub(super) fn four_interfaces(bench: &Bench<'_>) -> Result<(), Failure> {
    let mut guest = bench.server("http", "")?.memory_mib(16);
    for n in 1..4 {
        guest = guest.vif(&format!("00:16:3e:77:00:{n:02x}"));
    }
    let http = bench.start(guest)?;
    http.says("listening")?;
    for _ in 0..2 {
        toolstack(bench, &http, SAVE_AND_RESTORE)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
        bench.dom0(&format!(
            "n=0; until test $(xenstore-list /local/domain/$(xl domid {0})/device/vif | while read i; do \
             xenstore-read /local/domain/$(xl domid {0})/device/vif/$i/state; done | grep -c 4) = 4; \
             do n=$((n+1)); test $n -lt 100; usleep 100000; done",
            http.name
        ))?;
    }
    Ok(())
}

/// What is in the balloon is not saved, and can be had back.
pub(super) fn a_guest_with_a_balloon(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.memory_mib(24))?;
    http.says("listening")?;
    for script in [
        "xl mem-set NAME 16",
        SAVE_AND_RESTORE,
        "xl mem-set NAME 24",
        SAVE_AND_RESTORE,
    ] {
        toolstack(bench, &http, script)?;
        bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    }
    bench.dom0(&format!(
        "n=0; until test $(xl list {0} | awk 'END {{ print $3 }}') -ge 23; do n=$((n+1)); test $n -lt 100; usleep 100000; done",
        http.name
    ))?;
    bench
        .peer(&format!(
            "http {}:80 / --requests 100 --parallel 8 --expect Fata",
            http.v4
        ))
        .map(drop)
}

/// In the middle of the handshake: netback waits for the hotplug script's word, which was taken back. In the next life it
/// gets it.
pub(super) fn a_guest_without_a_backend(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start_paused(bench.server("http", "")?)?;
    bench.dom0(&format!(
        "xenstore-rm /local/domain/0/backend/vif/$(xl domid {0})/0/hotplug-status; xl unpause {0}; \
         n=0; until test \"$(xenstore-read /local/domain/$(xl domid {0})/device/vif/0/state)\" = 4; \
         do n=$((n+1)); test $n -lt 100; usleep 50000; done",
        http.name
    ))?;
    toolstack(bench, &http, SAVE_AND_RESTORE)?;
    http.says("listening")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4)).map(drop)
}
