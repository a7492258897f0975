//! Devices that come and go while the guest runs.

use super::bench::Running;
use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    (
        "devices::a_second_interface_comes_and_goes",
        a_second_interface_comes_and_goes,
    ),
    (
        "devices::the_only_interface_goes_and_comes_back",
        the_only_interface_goes_and_comes_back,
    ),
];

const ATTACH: &str = "xl network-attach NAME mac=00:16:3e:00:ff:02,bridge=xenbr0";

fn dom0(bench: &Bench<'_>, guest: &Running<'_>, script: &str) -> Result<String, Failure> {
    bench.dom0(&script.replace("NAME", &guest.name))
}

pub(super) fn a_second_interface_comes_and_goes(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.server("probe", "net1.ipv4=10.0.0.231/24 net1.ipv6=none -- plug")?;
    let probe = bench.start(guest)?;
    probe.says("interfaces: net0,")?;
    dom0(bench, &probe, ATTACH)?;
    probe.says("net1: 10.0.0.231")?;
    bench.dom0("ping -n -q -c 3 -i 0.05 10.0.0.231")?;
    dom0(bench, &probe, "xl network-detach NAME 1")?;
    probe.says("net1 is gone")?;
    Ok(())
}

pub(super) fn the_only_interface_goes_and_comes_back(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    dom0(bench, &http, "xl network-detach NAME 0")?;
    let gone = bench.dom0(&format!("! ping -n -q -c 1 -W 1 {}", http.v4));
    ensure!(gone.is_ok(), "it answers without an interface");
    dom0(bench, &http, ATTACH)?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4)).map(drop)
}
