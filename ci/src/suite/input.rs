//! What users and toolstacks get wrong.

use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    ("input::an_unknown_argument_is_named", an_unknown_argument_is_named),
    ("input::a_malformed_argument_is_named", a_malformed_argument_is_named),
    ("input::help_is_on_the_console", help_is_on_the_console),
    ("input::a_server_without_a_vif_says_so", a_server_without_a_vif_says_so),
    ("input::a_missing_bridge_is_xl_s_error", a_missing_bridge_is_xl_s_error),
    ("input::a_backend_that_never_connects", a_backend_that_never_connects),
    ("input::a_network_without_dhcp_is_said", a_network_without_dhcp_is_said),
    ("input::too_little_memory_is_said", too_little_memory_is_said),
];

pub(super) fn an_unknown_argument_is_named(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = bench
        .start(bench.guest("hello")?.arguments("hostnam=x"))?
        .ends_with(2)?;
    ensure!(console.contains("hostnam"), "it is not:\n{console}");
    Ok(())
}

pub(super) fn a_malformed_argument_is_named(bench: &Bench<'_>) -> Result<(), Failure> {
    for bad in [
        "ipv4=10.0.0.300/24",
        "gateway=x",
        "log=loud",
        "ipv4=10.0.0.2/24 'unfinished",
    ] {
        let console = bench.start(bench.guest("http")?.arguments(bad))?.ends_with(2)?;
        ensure!(console.contains("error"), "`{bad}`:\n{console}");
    }
    Ok(())
}

pub(super) fn help_is_on_the_console(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = bench.start(bench.guest("http")?.arguments("--help"))?.ends_with(0)?;
    ensure!(
        console.contains("ipv4=") && console.contains("log="),
        "no help:\n{console}"
    );
    Ok(())
}

pub(super) fn a_server_without_a_vif_says_so(bench: &Bench<'_>) -> Result<(), Failure> {
    let console = bench.start(bench.guest("http")?)?.ends_with(1)?;
    ensure!(console.contains("vif"), "it does not:\n{console}");
    Ok(())
}

pub(super) fn a_missing_bridge_is_xl_s_error(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.guest("http")?;
    let guest = guest.vif_on(&bench.mac(), "nosuchbridge");
    match bench.host.create(&guest) {
        Err(crate::Error::Command { status, .. }) => {
            ensure!(status != 0, "status 0");
            Ok(())
        }
        other => {
            let _ = bench.host.destroy(guest.name());
            Err(Failure::Wrong(format!("xl create gave {other:?}")))
        }
    }
}

pub(super) fn a_backend_that_never_connects(bench: &Bench<'_>) -> Result<(), Failure> {
    // netback waits for the hotplug script's word before it connects. Take that word back before the guest runs.
    let http = bench.start_paused(bench.server("http", "")?)?;
    bench.dom0(&format!(
        "xenstore-rm /local/domain/0/backend/vif/$(xl domid {0})/0/hotplug-status; xl unpause {0}",
        http.name
    ))?;
    let console = http.ends_with(1)?;
    ensure!(
        console.contains("InitWait") || console.contains("backend"),
        "the cause is not named:\n{console}"
    );
    Ok(())
}

pub(super) fn a_network_without_dhcp_is_said(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.guest("http")?;
    let http = bench.start(guest.vif(&bench.mac()))?;
    let console = http.ends_with(1)?;
    ensure!(console.contains("DHCP"), "it is not:\n{console}");
    Ok(())
}

fn too_little_memory_is_said(bench: &Bench<'_>) -> Result<(), Failure> {
    // The image does not fit into 1 MiB, which the toolstack finds out. What happens to a guest whose memory runs out
    // later is in `boot`.
    match bench.host.create(&bench.guest("http")?.memory_mib(1)) {
        Err(crate::Error::Command { status, output, .. }) => {
            ensure!(status != 0 && output.contains("memory"), "status {status}:\n{output}");
            Ok(())
        }
        other => Err(Failure::Wrong(format!("xl create gave {other:?}"))),
    }
}
