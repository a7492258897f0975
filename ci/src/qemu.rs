//! QEMU as a process: its command line, its life and its end.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::error::{Error, tail};
use crate::host::Clock;
use crate::image;
use crate::network;
use crate::run_folder::RunFolder;

/// The processor, all that QEMU 7.2 emulates but for what it emulates wrongly under Xen:
/// - with SMAP a PV dom0 dies at once (a page fault in Xen's create_bounce_frame);
/// - with RDTSCP PVH guests die ("SVM Insn len emulation failed"), for QEMU reports it as RDTSC;
/// - with XSAVE (and what needs it: AVX, PKU) now and then a program in dom0 crashes or hangs beside a running guest;
///
/// and for ERMS: it promises fast string instructions, so software moves bytes one by one, each of which is an emulated
/// instruction, and counts as one.
const CPU: &str = "max,-smap,-smep,-rdtscp,-xsave,-avx,-avx2,-pku,-la57,-erms,-fsrm,+svm,+npt";

/// How Linux is started as dom0. No commas: QEMU splits its `-initrd` at them. The second half switches off hardening
/// and accounting that Debian has on by default: they would cost every guest's start emulated time, and guard nothing.
const LINUX_ARGUMENTS: &str = "console=hvc0 rdinit=/init panic=1 quiet mitigations=off init_on_alloc=0 \
                               hardened_usercopy=off audit=0 apparmor=0 psi=0 cgroup_disable=memory";

/// How Xen is started. Free memory is scrubbed, and that before dom0 starts: Xen's shim reads flags at address 0, where a loader may have
/// put some, and runs away if another one's image has lain there. Filling the return stack buffer of a processor that has none would
/// only cost emulated time.
const XEN_ARGUMENTS: &str =
    "console=com1 com1=115200,8n1 dom0_mem=1G,max:1G dom0_max_vcpus=1 guest_loglvl=all bootscrub=1 spec-ctrl=no";

/// Names in the run folder, which is QEMU's current folder, so that arguments do not depend on where the cache lies and
/// contain no character that QEMU's option parser would take for its own.
pub(crate) const STATE: &str = "state";
const CONTROL: &str = "control";
const XEN_LOG: &str = "xen.log";
const QEMU_LOG: &str = "qemu.log";

/// QEMU's arguments. They decide what a snapshot fits, so its key is made of them.
pub(crate) fn arguments(clock: Clock, memory_mib: u32) -> Vec<String> {
    let (accelerator, clock): (&str, &[&str]) = match clock {
        Clock::Wall => ("tcg,thread=multi", &[]),
        Clock::Instructions => ("tcg,thread=single", &["-icount", "shift=0,sleep=off"]),
    };
    let memory = format!("{memory_mib}M");
    let modules = format!("{} {LINUX_ARGUMENTS},initrd", image::LINUX);
    let network = network::qemu_netdev();
    let serial = format!("file:{XEN_LOG}");
    let control = format!("unix:{CONTROL},server=on,wait=off");
    let mut arguments = vec!["-accel", accelerator];
    arguments.extend(clock);
    arguments.extend([
        "-cpu",
        CPU,
        "-M",
        "pc-i440fx-7.2",
        "-m",
        &memory,
        "-smp",
        "1",
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        &serial,
        "-qmp",
        &control,
        "-netdev",
        &network,
        "-device",
        "virtio-net-pci,netdev=outside,romfile=,mac=52:54:00:00:00:fd",
        "-kernel",
        image::XEN,
        "-append",
        XEN_ARGUMENTS,
        "-initrd",
        &modules,
    ]);
    arguments.into_iter().map(str::to_owned).collect()
}

/// A running QEMU. Dropping it ends the process and removes its folder.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    guard: Child,
    folder: RunFolder,
}

