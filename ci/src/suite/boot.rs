//! From `xl create` to the end, without a network.

use std::io::Write;
use std::time::Duration;

use super::{Bench, Failure, Test, ensure};
use crate::DomainState;

pub(super) const TESTS: &[Test] = &[
    ("boot::hello_runs_in_2_mib", hello_runs_in_2_mib),
    ("boot::the_clock_runs_from_the_start", the_clock_runs_from_the_start),
    (
        "boot::one_virtual_cpu_of_several_is_used",
        one_virtual_cpu_of_several_is_used,
    ),
    ("boot::an_error_is_the_exit_status", an_error_is_the_exit_status),
    ("boot::a_panic_is_reported_and_crashes", a_panic_is_reported_and_crashes),
    ("boot::a_stack_overflow_is_called_that", a_stack_overflow_is_called_that),
    ("boot::page_zero_is_not_mapped", page_zero_is_not_mapped),
    ("boot::text_cannot_be_written", text_cannot_be_written),
    ("boot::data_cannot_be_executed", data_cannot_be_executed),
    (
        "boot::memory_that_runs_out_is_reported",
        memory_that_runs_out_is_reported,
    ),
    ("boot::all_of_the_memory_is_used", all_of_the_memory_is_used),
    ("boot::the_console_takes_input", the_console_takes_input),
    (
        "boot::xsa_466_no_image_has_a_hypercall_page",
        xsa_466_no_image_has_a_hypercall_page,
    ),
    (
        "boot::a_flooded_console_loses_but_never_stops",
        a_flooded_console_loses_but_never_stops,
    ),
];

fn hello_runs_in_2_mib(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = bench.start(
        bench
            .guest("hello")?
            .memory_mib(2)
            .arguments("hostname=tiny -- one 'two three'"),
    )?;
    let console = hello.ends_with(0)?;
    for text in ["tiny", "one", "two three"] {
        ensure!(console.contains(text), "`{text}` is missing:\n{console}");
    }
    Ok(())
}

/// Rule 84: Xen fills in a hypercall page where a note asks for one, and only there. No image does; each has the notes of
/// both entries.
fn xsa_466_no_image_has_a_hypercall_page(bench: &Bench<'_>) -> Result<(), Failure> {
    const HYPERCALL_PAGE: u8 = 2;
    const ENTRY: u8 = 1;
    const PHYS32_ENTRY: u8 = 18;
    for name in ["hello", "http", "echo", "probe"] {
        let image = bench.read(name)?;
        // Length of the name, length of what is described, type, name.
        let notes: Vec<u8> = image
            .windows(16)
            .filter(|note| note.starts_with(&[4, 0, 0, 0]) && note.ends_with(b"\0\0\0Xen\0"))
            .map(|note| note[8])
            .collect();
        ensure!(notes.contains(&PHYS32_ENTRY), "{name} has no PVH entry: {notes:?}");
        ensure!(notes.contains(&ENTRY), "{name} has no PV entry: {notes:?}");
        ensure!(!notes.contains(&HYPERCALL_PAGE), "{name} has a hypercall page");
    }
    Ok(())
}

pub(super) fn one_virtual_cpu_of_several_is_used(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = bench.start(bench.guest("hello")?.vcpus(3))?;
    let console = hello.ends_with(0)?;
    ensure!(console.contains("3 virtual CPUs"), "it does not say so:\n{console}");
    Ok(())
}

/// A PV guest's clock once stood still until Xen's next calibration, which is up to a second.
pub(super) fn the_clock_runs_from_the_start(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = bench.start(bench.guest("probe")?.arguments("-- clock"))?.ends_with(0)?;
    ensure!(console.contains("at look Some("), "it stands still:\n{console}");
    Ok(())
}

pub(super) fn an_error_is_the_exit_status(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = bench
        .start(bench.guest("probe")?.arguments("-- exit 7"))?
        .ends_with(7)?;
    ensure!(
        console.contains("error: asked to fail"),
        "the error is not shown:\n{console}"
    );
    Ok(())
}

