//! Folders of dom0, shared by QEMU's 9pfs backend.

use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[("p9::a_backend_waits_for_each_guest", a_backend_waits_for_each_guest)];

/// libxl starts a QEMU for each guest with shares, PVH or PV. A guest that does not care for its share is not held up by it, and
/// the QEMU ends with the guest.
fn a_backend_waits_for_each_guest(bench: &Bench<'_>) -> Result<(), Failure> {
    bench.dom0("mkdir -p /tmp/share")?;
    for guest in [bench.guest("hello")?, bench.guest("hello")?.pv()] {
        let hello = bench.start_paused(guest.share("files", "/tmp/share"))?;
        let keys = bench.dom0(&format!(
            "id=$(xl domid {}); for key in backend/9pfs/$id/0/state backend/9pfs/$id/0/versions; do\n\
             xenstore-read /local/domain/0/$key; done; xenstore-read /local/domain/$id/device/9pfs/0/tag",
            hello.name
        ))?;
        const INIT_WAIT: &str = "2";
        let keys: Vec<&str> = keys.lines().collect();
        ensure!(keys == [INIT_WAIT, "1", "files"], "state, versions, tag: {keys:?}");
        bench.dom0(&format!("pidof xen-qemu-system-i386; xl unpause {}", hello.name))?;
        hello.ends_with(0)?;
        bench.dom0("n=0; while pidof xen-qemu-system-i386; do n=$((n+1)); test $n -lt 600; usleep 100000; done")?;
    }
    Ok(())
}
