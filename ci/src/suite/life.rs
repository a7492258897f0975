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
    ("life::letters_are_obeyed", letters_are_obeyed),
    (
        "life::a_letter_crashes_it_with_a_report",
        a_letter_crashes_it_with_a_report,
    ),
    ("life::an_nmi_is_reported", an_nmi_is_reported),
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

pub(super) fn letters_are_obeyed(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    for (letter, answer) in [
        ("m", "in quarantine"),
        ("t", "watches; up"),
        ("n", "net0: link up"),
        ("h", "o power off at once"),
    ] {
        bench.dom0(&format!("xl sysrq {} {letter}", http.name))?;
        http.says(answer)?;
    }
    bench.dom0(&format!("xl sysrq {} o", http.name))?;
    http.ends().map(drop)
}

pub(super) fn a_letter_crashes_it_with_a_report(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.line("on_crash = \"preserve\""))?;
    http.says("listening")?;
    bench.dom0(&format!("xl sysrq {} c", http.name))?;
    let console = http.crashes()?;
    ensure!(console.contains("as the administrator wishes"), "no report:\n{console}");
    Ok(())
}

/// The classic question to a guest that hangs: where are you? It ends with the answer.
fn an_nmi_is_reported(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.line("on_crash = \"preserve\""))?;
    http.says("listening")?;
    bench.dom0(&format!("xl trigger {} nmi", http.name))?;
    let console = http.crashes()?;
    ensure!(console.contains("backtrace"), "no report:\n{console}");
    Ok(())
}
