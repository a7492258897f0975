//! Guests: their configuration, and what `xl list` says about them.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::network::BRIDGE;

/// A guest to create, PVH or PV: an ELF image and the configuration that `xl create` gets.
///
/// ```
/// use fata_ci::Guest;
/// let guest = Guest::new("http", b"\x7fELF".to_vec())
///     .memory_mib(8)
///     .arguments("ipv4=10.0.0.2/24")
///     .vif("00:16:3e:00:00:01");
/// assert!(guest.config("/g/http.elf").contains("cmdline = \"ipv4=10.0.0.2/24\""));
/// ```
#[derive(Clone, Debug)]
pub struct Guest {
    pub(crate) name: String,
    pub(crate) elf: Vec<u8>,
    pub(crate) ramdisk: Option<Vec<u8>>,
    pv: bool,
    memory_mib: u32,
    vcpus: u32,
    arguments: String,
    vifs: Vec<String>,
    shares: Vec<String>,
    extra: Vec<String>,
}

impl Guest {
    /// A PVH guest with 16 MiB, one vCPU, no arguments and no network.
    pub fn new(name: impl Into<String>, elf: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            elf: elf.into(),
            ramdisk: None,
            pv: false,
            memory_mib: 16,
            vcpus: 1,
            arguments: String::new(),
            vifs: Vec::new(),
            shares: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it a PV guest. The image is the same.
    #[must_use]
    pub fn pv(mut self) -> Self {
        self.pv = true;
        self
    }

    /// Sets the memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the number of vCPUs.
    #[must_use]
    pub fn vcpus(mut self, count: u32) -> Self {
        self.vcpus = count;
        self
    }

    /// Adds a RAM disk (or any other file), which the guest finds as its first module.
    #[must_use]
    pub fn ramdisk(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.ramdisk = Some(content.into());
        self
    }

    /// Sets the boot arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl Into<String>) -> Self {
        self.arguments = arguments.into();
        self
    }

    /// Adds a network interface with this MAC address on the bridge `xenbr0`.
    #[must_use]
    pub fn vif(self, mac: &str) -> Self {
        self.vif_on(mac, BRIDGE)
    }

    /// Adds a network interface on another bridge, be it one that does not exist.
    #[must_use]
    pub fn vif_on(mut self, mac: &str, bridge: &str) -> Self {
        self.vifs.push(format!("mac={mac},bridge={bridge}"));
        self
    }

    /// Shares the folder `path` of dom0, which must be there, by 9pfs. The guest knows it by its tag.
    #[must_use]
    pub fn share(mut self, tag: &str, path: &str) -> Self {
        self.shares.push(format!("tag={tag},path={path},security_model=none"));
        self
    }

    /// Sets the greatest size of its grant table, in pages of 512 entries; without it, and at the most, it is Xen's own: 64.
    #[must_use]
    pub fn max_grant_frames(self, pages: u32) -> Self {
        self.line(format!("max_grant_frames = {pages}"))
    }

    /// Sets how many event channels it may have; without it, 1,023.
    #[must_use]
    pub fn event_channels(self, count: u32) -> Self {
        self.line(format!("max_event_channels = {count}"))
    }

    /// Adds a line to the configuration, such as `on_crash = "preserve"`.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.extra.push(line.into());
        self
    }

    /// The configuration for `xl create` when the image lies at `kernel` in dom0, and the RAM disk, if there is one, beside
    /// it with `.ramdisk` behind its name.
    pub fn config(&self, kernel: &str) -> String {
        let mut lines = vec![
            format!("type = {}", quoted(if self.pv { "pv" } else { "pvh" })),
            format!("name = {}", quoted(&self.name)),
            format!("kernel = {}", quoted(kernel)),
            format!("memory = {}", self.memory_mib),
            format!("vcpus = {}", self.vcpus),
            format!("cmdline = {}", quoted(&self.arguments)),
        ];
        if self.ramdisk.is_some() {
            lines.push(format!("ramdisk = {}", quoted(&format!("{kernel}.ramdisk"))));
        }
        for (key, devices) in [("vif", &self.vifs), ("p9", &self.shares)] {
            if !devices.is_empty() {
                let devices: Vec<String> = devices.iter().map(|device| quoted(device)).collect();
                lines.push(format!("{key} = [{}]", devices.join(", ")));
            }
        }
        lines.extend(self.extra.iter().cloned());
        lines.join("\n") + "\n"
    }
}

/// `text` as a string of xl's configuration language (xen/tools/libs/util/libxlu_cfg_l.l and libxlu_cfg.c): it may hold no
/// line break, and a backslash stands before quotes and backslashes.
///
/// ```
/// assert_eq!(fata_ci::quoted(r#"a 'b' "c" \"#), r#""a 'b' \"c\" \\""#);
/// ```
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Makes a configuration written for any host fit this one: its own `name` and `kernel`, whatever it said before.
pub(crate) fn adapt_config(config: &str, name: &str, kernel: &str) -> String {
    let keeps = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        !matches!(key, "name" | "kernel")
    };
    let rest: Vec<&str> = config.lines().filter(keeps).collect();
    format!(
        "name = {}\nkernel = {}\n{}\n",
        quoted(name),
        quoted(kernel),
        rest.join("\n")
    )
}