impl Qemu {
    /// Starts the QEMU of the folder `machine`. `files` are linked into the run folder: (name, where it really is).
    pub(crate) fn start(
        cache: &Cache,
        machine: &Path,
        arguments: &[String],
        files: &[(&str, &Path)],
    ) -> Result<Self, Error> {
        let folder = RunFolder::new(cache)?;
        for name in [image::XEN, image::LINUX] {
            link(&machine.join(name), &folder.path().join(name))?;
        }
        for (name, target) in files {
            link(target, &folder.path().join(name))?;
        }
        let log = folder.path().join(QEMU_LOG);
        let output = File::create(&log).map_err(Error::io("write", &log))?;
        let again = output.try_clone().map_err(Error::io("write", &log))?;
        let mut command = image::qemu_command(machine);
        command.arg("-L").arg(machine.join(image::QEMU_SHARE)).args(arguments);
        // A group of its own: a Ctrl-C in the terminal is for the caller, who ends QEMU by dropping this.
        command.current_dir(folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(output).stderr(again);
        let mut child = command
            .spawn()
            .map_err(Error::io("start", &machine.join(image::QEMU)))?;
        match guard(child.id(), folder.path()) {
            Ok(guard) => Ok(Self { child, guard, folder }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The path of the control socket (QMP).
    pub(crate) fn control(&self) -> PathBuf {
        self.folder.path().join(CONTROL)
    }

    /// The path of a file in the run folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All that Xen and dom0's kernel have said so far.
    pub(crate) fn xen_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file(XEN_LOG)).unwrap_or_default()).into_owned()
    }

    /// [`Error::QemuDied`] if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.died(&status.to_string())),
            Err(error) => Err(self.died(&error.to_string())),
        }
    }

    /// Waits up to `limit` for `ready`, which is asked every few milliseconds, as long as QEMU lives.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&mut Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let begin = Instant::now();
        loop {
            if let Some(value) = ready(self)? {
                return Ok(value);
            }
            self.check_alive()?;
            if begin.elapsed() > limit {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    after: limit,
                    log: tail(&self.xen_log(), 20),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<(), Error> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Error::Timeout {
            what: "QEMU to end".into(),
            after: limit,
            log: String::new(),
        })
    }

    fn died(&self, status: &str) -> Error {
        let own = fs::read(self.file(QEMU_LOG)).unwrap_or_default();
        let log = format!(
            "{}\n{}",
            tail(&String::from_utf8_lossy(&own), 6),
            tail(&self.xen_log(), 20)
        );
        Error::QemuDied {
            status: status.to_owned(),
            log,
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A line tells the guard that there is nothing left to do.
        if let Some(mut stdin) = self.guard.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.guard.wait();
    }
}

/// Starts a shell that ends QEMU when this process dies without dropping it: it reads from a pipe that the system closes.
fn guard(qemu: u32, folder: &Path) -> Result<Child, Error> {
    const SCRIPT: &str = r#"read -r _ && exit; kill -KILL "$1"; rm -rf "$2""#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT, "fata-guard", &qemu.to_string()]).arg(folder);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0);
    shell.spawn().map_err(Error::io("start", Path::new("/bin/sh")))
}

fn link(target: &Path, name: &Path) -> Result<(), Error> {
    std::os::unix::fs::symlink(target, name).map_err(Error::io("link", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_nothing_outside_the_run_folder() {
        for clock in [Clock::Wall, Clock::Instructions] {
            let arguments = arguments(clock, 1536);
            // "rdinit=/init" is a path in dom0.
            let paths = arguments.iter().map(|argument| argument.replace("rdinit=/", ""));
            assert_eq!(
                paths
                    .filter(|path| path.contains("=/") || path.starts_with('/'))
                    .count(),
                0
            );
            let initrd = arguments.iter().position(|argument| argument == "-initrd").unwrap();
            assert_eq!(
                arguments[initrd + 1].matches(',').count(),
                1,
                "one comma parts kernel and RAM disk"
            );
            let counts = arguments.iter().any(|argument| argument == "-icount");
            assert_eq!(counts, clock == Clock::Instructions);
        }
        assert_ne!(arguments(Clock::Wall, 1536), arguments(Clock::Wall, 2048));
    }

    #[test]
    fn the_guard_ends_an_orphan() {
        let mut orphan = Command::new("sleep").arg("60").spawn().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&Cache::at(cache.path())).unwrap();
        let mut guard = guard(orphan.id(), folder.path()).unwrap();
        drop(guard.stdin.take());
        assert!(!orphan.wait().unwrap().success());
        guard.wait().unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn the_guard_goes_home_when_told() {
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&Cache::at(cache.path())).unwrap();
        let mut guard = guard(other.id(), folder.path()).unwrap();
        guard.stdin.take().unwrap().write_all(b"\n").unwrap();
        guard.wait().unwrap();
        assert!(other.try_wait().unwrap().is_none());
        assert!(folder.path().exists());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
