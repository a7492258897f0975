//! Devices that come and go while the guest runs, and backends that are loaded anew under it.

use super::bench::Running;
use super::suspend::holdings;
use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    (
        "devices::a_second_interface_comes_and_goes",
        a_second_interface_comes_and_goes,
    ),
    (
        "devices::a_download_survives_another_interface",
        a_download_survives_another_interface,
    ),
    (
        "devices::a_hundred_interfaces_leave_nothing_behind",
        a_hundred_interfaces_leave_nothing_behind,
    ),
    (
        "devices::netback_is_loaded_anew_under_a_server",
        netback_is_loaded_anew_under_a_server,
    ),
];

/// With another Ethernet address than any before.
const ATTACH: &str = "xl network-attach NAME mac=00:16:3e:00:ff:02,bridge=xenbr0";

fn dom0(bench: &Bench<'_>, guest: &Running<'_>, script: &str) -> Result<String, Failure> {
    bench.dom0(
        &script
            .replace("NAME", &guest.name)
            .replace("ADDRESS", &guest.v4.to_string()),
    )
}

/// Waits, 20 seconds at most, until the guest answers. A Linux bridge forwards for a new port up to a second late, and whoever has
/// asked for the guest's address meanwhile gets "No route to host".
const ANSWERS: &str = "m=0; until ping -n -q -c 1 -W 0.1 ADDRESS >/dev/null; do\n\
    m=$((m+1)); test $m -lt 200 || { echo \"no answer from ADDRESS\" >&2; exit 1; }; done";

/// Frames both ways while a script runs.
fn under_load(bench: &Bench<'_>, guest: &Running<'_>, script: &str) -> Result<String, Failure> {
    let load = "ping -n -q -i 0.005 -s 1400 ADDRESS >/dev/null 2>&1 & load=$!; trap \"kill $load\" EXIT\n";
    dom0(bench, guest, &[load, script].concat())
}

pub(super) fn a_second_interface_comes_and_goes(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.server("probe", "net1.ipv4=10.0.0.231/24 net1.ipv6=none -- plug")?;
    let probe = bench.start(guest)?;
    probe.says("interfaces: net0,")?;
    dom0(bench, &probe, ATTACH)?;
    probe.says("net1: 10.0.0.231")?;
    bench.dom0("ping -n -q -c 3 -i 0.05 10.0.0.231")?;
    under_load(bench, &probe, "xl network-detach NAME 1")?;
    probe.says("net1 is gone")?;
    dom0(bench, &probe, "ping -n -q -c 3 -i 0.05 ADDRESS").map(drop)
}

/// The only interface is taken away and another one is given, in the middle of a download. Every byte is compared with what it
/// should be.
pub(super) fn a_download_survives_another_interface(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    bench.peer(&format!("chargen {}:19 --bytes 1", echo.v4))?;
    dom0(
        bench,
        &echo,
        "(/tmp/peer chargen ADDRESS:19 --bytes 33554432 > /tmp/download 2>&1; echo \"status $?\" >> /tmp/download) &",
    )?;
    let received = "cat /sys/class/net/vif$(xl domid NAME).0/statistics/rx_bytes";
    dom0(
        bench,
        &echo,
        &format!("until test $({received}) -gt 1000000; do usleep 10000; done; xl network-detach NAME 0"),
    )?;
    dom0(bench, &echo, "! ping -n -q -c 1 -W 1 ADDRESS")?;
    dom0(bench, &echo, ATTACH)?;
    bench.dom0("n=0; until grep -q status /tmp/download; do n=$((n+1)); test $n -lt 600; usleep 100000; done")?;
    let result = bench.dom0("cat /tmp/download; rm /tmp/download")?;
    ensure!(result.contains("status 0"), "the download failed: {result}");
    let rest = dom0(bench, &echo, received)?;
    ensure!(
        rest.trim().parse().unwrap_or(0) > 4_000_000,
        "it was over before the interface was taken: {rest}"
    );
    Ok(())
}

pub(super) fn a_hundred_interfaces_leave_nothing_behind(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    // Each is in use before it is taken away.
    let ten = format!("for n in 0 1 2 3 4 5 6 7 8 9; do xl network-detach NAME 0; {ATTACH}\n{ANSWERS}; done");
    let replug = || {
        under_load(bench, &http, &format!("set -e; {ten}"))?;
        bench.peer(&format!(
            "http {}:80 / --requests 20 --keep-alive --expect Fata",
            http.v4
        ))
    };
    // What is made at the first time is there then.
    replug()?;
    let before = holdings(bench, &http)?;
    // Nothing of this differs under PV, and it takes minutes.
    let rounds = if bench.is_pv() { 2 } else { 9 };
    for _ in 0..rounds {
        replug()?;
    }
    let after = holdings(bench, &http)?;
    ensure!(
        before == after,
        "grants, ports, watches, tasks, heap: {before:?}, after {rounds} times ten interfaces more {after:?}"
    );
    Ok(())
}

/// netback's driver lets go of a vif without a word to the frontend, and a new one takes the rings as they are. What the old
/// one has answered out of order is answered twice at worst; the guest takes that for a fault and begins again.
pub(super) fn netback_is_loaded_anew_under_a_server(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.peer(&format!(
        "http {}:80 / --requests 100 --keep-alive --expect Fata",
        http.v4
    ))?;
    let before = holdings(bench, &http)?;
    // The hotplug script is libxl's to call, and libxl knows nothing of this.
    let plug = "ip link set vif$id.0 up; brctl addif xenbr0 vif$id.0\n\
                xenstore-write /local/domain/0/backend/vif/$id/0/hotplug-status connected\n";
    let bind = "cd /sys/bus/xen-backend/drivers/vif; id=$(xl domid NAME)\n\
                for n in 1 2 3 4 5; do echo vif-$id-0 > unbind; echo vif-$id-0 > bind; PLUG usleep 200000; done\n";
    under_load(bench, &http, &[&bind.replace("PLUG", plug), ANSWERS].concat())?;
    bench.peer(&format!(
        "http {}:80 / --requests 100 --keep-alive --expect Fata",
        http.v4
    ))?;
    let load = "id=$(xl domid NAME); echo vif-$id-0 > /sys/bus/xen-backend/drivers/vif/unbind\n\
                rmmod xen_netback && insmod $(grep netback /lib/modules/order)\n\
                until test -e /sys/class/net/vif$id.0; do usleep 5000; done\n";
    under_load(bench, &http, &[load, plug, ANSWERS].concat())?;
    bench.peer(&format!(
        "http {}:80 / --requests 100 --keep-alive --expect Fata",
        http.v4
    ))?;
    let after = holdings(bench, &http)?;
    ensure!(
        before == after,
        "grants, ports, watches, tasks, heap: {before:?}, after new drivers {after:?}"
    );
    Ok(())
}
