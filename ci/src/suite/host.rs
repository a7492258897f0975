//! The host itself: what all other tests stand on. Its guests are a few instructions each.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::bench::PATIENCE;
use super::{Bench, Failure, Test, ensure};
use crate::network::DOM0;
use crate::{DomainState, Error, Guest};

pub(super) const TESTS: &[Test] = &[
    (
        "host::commands_have_status_and_outputs",
        commands_have_status_and_outputs,
    ),
    ("host::a_command_that_hangs_is_ended", a_command_that_hangs_is_ended),
    ("host::files_arrive_as_they_were", files_arrive_as_they_were),
    ("host::a_port_is_forwarded", a_port_is_forwarded),
    ("host::a_stream_goes_both_ways", a_stream_goes_both_ways),
    ("host::what_is_no_image_is_refused", what_is_no_image_is_refused),
    ("host::guests_run_and_are_destroyed", guests_run_and_are_destroyed),
    (
        "host::a_guest_that_ends_is_not_waited_for",
        a_guest_that_ends_is_not_waited_for,
    ),
    ("host::a_crash_is_told_with_xens_words", a_crash_is_told_with_xens_words),
    (
        "host::disks_are_connected_and_released",
        disks_are_connected_and_released,
    ),
];

/// Where the tiny guests lie in their memory.
const LOAD_ADDRESS: u32 = 0x10_0000;

/// SCHEDOP_poll of no port and without a timeout, for ever: a guest that waits and takes no CPU time from the others.
const WAIT: &[u8] = &[
    0xb8, 29, 0, 0, 0, // mov $__HYPERVISOR_sched_op, %eax
    0xbb, 3, 0, 0, 0, // mov $SCHEDOP_poll, %ebx
    0xb9, 0xd8, 0x00, 0x10, 0x00, // mov $(address of struct sched_poll), %ecx
    0x0f, 0x01, 0xd9, // vmmcall
    0xeb, 0xec, // jmp to the beginning
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // struct sched_poll
];
/// hlt: with interrupts off and no other vCPU, Xen takes it for a power-off.
const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Writes "!" and a line feed to Xen's debug port, then SCHEDOP_shutdown with the reason SHUTDOWN_crash (3), which follows
/// the code.
const CRASH: &[u8] = &[
    0xb0, b'!', 0xe6, 0xe9, // mov $'!', %al; out %al, $0xe9
    0xb0, b'\n', 0xe6, 0xe9, // mov $'\n', %al; out %al, $0xe9
    0xb8, 29, 0, 0, 0, // mov $__HYPERVISOR_sched_op, %eax
    0xbb, 2, 0, 0, 0, // mov $SCHEDOP_shutdown, %ebx
    0xb9, 0xe0, 0x00, 0x10, 0x00, // mov $(address of the reason), %ecx
    0x0f, 0x01, 0xd9, // vmmcall
    0xeb, 0xfe, // jmp $
    3, 0, 0, 0, // the reason
];

/// A PVH image: an ELF file with one segment, which holds the note with the entry point and `code`, entered in 32-bit mode.
fn image(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 64 + 2 * 56;
    const NOTE: u32 = 12 + 4 + 4;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
    let entry = LOAD_ADDRESS + HEADERS + NOTE;
    let size = HEADERS + NOTE + code.len() as u32;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for field in [u64::from(entry), 64, 0] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x02\0\0\0\0\0\0\0");
    for (kind, offset, size) in [(PT_LOAD, 0, size), (PT_NOTE, HEADERS, NOTE)] {
        elf.extend([kind, 7].map(u32::to_le_bytes).concat());
        let address = LOAD_ADDRESS + offset;
        for field in [offset, address, address, size, size, 4] {
            elf.extend(u64::from(field).to_le_bytes());
        }
    }
    elf.extend([4, 4, XEN_ELFNOTE_PHYS32_ENTRY].map(u32::to_le_bytes).concat());
    elf.extend(b"Xen\0");
    elf.extend(entry.to_le_bytes());
    elf.extend(code);
    elf
}