/// Starts the probe, which is to crash, and gives its console.
pub(super) fn crash(bench: &Bench<'_>, what: &str) -> Result<String, Failure> {
    let guest = bench
        .guest("probe")?
        .arguments(format!("-- {what}"))
        .line("on_crash = \"preserve\"");
    bench.start(guest)?.crashes()
}

pub(super) fn a_panic_is_reported_and_crashes(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = crash(bench, "panic")?;
    ensure!(console.contains("asked to panic"), "no message:\n{console}");
    ensure!(console.contains("probe/src/main.rs:"), "no location:\n{console}");
    ensure!(console.contains("backtrace: 0x"), "no backtrace:\n{console}");
    Ok(())
}

fn a_stack_overflow_is_called_that(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = crash(bench, "overflow")?;
    ensure!(
        console.to_lowercase().contains("stack overflow"),
        "it is not:\n{console}"
    );
    Ok(())
}

/// The probe's fault must be reported with its address.
fn page_fault(bench: &Bench<'_>, what: &str) -> Result<String, Failure> {
    let console = crash(bench, what)?;
    ensure!(
        console.to_lowercase().contains("page fault"),
        "no page fault:\n{console}"
    );
    ensure!(console.to_lowercase().contains("rip"), "no registers:\n{console}");
    ensure!(!console.contains("survived"), "it went on:\n{console}");
    Ok(console)
}

pub(super) fn page_zero_is_not_mapped(bench: &Bench<'_>) -> Result<(), Failure> {
    page_fault(bench, "null").map(drop)
}

pub(super) fn text_cannot_be_written(bench: &Bench<'_>) -> Result<(), Failure> {
    page_fault(bench, "write-text").map(drop)
}

pub(super) fn data_cannot_be_executed(bench: &Bench<'_>) -> Result<(), Failure> {
    page_fault(bench, "execute-data").map(drop)
}

pub(super) fn memory_that_runs_out_is_reported(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = crash(bench, "allocate")?;
    ensure!(console.contains("memory allocation of"), "it is not:\n{console}");
    Ok(())
}

pub(super) fn all_of_the_memory_is_used(bench: &Bench<'_>) -> Result<(), Failure> {
    // Most of 64 MiB must be allocatable; the probe fills it and reads it back.
    bench
        .start(bench.guest("probe")?.memory_mib(64).arguments("-- fill 60"))?
        .ends_with(0)
        .map(drop)
}

pub(super) fn the_console_takes_input(bench: &Bench<'_>) -> Result<(), Failure> {
    let probe = bench.start(bench.guest("probe")?.arguments("-- ask"))?;
    probe.says("your name?")?;
    // As a person would: a terminal sends a carriage return for Enter.
    let mut terminal = bench.host.attach(&probe.name)?;
    terminal
        .write_all(b"Ada\r")
        .map_err(|error| Failure::Wrong(format!("console: {error}")))?;
    let console = probe.ends_with(0)?;
    ensure!(console.contains("hello, Ada"), "the input did not arrive:\n{console}");
    Ok(())
}

pub(super) fn a_flooded_console_loses_but_never_stops(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.guest("probe")?.arguments("-- flood");
    let probe = bench.start_paused(guest)?;
    // With the daemon stopped nobody empties the ring. The guest must go on all the same: it comes as far as its sleep.
    bench.dom0(&format!("kill -STOP $(pidof xenconsoled); xl unpause {}", probe.name))?;
    std::thread::sleep(Duration::from_secs(2));
    let asleep = bench
        .host
        .wait_for_state(&probe.name, DomainState::Blocked, Duration::from_secs(5));
    bench.dom0("kill -CONT $(pidof xenconsoled)")?;
    asleep?;
    let console = probe.ends_with(0)?;
    ensure!(console.contains("bytes lost"), "the loss is not said:\n{console}");
    ensure!(
        console.contains("past the flood"),
        "what came later is lost:\n{console}"
    );
    Ok(())
}
