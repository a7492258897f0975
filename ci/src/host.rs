//! The Xen host as a value: what a test or the tool does with it.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::Output;
use crate::cache::{Cache, Used};
use crate::domain::{self, Domain, DomainState, Guest};
use crate::error::{Error, tail};
use crate::image;
use crate::network;
use crate::progress::Reporter;
use crate::snapshot::{self, Running};

/// How the host's time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Clock {
    /// As on the wall. What tests want.
    #[default]
    Wall,
    /// One virtual nanosecond per executed instruction, idle time skipped. Repeats agree to half a percent however busy
    /// this computer is, so it suits a gate on performance; compare it only with itself. The whole of Xen, dom0 and guests
    /// shares one CPU and one clock.
    Instructions,
}

/// What host to start.
///
/// ```
/// use fata_ci::{Cache, Options};
/// let options = Options::new(Cache::at("/var/cache/fata")).memory_mib(2048);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) cache: Cache,
    pub(crate) clock: Clock,
    pub(crate) memory_mib: u32,
    pub(crate) reporter: Reporter,
}

impl Options {
    /// The usual host: the wall's clock, 1.5 GiB of memory (of which dom0 has 1 GiB), no reports of progress.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            clock: Clock::Wall,
            memory_mib: 1536,
            reporter: Reporter::silent(),
        }
    }

    /// Sets the clock. Each clock has a snapshot of its own.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the memory of the whole host, in MiB. Each size has a snapshot of its own.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib.max(1280);
        self
    }

    /// Sets where progress is reported.
    #[must_use]
    pub fn reporter(mut self, reporter: Reporter) -> Self {
        self.reporter = reporter;
        self
    }
}

/// A running Xen host with Linux as dom0. Dropping it switches it off.
///
/// All methods may be called from several threads.
///
/// ```no_run
/// # use std::time::Duration;
/// use fata_ci::{Cache, Guest, Options, XenHost};
/// let host = XenHost::start(&Options::new(Cache::locate()?))?;
/// let elf = std::fs::read("dist/hello").unwrap();
/// host.create(&Guest::new("hello", elf).memory_mib(8))?;
/// host.wait_for_log("hello", "Hello", Duration::from_secs(10))?;
/// host.shutdown("hello", Duration::from_secs(10))?;
/// # Ok::<(), fata_ci::Error>(())
/// ```
#[derive(Debug)]
pub struct XenHost {
    running: Mutex<Running>,
    agent: crate::agent::Agent,
    machine: Used,
}

/// The program behind `xl console`.
const XENCONSOLE: &str = "/usr/lib/xen-4.17/bin/xenconsole";
/// For commands of the toolstack, which take seconds under emulation.
const XL: Duration = Duration::from_secs(60);