fn commands_have_status_and_outputs(bench: &Bench<'_>) -> Result<(), Failure> {
    let output = bench.host.run("echo out; echo err >&2; exit 7", PATIENCE)?;
    ensure!(
        (output.status, output.stdout.as_str(), output.stderr.as_str()) == (7, "out\n", "err\n"),
        "{output:?}"
    );
    let refused = bench.host.check("echo because >&2; false", PATIENCE);
    ensure!(
        matches!(&refused, Err(Error::Command { status: 1, output, .. }) if output.contains("because")),
        "{refused:?}"
    );
    // Several at once do not wait for each other.
    let (begin, host) = (Instant::now(), bench.host);
    let done = std::thread::scope(|scope| {
        let sleepers = [1, 2, 3].map(|n| scope.spawn(move || host.check(&format!("sleep 2; echo {n}"), PATIENCE)));
        sleepers.map(|sleeper| sleeper.join().ok())
    });
    ensure!(done.iter().all(|one| matches!(one, Some(Ok(_)))), "{done:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(6),
        "one after the other: {:?}",
        begin.elapsed()
    );
    Ok(())
}

fn a_command_that_hangs_is_ended(bench: &Bench<'_>) -> Result<(), Failure> {
    let begin = Instant::now();
    let result = bench.host.run("echo before; exec sleep 1234", Duration::from_secs(1));
    ensure!(
        matches!(&result, Err(Error::Timeout { log, .. }) if log.contains("before")),
        "{result:?}"
    );
    ensure!(
        begin.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        begin.elapsed()
    );
    let rest = bench.dom0("ps | grep '[s]leep 1234' || true")?;
    ensure!(rest.is_empty(), "it still runs: {rest}");
    Ok(())
}

fn files_arrive_as_they_were(bench: &Bench<'_>) -> Result<(), Failure> {
    let content: Vec<u8> = (0..1_000_003_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for content in [content.as_slice(), b"", b"\n"] {
        bench.host.put("/tmp/a new folder/file", content)?;
        let back = bench.host.get("/tmp/a new folder/file")?;
        ensure!(back == content, "{} bytes became {}", content.len(), back.len());
    }
    bench.dom0("rm -r '/tmp/a new folder'")?;
    let absent = bench.host.get("/tmp/a new folder/file");
    ensure!(matches!(absent, Err(Error::Command { .. })), "{absent:?}");
    Ok(())
}

fn a_port_is_forwarded(bench: &Bench<'_>) -> Result<(), Failure> {
    bench.dom0("mkdir -p /tmp/www; echo through >/tmp/www/page; busybox httpd -p 10.0.0.1:8080 -h /tmp/www")?;
    let port = bench.host.forward(0, DOM0, 8080)?;
    let answer = (|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })();
    bench.host.stop_forwarding(port)?;
    bench.dom0("killall httpd; rm -r /tmp/www")?;
    ensure!(
        matches!(&answer, Ok(answer) if answer.ends_with("through\n")),
        "{answer:?}"
    );
    ensure!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "port {port} is still open"
    );
    ensure!(bench.host.stop_forwarding(port).is_err(), "it was forwarded twice");
    Ok(())
}

fn a_stream_goes_both_ways(bench: &Bench<'_>) -> Result<(), Failure> {
    let mut stream = bench.host.stream("read -r line; echo \"<$line>\"")?;
    let mut answer = String::new();
    let talk = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(b"hello\n"))
        .and_then(|()| stream.read_to_string(&mut answer));
    ensure!(talk.is_ok() && answer == "<hello>\n", "{talk:?} {answer}");
    Ok(())
}

