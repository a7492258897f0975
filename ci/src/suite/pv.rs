//! The same images as PV guests.

use super::{
    Bench, Failure, Test, balloon, boot, debug, devices, ensure, input, life, limits, network, p9, ports, suspend,
    vchan,
};

/// Tests of the other modules, with PV guests instead of PVH guests.
macro_rules! as_pv {
    ($($module:ident::$test:ident),* $(,)?) => {
        [$((concat!("pv::", stringify!($test)), |bench: &Bench<'_>| $module::$test(&bench.with_pv_guests()))),*]
    };
}

pub(super) const TESTS: &[Test] = &[
    ("pv::one_image_boots_as_both", one_image_boots_as_both),
    ("pv::hello_runs_in_4_mib", hello_runs_in_4_mib),
    (
        "pv::a_stack_overflow_is_reported_by_xen",
        a_stack_overflow_is_reported_by_xen,
    ),
];

pub(super) const TESTS_OF_BOTH: &[Test] = &as_pv![
    boot::one_virtual_cpu_of_several_is_used,
    boot::an_error_is_the_exit_status,
    boot::the_clock_runs_from_the_start,
    boot::a_panic_is_reported_and_crashes,
    debug::a_fault_leads_to_the_source,
    debug::a_panic_leads_to_the_source,
    boot::page_zero_is_not_mapped,
    boot::text_cannot_be_written,
    boot::data_cannot_be_executed,
    boot::memory_that_runs_out_is_reported,
    boot::all_of_the_memory_is_used,
    boot::the_console_takes_input,
    boot::a_flooded_console_loses_but_never_stops,
    network::http_in_8_mib_serves_its_page_and_statistics,
    network::http_in_4_mib,
    network::ten_thousand_requests_on_new_connections,
    network::ten_thousand_requests_on_kept_connections,
    network::echo_moves_64_mib_both_ways,
    network::discard_and_chargen,
    network::udp_echo,
    network::ping_of_every_size,
    network::ipv6,
    network::what_is_for_other_groups_is_kept_back,
    network::dhcp_gives_an_address,
    network::names_are_resolved,
    network::two_interfaces,
    network::a_storm_of_events_does_not_stop_the_serving,
    life::shutdown_is_a_clean_power_off,
    life::reboot_boots_again,
    life::an_idle_guest_uses_no_time,
    life::pause_and_unpause,
    life::letters_are_obeyed,
    life::a_letter_crashes_it_with_a_report,
    devices::a_second_interface_comes_and_goes,
    devices::a_download_survives_another_interface,
    devices::netback_is_loaded_anew_under_a_server,
    balloon::it_shrinks_and_grows,
    devices::a_hundred_interfaces_leave_nothing_behind,
    balloon::twenty_times_to_the_floor_under_load,
    balloon::it_starts_small_and_grows_to_its_maximum,
    input::an_unknown_argument_is_named,
    input::a_malformed_argument_is_named,
    input::help_is_on_the_console,
    input::a_server_without_a_vif_says_so,
    input::a_missing_bridge_is_xl_s_error,
    input::a_backend_that_never_connects,
    input::a_network_without_dhcp_is_said,
    ports::six_thousand_and_a_restore,
    ports::all_that_the_configuration_gives,
    limits::a_full_grant_table_is_said,
    limits::the_grant_table_grows_to_the_limit,
    suspend::a_download_survives,
    suspend::nothing_is_left_behind,
    suspend::a_copy_changes_nothing,
    suspend::a_save_that_fails_changes_nothing,
    suspend::four_interfaces,
    suspend::a_guest_with_a_balloon,
    suspend::a_guest_without_a_backend,
    suspend::tasks_are_told_and_clocks_are_right,
    p9::files_are_read_and_written,
    p9::a_share_goes_on_after_a_restore,
    p9::a_backend_that_is_killed_is_noticed,
    vchan::libxenvchan_connects_to_us,
    vchan::we_connect_to_libxenvchan,
];

/// One file, started twice, side by side.
fn one_image_boots_as_both(bench: &Bench<'_>) -> Result<(), Failure> {
    let pvh = bench.start(bench.server("http", "")?)?;
    let pv = bench.start(bench.server("http", "")?.pv())?;
    let elf = |name: &str| {
        bench.dom0(&format!(
            "sha256sum < $(sed -n 's/^kernel = \"\\(.*\\)\"/\\1/p' /guests/{name}.cfg)"
        ))
    };
    ensure!(elf(&pvh.name)? == elf(&pv.name)?, "two images");
    for (guest, kind) in [(&pvh, "pvh"), (&pv, "pv")] {
        guest.says("listening")?;
        let page = bench.dom0(&format!("curl -sS --fail http://{}/", guest.v4))?;
        ensure!(page.contains("Fata"), "that is not the page:\n{page}");
        // As Xen's toolstack has it, not as we asked.
        let json = bench.dom0(&format!("xl list -l {}", guest.name))?;
        ensure!(json.contains(&format!("\"type\": \"{kind}\"")), "not {kind}:\n{json}");
    }
    Ok(())
}

fn hello_runs_in_4_mib(bench: &Bench<'_>) -> Result<(), Failure> {
    let hello = bench
        .guest("hello")?
        .pv()
        .memory_mib(4)
        .arguments("hostname=tiny -- one 'two three'");
    let console = bench.start(hello)?.ends_with(0)?;
    for text in ["tiny", "one", "two three"] {
        ensure!(console.contains(text), "`{text}` is missing:\n{console}");
    }
    Ok(())
}

/// Xen delivers an exception on the stack that the guest runs on. Where there is none left it ends the domain.
fn a_stack_overflow_is_reported_by_xen(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = boot::crash(&bench.with_pv_guests(), "overflow")?;
    ensure!(!console.contains("survived"), "it went on:\n{console}");
    let xen = bench.host.xen_console();
    // The last report there is this guest's.
    let report = xen.rfind("RIP: ").map_or("", |begin| &xen[begin..]);
    let text = debug::backtrace(bench, "probe", report)?;
    ensure!(
        text.contains("probe/src/faults.rs:"),
        "the source is not there:\n{text}\n{xen}"
    );
    Ok(())
}
