//! What the toolstack can do to a guest.

use std::time::Duration;

use super::{Bench, Failure, Test, ensure};
use crate::DomainState;
use crate::suite::bench::PATIENCE;

pub(super) const TESTS: &[Test] = &[
    ("life::shutdown_is_a_clean_power_off", shutdown_is_a_clean_power_off),
    ("life::reboot_boots_again", reboot_boots_again),
    ("life::an_idle_guest_uses_no_time", an_idle_guest_uses_no_time),
    ("life::pause_and_unpause", pause_and_unpause),
];

pub(super) fn shutdown_is_a_clean_power_off(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.host.shutdown(&http.name, PATIENCE)?;
    http.ends_with(0).map(drop)
}

pub(super) fn reboot_boots_again(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    let before = bench.host.domain(&http.name)?.map(|domain| domain.id);
    bench.dom0(&format!("xl reboot {}", http.name))?;
    bench.dom0(&format!(
        "n=0; until test \"$(xl domid {} 2>/dev/null)\" -gt {}; do n=$((n+1)); test $n -lt 100; usleep 200000; done",
        http.name,
        before.unwrap_or(0)
    ))?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    Ok(())
}

pub(super) fn an_idle_guest_uses_no_time(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    // The first seconds have duplicate address detection and router solicitations.
    std::thread::sleep(Duration::from_secs(4));
    let used = || {
        bench
            .host
            .domain(&http.name)
            .map(|domain| domain.map(|domain| domain.cpu_time))
    };
    let before = used()?;
    std::thread::sleep(Duration::from_secs(10));
    let after = used()?;
    ensure!(before.is_some(), "the guest is gone");
    // xl counts tenths of a second: one of them may just be about to come.
    let grown = after.zip(before).map(|(after, before)| after.saturating_sub(before));
    ensure!(
        grown.is_some_and(|grown| grown <= Duration::from_millis(100)),
        "{before:?}, 10 s later {after:?}"
    );
    Ok(())
}

pub(super) fn pause_and_unpause(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.dom0(&format!("xl pause {}", http.name))?;
    bench.host.wait_for_state(&http.name, DomainState::Paused, PATIENCE)?;
    std::thread::sleep(Duration::from_secs(2));
    bench.dom0(&format!("xl unpause {}", http.name))?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    Ok(())
}
