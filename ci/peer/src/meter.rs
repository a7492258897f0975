//! What a load costs: CPU time, frames and signals, as Xen and dom0's netback count them.

use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use fata_xenctl::cpu_time;

/// The counters of a guest at one moment.
pub(crate) struct Meter {
    domain: u16,
    at: Instant,
    guest: Duration,
    dom0: Duration,
    /// How often the guest signalled its network backends, which is how often Linux in dom0 was interrupted for them.
    signals: u64,
    /// Frames that went to the guest and that came from it. A frame of segments that nobody cut is one.
    frames: [u64; 2],
}

/// The difference of two moments.
pub(crate) struct Cost {
    took: Duration,
    guest: Duration,
    dom0: Duration,
    signals: u64,
    frames: [u64; 2],
}

impl Meter {
    pub(crate) fn read(domain: u16) -> io::Result<Self> {
        let interrupts = fs::read_to_string("/proc/interrupts")?;
        Ok(Self {
            domain,
            signals: interrupts_of(&interrupts, &format!("vif{domain}.")),
            frames: ["tx", "rx"].map(|way| frames(domain, way)),
            guest: cpu_time(domain)?,
            dom0: cpu_time(0)?,
            at: Instant::now(),
        })
    }

    /// What has been used since.
    pub(crate) fn cost(&self) -> io::Result<Cost> {
        let took = self.at.elapsed();
        let now = Self::read(self.domain)?;
        Ok(Cost {
            took,
            guest: now.guest.saturating_sub(self.guest),
            dom0: now.dom0.saturating_sub(self.dom0),
            signals: now.signals.saturating_sub(self.signals),
            frames: [0, 1].map(|way| now.frames[way].saturating_sub(self.frames[way])),
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"{{"ns":{},"guest_ns":{},"dom0_ns":{},"signals":{},"frames_in":{},"frames_out":{}}}"#,
            self.took.as_nanos(),
            self.guest.as_nanos(),
            self.dom0.as_nanos(),
            self.signals,
            self.frames[0],
            self.frames[1],
        )
    }
}

/// The sum of the interrupts whose name begins with `device`. dom0 has one CPU, so one column.
fn interrupts_of(table: &str, device: &str) -> u64 {
    let count = |line: &str| {
        let mut words = line.split_whitespace();
        let count = words.nth(1)?.parse::<u64>().ok()?;
        words.any(|word| word.starts_with(device)).then_some(count)
    };
    table.lines().filter_map(count).sum()
}

/// Frames of all interfaces of the domain, as their backends count them: `tx` is what goes to the guest.
fn frames(domain: u16, way: &str) -> u64 {
    let count = |index| {
        let path = format!("/sys/class/net/vif{domain}.{index}/statistics/{way}_packets");
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    (0..).map_while(count).sum()
}

#[cfg(test)]
mod tests {
    use super::interrupts_of;

    #[test]
    fn interrupts_are_added_up() {
        let table = "           CPU0\n  7:       12  xen-dyn   -event     vif1.0-q0-tx\n  8:   30  xen-dyn -event  vif1.0-q0-rx\n  \
                     9:   99  xen-dyn -event vif11.0-q0-rx\nERR: 0\n";
        assert_eq!(interrupts_of(table, "vif1."), 42);
    }
}
