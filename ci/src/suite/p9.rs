//! Folders of dom0, shared by QEMU's 9pfs backend.

use std::io::Write;

use super::bench::Running;
use super::suspend::{SAVE_AND_RESTORE, toolstack};
use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    ("p9::a_backend_waits_for_each_guest", a_backend_waits_for_each_guest),
    ("p9::files_are_read_and_written", files_are_read_and_written),
    ("p9::a_share_goes_on_after_a_restore", a_share_goes_on_after_a_restore),
    (
        "p9::a_backend_that_is_killed_is_noticed",
        a_backend_that_is_killed_is_noticed,
    ),
];

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

/// What a guest says that has done its work: the error that a missing file has, and that there is room.
const WELL: &str = "well: 9pfs: the host refused: ENOENT, room";

/// Starts a guest with a folder of its own, in which there is 1 MiB of anything, and an empty folder.
fn start<'a>(bench: &Bench<'a>) -> Result<(Running<'a>, String), Failure> {
    let guest = bench.guest("probe")?.arguments("-- share files");
    let folder = format!("/tmp/share-{}", guest.name());
    bench.dom0(&format!(
        "mkdir -p {folder}/empty; head -c 1048576 /dev/urandom >{folder}/in"
    ))?;
    let guest = bench.start(guest.share("files", &folder))?;
    guest.says("there are empty in")?;
    Ok((guest, folder))
}

fn tell(guest: &Running<'_>, line: &str) -> Result<(), Failure> {
    let mut terminal = guest.host.attach(&guest.name)?;
    write!(terminal, "{line}\r").map_err(|error| Failure::Wrong(format!("console: {error}")))
}

/// Has the guest do all that can be done, and looks at what it left.
fn work(bench: &Bench<'_>, guest: &Running<'_>, folder: &str) -> Result<(), Failure> {
    tell(guest, "work")?;
    guest.says(WELL)?;
    bench.dom0(&format!(
        "cd {folder}; cmp in out; rm out; test \"$(ls)\" = \"$(printf 'empty\\nin')\""
    ))?;
    Ok(())
}

pub(super) fn files_are_read_and_written(bench: &Bench<'_>) -> Result<(), Failure> {
    let (guest, folder) = start(bench)?;
    guest.says("round 0")?;
    work(bench, &guest, &folder)?;
    guest.says("round 1")?;
    // A file that says of itself that it is empty, and one with more than is asked for.
    bench.dom0(&format!(
        "cd {folder}; touch os; mount --bind /proc/sys/kernel/ostype os"
    ))?;
    tell(&guest, "read os")?;
    guest.says("well: Linux")?;
    bench.dom0(&format!("umount {folder}/os"))?;
    guest.says("round 2")?;
    tell(&guest, "read in")?;
    guest.says("failed: 9pfs: the file has more than 100 bytes")?;
    guest.says("round 3")?;
    tell(&guest, "end")?;
    guest.ends_with(0)?;
    Ok(())
}

/// The restored guest has another backend, which knows nothing of what was open.
pub(super) fn a_share_goes_on_after_a_restore(bench: &Bench<'_>) -> Result<(), Failure> {
    let (guest, folder) = start(bench)?;
    guest.says("round 0")?;
    tell(&guest, "use")?;
    guest.says("well: open")?;
    toolstack(bench, &guest, SAVE_AND_RESTORE)?;
    work(bench, &guest, &folder)?;
    tell(&guest, "use")?;
    guest.says("failed: 9pfs: the file belongs to an earlier connection")?;
    tell(&guest, "end")?;
    guest.ends_with(0)?;
    Ok(())
}

/// Nothing tells a guest that QEMU is dead. It looks when it waits for an answer.
pub(super) fn a_backend_that_is_killed_is_noticed(bench: &Bench<'_>) -> Result<(), Failure> {
    let (guest, _) = start(bench)?;
    guest.says("round 0")?;
    bench.dom0(&format!(
        "for p in $(pidof xen-qemu-system-i386); do\n\
         if tr '\\0' ' ' </proc/$p/cmdline | grep -q -- ' {} '; then kill -KILL $p; fi; done",
        guest.name
    ))?;
    tell(&guest, "use")?;
    guest.says("failed: 9pfs: the backend is gone")?;
    guest.says("round 1")?;
    tell(&guest, "end")?;
    guest.ends_with(0)?;
    Ok(())
}