/// Names become part of paths and of shell commands in dom0.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(plain) && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    Err(Error::Argument {
        what: format!("`{name}` cannot be a guest's name: letters, digits, - and _ only"),
    })
}

/// The state of a guest, from the letters of `xl list` (xl.1, "list").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DomainState {
    /// There is no guest of that name (any more).
    Absent,
    /// On a CPU, or ready to be.
    Running,
    /// Waiting for an event.
    Blocked,
    /// Stopped by `xl pause` or not yet started.
    Paused,
    /// It has shut down and is being taken apart, or preserved.
    Shutdown,
    /// It has crashed and is preserved.
    Crashed,
    /// It is being taken apart.
    Dying,
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DomainState::Absent => "gone",
            DomainState::Running => "running",
            DomainState::Blocked => "waiting for events",
            DomainState::Paused => "paused",
            DomainState::Shutdown => "shut down",
            DomainState::Crashed => "crashed",
            DomainState::Dying => "dying",
        })
    }
}

impl DomainState {
    /// Whether it still may do something.
    pub fn is_alive(self) -> bool {
        matches!(self, DomainState::Running | DomainState::Blocked | DomainState::Paused)
    }

    fn from_letters(letters: &str) -> Self {
        let has = |letter| letters.contains(letter);
        match () {
            () if has('d') => DomainState::Dying,
            () if has('c') => DomainState::Crashed,
            () if has('s') => DomainState::Shutdown,
            () if has('p') => DomainState::Paused,
            () if has('b') => DomainState::Blocked,
            // No letter at all: ready, but another has the CPU.
            () => DomainState::Running,
        }
    }
}

/// A line of `xl list`.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its number; a guest that reboots gets a new one.
    pub id: u32,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Its vCPUs.
    pub vcpus: u32,
    /// What it does.
    pub state: DomainState,
    /// CPU time used so far; `xl list` has tenths of seconds.
    pub cpu_time: Duration,
}

/// Reads the output of `xl list`; lines that are no domain are left out.
pub(crate) fn parse_list(text: &str) -> Vec<Domain> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[name, id, memory, vcpus, letters, time] = fields.as_slice() else {
            return None;
        };
        Some(Domain {
            name: name.to_owned(),
            id: id.parse().ok()?,
            memory_mib: memory.parse().ok()?,
            vcpus: vcpus.parse().ok()?,
            state: DomainState::from_letters(letters),
            cpu_time: Duration::try_from_secs_f64(time.parse().ok()?).ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_list_of_domains() {
        let text = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  1024     1     r-----      13.2
http                                         7     8     1     -b----       0.1
broken                                       8    16     2     ---c--       0.0
half a line";
        let domains = parse_list(text);
        assert_eq!(domains.len(), 3);
        assert_eq!(domains[1].id, 7);
        assert_eq!(domains[1].state, DomainState::Blocked);
        assert_eq!(domains[1].cpu_time, Duration::from_millis(100));
        assert_eq!(domains[2].state, DomainState::Crashed);
        assert_eq!(DomainState::from_letters("------"), DomainState::Running);
        assert!(!DomainState::from_letters("---s-d").is_alive());
    }

    #[test]
    fn a_configuration_has_all_its_parts() {
        let guest = Guest::new("g", [])
            .vcpus(2)
            .arguments("a=\"b c\"")
            .vif("00:16:3e:00:00:01")
            .vif_on("00:16:3e:00:00:02", "x")
            .share("t", "/p")
            .max_grant_frames(4)
            .event_channels(8192);
        let config = guest.line("on_crash = 'preserve'").config("/k");
        assert_eq!(
            config,
            "type = \"pvh\"\nname = \"g\"\nkernel = \"/k\"\nmemory = 16\nvcpus = 2\ncmdline = \"a=\\\"b c\\\"\"\n\
             vif = [\"mac=00:16:3e:00:00:01,bridge=xenbr0\", \"mac=00:16:3e:00:00:02,bridge=x\"]\n\
             p9 = [\"tag=t,path=/p,security_model=none\"]\n\
             max_grant_frames = 4\nmax_event_channels = 8192\non_crash = 'preserve'\n"
        );
    }

    #[test]
    fn a_foreign_configuration_is_adapted() {
        let config = adapt_config("name = 'other'\nkernel=\"http\"\nmemory = 8\n# kernel = x", "n", "/k");
        assert_eq!(config, "name = \"n\"\nkernel = \"/k\"\nmemory = 8\n# kernel = x\n");
    }

    #[test]
    fn names_cannot_smuggle_shell() {
        assert!(check_name("http-2.a_B").is_ok());
        for name in ["", "a b", "a;b", "../x", "-x", "a/b", "$x"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