impl XenHost {
    /// Starts a host; builds first what the cache does not hold yet.
    ///
    /// # Errors
    /// Any of [`Error`]; each says what to do next.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let (running, machine) = snapshot::start(options)?;
        let agent = running.agent;
        Ok(Self {
            running: Mutex::new(running),
            agent,
            machine,
        })
    }

    /// Runs a shell script in dom0. A status other than 0 is no error here; see [`XenHost::check`].
    ///
    /// # Errors
    /// [`Error::Timeout`] when it takes longer than `limit`; it has been killed then.
    pub fn run(&self, script: &str, limit: Duration) -> Result<Output, Error> {
        self.agent.run(script, limit).map_err(|error| self.explain(error))
    }

    /// Runs a shell script in dom0 that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Command`] for a status other than 0, else as [`XenHost::run`].
    pub fn check(&self, script: &str, limit: Duration) -> Result<String, Error> {
        let Output { status, stdout, stderr } = self.run(script, limit)?;
        if status == 0 {
            return Ok(stdout);
        }
        Err(Error::Command {
            command: script.trim().to_owned(),
            status,
            output: format!("{stderr}{stdout}"),
        })
    }

    /// Runs a shell script in dom0 whose input and output are the returned connection, such as `xl console NAME`.
    ///
    /// # Errors
    /// [`Error::Agent`] when dom0 does not answer.
    pub fn stream(&self, script: &str) -> Result<TcpStream, Error> {
        self.agent.stream(script).map_err(|error| self.explain(error))
    }

    /// Connects with a guest's console, both ways, until the connection or the guest ends.
    ///
    /// # Errors
    /// [`Error::Agent`] when dom0 does not answer.
    pub fn attach(&self, name: &str) -> Result<TcpStream, Error> {
        domain::check_name(name)?;
        // What `xl console` runs. Without a terminal it would not listen to its input, and this is how it is told to.
        self.stream(&format!("exec {XENCONSOLE} $(xl domid {name}) --interactive"))
    }

    /// Writes a file in dom0 (in memory), with the folders above it.
    ///
    /// # Errors
    /// [`Error::Command`] when dom0 cannot write there.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        self.agent
            .put(path, 0o644, content)
            .map_err(|error| self.explain(error))
    }

    /// Writes a program in dom0: static, or dynamic with no more than the C library of Debian 12, libm and libgcc_s.
    ///
    /// # Errors
    /// As [`XenHost::put`].
    pub fn put_program(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        self.agent
            .put(path, 0o755, content)
            .map_err(|error| self.explain(error))
    }

    /// Reads a file in dom0.
    ///
    /// # Errors
    /// [`Error::Command`] when there is none.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.agent.get(path).map_err(|error| self.explain(error))
    }

    /// Makes the TCP port `guest:guest_port` reachable as a port of this computer's 127.0.0.1, and returns that port. With
    /// `host_port` 0 a free one is taken.
    ///
    /// The guest needs an address in 10.0.0.0/24; connections come from 10.0.0.254. They are accepted here before the guest
    /// is asked, so a guest that does not listen shows as a connection that closes.
    ///
    /// # Errors
    /// [`Error::Qmp`] when the port is taken.
    pub fn forward(&self, host_port: u16, guest: Ipv4Addr, guest_port: u16) -> Result<u16, Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let command = format!("hostfwd_add outside tcp:127.0.0.1:{host_port}-{guest}:{guest_port}");
        let answer = running.qmp.human(&command)?;
        let refused = |answer| Error::Qmp { command, answer };
        if !answer.trim().is_empty() {
            return Err(refused(answer.trim().to_owned()));
        }
        if host_port != 0 {
            return Ok(host_port);
        }
        let table = running.qmp.human("info usernet")?;
        network::forwarded_port(&table, guest, guest_port).ok_or_else(|| refused("no port was opened".into()))
    }

    /// Ends what [`XenHost::forward`] began.
    ///
    /// # Errors
    /// [`Error::Qmp`] when the port is not forwarded.
    pub fn stop_forwarding(&self, host_port: u16) -> Result<(), Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let command = format!("hostfwd_remove outside tcp:127.0.0.1:{host_port}");
        let answer = running.qmp.human(&command)?;
        if answer.contains("removed") {
            Ok(())
        } else {
            Err(Error::Qmp {
                command,
                answer: answer.trim().to_owned(),
            })
        }
    }

    /// Creates and starts a guest: copies its image to dom0 and runs `xl create`.
    ///
    /// # Errors
    /// [`Error::Command`] with xl's own words when it refuses.
    pub fn create(&self, guest: &Guest) -> Result<(), Error> {
        self.place(guest)?;
        self.start_placed(&guest.name)
    }

    /// The first half of [`XenHost::create`]: copies a guest's image and configuration to dom0.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that cannot be one.
    pub fn place(&self, guest: &Guest) -> Result<(), Error> {
        domain::check_name(&guest.name)?;
        let kernel = kernel_path(&guest.name);
        if let Some(ramdisk) = &guest.ramdisk {
            self.put(&format!("{kernel}.ramdisk"), ramdisk)?;
        }
        self.put(&kernel, &guest.elf)?;
        self.put(&config_path(&guest.name), guest.config(&kernel).as_bytes())
    }

    /// The second half of [`XenHost::create`]: `xl create` alone, for measuring; again and again if one likes.
    ///
    /// # Errors
    /// [`Error::Command`] with xl's own words when it refuses.
    pub fn start_placed(&self, name: &str) -> Result<(), Error> {
        domain::check_name(name)?;
        let create = format!("xl create {}", config_path(name));
        // An older guest of that name must not answer for the new one.
        self.check(&format!(": >{}\n{create}", log_path(name)), XL)
            .map(drop)
            .map_err(|error| match error {
                Error::Command { status, output, .. } => Error::Command {
                    command: create,
                    status,
                    output,
                },
                error => error,
            })
    }

    /// As [`XenHost::create`], with a configuration file of the caller's (such as `dist/http.cfg`). Its lines `name` and
    /// `kernel` are replaced.
    ///
    /// # Errors
    /// As [`XenHost::create`].
    pub fn create_from_config(&self, name: &str, elf: &[u8], config: &str) -> Result<(), Error> {
        domain::check_name(name)?;
        let kernel = kernel_path(name);
        self.put(&kernel, elf)?;
        let config = domain::adapt_config(config, name, &kernel);
        self.put(&config_path(name), config.as_bytes())?;
        self.start_placed(name)
    }

    /// What the guest has written to its console since it was created.
    ///
    /// # Errors
    /// [`Error::Command`] when there was never a guest of that name.
    pub fn console(&self, name: &str) -> Result<String, Error> {
        domain::check_name(name)?;
        Ok(String::from_utf8_lossy(&self.get(&log_path(name))?).into_owned())
    }

    /// What Xen and dom0's kernel have written to the serial port since the host was started.
    pub fn xen_console(&self) -> String {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .qemu
            .xen_log()
    }

    /// Waits until the guest's console holds `needle`, and returns the console's content.
    ///
    /// # Errors
    /// [`Error::Guest`] as soon as the guest is gone or crashed without it; [`Error::Timeout`] after `limit`. Both quote the
    /// console's end.
    pub fn wait_for_log(&self, name: &str, needle: &str, limit: Duration) -> Result<String, Error> {
        domain::check_name(name)?;
        let begin = Instant::now();
        let pattern = needle.replace('\'', r"'\''");
        // The loop runs in dom0, where a look costs little; it comes back now and then to see whether the guest still lives.
        let search = format!(
            "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do\n\
             grep -qF -- '{pattern}' {log} 2>/dev/null && exit 0; usleep 50000; done; exit 9",
            log = log_path(name)
        );
        loop {
            if self.run(&search, XL)?.success() {
                return self.console(name);
            }
            let state = self.state(name)?;
            let console = self.console(name).unwrap_or_default();
            if console.contains(needle) {
                return Ok(console);
            }
            if !state.is_alive() {
                return Err(Error::Guest {
                    name: name.to_owned(),
                    state,
                    log: tail(&console, 30),
                    xen: tail(&self.xen_console(), 12),
                });
            }
            if begin.elapsed() > limit {
                let what = format!("waiting for `{needle}` on the console of `{name}` ({state})");
                return Err(Error::Timeout {
                    what,
                    after: limit,
                    log: tail(&console, 30),
                });
            }
        }
    }

    /// All domains, dom0 included.
    ///
    /// # Errors
    /// Those of [`XenHost::check`].
    pub fn domains(&self) -> Result<Vec<Domain>, Error> {
        Ok(domain::parse_list(&self.check("xl list", XL)?))
    }

    /// The guest of that name, if there is one.
    ///
    /// # Errors
    /// As [`XenHost::domains`].
    pub fn domain(&self, name: &str) -> Result<Option<Domain>, Error> {
        Ok(self.domains()?.into_iter().find(|domain| domain.name == name))
    }

    /// The state of a guest.
    ///
    /// # Errors
    /// As [`XenHost::domains`].
    pub fn state(&self, name: &str) -> Result<DomainState, Error> {
        Ok(self.domain(name)?.map_or(DomainState::Absent, |domain| domain.state))
    }

    /// Waits until a guest is in the state `wanted`.
    ///
    /// # Errors
    /// [`Error::Timeout`], which quotes the guest's console.
    pub fn wait_for_state(&self, name: &str, wanted: DomainState, limit: Duration) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            let state = self.state(name)?;
            if state == wanted {
                return Ok(());
            }
            if begin.elapsed() > limit {
                let what = format!("waiting until `{name}`, which is {state}, is {wanted}");
                let log = tail(&self.console(name).unwrap_or_default(), 30);
                return Err(Error::Timeout {
                    what,
                    after: limit,
                    log,
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks a guest to power off and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not go; [`Error::Command`] when xl cannot ask it.
    pub fn shutdown(&self, name: &str, limit: Duration) -> Result<(), Error> {
        domain::check_name(name)?;
        self.check(&format!("xl shutdown {name}"), XL)?;
        self.wait_for_state(name, DomainState::Absent, limit)
    }

    /// Takes a guest apart without asking it.
    ///
    /// # Errors
    /// [`Error::Command`] when there is none.
    pub fn destroy(&self, name: &str) -> Result<(), Error> {
        domain::check_name(name)?;
        self.check(&format!("xl destroy {name}"), XL).map(drop)
    }

    /// Debian's Linux as a guest, to measure against: a page by HTTP on port 80 as soon as Linux can, "linux guest is ready"
    /// on the console. It needs a vif and takes `ipv4=ADDRESS/LENGTH` and `gateway=ADDRESS` as boot arguments. Its kernel
    /// is not packed, which is to Linux's favour.
    ///
    /// With a `server` (the program `fata-peer`), that serves instead of busybox's httpd, and more than pages.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache has been removed.
    pub fn linux_guest(&self, name: &str, arguments: &str, server: Option<&[u8]>) -> Result<Guest, Error> {
        let read = |file| {
            let path = self.machine.path().join(file);
            std::fs::read(&path).map_err(Error::io("read", &path))
        };
        let mut ramdisk = read(image::DOMU_INITRD)?;
        let server = server.map(|program| ("bin/server", 0o755, program));
        ramdisk.extend(image::overlay(image::texts(image::DOMU_OVERLAY).chain(server))?);
        let guest = Guest::new(name, read(image::DOMU_KERNEL)?).ramdisk(ramdisk);
        Ok(guest
            .memory_mib(128)
            .arguments(format!("console=hvc0 quiet {arguments}")))
    }

    /// Switches the host off and waits until QEMU is gone; the same as dropping it.
    pub fn stop(self) {}

    /// Prefers "QEMU died" to what that made of a request.
    fn explain(&self, error: Error) -> Error {
        if !matches!(error, Error::Agent { .. }) {
            return error;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.qemu.check_alive().err().unwrap_or(error)
    }
}

fn kernel_path(name: &str) -> String {
    format!("/guests/{name}.elf")
}

fn config_path(name: &str) -> String {
    format!("/guests/{name}.cfg")
}

fn log_path(name: &str) -> String {
    format!("/var/log/xen/console/guest-{name}.log")
}