fn what_is_no_image_is_refused(bench: &Bench<'_>) -> Result<(), Failure> {
    let result = bench.host.create(&Guest::new("no-image", b"certainly not".to_vec()));
    ensure!(
        matches!(&result, Err(Error::Command { output, .. }) if !output.is_empty()),
        "{result:?}"
    );
    let state = bench.host.state("no-image")?;
    ensure!(state == DomainState::Absent, "it is {state}");
    Ok(())
}

fn guests_run_and_are_destroyed(bench: &Bench<'_>) -> Result<(), Failure> {
    for name in ["wait-a", "wait-b"] {
        bench.host.create(&Guest::new(name, image(WAIT)).memory_mib(4))?;
    }
    let domains = bench.host.domains()?;
    ensure!(domains.len() == 3, "{domains:?}");
    ensure!(
        domains
            .iter()
            .all(|domain| domain.state.is_alive() && domain.vcpus == 1),
        "{domains:?}"
    );
    let twice = bench.host.create(&Guest::new("wait-a", image(WAIT)).memory_mib(4));
    ensure!(
        matches!(twice, Err(Error::Command { .. })),
        "two guests of one name: {twice:?}"
    );
    for name in ["wait-a", "wait-b"] {
        bench.host.destroy(name)?;
        bench.host.wait_for_state(name, DomainState::Absent, PATIENCE)?;
    }
    ensure!(bench.host.destroy("wait-a").is_err(), "it could be destroyed twice");
    Ok(())
}

fn a_guest_that_ends_is_not_waited_for(bench: &Bench<'_>) -> Result<(), Failure> {
    let begin = Instant::now();
    bench.host.create(&Guest::new("halt", image(HALT)).memory_mib(4))?;
    let result = bench.host.wait_for_log("halt", "never said", PATIENCE);
    let gone = |state| matches!(state, DomainState::Absent | DomainState::Shutdown | DomainState::Dying);
    ensure!(
        matches!(&result, Err(Error::Guest { state, .. }) if gone(*state)),
        "{result:?}"
    );
    ensure!(begin.elapsed() < PATIENCE, "it was waited for");
    bench.host.wait_for_state("halt", DomainState::Absent, PATIENCE)?;
    Ok(())
}

fn a_crash_is_told_with_xens_words(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = Guest::new("crash", image(CRASH))
        .memory_mib(4)
        .line("on_crash = \"preserve\"");
    bench.host.create(&guest)?;
    bench.host.wait_for_state("crash", DomainState::Crashed, PATIENCE)?;
    let result = bench.host.wait_for_log("crash", "never said", PATIENCE);
    bench.host.destroy("crash")?;
    ensure!(
        matches!(&result, Err(Error::Guest { state: DomainState::Crashed, xen, .. }) if xen.contains('!')),
        "{result:?}"
    );
    Ok(())
}

fn disks_are_connected_and_released(bench: &Bench<'_>) -> Result<(), Failure> {
    bench.dom0("dd if=/dev/zero of=/tmp/disk.img bs=1M count=2 2>/dev/null")?;
    let guest = Guest::new("disk", image(WAIT)).memory_mib(4);
    bench.host.create(&guest.line("disk = ['/tmp/disk.img,raw,xvda,w']"))?;
    let backend = bench.dom0("xenstore-ls /local/domain/0/backend/vbd; losetup -a");
    bench.host.destroy("disk")?;
    bench.host.wait_for_state("disk", DomainState::Absent, PATIENCE)?;
    let left = bench.dom0("losetup -a; rm /tmp/disk.img")?;
    let backend = backend?;
    ensure!(
        backend.contains("physical-device") && backend.contains("/tmp/disk.img"),
        "no disk in:\n{backend}"
    );
    ensure!(left.is_empty(), "still in use: {left}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_knows_where_its_data_lies() {
        for (code, data) in [(CRASH, 4), (WAIT, 16)] {
            let address = LOAD_ADDRESS + (image(code).len() - data) as u32;
            let field = code.iter().position(|byte| *byte == 0xb9).unwrap() + 1;
            assert_eq!(code[field..field + 4], address.to_le_bytes());
        }
    }
}
